"""Transformer layers: post-LN (base, large) and pre-LN (XL, XXL) from one class, with the published parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xlmr_core.calls import Plan
from xlmr_core.config import XLMRobertaConfig
from xlmr_torch.activations import activation
from xlmr_torch.attention import Attention
from xlmr_torch.linear import linear

__all__ = ["Intermediate", "Layer", "FeedForwardOutput", "Pooler"]


class Intermediate(nn.Module):
    """The first half of the feed-forward block: dense and activation."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., F)."""
        return self.intermediate_act_fn(self.dense(x))


class FeedForwardOutput(nn.Module):
    """The second half of the feed-forward block: dense, dropout, residual, and in post-LN models the norm."""

    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, *, norm: bool) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(..., F) and the residual (..., D) to (..., D)."""
        x = self.dropout(self.dense(x)) + residual
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Layer(nn.Module):
    """Attention and feed-forward.

    Args:
        config: sizes and probabilities.
        number: index of the layer, which says how many heads pruning has left it.
        pre_norm: XL's order.
    """

    crossattention: Attention | None
    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, number: int, *, pre_norm: bool) -> None:
        super().__init__()
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
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        # ---- Config
        self.chunk_size = config.chunk_size_feed_forward

    def forward(self, x: Tensor, plan: Plan, number: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(..., D) to (..., D), and the probabilities of self- and cross-attention if the plan wants them."""
        head_mask_N = plan.head_mask(number)
        x, weights = self.attention(x, plan.attention, head_mask_N)
        cross_weights = None
        if plan.memory_attention is not None:
            assert self.crossattention is not None
            x, cross_weights = self.crossattention(x, plan.memory_attention, head_mask_N, plan.memory_BMD)
        if self.chunk_size:
            x = torch.cat([self.feed_forward(chunk) for chunk in x.split(self.chunk_size, dim=-2)], dim=-2)
        else:
            x = self.feed_forward(x)
        return x, weights, cross_weights

    def feed_forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        normed = x if self.LayerNorm is None else self.LayerNorm(x)
        return self.output(self.intermediate(normed), x)


class Pooler(nn.Module):
    """The first token's state through dense and tanh."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size)

    def forward(self, first_BD: Tensor) -> Tensor:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, D)."""
        first_BD = first_BD[:, 0] if first_BD.dim() == 3 else first_BD
        return torch.tanh(self.dense(first_BD))
