"""Transformer layers: post-LN (base, large) and pre-LN (XL, XXL) from one class, with the published parameter names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_flax.activations import activation
from xlmr_flax.attention import Attention
from xlmr_flax.cache import Held
from xlmr_flax.linear import LayerNorm, Linear, dropout, narrowed
from xlmr_flax.plan import Plan

__all__ = ["Intermediate", "Layer", "FeedForwardOutput", "Pooler"]


class Intermediate(nnx.Module):
    """The first half of the feed-forward block: dense and activation."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config)

    def __call__(self, x: Array) -> Array:
        """(..., D) to (..., F)."""
        return self.intermediate_act_fn(self.dense.wide(x)).astype(x.dtype)


class FeedForwardOutput(nnx.Module):
    """The second half of the feed-forward block: dense, dropout, residual, and in post-LN models the norm."""

    def __init__(self, config: XLMRobertaConfig, *, norm: bool) -> None:
        # ---- Layers
        self.dense = Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None
        # ---- Config
        self.dropout_probability = config.hidden_dropout_prob

    def __call__(self, x: Array, residual: Array, key: Array | None = None) -> Array:
        """(..., F) and the residual (..., D) to (..., D), as wide as that."""
        x = dropout(self.dense.wide(x), self.dropout_probability, key) + residual
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Layer(nnx.Module):
    """Attention and feed-forward.

    Args:
        config: sizes and probabilities.
        number: index of the layer, which says how many heads pruning has left it.
        pre_norm: XL's order.
    """

    def __init__(self, config: XLMRobertaConfig, number: int, *, pre_norm: bool) -> None:
        # ---- Layers
        relative = config.position_embedding_type != "absolute"
        all_heads = list(range(config.num_attention_heads))
        pruned = config.pruned_heads.get(number, [])
        heads = [head for head in all_heads if head not in pruned]
        self.attention = Attention(config, heads, pre_norm=pre_norm, relative=relative)
        if config.add_cross_attention:
            self.crossattention = Attention(config, all_heads, pre_norm=pre_norm, relative=False)
        else:
            self.crossattention = None
        self.intermediate = Intermediate(config)
        self.output = FeedForwardOutput(config, norm=not pre_norm)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        # ---- Config
        self.chunk_size = config.chunk_size_feed_forward

    def __call__(
        self, x: Array, plan: Plan, number: Any, key: Array | None = None
    ) -> tuple[Array, Array | None, Array | None, Held | None, Held | None]:
        """(B, S, D) to (B, S, D), the probabilities of self- and cross-attention if the plan wants them, and what a
        cache holds of both if it is to be kept.
        """
        own_key, cross_key, output_key = (None, None, None) if key is None else jax.random.split(key, 3)
        head_mask_N = plan.head_mask(number)
        held = None if plan.cache is None else plan.cache.held(number)
        x, weights, held = self.attention(x, plan.attention, head_mask_N, None, held, own_key)
        cross_weights = held_memory = None
        if plan.memory_attention is not None:
            assert self.crossattention is not None
            held_memory = None if plan.cache is None else plan.cache.held_memory(number)
            x, cross_weights, held_memory = self.crossattention(
                x, plan.memory_attention, head_mask_N, plan.memory_BMD, held_memory, cross_key
            )
        if self.chunk_size:
            starts = range(0, x.shape[-2], self.chunk_size)
            keys = [None if output_key is None else jax.random.fold_in(output_key, start) for start in starts]
            chunks = [x[..., start : start + self.chunk_size, :] for start in starts]
            done = [self.feed_forward(*pair, plan.dtype) for pair in zip(chunks, keys, strict=True)]
            x = jnp.concatenate(done, axis=-2)
        else:
            x = self.feed_forward(x, output_key, plan.dtype)
        if not plan.keeps_cache:
            held = held_memory = None
        return x, weights, cross_weights, held, held_memory

    def feed_forward(self, x: Array, key: Array | None = None, dtype: Any = None) -> Array:
        """(..., D) to (..., D), multiplied in a dtype; ``None``: in that of the states."""
        normed = narrowed(x if self.LayerNorm is None else self.LayerNorm(x), dtype)
        return self.output(self.intermediate(normed), x, key)


class Pooler(nnx.Module):
    """The first token's state through dense and tanh."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def __call__(self, first_BD: Array) -> Array:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, D)."""
        first_BD = first_BD[:, 0] if first_BD.ndim == 3 else first_BD
        return jnp.tanh(self.dense(first_BD))
