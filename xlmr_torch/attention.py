"""Attention blocks with the published parameter names. The arithmetic is in ``kernels.py``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_torch.cache import keys_and_values, see_cache
from xlmr_torch.embeddings import embedding
from xlmr_torch.kernels import AttentionPlan, attend
from xlmr_torch.linear import linear, select_columns, select_rows
from xlmr_torch.plan import plan_by_bias

__all__ = ["Attention", "AttentionOutput", "SelfAttention"]


class SelfAttention(nn.Module):
    """Projections to queries, keys and values, and attention between them.

    Also serves as cross-attention, where keys and values come from an encoder's states.

    Args:
        config: sizes and probabilities.
        position_embedding_type: in place of the config's.
        layer_idx: index of the layer, which says which heads pruning has left it; ``None``: all.
    """

    distance_embedding: nn.Embedding | None

    def __init__(
        self, config: XLMRobertaConfig, position_embedding_type: str | None = None, layer_idx: int | None = None
    ) -> None:
        super().__init__()
        kind = position_embedding_type or config.position_embedding_type
        width = len(heads_left(config, layer_idx)) * config.head_size
        # ---- Layers
        self.query = linear(config.hidden_size, width)
        self.key = linear(config.hidden_size, width)
        self.value = linear(config.hidden_size, width)
        if kind == "absolute":
            self.distance_embedding = None
        else:
            self.distance_embedding = embedding(2 * config.max_position_embeddings - 1, config.head_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        # ---- Config
        self.config = config
        self.attention_head_size = config.head_size
        self.max_distance = config.max_position_embeddings - 1
        self.position_embedding_type = kind
        self.layer_idx = layer_idx

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        *,
        plan: AttentionPlan | None = None,
        number: int | None = None,
    ) -> tuple[Tensor, ...]:
        """Attend.

        Args:
            hidden_states: (..., D).
            attention_mask: additive, as ``get_extended_attention_mask`` of a model makes it.
            head_mask: factors of the heads' probabilities, N of them.
            encoder_hidden_states: (B, M, D) that is attended to in place of the states themselves.
            past_key_values: a decoder's cache, to which keys and values are added; with ``encoder_hidden_states`` those
                of a memory, which are computed once.
            output_attentions: return the probabilities.
            cache_position: of the published signature; new tokens follow those in the cache.
            plan, number: in place of mask and ``output_attentions``, inside a model: how to attend, and which layer
                this is.

        Returns:
            The context (..., N * H), and the probabilities if they are wanted.
        """
        own, cache = encoder_hidden_states is None, past_key_values
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        number = self.layer_idx or 0 if number is None else number
        if plan is None:
            cache = None if cache is None else see_cache(self.config, cache)[0]
            by_bias = {"own": own, "cache": cache, "number": number}
            plan = plan_by_bias(self.config, source, attention_mask, output_attentions, **by_bias)
        query = self.heads_of(self.query, plan.asking(hidden_states))
        if own:
            key, value = self.heads_of(self.key, source), self.heads_of(self.value, source)
            if cache is not None:
                key, value = keys_and_values(cache, number, key, value, plan.places_S, plan.packing)
        else:
            key, value = self.of_memory(source, cache, number)
        scale = self.attention_head_size**-0.5
        relative = None
        if self.distance_embedding is not None:
            relative = self.relative_scores(query, key, plan.places_S) * scale
        context, weights = attend(
            plan,
            query,
            key,
            value,
            scale=scale,
            dropout=self.dropout.p if self.dropout.training else 0.0,
            extra_bias=relative,
            head_mask_N=head_mask,
        )
        return (context.flatten(-2),) if weights is None else (context.flatten(-2), weights)

    def heads_of(self, projection: nn.Module, x: Tensor) -> Tensor:
        """(..., D) to (..., N, H)."""
        return projection(x).unflatten(-1, (-1, self.attention_head_size))

    def of_memory(self, memory_BMD: Tensor, cache: Any, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a memory, (B, M, N, H): from the cache if it has them, else they are put there."""
        remembers = getattr(cache, "cross_attention_cache", None) is not None
        if remembers and cache.is_updated.get(number):
            layer = cache.cross_attention_cache.layers[number]
            return layer.keys.transpose(1, 2), layer.values.transpose(1, 2)
        key, value = self.heads_of(self.key, memory_BMD), self.heads_of(self.value, memory_BMD)
        if remembers:
            cache.cross_attention_cache.update(key.transpose(1, 2), value.transpose(1, 2), number)
            cache.is_updated[number] = True
        return key, value

    @property
    def num_attention_heads(self) -> int:
        """Heads that are left."""
        return self.all_head_size // self.attention_head_size

    @property
    def all_head_size(self) -> int:
        """Width of the heads together."""
        return int(self.query.out_features)

    def relative_scores(self, query_BSNH: Tensor, key_BMNH: Tensor, places_S: Tensor | None = None) -> Tensor:
        """(B, N, S, M): scores of relative positions (Shaw et al. 2018; with the key's share Huang et al. 2020).

        Distances are those of plain indices, so padding inside a row counts.

        Args:
            query_BSNH, key_BMNH: of the tokens.
            places_S: the queries' indices; by default they count from 0, as those of the keys do.
        """
        assert self.distance_embedding is not None
        if places_S is None:
            places_S = torch.arange(query_BSNH.shape[1], device=query_BSNH.device)
        places_M = torch.arange(key_BMNH.shape[1], device=key_BMNH.device)
        # Room of a cache that nobody sees yet may lie further off than the table reaches.
        distances_SM = (places_S[:, None] - places_M + self.max_distance).clamp(min=0)
        distances_SMH = self.distance_embedding(distances_SM)
        distances_SMH = distances_SMH.to(query_BSNH.dtype)
        scores_BNSM = torch.einsum("bsnh,smh->bnsm", query_BSNH, distances_SMH)
        if self.position_embedding_type == "relative_key_query":
            scores_BNSM = scores_BNSM + torch.einsum("bmnh,smh->bnsm", key_BMNH, distances_SMH)
        return scores_BNSM

    def keep_heads(self, kept: list[int]) -> None:
        """Keep only some of the current heads, given by their current index."""
        rows = head_rows(kept, self.attention_head_size)
        self.query = select_rows(self.query, rows)
        self.key = select_rows(self.key, rows)
        self.value = select_rows(self.value, rows)


class AttentionOutput(nn.Module):
    """The projection after attention: dense, dropout, residual, and in post-LN models the norm."""

    pre_norm: ClassVar[bool]
    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, layer_idx: int | None = None) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(len(heads_left(config, layer_idx)) * config.head_size, config.hidden_size)
        self.LayerNorm = None if self.pre_norm else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """(..., N * H) and the residual (..., D) to (..., D)."""
        x = self.dropout(self.dense(hidden_states)) + input_tensor
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Attention(nn.Module):
    """A whole attention block: in XL the norm comes first, in base and large last.

    Args:
        config, position_embedding_type, layer_idx: see :class:`SelfAttention`.
    """

    pre_norm: ClassVar[bool]
    self_class: ClassVar[type[SelfAttention]]
    output_class: ClassVar[type[AttentionOutput]]
    self_attn_layer_norm: nn.LayerNorm | None

    def __init__(
        self, config: XLMRobertaConfig, position_embedding_type: str | None = None, layer_idx: int | None = None
    ) -> None:
        super().__init__()
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if self.pre_norm else None
        # ---- Layers
        self.self_attn_layer_norm = norm
        self.self = self.self_class(config, position_embedding_type, layer_idx)
        self.output = self.output_class(config, layer_idx)
        # ---- Config
        self.all_heads = config.num_attention_heads
        self.heads = heads_left(config, layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        *,
        plan: AttentionPlan | None = None,
        number: int | None = None,
    ) -> tuple[Tensor, ...]:
        """Arguments as in :class:`SelfAttention`; returns (..., D) of the tokens that ask, and the probabilities if
        they are wanted.
        """
        if head_mask is not None:
            head_mask = head_mask.flatten()  # as published it has axes of length 1
            head_mask = head_mask if len(head_mask) == len(self.heads) else head_mask[self.heads]
        normed = hidden_states if self.self_attn_layer_norm is None else self.self_attn_layer_norm(hidden_states)
        context, *weights = self.self(
            normed,
            attention_mask,
            head_mask,
            encoder_hidden_states,
            past_key_values,
            output_attentions,
            cache_position,
            plan=plan,
            number=number,
        )
        return (self.output(context, hidden_states if plan is None else plan.asking(hidden_states)), *weights)

    @property
    def pruned_heads(self) -> set[int]:
        """The heads that are gone, by their original numbers."""
        return set(range(self.all_heads)) - set(self.heads)

    def prune_heads(self, heads: set[int]) -> None:
        """Remove heads, given by their original numbers."""
        kept = [index for index, head in enumerate(self.heads) if head not in heads]
        self.self.keep_heads(kept)
        self.output.dense = select_columns(self.output.dense, head_rows(kept, self.self.attention_head_size))
        self.heads = [self.heads[index] for index in kept]


def head_rows(heads: list[int], head_size: int) -> Tensor:
    """The rows of a projection that belong to some heads."""
    return torch.cat([torch.arange(head * head_size, (head + 1) * head_size) for head in heads])


def heads_left(config: XLMRobertaConfig, layer_idx: int | None) -> list[int]:
    """The heads of a layer that pruning has left, by their original numbers; without an index all of them."""
    pruned = [] if layer_idx is None else config.pruned_heads.get(layer_idx, [])
    return [head for head in range(config.num_attention_heads) if head not in pruned]
