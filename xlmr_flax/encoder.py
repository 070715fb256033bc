"""The bare model: a call is read, planned and run. Base and XL differ in where the norms stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.calls import Call
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_core.packing import Needs
from xlmr_core.positions import first_position
from xlmr_core.pretrained import recomputes_layers
from xlmr_core.resizing import heads_to_prune_now
from xlmr_flax.cache import Cache, Held, see_cache
from xlmr_flax.embeddings import Embeddings, position_ids_from_input_ids
from xlmr_flax.functional import compiled
from xlmr_flax.inputs import is_concrete, narrow, read
from xlmr_flax.kernels import check_attn_implementation
from xlmr_flax.layers import Layer, Pooler
from xlmr_flax.linear import LayerNorm, accumulator, narrowed
from xlmr_flax.packing import Packing
from xlmr_flax.plan import Plan, plan
from xlmr_flax.pretrained import PreTrainedModel
from xlmr_flax.widening import Text

__all__ = ["Encoded", "EncoderModel"]


@jax.tree_util.register_dataclass
@dataclass
class Encoded:
    """The states after the last layer, packed (R, W, D) or padded (B, S, D), and how to read them.

    A pytree, because the compiled run gives it; where packed tokens were is known outside alone, and so what the cache
    is that becomes of the keys and values that were ``held``.
    """

    states: Array
    packing: Packing | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    held: tuple[Held, ...] | None = None
    held_memory: tuple[Held, ...] | None = None
    cache: Cache | None = None

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


class Encoder(nnx.Module):
    """The stack of layers; in XL with a last norm."""

    def __init__(self, config: XLMRobertaConfig, *, pre_norm: bool) -> None:
        # ---- Layers
        # A dictionary, because the published keys are texts.
        self.layer = nnx.Dict(
            {str(number): Layer(config, number, pre_norm=pre_norm) for number in range(config.num_hidden_layers)}
        )
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        self.gradient_checkpointing = recomputes_layers(config)
        self.gradient_checkpointing_policy: Callable[..., Any] | None = None
        self.scan_layers = False

    def __call__(self, x: Array, plan: Plan, key: Array | None = None) -> Encoded:
        """(B, S, D) through all layers."""
        layers = [self.layer[str(number)] for number in range(len(self.layer))]
        run = self._scan if self.scan_layers and layers else self._one_by_one
        x, (hidden_states, attentions, cross_attentions, held, held_memory) = run(layers, x, plan, key)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x
        encoded = Encoded(narrowed(x, plan.dtype))
        if plan.output_hidden_states:
            encoded.hidden_states = tuple(narrowed(states, plan.dtype) for states in hidden_states)
        if plan.output_attentions:
            encoded.attentions = tuple(attentions)
            encoded.cross_attentions = tuple(cross_attentions) if plan.memory_attention is not None else None
        if plan.keeps_cache:
            encoded.held = tuple(held)
            encoded.held_memory = tuple(held_memory) if plan.memory_attention is not None else None
        return encoded

    def _one_by_one(self, layers: list[Layer], x: Array, plan: Plan, key: Array | None) -> Any:
        """The last state, and of all layers the states, the probabilities of both kinds, and what a cache holds of
        both; of the states there is one more, that of the embeddings.
        """
        collected: list[list[Any]] = [[x], [], [], [], []]
        for number, layer in enumerate(layers):
            own = plan.of_layer(number, len(layers))
            if own.attention.asking_B is not None:
                x = x.reshape(1, -1, x.shape[-1])
            found = self._layer(layer, x, own, number, key)
            x = found[0]
            for some, one in zip(collected, found, strict=True):
                some.append(one)
        return x, collected

    def _layer(self, layer: Layer, x: Array, plan: Plan, number: Any, key: Array | None) -> Any:
        """A layer, whose activations are kept for the backward pass or recomputed there."""

        def run(x: Array) -> Any:
            return layer(x, plan, number, None if key is None else jax.random.fold_in(key, number))

        if self.gradient_checkpointing:
            run = jax.checkpoint(run, policy=self.gradient_checkpointing_policy)
        return run(x)

    def _scan(self, layers: list[Layer], x: Array, plan: Plan, key: Array | None) -> Any:
        """All layers as one, compiled once; their parameters are stacked inside the graph, a copy at each call."""
        parts = [nnx.split(layer, Text, ...) for layer in layers]
        graphdef, texts, _ = parts[0]
        states = [state for _, _, state in parts]
        if any(jax.tree.structure(state) != jax.tree.structure(states[0]) for state in states):
            raise InputError(
                "layers that are quantized otherwise than each other cannot be scanned; call set_scan_layers(False)"
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        if plan.cache is not None:
            plan = replace(plan, cache=plan.cache.stacked())

        def step(x: Array, scanned: Any) -> Any:
            state, number = scanned
            x, *found = self._layer(nnx.merge(graphdef, texts, state), x, plan, number, key)
            return x, (x if plan.output_hidden_states else None, *found)

        start = x
        x, collected = jax.lax.scan(step, x, (stacked, jnp.arange(len(layers))))
        states, *others = ([jax.tree.map(itemgetter(n), found) for n in range(len(layers))] for found in collected)
        return x, [[start, *states], *others]


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
        self.has_cross_attention = config.add_cross_attention

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
        call: Call[Any] | None = None,
        needs: Needs[Any] | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions[Array]:
        """Encode a batch.

        Args:
            input_ids: integers (B, S).
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere.
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``, on from those of a
                cache.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            encoder_hidden_states: floats (B, M, D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, M) of 0 and 1.
            params: parameters in place of the model's own, as in ``model.params``.
            dropout_rng: the random key of dropout.
            train: whether dropout acts; default: as ``model.train()`` and ``model.eval()`` say.
            output_attentions: return the probabilities; selects the ``eager`` kernel on padded tokens.
            output_hidden_states: return the states after the embeddings and after each layer.
            return_dict: ``False`` returns a tuple.
            past_key_values: of a decoder, what :meth:`init_cache` or the call before gave. ``input_ids`` are then the
                new tokens alone, and ``attention_mask`` has a column for each token before them too, or for each place
                of the cache: (B, past + S), (B, S, past + S), (B, places). Inside ``jax.jit``, where nothing knows how
                full the cache is, it has one for each place.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            packing: how the batch is packed, made on the host by ``Packing.from_mask``; for calls inside ``jax.jit``,
                which cannot look at the mask.
            call, needs: for heads only, which have read the inputs already and say what they read of the states: return
                :class:`Encoded`.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range, for parameters of another model, or ``train``
                without ``dropout_rng``.
        """
        model, key = self.prepare(params, dropout_rng, train)
        if call is not None:
            return model._encode(call, needs or Needs(), key, packing)
        call = read(
            model,
            see_cache=partial(see_cache, model.config),
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        encoded = model._encode(call, Needs(first_token=model.pooler is not None), key, packing)
        return model.finish(
            BaseModelOutputWithPoolingAndCrossAttentions(
                last_hidden_state=encoded.unpack(encoded.states),
                pooler_output=None if model.pooler is None else model.pool(encoded),
                past_key_values=encoded.cache,
                hidden_states=encoded.hidden_states,
                attentions=encoded.attentions,
                cross_attentions=encoded.cross_attentions,
            ),
            return_dict,
        )

    def _encode(self, call: Call[Any], needs: Needs[Any], key: Array | None, packing: Packing | None) -> Encoded:
        """Plan a call and run it; what comes out of the compiled run is put in its place."""
        if key is not None:
            needs = replace(needs, nothing_else=False)  # dropout falls on all tokens
        planned, packing = plan(self, call, needs, packing)
        encoded: Encoded = compiled(self, "run", *_tokens(self.config, call, packing), planned, key)
        encoded = replace(encoded, packing=packing)
        if planned.only_first and packing is not None and len(self.encoder.layer):
            # The first token of each text, as texts of one token.
            firsts_B1D = encoded.states[0, : call.source.shape[0], None]
            encoded = replace(encoded, packing=None, states=firsts_B1D)
        if encoded.hidden_states is not None:
            encoded.hidden_states = tuple(encoded.unpack(x) for x in encoded.hidden_states)
        if planned.keeps_cache:
            encoded.cache = _cache(self.config, call, encoded)
        return encoded

    def run(
        self, source: Array, token_type_ids: Array | None, position_ids: Array, plan: Plan, key: Array | None
    ) -> Encoded:
        """Compute the states of a call as planned, of its tokens (B, S) or packed (R, W). The part that is compiled."""
        embeddings_key, layers_key = (None, None) if key is None else jax.random.split(key)
        x = self.embeddings(source, token_type_ids, position_ids, accumulator(self.dtype), embeddings_key)
        return self.encoder(x, plan.drawn(x), layers_key)

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """An empty cache of a fixed size, for a decoder; pass it as ``past_key_values``.

        Each call then gives the cache to go on from, as ``past_key_values`` of its output. Keys and values of the
        memory of cross-attention are in it from the first call on that brings ``encoder_hidden_states``; inside a
        loop of ``jax.lax``, whose carry keeps its form, that call comes before the loop.

        Args:
            batch_size: number of rows.
            max_length: how many tokens it is to hold at most.
        """
        return Cache.empty(self.config, batch_size, max_length, self.dtype)

    def pool(self, encoded: Encoded) -> Array:
        """(B, D): the first token's state through the pooler."""
        assert self.pooler is not None
        return compiled(self.pooler, "__call__", encoded.first_tokens())

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good (Michel et al. 2019).

        Args:
            heads_to_prune: heads by layer, by their original numbers; ones already gone are passed over.

        Raises:
            ConfigError: for heads or layers that the model does not have, or if a layer would be left without any.
            InputError: for a quantized model.
        """
        self._refuse_quantized("prune_heads")
        going, pruned = heads_to_prune_now(self.config, heads_to_prune)
        for layer, heads in going.items():
            self.encoder.layer[str(layer)].attention.prune_heads(heads)
        self.config.pruned_heads = pruned

    def get_input_embeddings(self) -> nnx.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nnx.Module) -> None:
        self.embeddings.word_embeddings = value


def _tokens(config: XLMRobertaConfig, call: Call[Any], packing: Packing | None) -> tuple[Any, Any, Any]:
    """Ids or embeddings, token types and positions of a call, padded or packed. In NumPy where they have their values.

    Positions follow from the ids before packing, so padding anywhere in a row leaves them right; they go on from what a
    cache has counted.
    """
    position_ids = call.position_ids
    counted_B = None if call.cache is None else _values(call.cache.counted_B)
    if position_ids is None and call.input_ids is not None:
        position_ids = position_ids_from_input_ids(_values(call.input_ids), config.pad_token_id, counted_B)
    elif position_ids is None:
        first = first_position(config)
        position_ids = np.arange(first, first + call.source.shape[1], dtype=np.int32)[None]
        if counted_B is not None:
            position_ids = position_ids + counted_B[:, None]
    tokens = [call.source, call.token_type_ids, position_ids]
    if packing is not None:
        shape = call.source.shape[:2]
        tokens = [None if x is None else packing.pack(_broadcast(x, shape)) for x in tokens]
    source, token_type_ids, position_ids = map(narrow, tokens)
    return source, token_type_ids, position_ids


def _broadcast(x: Any, shape: tuple[int, int]) -> Any:
    """An input of one row for every row."""
    return (np if is_concrete(x) else jnp).broadcast_to(x, (*shape, *x.shape[2:]))


def _values(x: Any) -> Any:
    """In NumPy where there are values."""
    return np.asarray(x) if is_concrete(x) else x


def _cache(config: XLMRobertaConfig, call: Call[Any], encoded: Encoded) -> Cache:
    """The cache that a call gives."""
    before, past, length = call.cache, call.past, np.int32(call.source.shape[1])
    assert past is not None
    if past.length == 0:
        slots_BS = None if encoded.packing is None else encoded.packing.slots_BS
        after = compiled(before, "begun", encoded.held, encoded.held_memory, slots_BS)
    else:
        after = replace(before, layers=encoded.held, memory=encoded.held_memory or before.memory)
    counted_B, new_B = _values(before.counted_B), length
    if call.input_ids is not None:
        new_B = (_values(call.input_ids) != config.pad_token_id).sum(1, dtype=np.int32)
    # Numbers of NumPy as long as they are known: reading them costs nothing then.
    so_far = before.length if past.length is None else np.int32(past.length)
    return replace(after, length=so_far + length, counted_B=counted_B + new_B)
