"""The losses that ``xlmr_core/losses.py`` describes, in float32 whatever the logits' dtype.

Weights are factors of the labels' losses. The sum is divided by the number of labels that count, whatever they weigh,
as Keras does.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.losses import Problem, sequence_problem
from xlmr_tf.inputs import INTEGERS, is_xla
from xlmr_tf.linear import dims

__all__ = ["cross_entropy", "next_tokens", "sequence_loss", "sequence_losses", "span_loss", "weigh"]


def cross_entropy(logits_nV: tf.Tensor, labels_n: tf.Tensor, divisor: Any = None, weights_n: Any = None) -> tf.Tensor:
    """Mean negative log-likelihood of the labels that are not -100.

    Args:
        logits_nV: (n, V), any floating dtype.
        labels_n: integers (n,).
        divisor: divides the sum in place of the number of labels that count.
        weights_n: (n,).

    Returns:
        A scalar, float32 or float64; without a divisor NaN if no label counts.
    """
    labels_n = tf.cast(labels_n, tf.int64)
    counted_n = labels_n != IGNORE_INDEX
    if is_xla():  # which wants every size to be known
        labels_n = tf.where(counted_n, labels_n, 0)
    else:
        logits_nV, labels_n = tf.boolean_mask(logits_nV, counted_n), tf.boolean_mask(labels_n, counted_n)
        weights_n = None if weights_n is None else tf.boolean_mask(weights_n, counted_n)
    losses_n = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels_n, logits=_wide(logits_nV))
    losses_n = weigh(losses_n, weights_n)
    if is_xla():
        losses_n = tf.where(counted_n, losses_n, tf.zeros((), losses_n.dtype))
    count = tf.math.count_nonzero(counted_n) if divisor is None else divisor
    return tf.reduce_sum(losses_n) / tf.cast(count, losses_n.dtype)


def weigh(losses: tf.Tensor, weights: Any) -> tf.Tensor:
    """The losses times their weights: one for each, or one a row."""
    if weights is None:
        return losses
    weights = tf.cast(weights, losses.dtype)
    rows, rank = dims(losses)[0], losses.shape.rank
    return losses * (weights if weights.shape.rank == rank > 1 else tf.reshape(weights, (rows, *[1] * (rank - 1))))


def _wide(x: tf.Tensor) -> tf.Tensor:
    """In float32 at least."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def sequence_loss(config: XLMRobertaConfig, logits_BK: tf.Tensor, labels: tf.Tensor, weights: Any = None) -> tf.Tensor:
    """The loss of a sequence classifier, by the problem that config and labels mean.

    Args:
        logits_BK: (B, K).
        labels: as :func:`xlmr_core.head_checks.check_sequence_labels` lets them pass.
        weights: (B,) or (B, 1), or of several classes or numbers one each, (B, K).
    """
    if sequence_problem(config, labels_are_integers=labels.dtype in INTEGERS) is Problem.SINGLE_LABEL:
        weights = None if weights is None else tf.reshape(weights, (-1,))
        return cross_entropy(logits_BK, tf.reshape(labels, (-1,)), weights_n=weights)
    return tf.reduce_mean(weigh(sequence_losses(config, logits_BK, labels), weights))


def sequence_losses(config: XLMRobertaConfig, logits_BK: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The losses whose mean :func:`sequence_loss` is, no label being -100: (B,) of one class a row, else (B, K)."""
    problem = sequence_problem(config, labels_are_integers=labels.dtype in INTEGERS)
    logits_BK = _wide(logits_BK)
    if problem is Problem.SINGLE_LABEL:
        labels_B = tf.cast(tf.reshape(labels, (-1,)), tf.int64)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels_B, logits=logits_BK)
    labels = tf.cast(labels, logits_BK.dtype)
    if problem is Problem.MULTI_LABEL:
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits_BK)
    return tf.square(logits_BK - tf.reshape(labels, tf.shape(logits_BK)))


def span_loss(
    start_logits_BS: tf.Tensor, end_logits_BS: tf.Tensor, start_B: tf.Tensor, end_B: tf.Tensor, weights: Any = None
) -> tf.Tensor:
    """Mean of the start's and the end's cross-entropy over positions; a position outside the sequence is ignored.

    Args:
        start_logits_BS, end_logits_BS: (B, S).
        start_B, end_B: integers (B,) or (B, 1).
        weights: (B,) or (B, 1), or of start and end one each, (B, 2).
    """
    length = tf.cast(dims(start_logits_BS)[1], tf.int64)
    losses = []
    for number, (logits_BS, positions) in enumerate(((start_logits_BS, start_B), (end_logits_BS, end_B))):
        positions = tf.clip_by_value(tf.cast(tf.reshape(positions, (-1,)), tf.int64), 0, length)
        ignored = tf.constant(IGNORE_INDEX, tf.int64)
        both = weights is not None and weights.shape.rank == 2 and weights.shape[1] == 2
        weights_B = weights[:, number] if both else weights
        weights_B = None if weights_B is None else tf.reshape(weights_B, (-1,))
        losses.append(cross_entropy(logits_BS, tf.where(positions == length, ignored, positions), weights_n=weights_B))
    return (losses[0] + losses[1]) / 2


def next_tokens(x_BS: tf.Tensor, last: int) -> tf.Tensor:
    """What each position predicts: the label, or its weight, of its successor; at the last position there is none."""
    return tf.pad(x_BS[:, 1:], [[0, 0], [0, 1]], constant_values=last)
