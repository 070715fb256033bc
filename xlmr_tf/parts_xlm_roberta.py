"""The parts of the base and large models under their published names, for code that imports or derives from them.

Made by themselves they take the published arguments (an ``attention_mask`` is additive: 0 where a position is attended
to, a large negative number elsewhere) and start with values of the configuration's ``initializer_range``. XL was never
published for TensorFlow.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from xlmr_core.calls import Plan
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_tf.attention import Attention, AttentionOutput, SelfAttention
from xlmr_tf.cache import Cache
from xlmr_tf.embeddings import Embeddings, position_ids_from_input_ids
from xlmr_tf.encoder import Encoder
from xlmr_tf.heads import ClassificationHead
from xlmr_tf.kernels import AttentionPlan
from xlmr_tf.layers import FeedForwardOutput, Intermediate, Layer, Pooler
from xlmr_tf.lm_heads import LMHead

__all__ = [
    "TFXLMRobertaAttention",
    "TFXLMRobertaClassificationHead",
    "TFXLMRobertaEmbeddings",
    "TFXLMRobertaEncoder",
    "TFXLMRobertaIntermediate",
    "TFXLMRobertaLMHead",
    "TFXLMRobertaLayer",
    "TFXLMRobertaOutput",
    "TFXLMRobertaPooler",
    "TFXLMRobertaSelfAttention",
    "TFXLMRobertaSelfOutput",
]


class Part:
    """A part made by itself, with the published constructor; a base before the layer that it is.

    Args:
        config: sizes and probabilities.
        *args: further published arguments.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as of every Keras layer.
    """

    weights: list[keras.Variable]

    def __init__(self, config: XLMRobertaConfig, *args: Any, **kwargs: Any) -> None:
        name, trainable = kwargs.pop("name", None), kwargs.pop("trainable", True)
        super().__init__(config, *args, **{"dtype": None, **self.options(config), **kwargs})
        self.config = config
        if name is not None:
            self.name = name
        given = {id(variable) for layer in args for variable in getattr(layer, "weights", ())}
        for variable in self.weights:
            if id(variable) not in given:
                variable.assign(_start(variable, config))
        self.trainable = trainable
        self._allow_non_tensor_positional_args = True

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        """What the layer below takes beside the configuration."""
        return {}


def _start(variable: keras.Variable, config: XLMRobertaConfig) -> tf.Tensor:
    if variable.name in ("kernel", "embeddings"):
        return keras.random.normal(variable.shape, 0.0, config.initializer_range, dtype=variable.dtype)
    return tf.cast(tf.fill(variable.shape, 1.0 if variable.name == "gamma" else 0.0), variable.dtype)


class TFXLMRobertaEmbeddings(Part, Embeddings):
    __doc__ = Embeddings.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        return {"norm": True}

    def create_position_ids_from_input_ids(self, input_ids: tf.Tensor, past_key_values_length: int = 0) -> tf.Tensor:
        """(B, S) positions: tokens count up from the padding id and one, after those that came before; padding stays at
        the padding id.
        """
        positions = position_ids_from_input_ids(input_ids, self.pad_token_id)
        return positions + past_key_values_length * tf.cast(input_ids != self.pad_token_id, positions.dtype)

    def call(
        self,
        input_ids: Any = None,
        position_ids: Any = None,
        token_type_ids: Any = None,
        inputs_embeds: Any = None,
        past_key_values_length: int = 0,
        training: bool = False,
    ) -> tf.Tensor:
        """Ids or embeddings to (B, S, D)."""
        if position_ids is None and input_ids is not None:
            position_ids = self.create_position_ids_from_input_ids(input_ids, past_key_values_length)
        return super().call(input_ids, inputs_embeds, token_type_ids, position_ids, None)


class TFXLMRobertaSelfAttention(Part, SelfAttention):
    __doc__ = SelfAttention.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        return {"num_heads": config.num_attention_heads, "relative": config.position_embedding_type != "absolute"}

    def call(
        self,
        hidden_states: tf.Tensor,
        attention_mask: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_value: Any = None,
        output_attentions: bool = False,
        training: bool = False,
    ) -> tuple[tf.Tensor, ...]:
        """(B, S, D) to the context (B, S, D), the probabilities if they are wanted, and of a decoder the keys and
        values, those of ``past_key_value`` before the new ones.
        """
        memory, heads = encoder_hidden_states, _by_head(head_mask)
        plan = _attention_plan(attention_mask, memory, encoder_attention_mask, output_attentions)
        cache = _cache(self.config, past_key_value, memory=memory is not None)
        outputs = super().call(hidden_states, plan, heads, memory, cache=cache, training=training)
        return (*_wanted(outputs), *_present(self.config, cache))


class TFXLMRobertaSelfOutput(Part, AttentionOutput):
    __doc__ = AttentionOutput.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        return {"num_heads": config.num_attention_heads, "norm": True}

    def call(self, hidden_states: tf.Tensor, input_tensor: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The context and the residual (B, S, D) to (B, S, D)."""
        return super().call(hidden_states, input_tensor)


class TFXLMRobertaAttention(Part, Attention):
    __doc__ = Attention.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        relative = config.position_embedding_type != "absolute"
        return {"heads": list(range(config.num_attention_heads)), "pre_norm": False, "relative": relative}

    def prune_heads(self, heads: Any) -> None:
        """Remove heads, given by their original numbers."""
        super().prune_heads(set(heads))

    def call(
        self,
        input_tensor: tf.Tensor,
        attention_mask: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_value: Any = None,
        output_attentions: bool = False,
        training: bool = False,
    ) -> tuple[tf.Tensor, ...]:
        """(B, S, D) to (B, S, D), the probabilities if they are wanted, and of a decoder the keys and values, those of
        ``past_key_value`` before the new ones.
        """
        memory, heads = encoder_hidden_states, _by_head(head_mask)
        plan = _attention_plan(attention_mask, memory, encoder_attention_mask, output_attentions)
        cache = _cache(self.config, past_key_value, memory=memory is not None)
        outputs = super().call(input_tensor, plan, heads, memory, cache=cache)
        return (*_wanted(outputs), *_present(self.config, cache))


class TFXLMRobertaIntermediate(Part, Intermediate):
    __doc__ = Intermediate.__doc__

    def call(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """(B, S, D) to (B, S, F)."""
        return super().call(hidden_states)


class TFXLMRobertaOutput(Part, FeedForwardOutput):
    __doc__ = FeedForwardOutput.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        return {"norm": True}

    def call(self, hidden_states: tf.Tensor, input_tensor: tf.Tensor, training: bool = False) -> tf.Tensor:
        """(B, S, F) and the residual (B, S, D) to (B, S, D)."""
        return super().call(hidden_states, input_tensor)


class TFXLMRobertaLayer(Part, Layer):
    __doc__ = Layer.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        return {"number": -1, "pre_norm": False}  # of which no head was pruned

    def call(
        self,
        hidden_states: tf.Tensor,
        attention_mask: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_value: Any = None,
        output_attentions: bool = False,
        training: bool = False,
    ) -> tuple[tf.Tensor, ...]:
        """(B, S, D) to (B, S, D), the probabilities of self- and cross-attention if they are wanted, and of a decoder
        keys and values, those of ``past_key_value`` before the new ones, and of the memory.
        """
        cache = _cache(self.config, past_key_value)
        plan = _plan(
            *(attention_mask, _by_head(head_mask), encoder_hidden_states, encoder_attention_mask),
            cache=cache,
            output_attentions=output_attentions,
        )
        return (*_wanted(super().call(hidden_states, plan, 0)), *_present(self.config, cache))


class TFXLMRobertaEncoder(Part, Encoder):
    __doc__ = Encoder.__doc__

    @staticmethod
    def options(config: XLMRobertaConfig) -> dict[str, Any]:
        return {"pre_norm": False}

    def call(
        self,
        hidden_states: tf.Tensor,
        attention_mask: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        training: bool = False,
    ) -> Any:
        """(B, S, D) through all layers; ``head_mask`` as ``model.get_head_mask`` makes it."""
        heads = tf.reshape(head_mask, (len(self.layer), -1)) if tf.is_tensor(head_mask) else None
        cache = Cache() if use_cache else None
        plan = _plan(
            *(attention_mask, heads, encoder_hidden_states, encoder_attention_mask),
            cache=cache if past_key_values is None else Cache.from_legacy_cache(past_key_values),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        encoded = super().call(hidden_states, plan, training=training)
        output: BaseModelOutputWithPoolingAndCrossAttentions[tf.Tensor] = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=encoded.states,
            past_key_values=plan.cache.to_legacy_cache() if use_cache else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return output if return_dict else output.to_tuple()


class TFXLMRobertaPooler(Part, Pooler):
    __doc__ = Pooler.__doc__

    def call(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """(B, S, D), whose first token is taken, to (B, D)."""
        return super().call(hidden_states)


class TFXLMRobertaClassificationHead(Part, ClassificationHead):
    __doc__ = ClassificationHead.__doc__

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """(B, S, D), whose first token is taken, to (B, K)."""
        return super().call(features)


class TFXLMRobertaLMHead(Part, LMHead):
    """States to vocabulary logits.

    Args:
        config: sizes, and whether the projection is tied to the word embedding.
        input_embeddings: the word embedding, or the embeddings with it.
        **kwargs: ``name``, ``dtype`` and ``trainable``.
    """

    def __init__(self, config: XLMRobertaConfig, input_embeddings: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(config, getattr(input_embeddings, "word_embeddings", input_embeddings), **kwargs)

    def get_output_embeddings(self) -> keras.layers.Layer:
        """The vocabulary projection: the word embedding itself if it is tied to it."""
        return self.table if self.decoder is None else self.decoder

    def get_bias(self) -> dict[str, keras.Variable]:
        """``{"bias": variable}``."""
        return {"bias": self.bias}

    def set_bias(self, value: dict[str, Any]) -> None:
        """Put the values of ``{"bias": values}`` (V,) in the place of the bias."""
        self.bias.assign(value["bias"])

    def call(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """(B, S, D) to (B, S, V)."""
        return super().call(hidden_states)


# ---- Published arguments as a plan


def _attention_plan(mask: Any, memory: Any, memory_mask: Any, output_attentions: bool) -> AttentionPlan:
    bias = mask if memory is None else memory_mask
    return AttentionPlan(bias=None if bias is None else tf.cast(bias, tf.float32), return_weights=output_attentions)


def _plan(
    mask: Any, heads: Any, memory: Any, memory_mask: Any, cache: Cache | None, output_attentions: bool, **others: Any
) -> Plan[Any]:
    cross = None if memory is None else _attention_plan(None, memory, memory_mask, output_attentions)
    return Plan(
        attention=_attention_plan(mask, None, None, output_attentions),
        memory_attention=cross,
        memory_BMD=memory,
        head_mask_LN=heads if heads is None or heads.shape.rank == 2 else heads[None],
        cache=cache,
        **others,
    )


def _cache(config: XLMRobertaConfig, past: Any, *, memory: bool = False) -> Cache | None:
    """What a part of one layer adds its keys and values to: what a decoder keeps, and what came."""
    if past is None:
        return Cache() if config.is_decoder else None
    return Cache(memory=[tuple(past)]) if memory else Cache.from_legacy_cache([past])


def _present(config: XLMRobertaConfig, cache: Cache | None) -> tuple[Any, ...]:
    """What a decoder's part of one layer gives of its cache."""
    if cache is None or not config.is_decoder:
        return ()
    own, memory = cache.layers or [()], cache.memory or [()]
    return ((*own[0], *memory[0]),)


def _by_head(head_mask: Any) -> Any:
    """(N,) of what has further axes of length 1."""
    return None if head_mask is None else tf.reshape(head_mask, (-1,))


def _wanted(outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(output for output in outputs if output is not None)
