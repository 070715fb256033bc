"""Attention blocks with the published parameter names. The arithmetic is in ``kernels.py``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_torch.embeddings import embedding
from xlmr_torch.kernels import AttentionPlan, attend
from xlmr_torch.linear import linear, select_columns, select_rows

__all__ = ["Attention", "AttentionOutput", "SelfAttention"]


class SelfAttention(nn.Module):
    """Projections to queries, keys and values, and attention between them.

    Also serves as cross-attention, where keys and values come from an encoder's states.
    """

    distance_embedding: nn.Embedding | None

    def __init__(self, config: XLMRobertaConfig, num_heads: int, *, relative: bool) -> None:
        super().__init__()
        # ---- Layers
        self.query = linear(config.hidden_size, num_heads * config.head_size)
        self.key = linear(config.hidden_size, num_heads * config.head_size)
        self.value = linear(config.hidden_size, num_heads * config.head_size)
        if relative:
            self.distance_embedding = embedding(2 * config.max_position_embeddings - 1, config.head_size)
        else:
            self.distance_embedding = None
        # ---- Config
        self.head_size = config.head_size
        self.max_distance = config.max_position_embeddings - 1
        self.relative_to_key = config.position_embedding_type == "relative_key_query"
        self.dropout_probability = config.attention_probs_dropout_prob

    def forward(
        self, x: Tensor, plan: AttentionPlan, head_mask_N: Tensor | None = None, memory_BMD: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(..., D) to the context (..., N * H), and the probabilities if the plan wants them."""
        source = x if memory_BMD is None else memory_BMD
        query = self.query(x).unflatten(-1, (-1, self.head_size))
        key = self.key(source).unflatten(-1, (-1, self.head_size))
        value = self.value(source).unflatten(-1, (-1, self.head_size))
        scale = self.head_size**-0.5
        relative = None if self.distance_embedding is None else self.relative_scores(query, key) * scale
        context, weights = attend(
            plan,
            query,
            key,
            value,
            scale=scale,
            dropout=self.dropout_probability if self.training else 0.0,
            extra_bias=relative,
            head_mask_N=head_mask_N,
        )
        return context.flatten(-2), weights

    def relative_scores(self, query_BSNH: Tensor, key_BMNH: Tensor) -> Tensor:
        """(B, N, S, M): scores of relative positions (Shaw et al. 2018; with the key's share Huang et al. 2020).

        Distances are those of plain indices, so padding inside a row counts.
        """
        assert self.distance_embedding is not None
        positions_S = torch.arange(query_BSNH.shape[1], device=query_BSNH.device)
        positions_M = torch.arange(key_BMNH.shape[1], device=key_BMNH.device)
        distances_SMH = self.distance_embedding(positions_S[:, None] - positions_M[None, :] + self.max_distance)
        distances_SMH = distances_SMH.to(query_BSNH.dtype)
        scores_BNSM = torch.einsum("bsnh,smh->bnsm", query_BSNH, distances_SMH)
        if self.relative_to_key:
            scores_BNSM = scores_BNSM + torch.einsum("bmnh,smh->bnsm", key_BMNH, distances_SMH)
        return scores_BNSM

    def keep_heads(self, kept: list[int]) -> None:
        """Keep only some of the current heads, given by their current index."""
        rows = head_rows(kept, self.head_size)
        self.query = select_rows(self.query, rows)
        self.key = select_rows(self.key, rows)
        self.value = select_rows(self.value, rows)


class AttentionOutput(nn.Module):
    """The projection after attention: dense, dropout, residual, and in post-LN models the norm."""

    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, num_heads: int, *, norm: bool) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(num_heads * config.head_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, context: Tensor, residual: Tensor) -> Tensor:
        """(..., N * H) and the residual (..., D) to (..., D)."""
        x = self.dropout(self.dense(context)) + residual
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Attention(nn.Module):
    """A whole attention block: in XL the norm comes first, in base and large last.

    Args:
        config: sizes and probabilities.
        heads: the heads of this block by their original numbers (fewer than the config's where some were pruned).
        pre_norm: XL's order.
        relative: whether relative positions apply (never in cross-attention).
    """

    self_attn_layer_norm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, heads: list[int], *, pre_norm: bool, relative: bool) -> None:
        super().__init__()
        # ---- Layers
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        self.self = SelfAttention(config, len(heads), relative=relative)
        self.output = AttentionOutput(config, len(heads), norm=not pre_norm)
        # ---- Config
        self.heads = heads

    def forward(
        self, x: Tensor, plan: AttentionPlan, head_mask_N: Tensor | None = None, memory_BMD: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(..., D) to (..., D), and the probabilities if the plan wants them."""
        if head_mask_N is not None and len(self.heads) < len(head_mask_N):
            head_mask_N = head_mask_N[self.heads]
        normed = x if self.self_attn_layer_norm is None else self.self_attn_layer_norm(x)
        context, weights = self.self(normed, plan, head_mask_N, memory_BMD)
        return self.output(context, x), weights

    def prune_heads(self, heads: set[int]) -> None:
        """Remove heads, given by their original numbers."""
        kept = [index for index, head in enumerate(self.heads) if head not in heads]
        self.self.keep_heads(kept)
        self.output.dense = select_columns(self.output.dense, head_rows(kept, self.self.head_size))
        self.heads = [self.heads[index] for index in kept]


def head_rows(heads: list[int], head_size: int) -> Tensor:
    """The rows of a projection that belong to some heads."""
    return torch.cat([torch.arange(head * head_size, (head + 1) * head_size) for head in heads])
