"""Attention blocks with the published parameter names. The arithmetic is in ``kernels.py``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_flax.cache import Held
from xlmr_flax.embeddings import Embedding
from xlmr_flax.kernels import AttentionPlan, attend
from xlmr_flax.linear import LayerNorm, Linear, accumulator, dropout, narrowed, select_columns, select_rows

__all__ = ["Attention", "AttentionOutput", "SelfAttention"]


class SelfAttention(nnx.Module):
    """Projections to queries, keys and values, and attention between them.

    Also serves as cross-attention, where keys and values come from an encoder's states.
    """

    def __init__(self, config: XLMRobertaConfig, num_heads: int, *, relative: bool) -> None:
        # ---- Layers
        self.query = Linear(config.hidden_size, num_heads * config.head_size)
        self.key = Linear(config.hidden_size, num_heads * config.head_size)
        self.value = Linear(config.hidden_size, num_heads * config.head_size)
        if relative:
            self.distance_embedding = Embedding(2 * config.max_position_embeddings - 1, config.head_size)
        else:
            self.distance_embedding = None
        # ---- Config
        self.head_size = config.head_size
        self.max_distance = config.max_position_embeddings - 1
        self.relative_to_key = config.position_embedding_type == "relative_key_query"
        self.dropout_probability = config.attention_probs_dropout_prob

    def __call__(
        self,
        x: Array,
        plan: AttentionPlan,
        head_mask_N: Array | None = None,
        memory_BMD: Array | None = None,
        held: Held | None = None,
        key: Array | None = None,
    ) -> tuple[Array, Array | None, Held]:
        """Attend.

        Args:
            x: (B, S, D).
            plan: which mask, and what is wanted.
            head_mask_N: factors of the heads' probabilities.
            memory_BMD: what is attended to in cross-attention.
            held: keys and values of a cache: those of this call are added, or taken as they are if of a memory.
            key: random key; ``None`` outside training.

        Returns:
            The context (B, S, N * H) of the tokens that ask, the probabilities if the plan wants them, and the keys and
            values that were attended to.
        """
        query_BNSH = self._heads(self.query(plan.asking(x)))
        if memory_BMD is None:
            new = Held(self._heads(self.key(x)), self._heads(self.value(x)))
            held = new if held is None else held.put(new, plan.past)
        elif held is None:
            held = Held(self._heads(self.key(memory_BMD)), self._heads(self.value(memory_BMD)))
        scale = self.head_size**-0.5
        relative = None
        if self.distance_embedding is not None:
            relative = self.relative_scores(query_BNSH, held.key_BNMH, plan.past) * scale
        context_BNSH, weights = attend(
            plan,
            query_BNSH,
            held.key_BNMH,
            held.value_BNMH,
            scale=scale,
            dropout=self.dropout_probability,
            extra_bias=relative,
            head_mask_N=head_mask_N,
            dropout_key=key,
        )
        context_BSNH = context_BNSH.transpose(0, 2, 1, 3)
        return context_BSNH.reshape(*context_BSNH.shape[:-2], -1), weights, held

    def _heads(self, x: Array) -> Array:
        """(B, S, N * H) to (B, N, S, H)."""
        return x.reshape(*x.shape[:-1], -1, self.head_size).transpose(0, 2, 1, 3)

    def relative_scores(self, query_BNSH: Array, key_BNMH: Array, past: Any = None) -> Array:
        """(B, N, S, M): scores of relative positions (Shaw et al. 2018; with the key's share Huang et al. 2020).

        Distances are those of plain indices, so padding inside a row counts; the first query is token ``past``.
        """
        assert self.distance_embedding is not None
        distances_SM = np.arange(query_BNSH.shape[2])[:, None] - np.arange(key_BNMH.shape[2])[None, :]
        if past is not None:
            # Places of a cache that are empty yet may lie farther away than any token.
            distances_SM = jnp.clip(distances_SM + past, -self.max_distance, self.max_distance)
        distances_SMH = self.distance_embedding(distances_SM + self.max_distance).astype(query_BNSH.dtype)
        sums = accumulator(query_BNSH.dtype)
        scores_BNSM = jnp.einsum("bnsh,smh->bnsm", query_BNSH, distances_SMH, preferred_element_type=sums)
        if self.relative_to_key:
            scores_BNSM += jnp.einsum("bnmh,smh->bnsm", key_BNMH, distances_SMH, preferred_element_type=sums)
        return scores_BNSM

    def keep_heads(self, kept: list[int]) -> None:
        """Keep only some of the current heads, given by their current index."""
        rows = head_rows(kept, self.head_size)
        self.query = select_rows(self.query, rows)
        self.key = select_rows(self.key, rows)
        self.value = select_rows(self.value, rows)


class AttentionOutput(nnx.Module):
    """The projection after attention: dense, dropout, residual, and in post-LN models the norm."""

    def __init__(self, config: XLMRobertaConfig, num_heads: int, *, norm: bool) -> None:
        # ---- Layers
        self.dense = Linear(num_heads * config.head_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None
        # ---- Config
        self.dropout_probability = config.hidden_dropout_prob

    def __call__(self, context: Array, residual: Array, key: Array | None = None) -> Array:
        """(..., N * H) and the residual (..., D) to (..., D), as wide as that."""
        x = dropout(self.dense.wide(context), self.dropout_probability, key) + residual
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Attention(nnx.Module):
    """A whole attention block: in XL the norm comes first, in base and large last.

    Args:
        config: sizes and probabilities.
        heads: the heads of this block by their original numbers (fewer than the config's where some were pruned).
        pre_norm: XL's order.
        relative: whether relative positions apply (never in cross-attention).
    """

    def __init__(self, config: XLMRobertaConfig, heads: list[int], *, pre_norm: bool, relative: bool) -> None:
        # ---- Layers
        self.self_attn_layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        self.self = SelfAttention(config, len(heads), relative=relative)
        self.output = AttentionOutput(config, len(heads), norm=not pre_norm)
        # ---- Config
        self.heads = tuple(heads)

    def __call__(
        self,
        x: Array,
        plan: AttentionPlan,
        head_mask_N: Array | None = None,
        memory_BMD: Array | None = None,
        held: Held | None = None,
        key: Array | None = None,
    ) -> tuple[Array, Array | None, Held]:
        """(B, S, D) to (B, S, D) of the tokens that ask, the probabilities if the plan wants them, and what a cache
        holds of it.
        """
        weights_key, output_key = (None, None) if key is None else jax.random.split(key)
        if head_mask_N is not None and len(self.heads) < len(head_mask_N):
            head_mask_N = head_mask_N[np.array(self.heads)]
        normed = narrowed(x if self.self_attn_layer_norm is None else self.self_attn_layer_norm(x), plan.dtype)
        context, weights, held = self.self(normed, plan, head_mask_N, memory_BMD, held, weights_key)
        return self.output(context, plan.asking(x), output_key), weights, held

    def prune_heads(self, heads: set[int]) -> None:
        """Remove heads, given by their original numbers."""
        kept = [index for index, head in enumerate(self.heads) if head not in heads]
        self.self.keep_heads(kept)
        self.output.dense = select_columns(self.output.dense, head_rows(kept, self.self.head_size))
        self.heads = tuple(self.heads[index] for index in kept)


def head_rows(heads: list[int], head_size: int) -> np.ndarray:
    """The outputs of a projection that belong to some heads."""
    return np.concatenate([np.arange(head * head_size, (head + 1) * head_size) for head in heads])
