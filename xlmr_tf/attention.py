"""Attention blocks with the published parameter names. The arithmetic is in ``kernels.py``."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_tf.cache import Cache, Pair
from xlmr_tf.embeddings import embedding
from xlmr_tf.kernels import AttentionPlan, attend
from xlmr_tf.linear import dims, dropout, layer_norm, linear, select_columns, select_rows

__all__ = ["Attention", "AttentionOutput", "SelfAttention"]


class SelfAttention(keras.layers.Layer):
    """Projections to queries, keys and values, and attention between them.

    Also serves as cross-attention, where keys and values come from an encoder's states.
    """

    distance_embedding: keras.layers.Embedding | None

    def __init__(self, config: XLMRobertaConfig, num_heads: int, *, relative: bool, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.query = linear(config.hidden_size, num_heads * config.head_size, dtype)
        self.key = linear(config.hidden_size, num_heads * config.head_size, dtype)
        self.value = linear(config.hidden_size, num_heads * config.head_size, dtype)
        if relative:
            self.distance_embedding = embedding(2 * config.max_position_embeddings - 1, config.head_size, dtype)
        else:
            self.distance_embedding = None
        # ---- Config
        self.head_size = config.head_size
        self.max_distance = config.max_position_embeddings - 1
        self.relative_to_key = config.position_embedding_type == "relative_key_query"
        self.dropout_probability = config.attention_probs_dropout_prob
        self.seeds = keras.random.SeedGenerator() if self.dropout_probability else None
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        plan: AttentionPlan,
        head_mask_N: tf.Tensor | None = None,
        memory_BMD: tf.Tensor | None = None,
        cache: Cache | None = None,
        number: int = 0,
        training: bool | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """(..., D) to the context (..., N * H) of the tokens that ask, and the probabilities if the plan wants them.
        Keys and values are added to a cache, as those of the layer of this number.
        """
        query = self.by_head(self.query(plan.asking(x)))
        if memory_BMD is None:
            key, value = self.keys_and_values(x, plan, cache, number)
        else:
            key, value = self.of_memory(memory_BMD, cache, number)
        scale, past = self.head_size**-0.5, 0 if cache is None else cache.length
        relative = None if self.distance_embedding is None else self.relative_scores(query, key, past) * scale
        drops = bool(training) and self.seeds is not None
        context, weights = attend(
            plan,
            query,
            key,
            value,
            scale=scale,
            dropout=self.dropout_probability if drops else 0.0,
            seed=self.seeds.next() if drops else None,
            extra_bias=relative,
            head_mask_N=head_mask_N,
        )
        context = context if plan.packing is not None else tf.transpose(context, (0, 2, 1, 3))
        return tf.reshape(context, (*dims(context)[:-2], self.value.units)), weights

    def keys_and_values(self, x: tf.Tensor, plan: AttentionPlan, cache: Cache | None, number: int) -> Pair:
        """What tokens attend to: themselves and what the cache holds. Packed ones are the first in it."""
        key, value = self.by_head(self.key(x)), self.by_head(self.value(x))
        if cache is None:
            return key, value
        if plan.packing is None:
            return cache.update(number, key, value)
        key_BSNH, value_BSNH = plan.packing.unpack(key), plan.packing.unpack(value)
        cache.update(number, tf.transpose(key_BSNH, (0, 2, 1, 3)), tf.transpose(value_BSNH, (0, 2, 1, 3)))
        return key, value

    def of_memory(self, memory_BMD: tf.Tensor, cache: Cache | None, number: int) -> Pair:
        """What tokens attend to in a memory; computed by the first call with a cache, and kept in it."""
        if cache is not None and number < len(cache.memory):
            return cache.memory[number]
        pair = self.by_head(self.key(memory_BMD)), self.by_head(self.value(memory_BMD))
        if cache is not None:
            cache.memory.append(pair)
        return pair

    def by_head(self, x: tf.Tensor) -> tf.Tensor:
        """(B, S, N * H) to (B, N, S, H), and of packed tokens (T, N * H) to (T, N, H)."""
        x = tf.reshape(x, (*dims(x)[:-1], self.value.units // self.head_size, self.head_size))
        return x if x.shape.rank == 3 else tf.transpose(x, (0, 2, 1, 3))

    def relative_scores(self, query_BNSH: tf.Tensor, key_BNMH: tf.Tensor, past: Any = 0) -> tf.Tensor:
        """(B, N, S, M): scores of relative positions (Shaw et al. 2018; with the key's share Huang et al. 2020).

        Distances are those of plain indices, so padding inside a row counts; ``past`` is the index of the first query.
        """
        assert self.distance_embedding is not None
        positions_S = tf.range(dims(query_BNSH)[2]) + past
        positions_M = tf.range(dims(key_BNMH)[2])
        # What nobody sees, free places of a cache and padding, may be further away than the table reaches.
        rows_SM = positions_S[:, None] - positions_M[None, :] + self.max_distance
        distances_SMH = self.distance_embedding(tf.clip_by_value(rows_SM, 0, 2 * self.max_distance))
        scores_BNSM = tf.einsum("bnsh,smh->bnsm", query_BNSH, distances_SMH)
        if self.relative_to_key:
            scores_BNSM += tf.einsum("bnmh,smh->bnsm", key_BNMH, distances_SMH)
        return scores_BNSM

    def keep_heads(self, kept: list[int]) -> None:
        """Keep only some of the current heads, given by their current index."""
        rows = head_rows(kept, self.head_size)
        select_rows(self.query, rows)
        select_rows(self.key, rows)
        select_rows(self.value, rows)


class AttentionOutput(keras.layers.Layer):
    """The projection after attention: dense, dropout, residual, and in post-LN models the norm."""

    LayerNorm: keras.layers.LayerNormalization | None

    def __init__(self, config: XLMRobertaConfig, num_heads: int, *, norm: bool, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.dense = linear(num_heads * config.head_size, config.hidden_size, dtype)
        self.LayerNorm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype) if norm else None
        self.dropout = dropout(config.hidden_dropout_prob, dtype)
        self.built = True

    def call(self, context: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        """(..., N * H) and the residual (..., D) to (..., D)."""
        x = self.dropout(self.dense(context)) + residual
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Attention(keras.layers.Layer):
    """A whole attention block: in XL the norm comes first, in base and large last.

    Args:
        config: sizes and probabilities.
        heads: the heads of this block by their original numbers (fewer than the config's where some were pruned).
        pre_norm: XL's order.
        relative: whether relative positions apply (never in cross-attention).
        dtype: the dtype policy.
    """

    self_attn_layer_norm: keras.layers.LayerNormalization | None

    def __init__(
        self, config: XLMRobertaConfig, heads: list[int], *, pre_norm: bool, relative: bool, dtype: Any
    ) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.self_attn_layer_norm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype) if pre_norm else None
        self.self = SelfAttention(config, len(heads), relative=relative, dtype=dtype)
        # Published as "output", a name that Keras keeps for itself.
        self.output_ = AttentionOutput(config, len(heads), norm=not pre_norm, dtype=dtype)
        # ---- Config
        self.heads = tuple(heads)
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        plan: AttentionPlan,
        head_mask_N: tf.Tensor | None = None,
        memory_BMD: tf.Tensor | None = None,
        cache: Cache | None = None,
        number: int = 0,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """(..., D) to (..., D) of the tokens that ask, and the probabilities if the plan wants them."""
        if head_mask_N is not None and len(self.heads) < head_mask_N.shape[0]:
            head_mask_N = tf.gather(head_mask_N, self.heads)
        normed = x if self.self_attn_layer_norm is None else self.self_attn_layer_norm(x)
        context, weights = self.self(
            normed, plan=plan, head_mask_N=head_mask_N, memory_BMD=memory_BMD, cache=cache, number=number
        )
        return self.output_(context, plan.asking(x)), weights

    def prune_heads(self, heads: set[int]) -> None:
        """Remove heads, given by their original numbers."""
        kept = [index for index, head in enumerate(self.heads) if head not in heads]
        self.self.keep_heads(kept)
        select_columns(self.output_.dense, head_rows(kept, self.self.head_size))
        self.heads = tuple(self.heads[index] for index in kept)


def head_rows(heads: list[int], head_size: int) -> NDArray[np.int64]:
    """The rows of a projection that belong to some heads."""
    return np.concatenate([np.arange(head * head_size, (head + 1) * head_size) for head in heads])
