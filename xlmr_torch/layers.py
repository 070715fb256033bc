"""Transformer layers: post-LN (base, large) and pre-LN (XL, XXL) from one class, with the published parameter names."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xlmr_core.calls import Plan
from xlmr_core.config import XLMRobertaConfig
from xlmr_torch.activations import activation, kernel_of
from xlmr_torch.attention import Attention
from xlmr_torch.hooks import is_hooked
from xlmr_torch.inputs import is_traced
from xlmr_torch.linear import Linear, linear
from xlmr_torch.plan import plan_by_biases

__all__ = ["Intermediate", "Layer", "FeedForwardOutput", "Pooler"]


class Intermediate(nn.Module):
    """The first half of the feed-forward block: dense and activation."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., D) to (..., F)."""
        fused = None if is_traced() or torch.is_grad_enabled() else self._fused(hidden_states)
        return self.intermediate_act_fn(self.dense(hidden_states)) if fused is None else fused

    def _fused(self, hidden_states: Tensor) -> Tensor | None:
        """Both by one kernel of oneDNN, where it has it and nobody looks between them."""
        dense = self.dense
        if type(dense) is not Linear or dense.is_for_pytorch(hidden_states):
            return None
        kernel = kernel_of(self.intermediate_act_fn)
        if kernel is None or "forward" in vars(dense) or is_hooked(dense):
            return None
        return dense.by_onednn(hidden_states, *kernel)


class FeedForwardOutput(nn.Module):
    """The second half of the feed-forward block: dense, dropout, residual, and in post-LN models the norm."""

    pre_norm: ClassVar[bool]
    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = None if self.pre_norm else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """(..., F) and the residual (..., D) to (..., D)."""
        x = self.dropout(self.dense(hidden_states)) + input_tensor
        return x if self.LayerNorm is None else self.LayerNorm(x)


class Layer(nn.Module):
    """Attention and feed-forward.

    Args:
        config: sizes and probabilities.
        layer_idx: index of the layer, which says how many heads pruning has left it; ``None``: all.
    """

    pre_norm: ClassVar[bool]
    attention_class: ClassVar[type[Attention]]
    intermediate_class: ClassVar[type[Intermediate]]
    output_class: ClassVar[type[FeedForwardOutput]]
    crossattention: Attention | None
    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, layer_idx: int | None = None) -> None:
        super().__init__()
        # ---- Layers
        self.attention = self.attention_class(config, layer_idx=layer_idx)
        if config.add_cross_attention:
            self.crossattention = self.attention_class(config, position_embedding_type="absolute")
        else:
            self.crossattention = None
        self.intermediate = self.intermediate_class(config)
        self.output = self.output_class(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if self.pre_norm else None
        # ---- Config
        self.config = config
        self.layer_idx = layer_idx
        self.chunk_size_feed_forward = config.chunk_size_feed_forward

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        *,
        plan: Plan | None = None,
        number: int | None = None,
    ) -> tuple[Tensor, ...]:
        """One layer.

        Args:
            hidden_states: (..., D).
            attention_mask: additive, as ``get_extended_attention_mask`` of a model makes it.
            head_mask: factors of the heads' probabilities, N of them.
            encoder_hidden_states, encoder_attention_mask: (B, M, D) that cross-attention attends to, and its additive
                mask.
            past_key_values: a decoder's cache, to which keys and values are added.
            cache_position: of the published signature; new tokens follow those in the cache.
            output_attentions: return the probabilities.
            plan, number: in place of all these, inside a model: the plan of the call, and which layer this is.

        Returns:
            (..., D), and if they are wanted the probabilities of self-attention and of cross-attention.
        """
        if plan is None:
            number = self.layer_idx or 0
            plan = plan_by_biases(
                self.config,
                hidden_states,
                attention_mask,
                head_mask if head_mask is None else head_mask.reshape(1, -1),
                encoder_hidden_states,
                encoder_attention_mask,
                output_attentions,
                cache=past_key_values,
                number=number,
            )
            head_mask = plan.head_mask(0)
        else:
            assert number is not None
            head_mask = plan.head_mask(number)
        shared = {"head_mask": head_mask, "past_key_values": plan.cache, "number": number}
        x, *weights = self.attention(hidden_states, plan=plan.attention, **shared)
        if plan.memory_attention is not None:
            assert self.crossattention is not None
            memory = {"encoder_hidden_states": plan.memory_BMD, "plan": plan.memory_attention}
            x, *more = self.crossattention(x, **memory, **shared)
            weights += more
        chunk = self.chunk_size_feed_forward
        if chunk:
            x = torch.cat([self.feed_forward(part) for part in x.split(chunk, dim=-2)], dim=-2)
        else:
            x = self.feed_forward(x)
        return (x, *weights)

    def feed_forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        normed = x if self.LayerNorm is None else self.LayerNorm(x)
        return self.output(self.intermediate(normed), x)

    feed_forward_chunk = feed_forward  # the published name


class Pooler(nn.Module):
    """The first token's state through dense and tanh."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, D)."""
        first_BD = hidden_states[:, 0] if hidden_states.dim() == 3 else hidden_states
        return torch.tanh(self.dense(first_BD))
