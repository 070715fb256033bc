"""The bare model: checks, packing, embeddings, layers, pooler. Base and XL differ in where the norms stand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_tf.checks import check_encoder_inputs, check_mask, check_tensors, is_concrete, shape_of
from xlmr_tf.embeddings import Embeddings
from xlmr_tf.kernels import AttentionPlan, causal_bias, causal_keep, check_attn_implementation, mask_bias
from xlmr_tf.layers import Layer, Pooler
from xlmr_tf.linear import dims, layer_norm
from xlmr_tf.packing import Packing, choose_packing
from xlmr_tf.pretrained import PreTrainedModel

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
    positions_BS: tf.Tensor | None = None
    every_position: bool = False


@dataclass
class Encoded:
    """The states after the last layer, packed or padded, and how to read them."""

    states: tf.Tensor
    packing: Packing | None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None
    cross_attentions: tuple[tf.Tensor, ...] | None = None

    def first_tokens(self) -> tf.Tensor:
        """(B, D): the state at position 0."""
        return self.states[:, 0] if self.packing is None else self.packing.first_tokens(self.states)

    def at(self, flat_positions: tf.Tensor) -> tf.Tensor:
        """(n, D): the states at flat positions (row * length + column), which packing must not have left out."""
        if self.packing is None:
            return tf.gather(flat(self.states), flat_positions)
        return tf.gather(self.states, self.packing.locate(flat_positions))

    def rows(self, x_BS: tf.Tensor) -> tf.Tensor:
        """(n, ...) of a padded (B, S, ...), in the order of the flattened ``states``; what packing left out is left out."""
        return flat(x_BS) if self.packing is None else self.packing.pack(x_BS)

    def unpack(self, x: tf.Tensor, fill: float = 0.0) -> tf.Tensor:
        """(B, S, ...) of a token-wise result of ``states``; ``fill`` where packing left a position out."""
        return x if self.packing is None else self.packing.unpack(x, fill)


class Encoder(keras.layers.Layer):
    """The stack of layers; in XL with a last norm."""

    LayerNorm: keras.layers.LayerNormalization | None

    def __init__(self, config: XLMRobertaConfig, *, pre_norm: bool, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.layer = [
            Layer(config, number, pre_norm=pre_norm, dtype=dtype) for number in range(config.num_hidden_layers)
        ]
        self.LayerNorm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype) if pre_norm else None
        self.gradient_checkpointing = False
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        plan: AttentionPlan,
        head_mask_LN: tf.Tensor | None,
        memory_BTD: tf.Tensor | None,
        memory_plan: AttentionPlan | None,
        output_hidden_states: bool,
        training: bool | None = None,
    ) -> Encoded:
        """(..., D) through all layers."""
        hidden_states, attentions, cross_attentions = [x], [], []
        for number, layer in enumerate(self.layer):
            head_mask_N = None if head_mask_LN is None else head_mask_LN[number]
            run = recomputed(layer) if self.gradient_checkpointing and training else layer
            x, weights, cross_weights = run(
                x, plan=plan, head_mask_N=head_mask_N, memory_BTD=memory_BTD, memory_plan=memory_plan
            )
            if output_hidden_states:
                hidden_states.append(x)
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x if output_hidden_states else hidden_states[-1]
        encoded = Encoded(x, plan.packing)
        if output_hidden_states:
            encoded.hidden_states = tuple(encoded.unpack(states) for states in hidden_states)
        if plan.return_weights:
            encoded.attentions = tuple(attentions)
            encoded.cross_attentions = tuple(cross_attentions) if memory_BTD is not None else None
        return encoded


class EncoderModel(PreTrainedModel):
    """The encoder of one family. Subclasses say where the norms stand.

    Args:
        config: the model's configuration.
        add_pooling_layer: whether there is a pooler.
        dtype: the dtype policy, such as ``mixed_bfloat16``; by default Keras's global one.
        **kwargs: ``name`` and ``trainable``, as of every Keras model.
    """

    _task_head = HEADS["Model"]
    pre_norm: bool
    pooler: Pooler | None

    def __init__(
        self, config: XLMRobertaConfig, add_pooling_layer: bool = True, *, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(config, dtype=dtype, **kwargs)
        dtype = self.dtype_policy
        # ---- Layers
        self.embeddings = Embeddings(config, norm=not self.pre_norm, dtype=dtype)
        self.encoder = Encoder(config, pre_norm=self.pre_norm, dtype=dtype)
        self.pooler = Pooler(config, dtype=dtype) if add_pooling_layer else None
        # ---- Config
        self._attn_implementation = check_attn_implementation(config._attn_implementation or "sdpa")
        self._packing = "auto"
        self._has_cross_attention = config.add_cross_attention
        self.lora: dict[str, Any] | None = None
        self.post_init()

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        *,
        needs: Needs | None = None,
    ) -> Any:
        """Encode a batch.

        Args:
            input_ids: integers (B, S).
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere.
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            encoder_hidden_states: floats (B, S', D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, S') of 0 and 1.
            past_key_values, use_cache: the published places of a decoder's cache; this release computes without one.
            output_attentions: return the probabilities; selects the ``eager`` kernel on padded tokens.
            output_hidden_states: return the states after the embeddings and after each layer.
            return_dict: ``False`` returns a tuple.
            training: whether dropout acts.
            needs: for heads only: return :class:`Encoded` and say what will be read.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        config = self.config
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
        self._check_decoder_inputs(batch, encoder_hidden_states, encoder_attention_mask, past_key_values)
        if attention_mask is None and input_ids is not None:
            _warn_of_attended_padding(input_ids, config.pad_token_id)
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        check_tensors(head_mask=head_mask)
        head_mask_LN = self._head_mask(head_mask)
        asked = Needs(first_token=self.pooler is not None) if needs is None else needs

        source = inputs_embeds if input_ids is None else input_ids
        packing = None
        if (
            self.attn_implementation != "eager"
            and config.position_embedding_type == "absolute"
            and not (output_attentions or asked.every_position)
            and head_mask_LN is None
            and encoder_hidden_states is None
            and (attention_mask is None or attention_mask.shape.rank == 2)
        ):
            packing = choose_packing(
                self.packing,
                attention_mask,
                source,
                first_token=asked.first_token,
                needed_BS=asked.positions_BS,
            )
        x = self.embeddings(input_ids, inputs_embeds, token_type_ids, position_ids, packing=packing)
        plan = self._attention_plan(attention_mask, dims(source)[1], packing, bool(output_attentions))
        memory_plan = None
        if encoder_hidden_states is not None:
            memory_plan = self._attention_plan(encoder_attention_mask, None, None, bool(output_attentions))
        encoded = self.encoder(
            x,
            plan=plan,
            head_mask_LN=head_mask_LN,
            memory_BTD=encoder_hidden_states,
            memory_plan=memory_plan,
            output_hidden_states=bool(output_hidden_states),
        )
        if needs is not None:
            return encoded
        return self.finish(
            BaseModelOutputWithPoolingAndCrossAttentions(
                last_hidden_state=encoded.unpack(encoded.states),
                pooler_output=None if self.pooler is None else self.pooler(encoded.first_tokens()),
                hidden_states=encoded.hidden_states,
                attentions=encoded.attentions,
                cross_attentions=encoded.cross_attentions,
            ),
            return_dict,
        )

    def _attention_plan(self, mask: Any, length: Any, packing: Packing | None, return_weights: bool) -> AttentionPlan:
        """How to attend: self-attention has a ``length`` and may be causal, cross-attention has none."""
        # A mask with a row for each query has said everything already, as published.
        causal = self.config.is_decoder and length is not None and (mask is None or mask.shape.rank == 2)
        if packing is not None:
            return AttentionPlan(causal=causal, packing=packing)
        bias = None
        # A mask without zeros needs no bias; whether it has any is looked at only where that costs nothing.
        if mask is not None and not (is_concrete(mask) and bool(tf.reduce_all(mask != 0))):
            keep = tf.expand_dims(mask != 0, 1)
            keep = keep if mask.shape.rank == 3 else tf.expand_dims(keep, 1)
            bias = mask_bias(keep & causal_keep(length) if causal else keep, self.compute_dtype)
        elif causal:
            bias = causal_bias(length, self.compute_dtype)
        return AttentionPlan(bias, return_weights=return_weights)

    def _head_mask(self, head_mask: Any) -> tf.Tensor | None:
        """The head mask as (layers, N)."""
        if head_mask is None:
            return None
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        if tuple(head_mask.shape) not in ((heads,), (layers, heads)):
            raise InputError(
                f"head_mask must have the shape {(heads,)} or {(layers, heads)}, received {tuple(head_mask.shape)}"
            )
        return tf.broadcast_to(head_mask, (layers, heads))

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
        shape = shape_of(states)
        if len(shape) != 3 or 0 in shape or (shape[0], shape[2]) != (batch, config.hidden_size):
            raise InputError(
                f"encoder_hidden_states must have the shape ({batch}, source length, {config.hidden_size}), received {shape}"
            )
        if mask is not None and shape_of(mask) != shape[:2]:
            raise InputError(f"encoder_attention_mask must have the shape {shape[:2]}, received {shape_of(mask)}")
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
                self.encoder.layer[layer].attention.prune_heads(gone)
        self.config.pruned_heads = {layer: sorted(heads) for layer, heads in pruned.items()}

    def get_input_embeddings(self) -> keras.layers.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: keras.layers.Embedding) -> None:
        self.embeddings.word_embeddings = value


def flat(x_BS: tf.Tensor) -> tf.Tensor:
    """(B, S, ...) to (B * S, ...)."""
    return tf.reshape(x_BS, (-1, *dims(x_BS)[2:]))


def recomputed(layer: Layer) -> Callable[..., tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]]:
    """The same layer, whose activations are computed once more in the backward pass in place of being kept."""

    def run(x: tf.Tensor, *, memory_BTD: tf.Tensor | None, **others: Any) -> tuple[Any, ...]:
        # Dropout has to fall the same way both times, so each pass starts from the same states of the random generators.
        states = [seeds.state for part in layer._flatten_layers() for seeds in part._seed_generators]
        values = [tf.identity(state.value) for state in states]
        for state, value in zip(states, values, strict=True):
            state.assign(value + tf.constant([1, 0], value.dtype))
        present: list[bool] = []

        @tf.recompute_grad
        def computed(x: tf.Tensor, *memory: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with keras.StatelessScope(state_mapping=list(zip(states, values, strict=True))):
                outputs = layer(x, memory_BTD=memory[0] if memory else None, training=True, **others)
            present[:] = [output is not None for output in outputs]
            return tuple(output for output in outputs if output is not None)

        outputs = computed(x) if memory_BTD is None else computed(x, memory_BTD)
        # A reshape's gradient is dense, as that of a recomputed function has to be; a head that gathers tokens sends a sparse one.
        found = iter(tf.reshape(output, tf.shape(output)) for output in outputs)
        return tuple(next(found) if there else None for there in present)

    return run


def _warn_of_attended_padding(input_ids: Any, pad_token_id: int) -> None:
    """Say that padding is attended to because no mask came with it."""
    if is_concrete(input_ids) and bool(
        tf.reduce_any(tf.gather(input_ids, [0, input_ids.shape[1] - 1], axis=1) == pad_token_id)
    ):
        warnings.warn(
            "input_ids holds padding and no attention_mask was passed, so padding is attended to; pass the tokenizer's attention_mask",
            UserWarning,
            stacklevel=2,
        )
