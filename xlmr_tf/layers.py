"""Transformer layers: post-LN (base, large) and pre-LN (XL, XXL) from one class, with the published parameter names."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from xlmr_core.calls import Plan
from xlmr_core.config import XLMRobertaConfig
from xlmr_tf.activations import activation
from xlmr_tf.attention import Attention
from xlmr_tf.linear import dropout, layer_norm, linear

__all__ = ["Intermediate", "Layer", "FeedForwardOutput", "Pooler"]


class Intermediate(keras.layers.Layer):
    """The first half of the feed-forward block: dense and activation."""

    def __init__(self, config: XLMRobertaConfig, *, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.dense = linear(config.hidden_size, config.intermediate_size, dtype)
        self.intermediate_act_fn = activation(config)
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """(..., D) to (..., F)."""
        return self.intermediate_act_fn(self.dense(x))


class FeedForwardOutput(keras.layers.Layer):
    """The second half of the feed-forward block: dense, dropout, residual, and in post-LN models the norm."""

    LayerNorm: keras.layers.LayerNormalization | None

    def __init__(self, config: XLMRobertaConfig, *, norm: bool, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.dense = linear(config.intermediate_size, config.hidden_size, dtype)
        self.LayerNorm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype) if norm else None
        self.dropout = dropout(config.hidden_dropout_prob, dtype)
        self.built = True

    def call(self, x: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        """(..., F) and the residual (..., D) to (..., D)."""
        x = self.dropout(self.dense(x)) + residual
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Layer(keras.layers.Layer):
    """Attention and feed-forward.

    Args:
        config: sizes and probabilities.
        number: index of the layer, which says how many heads pruning has left it.
        pre_norm: XL's order.
        dtype: the dtype policy.
    """

    crossattention: Attention | None
    LayerNorm: keras.layers.LayerNormalization | None

    def __init__(self, config: XLMRobertaConfig, number: int, *, pre_norm: bool, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        relative = config.position_embedding_type != "absolute"
        all_heads = list(range(config.num_attention_heads))
        pruned = config.pruned_heads.get(number, [])
        heads = [head for head in all_heads if head not in pruned]
        self.attention = Attention(config, heads, pre_norm=pre_norm, relative=relative, dtype=dtype)
        if config.add_cross_attention:
            self.crossattention = Attention(config, all_heads, pre_norm=pre_norm, relative=False, dtype=dtype)
        else:
            self.crossattention = None
        self.intermediate = Intermediate(config, dtype=dtype)
        # Published as "output", a name that Keras keeps for itself.
        self.output_ = FeedForwardOutput(config, norm=not pre_norm, dtype=dtype)
        self.LayerNorm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype) if pre_norm else None
        # ---- Config
        self.chunk_size = config.chunk_size_feed_forward
        self.built = True

    def call(self, x: tf.Tensor, plan: Plan, number: int) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]:
        """(..., D) to (..., D), and the probabilities of self- and cross-attention if the plan wants them."""
        head_mask_N = plan.head_mask(number)
        cached = {"cache": plan.cache, "number": number}
        x, weights = self.attention(x, plan=plan.attention, head_mask_N=head_mask_N, **cached)
        cross_weights = None
        if plan.memory_attention is not None:
            assert self.crossattention is not None
            x, cross_weights = self.crossattention(
                x, plan=plan.memory_attention, head_mask_N=head_mask_N, memory_BMD=plan.memory_BMD, **cached
            )
        if self.chunk_size and x.shape[-2] is not None:
            starts = range(0, x.shape[-2], self.chunk_size)
            chunks = [self.feed_forward(x[..., start : start + self.chunk_size, :]) for start in starts]
            x = ops.concatenate(chunks, axis=-2)
        else:  # chunks only save memory; a graph of any length does without
            x = self.feed_forward(x)
        return x, weights, cross_weights

    def feed_forward(self, x: tf.Tensor) -> tf.Tensor:
        """(..., D) to (..., D)."""
        normed = x if self.LayerNorm is None else self.LayerNorm(x)
        return self.output_(self.intermediate(normed), x)


class Pooler(keras.layers.Layer):
    """The first token's state through dense and tanh."""

    def __init__(self, config: XLMRobertaConfig, *, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size, dtype)
        self.built = True

    def call(self, first_BD: tf.Tensor) -> tf.Tensor:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, D)."""
        first_BD = first_BD[:, 0] if len(first_BD.shape) == 3 else first_BD
        return ops.tanh(self.dense(first_BD))
