"""The losses that ``xlmr_core/losses.py`` describes, in float32 whatever the logits' dtype."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.losses import Problem, sequence_problem
from xlmr_tf.inputs import INTEGERS, is_xla
from xlmr_tf.linear import dims

__all__ = ["cross_entropy", "sequence_loss", "span_loss"]


def cross_entropy(logits_nV: tf.Tensor, labels_n: tf.Tensor, divisor: Any = None) -> tf.Tensor:
    """Mean negative log-likelihood of the labels that are not -100.

    Args:
        logits_nV: (n, V), any floating dtype.
        labels_n: integers (n,).
        divisor: divides the sum in place of the number of labels that count.

    Returns:
        A scalar, float32 or float64; without a divisor NaN if no label counts.
    """
    labels_n = tf.cast(labels_n, tf.int64)
    counted_n = labels_n != IGNORE_INDEX
    if is_xla():  # which wants every size to be known
        labels_n = tf.where(counted_n, labels_n, 0)
    else:
        logits_nV, labels_n = tf.boolean_mask(logits_nV, counted_n), tf.boolean_mask(labels_n, counted_n)
    losses_n = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels_n, logits=_wide(logits_nV))
    if is_xla():
        losses_n = tf.where(counted_n, losses_n, tf.zeros((), losses_n.dtype))
    count = tf.math.count_nonzero(counted_n) if divisor is None else divisor
    return tf.reduce_sum(losses_n) / tf.cast(count, losses_n.dtype)


def _wide(x: tf.Tensor) -> tf.Tensor:
    """In float32 at least."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def sequence_loss(config: XLMRobertaConfig, logits_BK: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The loss of a sequence classifier, by the problem that config and labels mean.

    Args:
        logits_BK: (B, K).
        labels: as :func:`xlmr_core.head_checks.check_sequence_labels` lets them pass.
    """
    problem = sequence_problem(config, labels_are_integers=labels.dtype in INTEGERS)
    if problem is Problem.SINGLE_LABEL:
        return cross_entropy(logits_BK, tf.reshape(labels, (-1,)))
    logits_BK = _wide(logits_BK)
    labels = tf.cast(labels, logits_BK.dtype)
    if problem is Problem.MULTI_LABEL:
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits_BK))
    return tf.reduce_mean(tf.square(tf.reshape(logits_BK, (-1,)) - tf.reshape(labels, (-1,))))


def span_loss(start_logits_BS: tf.Tensor, end_logits_BS: tf.Tensor, start_B: tf.Tensor, end_B: tf.Tensor) -> tf.Tensor:
    """Mean of the start's and the end's cross-entropy over positions; a position outside the sequence is ignored.

    Args:
        start_logits_BS, end_logits_BS: (B, S).
        start_B, end_B: integers (B,) or (B, 1).
    """
    length = tf.cast(dims(start_logits_BS)[1], tf.int64)
    losses = []
    for logits_BS, positions in ((start_logits_BS, start_B), (end_logits_BS, end_B)):
        positions = tf.clip_by_value(tf.cast(tf.reshape(positions, (-1,)), tf.int64), 0, length)
        ignored = tf.constant(IGNORE_INDEX, tf.int64)
        losses.append(cross_entropy(logits_BS, tf.where(positions == length, ignored, positions)))
    return (losses[0] + losses[1]) / 2
