"""Attention kernels: functions of one signature, chosen by ``attn_implementation``.

==================  ==================================================================================================
kernel              when it is legal
==================  ==================================================================================================
``eager``           always on padded tokens; the only one that returns probabilities and takes a head mask
``sdpa``            padded tokens, no probabilities, no head mask
``packed``          packed tokens without a bias; chosen by the encoder in place of ``sdpa`` when the batch is packed
==================  ==================================================================================================

``flash_attention_2`` and ``flex_attention`` are published names that ask for ``packed`` wherever that is legal, and get
``sdpa`` where it is not.

Shapes: queries, keys and values are ``(..., N, H)`` with ``...`` either (B, S) padded or (T,) packed; the context has
the queries' shape. Keys and values are M, as many as queries unless they come from a memory.
The bias is additive: ``(B | 1, N | 1, S | 1, M)``, a masked key holds the most negative number of the dtype. Not minus
infinity: a fully masked row then attends uniformly and stays finite, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.checks import check_choice
from xlmr_torch.packed_attention import first_tokens_attention, packed_attention
from xlmr_torch.packing import Packing

__all__ = ["ATTN_IMPLEMENTATIONS", "PACKED", "AttentionPlan", "attend", "check_attn_implementation", "kernel_called"]

# Published names that mean the kernel of packed tokens.
PACKED = ("flash_attention_2", "flex_attention")
ATTN_IMPLEMENTATIONS = ("sdpa", "eager", *PACKED)


def check_attn_implementation(name: str) -> str:
    """Return ``name`` if there is such an implementation, else say which there are."""
    return check_choice("attn_implementation", name, ATTN_IMPLEMENTATIONS)


def kernel_called(name: str) -> str:
    """The kernel of a name: ``sdpa`` or ``eager``."""
    return "sdpa" if check_attn_implementation(name) in PACKED else name


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """How every layer of one call attends.

    Attributes:
        implementation: ``eager`` or ``sdpa``.
        bias: additive bias of the mask, or ``None`` if all keys are attended.
        causal: a query sees its predecessors only; already part of ``bias`` where there is one.
        packing: set if tokens are packed.
        return_weights: probabilities are wanted.
        places_S: where the queries stand in the whole sequence, if there is a cache; else they are the whole.
        only_first: only the first token of each text asks; all are attended to.
        rounds: attention of long packed texts may be rounded.
    """

    implementation: str = "sdpa"
    bias: Tensor | None = None
    causal: bool = False
    packing: Packing | None = None
    return_weights: bool = False
    places_S: Tensor | None = None
    only_first: bool = False
    rounds: bool = False

    def of_first_tokens(self) -> AttentionPlan:
        """The same for the first token of each text alone."""
        bias = None if self.bias is None else self.bias[:, :, :1]
        return replace(self, only_first=True, bias=bias)

    def asking(self, x: Tensor) -> Tensor:
        """Of states those that ask: (..., D), or of the first tokens (B, 1, D) padded and (B, D) packed."""
        if not self.only_first:
            return x
        return x[:, :1] if self.packing is None else self.packing.first_tokens(x)


def attend(
    plan: AttentionPlan,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    dropout: float,
    extra_bias: Tensor | None = None,
    head_mask_N: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention by the plan's kernel (Vaswani et al. 2017).

    Args:
        plan: which kernel, which mask.
        query: ``(..., N, H)``, of the tokens that ask.
        key, value: ``(..., N, H)``.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight; 0 outside training.
        extra_bias: (B, N, S, M) added to the scaled scores, for relative positions.
        head_mask_N: (N,) factor of each head's probabilities.

    Returns:
        The context, of the queries' shape, and the probabilities (B, N, S, M) if the plan wants them.
    """
    if plan.packing is not None and plan.only_first:
        return first_tokens_attention(query, key, value, plan.packing, scale=scale), None
    if plan.packing is not None:
        how = {"scale": scale, "dropout": dropout, "causal": plan.causal, "rounds": plan.rounds}
        return packed_attention(query, key, value, plan.packing, **how), None
    bias = plan.bias
    if extra_bias is not None:
        if bias is None and plan.causal:  # no kernel takes a bias and hides what comes later
            bias = causal_bias(query.shape[1], extra_bias.dtype, extra_bias.device)
        bias = extra_bias if bias is None else bias + extra_bias
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if plan.implementation == "eager" or head_mask_N is not None:
        if plan.causal and bias is None:
            bias = causal_bias(query.shape[-2], query.dtype, query.device)
        context, weights = eager(query, key, value, bias, scale=scale, dropout=dropout, head_mask_N=head_mask_N)
        return context.transpose(1, 2), weights if plan.return_weights else None
    if bias is not None and bias.dtype is not query.dtype:
        # float32 states around bfloat16 projections; the smallest float32 is no number of theirs.
        bias = bias.to(query.dtype).clamp(min=torch.finfo(query.dtype).min)
    causal = plan.causal and bias is None
    context = F.scaled_dot_product_attention(query, key, value, bias, dropout, is_causal=causal, scale=scale)
    return context.transpose(1, 2), None


def eager(
    q_BNSH: Tensor,
    k_BNMH: Tensor,
    v_BNMH: Tensor,
    bias: Tensor | None,
    *,
    scale: float,
    dropout: float,
    head_mask_N: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The formula as it stands in the paper, softmax in float32 at least; returns (context, probabilities)."""
    scores_BNSM = (q_BNSH @ k_BNMH.transpose(-1, -2)) * scale
    compute_dtype = torch.promote_types(scores_BNSM.dtype, torch.float32)
    scores_BNSM = scores_BNSM.to(compute_dtype)
    if bias is not None:
        # The half dtypes' most negative numbers do not swallow a float32 score, so a fully masked row would not be
        # uniform.
        masked = bias <= torch.finfo(bias.dtype).min / 2
        scores_BNSM = scores_BNSM + bias.to(compute_dtype).masked_fill(masked, torch.finfo(compute_dtype).min)
    probs_BNSM = scores_BNSM.softmax(-1).to(v_BNMH.dtype)
    probs_BNSM = F.dropout(probs_BNSM, dropout, training=dropout > 0)
    if head_mask_N is not None:
        probs_BNSM = probs_BNSM * head_mask_N.to(probs_BNSM.dtype).view(1, -1, 1, 1)
    return probs_BNSM @ v_BNMH, probs_BNSM


def mask_bias(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask (true: attend), already broadcastable to (B, N, S, M), as an additive bias."""
    zeros = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
    return zeros.masked_fill(~keep, torch.finfo(dtype).min)


def causal_keep(length: int, device: torch.device) -> Tensor:
    """(S, S) boolean: a position sees itself and its predecessors."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def causal_from(places_S: Tensor, columns: int) -> Tensor:
    """(S, columns) boolean: what is at some places sees the columns up to its own."""
    return torch.arange(columns, device=places_S.device) <= places_S[:, None]


def causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The causal mask as an additive bias (1, 1, S, S)."""
    return mask_bias(causal_keep(length, device)[None, None], dtype)
