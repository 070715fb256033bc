"""Attention kernels: functions of one signature, chosen by ``attn_implementation``.

==================  =========================================================================================================
kernel              when it is legal
==================  =========================================================================================================
``eager``           on padded tokens; the only one that returns probabilities
``sdpa``            always; packs where packing is legal, and returns no probabilities
==================  =========================================================================================================

Both are one formula, of which XLA fuses what it can. ``jax.nn.dot_product_attention`` is the same formula on a CPU, and in bfloat16 a slower
one: it accumulates the second product in bfloat16.

Packed rows need no kernel of their own: texts that share a row are kept apart by the bias.

Shapes: queries, keys and values are (B, S, N, H), the context has the queries' shape. The bias is additive, in float32 at least:
``(B | 1, N | 1, S | 1, S')``, a masked key holds the most negative number. Not minus infinity: a fully masked row then attends uniformly and
stays finite, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xlmr_core.errors import InputError
from xlmr_flax.linear import accumulator, dropout

__all__ = ["ATTN_IMPLEMENTATIONS", "AttentionPlan", "attend", "check_attn_implementation"]

ATTN_IMPLEMENTATIONS = ("sdpa", "eager")


def check_attn_implementation(name: str) -> str:
    """Return ``name`` if there is such an implementation, else say which there are."""
    if name not in ATTN_IMPLEMENTATIONS:
        raise InputError(
            f"attn_implementation must be one of {', '.join(map(repr, ATTN_IMPLEMENTATIONS))}, received {name!r}"
        )
    return name


@dataclass(frozen=True)
class AttentionPlan:
    """How every layer of one call attends.

    Attributes:
        bias: additive bias of the mask, or ``None`` if all keys are attended.
        return_weights: probabilities are wanted.
    """

    bias: Array | None = None
    return_weights: bool = False


def attend(
    plan: AttentionPlan,
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float,
    dropout_probability: float,
    extra_bias: Array | None = None,
    head_mask_N: Array | None = None,
    dropout_key: Array | None = None,
) -> tuple[Array, Array | None]:
    """Scaled dot-product attention (Vaswani et al. 2017).

    Args:
        plan: which mask, and what is wanted.
        query, key, value: ``(B, S, N, H)``.
        scale: factor of the scores.
        dropout_probability: of dropping an attention weight, if there is a ``dropout_key``.
        extra_bias: (B, N, S, S') added to the scaled scores, for relative positions.
        head_mask_N: (N,) factor of each head's probabilities.
        dropout_key: random key; ``None`` outside training.

    Returns:
        The context ``(B, S, N, H)``, and the probabilities (B, N, S, S') if the plan wants them.
    """
    bias = plan.bias
    if extra_bias is not None:
        bias = extra_bias if bias is None else bias + extra_bias
    context, weights = eager(
        query,
        key,
        value,
        bias,
        scale=scale,
        dropout_probability=dropout_probability,
        head_mask_N=head_mask_N,
        dropout_key=dropout_key,
    )
    return context, weights if plan.return_weights else None


def eager(
    q_BSNH: Array,
    k_BTNH: Array,
    v_BTNH: Array,
    bias: Array | None,
    *,
    scale: float,
    dropout_probability: float,
    head_mask_N: Array | None,
    dropout_key: Array | None,
) -> tuple[Array, Array]:
    """The formula as it stands in the paper, softmax in float32 at least; returns (context, probabilities)."""
    sums = accumulator(q_BSNH.dtype)
    # Heads come to the front first: the products of (B, S, N, H) as it stands take XLA twice the time on a CPU.
    q_BNSH, k_BNTH, v_BNTH = (x.transpose(0, 2, 1, 3) for x in (q_BSNH, k_BTNH, v_BTNH))
    scores_BNST = jnp.einsum("bnsh,bnth->bnst", q_BNSH, k_BNTH, preferred_element_type=sums) * scale
    if bias is not None:
        scores_BNST = scores_BNST + bias
    probs_BNST = jax.nn.softmax(scores_BNST, axis=-1).astype(v_BNTH.dtype)
    probs_BNST = dropout(probs_BNST, dropout_probability, dropout_key)
    if head_mask_N is not None:
        probs_BNST = probs_BNST * head_mask_N.astype(probs_BNST.dtype)[None, :, None, None]
    context_BNSH = jnp.einsum("bnst,bnth->bnsh", probs_BNST, v_BNTH, preferred_element_type=sums).astype(v_BNTH.dtype)
    return context_BNSH.transpose(0, 2, 1, 3), probs_BNST


def mask_bias(keep: Array, dtype: jnp.dtype) -> Array:
    """A boolean mask (true: attend), already broadcastable to (B, N, S, S'), as an additive bias for states of a dtype."""
    sums = accumulator(dtype)
    return jnp.where(keep, 0, jnp.finfo(sums).min).astype(sums)


def causal_keep(length: int) -> np.ndarray:
    """(S, S) boolean: a position sees itself and its predecessors."""
    return np.tril(np.ones((length, length), bool))
