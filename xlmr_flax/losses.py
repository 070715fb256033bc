"""The losses that ``xlmr_core/losses.py`` describes, in float32 whatever the logits' dtype. Pure functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.losses import Problem, sequence_problem
from xlmr_flax.inputs import is_integer
from xlmr_flax.linear import accumulator

__all__ = ["cross_entropy", "sequence_loss", "span_loss"]


@jax.jit
def cross_entropy(logits_nV: Array, labels_n: Array, divisor: Array | float | None = None) -> Array:
    """Mean negative log-likelihood of the labels that are not -100.

    Args:
        logits_nV: (..., V), any floating dtype.
        labels_n: integers (...).
        divisor: divides the sum in place of the number of labels that count.

    Returns:
        A float32 scalar; without a divisor NaN if no label counts.
    """
    logits_nV = logits_nV.astype(accumulator(logits_nV.dtype))
    counted = labels_n != IGNORE_INDEX
    chosen = jnp.where(counted, labels_n, 0)[..., None]
    likelihoods = jnp.take_along_axis(logits_nV, chosen, axis=-1)[..., 0] - jax.nn.logsumexp(logits_nV, axis=-1)
    return -jnp.where(counted, likelihoods, 0).sum() / (counted.sum() if divisor is None else divisor)


def sequence_loss(config: XLMRobertaConfig, logits_BK: Array, labels: Array) -> Array:
    """The loss of a sequence classifier, by the problem that config and labels mean.

    Args:
        logits_BK: (B, K).
        labels: as :func:`xlmr_core.head_checks.check_sequence_labels` lets them pass.
    """
    problem = sequence_problem(config, labels_are_integers=is_integer(labels))
    if problem is Problem.SINGLE_LABEL:
        return cross_entropy(logits_BK, labels.reshape(-1))
    logits_BK = logits_BK.astype(accumulator(logits_BK.dtype))
    labels = labels.astype(logits_BK.dtype)
    if problem is Problem.MULTI_LABEL:
        return _binary_cross_entropy(logits_BK, labels)
    return jnp.square(logits_BK.reshape(-1) - labels.reshape(-1)).mean()


@jax.jit
def _binary_cross_entropy(logits: Array, labels: Array) -> Array:
    return (jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))).mean()


def span_loss(start_logits_BS: Array, end_logits_BS: Array, start_B: Array, end_B: Array) -> Array:
    """Mean of the start's and the end's cross-entropy over positions; a position outside the sequence is ignored.

    Args:
        start_logits_BS, end_logits_BS: (B, S).
        start_B, end_B: integers (B,) or (B, 1).
    """
    length = start_logits_BS.shape[1]
    losses = []
    for logits_BS, positions in ((start_logits_BS, start_B), (end_logits_BS, end_B)):
        positions = jnp.asarray(positions).reshape(-1).clip(0, length)
        losses.append(cross_entropy(logits_BS, jnp.where(positions == length, IGNORE_INDEX, positions)))
    return (losses[0] + losses[1]) / 2
