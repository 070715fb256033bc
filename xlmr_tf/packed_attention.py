"""Attention within the sequences of packed tokens: no padding, no wasted scores.

A loop over the sequences, in TensorFlow's own control flow. Its gradient is a second such loop that computes the
probabilities once more: what TensorFlow would derive by itself keeps every sequence's probabilities, and adds up
gradients of the size of the whole batch for each. Forward and backward are functions of TensorFlow with dynamic sizes,
traced once for a model, so that eager calls do not pay for each small operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import tensorflow as tf

from xlmr_tf.packing import Packing

__all__ = ["first_tokens_attention", "packed_attention"]


def packed_attention(
    q_TNH: tf.Tensor,
    k_TNH: tf.Tensor,
    v_TNH: tf.Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: float,
    seed: tf.Tensor | None,
    causal: bool,
) -> tf.Tensor:
    """Scaled dot-product attention within each sequence.

    Args:
        q_TNH, k_TNH, v_TNH: packed tokens of one dtype.
        packing: where the sequences are.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight.
        seed: integers (2,) that decide what is dropped; ``None`` without dropout.
        causal: a query sees its predecessors only.

    Returns:
        The context (T, N, H).
    """
    _, heads, size = q_TNH.shape
    masked = packing.attended_T is not None
    forward, backward, _ = _functions(_Kind(q_TNH.dtype, heads, size, scale, dropout, causal, masked))
    attended_T = _attended(packing)
    seed = tf.zeros((2,), tf.int32) if seed is None else tf.cast(seed, tf.int32)
    where = (packing.cu_seqlens, attended_T, seed)

    @tf.custom_gradient
    def attention(q_TNH: tf.Tensor, k_TNH: tf.Tensor, v_TNH: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradient(gradient_TNH: tf.Tensor) -> Any:
            return backward(gradient_TNH, q_TNH, k_TNH, v_TNH, *where)

        return forward(q_TNH, k_TNH, v_TNH, *where), gradient

    return attention(q_TNH, k_TNH, v_TNH)


def first_tokens_attention(
    q_BNH: tf.Tensor, k_TNH: tf.Tensor, v_TNH: tf.Tensor, packing: Packing, *, scale: float
) -> tf.Tensor:
    """The first token of each sequence attends to its sequence, outside training.

    Args:
        q_BNH: of the first tokens.
        k_TNH, v_TNH: of all.
        packing: where the sequences are.
        scale: factor of the scores.

    Returns:
        The context (B, N, H).
    """
    _, heads, size = q_BNH.shape
    kind = _Kind(q_BNH.dtype, heads, size, scale, 0.0, False, packing.attended_T is not None)
    found: tf.Tensor = _functions(kind)[2](q_BNH, k_TNH, v_TNH, packing.cu_seqlens, _attended(packing))
    return found


def _attended(packing: Packing) -> tf.Tensor:
    return tf.ones((0,), tf.bool) if packing.attended_T is None else packing.attended_T


@dataclass(frozen=True)
class _Kind:
    """What the functions of one kind of model are traced for."""

    dtype: tf.DType
    heads: int
    size: int
    scale: float
    dropout: float
    causal: bool
    masked: bool

    @property
    def compute_dtype(self) -> tf.DType:
        """What scores are summed in."""
        return tf.float64 if self.dtype == tf.float64 else tf.float32

    def probabilities(
        self, query_NSH: tf.Tensor, key_NSH: tf.Tensor, attended_S: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The probabilities of one sequence, and what dropout multiplies them by."""
        zero, least = tf.zeros((), self.compute_dtype), self.compute_dtype.min
        scores_NSS = tf.cast(tf.matmul(query_NSH, key_NSH, transpose_b=True), self.compute_dtype)
        length = tf.shape(scores_NSS)[-1]
        if self.causal:
            keep = tf.linalg.band_part(tf.ones((length, length), tf.bool), -1, 0)
            keep = keep & attended_S[None] if self.masked else keep
            scores_NSS += tf.where(keep, zero, least)
        elif self.masked:
            scores_NSS += tf.where(attended_S, zero, least)[None, None]
        probs_NSS = tf.nn.softmax(scores_NSS)
        if not self.dropout:
            return probs_NSS, None
        drawn_NSS = tf.random.stateless_uniform(tf.shape(probs_NSS), seed)
        return probs_NSS, tf.where(drawn_NSS < self.dropout, zero, 1 / (1 - self.dropout))

    def over_sequences(
        self, body: Callable[..., tuple[tf.Tensor, ...]], outputs: int, cu_seqlens: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Run ``body(slice, number)`` for each sequence and join what comes, each (N, S, H), to (T, N, H)."""
        sequences = tf.shape(cu_seqlens)[0] - 1
        shape = (None, self.heads, self.size)
        arrays = tuple(
            tf.TensorArray(self.dtype, size=sequences, infer_shape=False, element_shape=shape) for _ in range(outputs)
        )

        def step(number: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
            part = slice(cu_seqlens[number], cu_seqlens[number + 1])
            written = zip(arrays, body(part, number), strict=True)
            return number + 1, *(array.write(number, tf.transpose(x_NSH, (1, 0, 2))) for array, x_NSH in written)

        _, *arrays = tf.while_loop(lambda number, *_: number < sequences, step, (0, *arrays))
        return tuple(tf.ensure_shape(array.concat(), shape) for array in arrays)


@cache
def _functions(kind: _Kind) -> tuple[Callable[..., Any], ...]:
    """Attention, its gradient, and attention of the first tokens alone, for one kind of model, as functions with
    dynamic numbers of tokens and sequences.
    """
    packed = tf.TensorSpec((None, kind.heads, kind.size), kind.dtype)
    where = (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.bool), tf.TensorSpec((2,), tf.int32))

    @tf.function(input_signature=(packed, packed, packed, *where), autograph=False)
    def forward(
        q_TNH: tf.Tensor,
        k_TNH: tf.Tensor,
        v_TNH: tf.Tensor,
        cu_seqlens: tf.Tensor,
        attended_T: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        q_TNH *= tf.constant(kind.scale, kind.dtype)

        def body(part: slice, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            query, key, value = (tf.transpose(x[part], (1, 0, 2)) for x in (q_TNH, k_TNH, v_TNH))
            probs, kept = kind.probabilities(query, key, attended_T[part], seed + number)
            probs = probs if kept is None else probs * kept
            return (tf.matmul(tf.cast(probs, kind.dtype), value),)

        return kind.over_sequences(body, 1, cu_seqlens)[0]

    @tf.function(input_signature=(packed, packed, packed, packed, *where), autograph=False)
    def backward(
        gradient_TNH: tf.Tensor,
        q_TNH: tf.Tensor,
        k_TNH: tf.Tensor,
        v_TNH: tf.Tensor,
        cu_seqlens: tf.Tensor,
        attended_T: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        q_TNH *= tf.constant(kind.scale, kind.dtype)

        def body(part: slice, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            query, key, value, gradient = (
                tf.transpose(x[part], (1, 0, 2)) for x in (q_TNH, k_TNH, v_TNH, gradient_TNH)
            )
            probs, kept = kind.probabilities(query, key, attended_T[part], seed + number)
            dropped = probs if kept is None else probs * kept
            of_value = tf.matmul(tf.cast(dropped, kind.dtype), gradient, transpose_a=True)
            of_probs = tf.cast(tf.matmul(gradient, value, transpose_b=True), kind.compute_dtype)
            of_probs = of_probs if kept is None else of_probs * kept
            of_scores = probs * (of_probs - tf.reduce_sum(of_probs * probs, -1, keepdims=True))
            of_scores = tf.cast(of_scores, kind.dtype)
            of_query = tf.matmul(of_scores, key) * tf.constant(kind.scale, kind.dtype)
            return of_query, tf.matmul(of_scores, query, transpose_a=True), of_value

        return kind.over_sequences(body, 3, cu_seqlens)

    @tf.function(input_signature=(packed, packed, packed, *where[:2]), autograph=False)
    def of_first_tokens(
        q_BNH: tf.Tensor, k_TNH: tf.Tensor, v_TNH: tf.Tensor, cu_seqlens: tf.Tensor, attended_T: tf.Tensor
    ) -> tf.Tensor:
        q_BNH *= tf.constant(kind.scale, kind.dtype)

        def body(part: slice, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            key, value = (tf.transpose(x[part], (1, 0, 2)) for x in (k_TNH, v_TNH))
            probs, _ = kind.probabilities(q_BNH[number][:, None], key, attended_T[part], number)
            return (tf.matmul(tf.cast(probs, kind.dtype), value),)

        return kind.over_sequences(body, 1, cu_seqlens)[0]

    return forward, backward, of_first_tokens
