"""The bare model: a call is read, planned and run. Base and XL differ in where the norms stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from xlmr_core.calls import Call, Plan, called_like
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_core.packing import Needs
from xlmr_core.pretrained import recomputes_layers
from xlmr_core.resizing import heads_to_prune_now
from xlmr_tf.cache import see_cache
from xlmr_tf.embeddings import Embeddings
from xlmr_tf.inputs import read
from xlmr_tf.kernels import check_attn_implementation
from xlmr_tf.layers import Layer, Pooler
from xlmr_tf.linear import dims, layer_norm
from xlmr_tf.packing import Packing
from xlmr_tf.plan import plan
from xlmr_tf.pretrained import PreTrainedModel

__all__ = ["Encoded", "EncoderModel"]


@dataclass
class Encoded:
    """The states after the last layer, packed or padded, how to read them, and the cache if the call gives one."""

    states: tf.Tensor
    packing: Packing | None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None
    cross_attentions: tuple[tf.Tensor, ...] | None = None
    past_key_values: Any = None

    def first_tokens(self) -> tf.Tensor:
        """(B, D): the state at position 0."""
        return self.states[:, 0] if self.packing is None else self.packing.first_tokens(self.states)

    def at(self, flat_positions: tf.Tensor) -> tf.Tensor:
        """(n, D): the states at flat positions (row * length + column), which packing must not have left out."""
        if self.packing is None:
            return tf.gather(flat(self.states), flat_positions)
        return tf.gather(self.states, self.packing.locate(flat_positions))

    def rows(self, x_BS: tf.Tensor) -> tf.Tensor:
        """(n, ...) of a padded (B, S, ...), in the order of the flattened ``states``; what packing left out is left
        out.
        """
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
        self.gradient_checkpointing = recomputes_layers(config)
        self.built = True

    def call(self, x: tf.Tensor, plan: Plan, training: bool | None = None) -> Encoded:
        """(..., D) through all layers."""
        if training and plan.last is not None:
            plan = replace(plan, last=None)  # dropout falls on all tokens
        hidden_states, attentions, cross_attentions = [x], [], []
        for number, layer in enumerate(self.layer):
            run = recomputed(layer) if self.gradient_checkpointing and training else layer
            x, weights, cross_weights = run(x, plan=plan.of_layer(number, len(self.layer)), number=number)
            if plan.output_hidden_states:
                hidden_states.append(x)
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x if plan.output_hidden_states else hidden_states[-1]
        encoded = Encoded(x, plan.attention.packing)
        if plan.last is not None and self.layer:
            # The first token of each text, as texts of one token.
            encoded = Encoded(x if encoded.packing is None else x[:, None], None)
        if plan.output_hidden_states:
            encoded.hidden_states = tuple(encoded.unpack(states) for states in hidden_states)
        if plan.output_attentions:
            encoded.attentions = tuple(attentions)
            encoded.cross_attentions = tuple(cross_attentions) if plan.memory_attention is not None else None
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
        self.has_cross_attention = config.add_cross_attention
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
        call: Call[tf.Tensor] | None = None,
        needs: Needs[tf.Tensor] | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions[tf.Tensor]:
        """Encode a batch.

        Args:
            input_ids: integers (B, S).
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere.
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            encoder_hidden_states: floats (B, M, D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, M) of 0 and 1.
            past_key_values: of a decoder: what the call before gave, or a :class:`~xlmr_tf.cache.StaticCache`. Then
                ``input_ids`` holds the new tokens only, and ``attention_mask`` has a column for those before, too.
            use_cache: of a decoder: give ``past_key_values``; default: as the config says.
            output_attentions: return the probabilities; selects the ``eager`` kernel on padded tokens.
            output_hidden_states: return the states after the embeddings and after each layer.
            return_dict: ``False`` returns a tuple.
            training: whether dropout acts.
            call, needs: for heads only, which have read the inputs already and say what they read of the states: return
                :class:`Encoded`.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        if call is not None:
            return self.run(call, plan(self, call, needs or Needs()))
        call = read(
            self,
            see_cache=see_cache,
            recomputes=self.encoder.gradient_checkpointing and bool(training),
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        encoded = self.run(call, plan(self, call, Needs(first_token=self.pooler is not None)))
        return self.finish(
            BaseModelOutputWithPoolingAndCrossAttentions(
                last_hidden_state=encoded.unpack(encoded.states),
                pooler_output=None if self.pooler is None else self.pooler(encoded.first_tokens()),
                past_key_values=encoded.past_key_values,
                hidden_states=encoded.hidden_states,
                attentions=encoded.attentions,
                cross_attentions=encoded.cross_attentions,
            ),
            return_dict,
        )

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...

    def run(self, call: Call[tf.Tensor], plan: Plan) -> Encoded:
        """Compute the states of a call as planned."""
        cache = plan.cache
        x = self.embeddings(
            call.input_ids,
            call.inputs_embeds,
            call.token_type_ids,
            call.position_ids,
            packing=plan.attention.packing,
            counted_B=None if cache is None else cache.counted_B,
        )
        encoded = self.encoder(x, plan=plan)
        if call.use_cache:
            cache.advance(dims(call.source)[1], counted(call, self.config.pad_token_id))
            encoded.past_key_values = cache.published()
        return encoded

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
            self.encoder.layer[layer].attention.prune_heads(heads)
        self.config.pruned_heads = pruned

    def get_input_embeddings(self) -> keras.layers.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: keras.layers.Embedding) -> None:
        self.embeddings.word_embeddings = value


def counted(call: Call[tf.Tensor], pad_token_id: int) -> tf.Tensor:
    """(B,): how many tokens of a call are no padding; of embeddings all."""
    batch, length = dims(call.source)[:2]
    if call.input_ids is None:
        return tf.fill((batch,), length)
    return tf.reduce_sum(tf.cast(call.input_ids != pad_token_id, tf.int32), 1)


def flat(x_BS: tf.Tensor) -> tf.Tensor:
    """(B, S, ...) to (B * S, ...)."""
    return tf.reshape(x_BS, (-1, *dims(x_BS)[2:]))


def recomputed(layer: Layer) -> Callable[..., tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]]:
    """The same layer, whose activations are computed once more in the backward pass in place of being kept."""

    def run(x: tf.Tensor, *, plan: Plan, number: int) -> tuple[Any, ...]:
        # Dropout has to fall the same way both times, so each pass starts from the same states of the random
        # generators.
        states = [seeds.state for part in layer._flatten_layers() for seeds in part._seed_generators]
        values = [tf.identity(state.value) for state in states]
        for state, value in zip(states, values, strict=True):
            state.assign(value + tf.constant([1, 0], value.dtype))
        present: list[bool] = []

        # Memory and cache go in by themselves: of tensors inside a plan it would not be seen that they want gradients.
        memory = () if plan.memory_BMD is None else (plan.memory_BMD,)
        past = () if plan.cache is None or not plan.cache.layers else plan.cache.layers[number]

        @tf.recompute_grad
        def computed(x: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
            cache = None if plan.cache is None else plan.cache.copy()
            if past:
                cache.layers[number] = others[len(memory) :]
            own = replace(plan, memory_BMD=others[0] if memory else None, cache=cache)
            with keras.StatelessScope(state_mapping=list(zip(states, values, strict=True))):
                outputs = layer(x, plan=own, number=number, training=True)
            present[:] = [output is not None for output in outputs]
            return tuple(output for output in outputs if output is not None)

        outputs = computed(x, *memory, *past)
        # A reshape's gradient is dense, as that of a recomputed function has to be; a head that gathers tokens sends a
        # sparse one.
        found = iter(tf.reshape(output, tf.shape(output)) for output in outputs)
        return tuple(next(found) if there else None for there in present)

    return run
