"""The bare model: checks, packing, embeddings, layers, pooler. Base and XL differ in where the norms stand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_core.positions import first_position
from xlmr_flax.checks import check_encoder_inputs, check_mask, check_tensors, is_concrete
from xlmr_flax.embeddings import Embeddings, position_ids_from_input_ids
from xlmr_flax.functional import compiled
from xlmr_flax.kernels import AttentionPlan, causal_keep, check_attn_implementation, mask_bias
from xlmr_flax.layers import Layer, Pooler
from xlmr_flax.linear import LayerNorm
from xlmr_flax.packing import Packing, choose_packing
from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["Encoded", "EncoderModel", "Needs"]


@dataclass(frozen=True)
class Needs:
    """What a head will read of the encoder's states; decides whether a batch may be packed.

    Attributes:
        first_token: the state at position 0.
        positions_BS: bool (B, S), positions whose state counts even where the mask is 0.
        every_position: all of them, masked or not.
    """

    first_token: bool = False
    positions_BS: Any = None
    every_position: bool = False


@dataclass
class Encoded:
    """The states after the last layer, packed (R, L, D) or padded (B, S, D), and how to read them."""

    states: Array
    packing: Packing | None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None

    def first_tokens(self) -> Array:
        """(B, D): the state at position 0."""
        return self.states[:, 0] if self.packing is None else self.packing.first_tokens(self.states)

    def at(self, flat_positions: Any) -> Array:
        """(..., D): the states at flat positions (row * length + column), which packing must not have left out."""
        slots = flat_positions if self.packing is None else self.packing.locate(flat_positions)
        return self.states.reshape(-1, self.states.shape[-1])[slots]

    def rows(self, x_BS: Any, fill: int) -> Any:
        """A padded (B, S) in the shape of the ``states``; ``fill`` where packing has no token."""
        return x_BS if self.packing is None else self.packing.pack(x_BS, fill)

    def unpack(self, x: Array, fill: float = 0.0) -> Array:
        """(B, S, ...) of a token-wise result of ``states``; ``fill`` where packing left a position out."""
        return x if self.packing is None else self.packing.unpack(x, fill)


# States, all hidden states, probabilities of self- and of cross-attention, as far as asked for.
Run = tuple[Array, tuple[Array, ...] | None, tuple[Array, ...] | None, tuple[Array, ...] | None]


class Encoder(nnx.Module):
    """The stack of layers; in XL with a last norm."""

    def __init__(self, config: XLMRobertaConfig, *, pre_norm: bool) -> None:
        # ---- Layers
        # A dictionary, because the published keys are texts.
        self.layer = nnx.Dict(
            {str(number): Layer(config, number, pre_norm=pre_norm) for number in range(config.num_hidden_layers)}
        )
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        self.gradient_checkpointing = False
        self.gradient_checkpointing_policy: Callable[..., Any] | None = None
        self.scan_layers = False

    def __call__(
        self,
        x: Array,
        plan: AttentionPlan,
        head_mask_LN: Array | None,
        memory_BTD: Array | None,
        memory_plan: AttentionPlan | None,
        output_hidden_states: bool,
        key: Array | None = None,
    ) -> Run:
        """(B, S, D) through all layers."""

        def run(layer: Layer, x: Array, number: Any, head_mask_N: Array | None) -> Any:
            own_key = None if key is None else jax.random.fold_in(key, number)
            return layer(x, plan, head_mask_N, memory_BTD, memory_plan, own_key)

        layers = [self.layer[str(number)] for number in range(len(self.layer))]
        hidden_states, attentions, cross_attentions = [x], [], []
        if self.scan_layers and layers:
            x, states, attentions, cross_attentions = self._scan(run, layers, x, head_mask_LN, output_hidden_states)
            hidden_states += states
        else:
            for number, layer in enumerate(layers):
                head_mask_N = None if head_mask_LN is None else head_mask_LN[number]
                x, weights, cross_weights = self._remat(run, layer)(x, number, head_mask_N)
                hidden_states.append(x)
                attentions.append(weights)
                cross_attentions.append(cross_weights)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x
        return (
            x,
            tuple(hidden_states) if output_hidden_states else None,
            tuple(attentions) if plan.return_weights else None,
            tuple(cross_attentions) if plan.return_weights and memory_BTD is not None else None,
        )

    def _remat(self, run: Any, layer: Layer) -> Any:
        """A layer as a function of its input, whose activations are kept for the backward pass or recomputed there."""

        def function(x: Array, number: Any, head_mask_N: Array | None) -> Any:
            return run(layer, x, number, head_mask_N)

        if not self.gradient_checkpointing:
            return function
        return jax.checkpoint(
            function, policy=self.gradient_checkpointing_policy, static_argnums=(1,) if not self.scan_layers else ()
        )

    def _scan(self, run: Any, layers: list[Layer], x: Array, head_mask_LN: Array | None, keep_states: bool) -> Any:
        """All layers as one that is compiled once. Their parameters are stacked inside the graph, a copy at each call."""
        parts = [nnx.split(layer) for layer in layers]
        graphdef = parts[0][0]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in parts))

        def step(x: Array, scanned: Any) -> Any:
            state, number, head_mask_N = scanned
            x, *weights = self._remat(run, nnx.merge(graphdef, state))(x, number, head_mask_N)
            return x, (x if keep_states else None, *weights)

        x, collected = jax.lax.scan(step, x, (stacked, jnp.arange(len(layers)), head_mask_LN))
        return x, *([None] * len(layers) if found is None else list(found) for found in collected)


class EncoderModel(PreTrainedModel):
    """The encoder of one family. Subclasses say where the norms stand.

    Args:
        config ... gradient_checkpointing: see :class:`~xlmr_flax.pretrained.PreTrainedModel`.
        add_pooling_layer: whether there is a pooler.
    """

    _task_head = HEADS["Model"]
    pre_norm: bool

    def __init__(
        self,
        config: XLMRobertaConfig,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        gradient_checkpointing: bool = False,
        *,
        add_pooling_layer: bool = True,
    ) -> None:
        self._add_pooling_layer = add_pooling_layer
        super().__init__(config, input_shape, seed, dtype, _do_init, gradient_checkpointing)

    def _build(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.embeddings = Embeddings(config, norm=not self.pre_norm)
        self.encoder = Encoder(config, pre_norm=self.pre_norm)
        self.pooler = Pooler(config) if self._add_pooling_layer else None
        # ---- Config
        self._attn_implementation = check_attn_implementation(config._attn_implementation or "sdpa")
        self._packing = "auto"
        self._has_cross_attention = config.add_cross_attention

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        *,
        inputs_embeds: Any = None,
        packing: Packing | None = None,
        needs: Needs | None = None,
    ) -> Any:
        """Encode a batch.

        Args:
            input_ids: integers (B, S).
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere.
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            encoder_hidden_states: floats (B, S', D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, S') of 0 and 1.
            params: parameters in place of the model's own, as in ``model.params``.
            dropout_rng: the random key of dropout.
            train: whether dropout acts; default: as ``model.train()`` and ``model.eval()`` say.
            output_attentions: return the probabilities; selects the ``eager`` kernel on padded tokens.
            output_hidden_states: return the states after the embeddings and after each layer.
            return_dict: ``False`` returns a tuple.
            past_key_values: the published place of a decoder's cache; this release computes without one.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            packing: how the batch is packed, made on the host by ``Packing.from_mask``; for calls inside ``jax.jit``, which cannot look at
                the mask.
            needs: for heads only: return :class:`Encoded` and say what will be read.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range, for parameters of another model, or ``train`` without ``dropout_rng``.
        """
        model, key = self.prepare(params, dropout_rng, train)
        config = model.config
        batch, length = check_encoder_inputs(
            config,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
        )
        if config.position_embedding_type != "absolute" and length > config.max_position_embeddings:
            raise InputError(
                f"sequence has {length} tokens, relative positions reach {config.max_position_embeddings}; shorten it"
            )
        model._check_decoder_inputs(batch, encoder_hidden_states, encoder_attention_mask, past_key_values)
        if attention_mask is None and input_ids is not None:
            _warn_of_attended_padding(input_ids, config.pad_token_id)
        output_attentions = bool(config.output_attentions if output_attentions is None else output_attentions)
        output_hidden_states = bool(
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        check_tensors(head_mask=head_mask)
        head_mask_LN = model._head_mask(head_mask)
        asked = Needs(first_token=model.pooler is not None) if needs is None else needs

        packs = (
            model.attn_implementation != "eager"
            and config.position_embedding_type == "absolute"
            and not (output_attentions or asked.every_position)
            and head_mask_LN is None
            and encoder_hidden_states is None
            and (attention_mask is None or attention_mask.ndim == 2)
        )
        if packing is not None:
            _check_packing(packing, (batch, length), packs)
        elif packs:
            packing = choose_packing(
                model.packing,
                attention_mask,
                batch,
                length,
                first_token=asked.first_token,
                needed_BS=asked.positions_BS,
            )
        if position_ids is None and input_ids is not None:
            ids = np.asarray(input_ids) if is_concrete(input_ids) else input_ids
            position_ids = position_ids_from_input_ids(ids, config.pad_token_id)
        elif position_ids is None:
            first = first_position(config)
            position_ids = np.arange(first, first + length, dtype=np.int32)[None]
        tokens = [input_ids if inputs_embeds is None else inputs_embeds, token_type_ids, position_ids]
        mask = None if packing is not None else _mask_with_zeros(attention_mask)
        if packing is not None:
            tokens = [None if x is None else packing.pack(_broadcast(x, (batch, length))) for x in tokens]
        states, hidden_states, attentions, cross_attentions = compiled(
            model,
            "_run",
            *map(_narrow, tokens),
            mask,
            None if packing is None else packing.segments_RL,
            head_mask_LN,
            encoder_hidden_states,
            encoder_attention_mask,
            key,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        encoded = Encoded(states, packing, hidden_states, attentions, cross_attentions)
        if hidden_states is not None:
            encoded.hidden_states = tuple(encoded.unpack(x) for x in hidden_states)
        if needs is not None:
            return encoded
        return model.finish(
            BaseModelOutputWithPoolingAndCrossAttentions(
                last_hidden_state=encoded.unpack(encoded.states),
                pooler_output=None if model.pooler is None else model.pool(encoded),
                hidden_states=encoded.hidden_states,
                attentions=encoded.attentions,
                cross_attentions=encoded.cross_attentions,
            ),
            return_dict,
        )

    def pool(self, encoded: Encoded) -> Array:
        """(B, D): the first token's state through the pooler."""
        assert self.pooler is not None
        return compiled(self.pooler, "__call__", encoded.first_tokens())

    def _run(
        self,
        source: Array,
        token_type_ids: Array | None,
        position_ids: Array,
        mask: Array | None,
        segments_RL: Array | None,
        head_mask_LN: Array | None,
        memory_BTD: Array | None,
        memory_mask: Array | None,
        key: Array | None,
        *,
        output_attentions: bool,
        output_hidden_states: bool,
    ) -> Run:
        """The part that is compiled: tokens, padded or packed, to states."""
        embeddings_key, layers_key = (None, None) if key is None else jax.random.split(key)
        x = self.embeddings(source, token_type_ids, position_ids, self.dtype, embeddings_key)
        plan = self._attention_plan(x, mask, segments_RL, output_attentions, x.shape[1])
        memory_plan = None
        if memory_BTD is not None:
            memory_BTD = memory_BTD.astype(x.dtype)
            memory_plan = self._attention_plan(x, memory_mask, None, output_attentions, None)
        return self.encoder(x, plan, head_mask_LN, memory_BTD, memory_plan, output_hidden_states, layers_key)

    def _attention_plan(
        self, x: Array, mask: Array | None, segments_RL: Array | None, return_weights: bool, length: int | None
    ) -> AttentionPlan:
        """How to attend: self-attention has a ``length`` and may be causal, cross-attention has none."""
        # A mask with a row for each query has said everything already, as published.
        causal = self.config.is_decoder and length is not None and (mask is None or mask.ndim == 2)
        keep = None
        if segments_RL is not None:
            keep = (segments_RL[:, :, None] == segments_RL[:, None, :])[:, None]
        elif mask is not None:
            keep = (mask != 0)[:, None] if mask.ndim == 3 else (mask != 0)[:, None, None]
        if causal:
            assert length is not None
            seen = causal_keep(length)[None, None]
            keep = seen if keep is None else keep & seen
        return AttentionPlan(None if keep is None else mask_bias(keep, x.dtype), return_weights)

    def _head_mask(self, head_mask: Any) -> Array | None:
        """The head mask as (layers, N)."""
        if head_mask is None:
            return None
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        if tuple(head_mask.shape) not in ((heads,), (layers, heads)):
            raise InputError(
                f"head_mask must have the shape {(heads,)} or {(layers, heads)}, received {tuple(head_mask.shape)}"
            )
        return jnp.broadcast_to(head_mask, (layers, heads))

    def _check_decoder_inputs(self, batch: int, states: Any, mask: Any, cache: Any) -> None:
        if cache is not None:
            raise InputError(
                "past_key_values is not supported by this release: expected None; compute the whole sequence, or use logits_to_keep"
            )
        check_tensors(encoder_hidden_states=states, encoder_attention_mask=mask)
        if states is None:
            return
        config = self.config
        if not self._has_cross_attention:
            raise InputError(
                "encoder_hidden_states needs a decoder with cross-attention, which a model has from its building on: build or load it with "
                "is_decoder=True, add_cross_attention=True"
            )
        if states.ndim != 3 or 0 in states.shape or (states.shape[0], states.shape[2]) != (batch, config.hidden_size):
            raise InputError(
                f"encoder_hidden_states must have the shape ({batch}, source length, {config.hidden_size}), received {tuple(states.shape)}"
            )
        if mask is not None and mask.shape != states.shape[:2]:
            raise InputError(
                f"encoder_attention_mask must have the shape {tuple(states.shape[:2])}, received {tuple(mask.shape)}"
            )
        check_mask(config, "encoder_attention_mask", mask)

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good (Michel et al. 2019).

        Args:
            heads_to_prune: heads by layer, by their original numbers; ones already gone are passed over.

        Raises:
            ConfigError: for heads or layers that the model does not have, or if a layer would be left without any.
        """
        pruned = {layer: set(heads) for layer, heads in self.config.pruned_heads.items()}
        for layer, heads in heads_to_prune.items():
            pruned[layer] = pruned.get(layer, set()) | set(heads)
        self.config.copy(pruned_heads=pruned)  # checks before anything is changed
        for layer, heads in heads_to_prune.items():
            gone = set(heads) - set(self.config.pruned_heads.get(layer, []))
            if gone:
                self.encoder.layer[str(layer)].attention.prune_heads(gone)
        self.config.pruned_heads = {layer: sorted(heads) for layer, heads in pruned.items()}

    def get_input_embeddings(self) -> nnx.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nnx.Module) -> None:
        self.embeddings.word_embeddings = value


def _check_packing(packing: Packing, shape: tuple[int, int], packs: bool) -> None:
    """Refuse a packing that was made for another batch, or for a call that the padded path has to answer."""
    if tuple(packing.slots_BS.shape) != shape:
        raise InputError(
            f"packing was made for a batch of shape {tuple(packing.slots_BS.shape)}, received one of {shape}; make one for each batch"
        )
    if not packs:
        raise InputError(
            "packing cannot serve this call, expected a call without attention weights, head mask, cross-attention, relative positions, "
            "answer positions or a mask of three axes; leave packing out"
        )


def _mask_with_zeros(mask: Any) -> Any:
    """The mask, or ``None`` if it can be seen to have no zero."""
    return None if mask is None or (is_concrete(mask) and bool((np.asarray(mask) != 0).all())) else mask


def _broadcast(x: Any, shape: tuple[int, int]) -> Any:
    """An input of one row for every row."""
    return (np if is_concrete(x) else jnp).broadcast_to(x, (*shape, *x.shape[2:]))


def _narrow(x: Any) -> Any:
    """Integers as int32: NumPy's default is wider than JAX's, and a look-up takes none that is narrower."""
    return x if x is None or not jnp.issubdtype(x.dtype, jnp.integer) else x.astype(np.int32)


def _warn_of_attended_padding(input_ids: Any, pad_token_id: int) -> None:
    """Say that padding is attended to because no mask came with it."""
    if is_concrete(input_ids) and bool((np.asarray(input_ids)[:, [0, -1]] == pad_token_id).any()):
        warnings.warn(
            "input_ids holds padding and no attention_mask was passed, so padding is attended to; pass the tokenizer's attention_mask",
            UserWarning,
            stacklevel=2,
        )
