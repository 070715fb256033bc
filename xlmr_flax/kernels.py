"""Attention kernels: functions of one signature, chosen by ``attn_implementation``.

==================  ==================================================================================================
kernel              when it is legal
==================  ==================================================================================================
``eager``           on padded tokens; the only one that returns probabilities
``sdpa``            always; packs where packing is legal, and returns no probabilities
==================  ==================================================================================================

Both are one formula, of which XLA fuses what it can. ``jax.nn.dot_product_attention`` is the same formula on a CPU, and
in bfloat16 a slower one: it accumulates the second product in bfloat16.

Packed rows need no kernel of their own: texts that share a row are kept apart by the bias.

Shapes: queries are (B, N, S, H), keys and values (B, N, M, H), with M equal to S unless they come from a memory or a
cache; the context has the queries' shape. Heads stand in front of the tokens: the products of (B, S, N, H) take XLA
twice the time on a CPU. Packed rows are (R, W) in place of (B, S). The bias is additive, in float32 at least:
``(B | 1, N | 1, S | 1, M)``, a masked key holds the most negative number. Not minus infinity: a fully masked row then
attends uniformly and stays finite, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xlmr_core.checks import check_choice
from xlmr_flax import linear

__all__ = ["ATTN_IMPLEMENTATIONS", "AttentionPlan", "attend", "check_attn_implementation"]

ATTN_IMPLEMENTATIONS = ("sdpa", "eager")


def check_attn_implementation(name: str) -> str:
    """Return ``name`` if there is such an implementation, else say which there are."""
    return check_choice("attn_implementation", name, ATTN_IMPLEMENTATIONS)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """How every layer of one call attends. A pytree, which goes into the compiled run.

    Attributes:
        mask: (B, M) or (B, S, M) of 0 and 1; ``None`` if all keys are attended.
        past: int32 (), how many tokens a cache held before those of the call; ``None`` without a cache.
        segments_RW: which text of its row each slot of packed rows belongs to; in place of a mask.
        bias: additive bias that says all of this; ``None`` until it is drawn, or if all keys are attended.
        causal: a query sees its predecessors only.
        return_weights: probabilities are wanted.
        dtype: what states are multiplied in; ``None``: what they have.
        asking_B: in one row of packed texts, which tokens ask; in place of ``segments_RW``.
        only_first: only the first token of each text asks; all are attended to.
    """

    mask: Any = None
    past: Any = None
    segments_RW: Any = None
    bias: Array | None = None
    causal: bool = field(default=False, metadata={"static": True})
    return_weights: bool = field(default=False, metadata={"static": True})
    dtype: Any = field(default=None, metadata={"static": True})
    asking_B: Any = None
    only_first: bool = field(default=False, metadata={"static": True})

    def of_first_tokens(self, slots_B: Any) -> AttentionPlan:
        """The same, drawn, for the first token of each text alone; packed rows are then one row of all tokens.

        Args:
            slots_B: int32, the flat slots of these tokens in packed rows; ``None`` if padded.
        """
        if slots_B is None:
            return replace(self, only_first=True, bias=None if self.bias is None else self.bias[:, :, :1])
        rows, width = self.segments_RW.shape
        texts_T = (self.segments_RW + jnp.arange(rows)[:, None] * (width + 1)).reshape(-1)
        keep = texts_T[slots_B][:, None] == texts_T
        return replace(self, only_first=True, asking_B=slots_B, bias=mask_bias(keep[None, None], self.dtype))

    def asking(self, x: Array) -> Array:
        """Of states (B, S, D) those that ask: all of them, or (B, 1, D), or of packed ones in one row (1, B, D)."""
        if not self.only_first:
            return x
        return x[:, :1] if self.asking_B is None else x[:, self.asking_B]

    def drawn(self, queries: int, keys: int) -> AttentionPlan:
        """The plan with its bias, for so many queries and keys."""
        keep = None
        if self.segments_RW is not None:
            keep = (self.segments_RW[:, :, None] == self.segments_RW[:, None, :])[:, None]
        elif self.mask is not None:
            mask = _widened(self.mask != 0, keys)
            keep = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
        if self.causal:
            seen = causal_keep(queries, keys, self.past)[None, None]
            keep = seen if keep is None else keep & seen
        return self if keep is None else replace(self, bias=mask_bias(keep, self.dtype))


def _widened(keep: Any, keys: int) -> Any:
    """A mask with a column for each place of a cache: those behind the last token are empty."""
    missing = keys - keep.shape[-1]
    return keep if missing == 0 else jnp.pad(keep, [(0, 0)] * (keep.ndim - 1) + [(0, missing)])


def attend(
    plan: AttentionPlan,
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float,
    dropout: float,
    extra_bias: Array | None = None,
    head_mask_N: Array | None = None,
    dropout_key: Array | None = None,
) -> tuple[Array, Array | None]:
    """Scaled dot-product attention (Vaswani et al. 2017).

    Args:
        plan: which mask, and what is wanted.
        query: ``(B, N, S, H)``.
        key, value: ``(B, N, M, H)``.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight, if there is a ``dropout_key``.
        extra_bias: (B, N, S, M) added to the scaled scores, for relative positions.
        head_mask_N: (N,) factor of each head's probabilities.
        dropout_key: random key; ``None`` outside training.

    Returns:
        The context ``(B, N, S, H)``, and the probabilities (B, N, S, M) if the plan wants them.
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
        dropout=dropout,
        head_mask_N=head_mask_N,
        dropout_key=dropout_key,
    )
    return context, weights if plan.return_weights else None


def eager(
    q_BNSH: Array,
    k_BNMH: Array,
    v_BNMH: Array,
    bias: Array | None,
    *,
    scale: float,
    dropout: float,
    head_mask_N: Array | None,
    dropout_key: Array | None,
) -> tuple[Array, Array]:
    """The formula as it stands in the paper, softmax in float32 at least; returns (context, probabilities)."""
    sums = linear.accumulator(q_BNSH.dtype)
    scores_BNSM = jnp.einsum("bnsh,bnmh->bnsm", q_BNSH, k_BNMH, preferred_element_type=sums) * scale
    if bias is not None:
        scores_BNSM = scores_BNSM + bias
    probs_BNSM = jax.nn.softmax(scores_BNSM, axis=-1).astype(v_BNMH.dtype)
    probs_BNSM = linear.dropout(probs_BNSM, dropout, dropout_key)
    if head_mask_N is not None:
        probs_BNSM = probs_BNSM * head_mask_N.astype(probs_BNSM.dtype)[None, :, None, None]
    context_BNSH = jnp.einsum("bnsm,bnmh->bnsh", probs_BNSM, v_BNMH, preferred_element_type=sums).astype(v_BNMH.dtype)
    return context_BNSH, probs_BNSM


def mask_bias(keep: Array, dtype: jnp.dtype | None) -> Array:
    """A boolean mask (true: attend), broadcastable to (B, N, S, M), as an additive bias for states of a dtype."""
    sums = linear.accumulator(jnp.float32 if dtype is None else dtype)
    return jnp.where(keep, 0, jnp.finfo(sums).min).astype(sums)


def causal_keep(queries: int, keys: int, past: Any = None) -> Any:
    """(S, M) boolean: a token sees itself and its predecessors.

    Args:
        queries, keys: S and M.
        past: how many tokens came before the first query; without it, there is none, and all is known beforehand.
    """
    places = np.arange(queries)[:, None]
    return np.arange(keys)[None] <= (places if past is None else places + past)
