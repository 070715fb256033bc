"""Attention kernels: functions of one signature, chosen by ``attn_implementation``.

==================  ==================================================================================================
kernel              when it is legal
==================  ==================================================================================================
``eager``           always on padded tokens; returns probabilities and takes a head mask
``sdpa``            padded tokens; the same formula: TensorFlow has no fused one on the CPU, and XLA makes its own
``packed``          packed tokens; chosen by the encoder in place of ``sdpa`` when the batch is packed
==================  ==================================================================================================

Shapes: queries, keys and values are (B, N, S, H) padded or (T, N, H) packed; the context has the queries' shape. Padded
keys and values are M, as many as queries unless they come from a cache or a memory.
The bias is additive: ``(B | 1, N | 1, S | 1, M)``, a masked key holds the most negative number of the dtype. Not minus
infinity: a fully masked row then attends uniformly and stays finite, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from xlmr_core.checks import check_choice
from xlmr_tf.packed_attention import first_tokens_attention, packed_attention
from xlmr_tf.packing import Packing

__all__ = ["ATTN_IMPLEMENTATIONS", "AttentionPlan", "attend", "check_attn_implementation"]

ATTN_IMPLEMENTATIONS = ("sdpa", "eager")


def check_attn_implementation(name: str) -> str:
    """Return ``name`` if there is such an implementation, else say which there are."""
    return check_choice("attn_implementation", name, ATTN_IMPLEMENTATIONS)


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """How every layer of one call attends.

    Attributes:
        bias: additive bias of the mask and of causality, float32 at least, or ``None`` if all keys are attended. Padded
            tokens only.
        causal: a query sees its predecessors only. Packed tokens only.
        packing: set if tokens are packed.
        return_weights: probabilities are wanted.
        only_first: only the first token of each text asks; all are attended to.
    """

    bias: tf.Tensor | None = None
    causal: bool = False
    packing: Packing | None = None
    return_weights: bool = False
    only_first: bool = False

    def of_first_tokens(self) -> AttentionPlan:
        """The same for the first token of each text alone."""
        return replace(self, only_first=True, bias=None if self.bias is None else self.bias[:, :, :1])

    def asking(self, x: tf.Tensor) -> tf.Tensor:
        """Of states those that ask: (..., D), or of the first tokens (B, 1, D) padded and (B, D) packed."""
        if not self.only_first:
            return x
        return x[:, :1] if self.packing is None else self.packing.first_tokens(x)


def attend(
    plan: AttentionPlan,
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    *,
    scale: float,
    dropout: float,
    seed: tf.Tensor | None = None,
    extra_bias: tf.Tensor | None = None,
    head_mask_N: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Scaled dot-product attention by the plan's kernel (Vaswani et al. 2017).

    Args:
        plan: which kernel, which mask.
        query, key, value: (B, N, S, H), or (T, N, H) if packed; queries of the tokens that ask.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight; 0 outside training.
        seed: integers (2,) that decide what is dropped; ``None`` without dropout.
        extra_bias: (B, N, S, M) added to the scaled scores, for relative positions.
        head_mask_N: (N,) factor of each head's probabilities.

    Returns:
        The context, of the queries' shape, and the probabilities (B, N, S, M) if the plan wants them.
    """
    if plan.packing is not None and plan.only_first:
        return first_tokens_attention(query, key, value, plan.packing, scale=scale), None
    if plan.packing is not None:
        packed = packed_attention(
            query, key, value, plan.packing, scale=scale, dropout=dropout, seed=seed, causal=plan.causal
        )
        return packed, None
    bias = plan.bias
    if extra_bias is not None:
        extra_bias = tf.cast(extra_bias, _wide(extra_bias.dtype))
        bias = extra_bias if bias is None else bias + extra_bias
    context, weights = eager(query, key, value, bias, scale=scale, dropout=dropout, seed=seed, head_mask_N=head_mask_N)
    return context, weights if plan.return_weights else None


def eager(
    q_BNSH: tf.Tensor,
    k_BNMH: tf.Tensor,
    v_BNMH: tf.Tensor,
    bias: tf.Tensor | None,
    *,
    scale: float,
    dropout: float,
    seed: tf.Tensor | None,
    head_mask_N: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The formula as it stands in the paper, softmax in float32 at least; returns (context, probabilities)."""
    scores_BNSM = tf.matmul(q_BNSH * tf.constant(scale, q_BNSH.dtype), k_BNMH, transpose_b=True)
    scores_BNSM = tf.cast(scores_BNSM, _wide(scores_BNSM.dtype))
    if bias is not None:
        scores_BNSM += tf.cast(bias, scores_BNSM.dtype)
    probs_BNSM = tf.cast(tf.nn.softmax(scores_BNSM), v_BNMH.dtype)
    if dropout:
        probs_BNSM = tf.nn.experimental.stateless_dropout(probs_BNSM, dropout, tf.cast(seed, tf.int32))
    if head_mask_N is not None:
        probs_BNSM *= tf.cast(head_mask_N, probs_BNSM.dtype)[:, None, None]
    return tf.matmul(probs_BNSM, v_BNMH), probs_BNSM


def mask_bias(keep: tf.Tensor, dtype: Any) -> tf.Tensor:
    """A boolean mask (true: attend), already broadcastable to (B, N, S, M), as an additive bias."""
    dtype = tf.as_dtype(_wide(dtype))
    return tf.where(keep, tf.zeros((), dtype), dtype.min)


def causal_keep(length: Any, columns: Any, past: Any = 0) -> tf.Tensor:
    """(S, M) boolean: a token sees itself and its predecessors.

    Args:
        length: S.
        columns: M, of which the first are the ``past`` tokens before these.
        past: how many came before: an integer or a scalar.
    """
    return tf.range(columns)[None] <= tf.range(length)[:, None] + past


def _wide(dtype: Any) -> tf.DType:
    """float32, or float64 where that is the dtype: what scores are summed in."""
    return tf.float64 if tf.as_dtype(dtype) == tf.float64 else tf.float32
