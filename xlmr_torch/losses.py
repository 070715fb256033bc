"""The losses that ``xlmr_core/losses.py`` describes, in float32 whatever the logits' dtype."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.losses import Problem, sequence_problem
from xlmr_torch.inputs import INTEGERS, has_values

__all__ = ["cross_entropy", "sequence_loss", "span_loss"]

# Logits whose float32 copy exists at a time: on a CPU 4 MB, which stay in its cache, elsewhere 64 MB for few launches.
CHUNK_VALUES = {"cpu": 1 << 20}
CHUNK_VALUES_ELSEWHERE = 1 << 24


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the negative log-likelihoods of the labels that are not -100, a chunk of rows at a time.

    The usual formula keeps the log-probabilities of all rows in float32 for the backward pass. This one keeps the
    logits, which exist anyway, and one number a row.
    """

    @staticmethod
    def forward(ctx: Any, logits_nV: Tensor, labels_n: Tensor) -> Tensor:
        rows = _rows(logits_nV)
        total = logits_nV.new_zeros((), dtype=torch.float32)
        normalisers = []
        for logits, labels in zip(logits_nV.split(rows), labels_n.split(rows), strict=True):
            logits = logits.float()
            normaliser = logits.logsumexp(-1)
            own = normaliser - logits.gather(1, labels.masked_fill(labels == IGNORE_INDEX, 0)[:, None]).squeeze(1)
            total += own[labels != IGNORE_INDEX].sum()
            normalisers.append(normaliser)
        ctx.save_for_backward(logits_nV, labels_n, torch.cat(normalisers))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits_nV, labels_n, normaliser_n = ctx.saved_tensors
        result = torch.empty_like(logits_nV)
        rows = _rows(logits_nV)
        for start in range(0, len(labels_n), rows):
            part = slice(start, start + rows)
            probabilities = (logits_nV[part].float() - normaliser_n[part, None]).exp_()
            labels = labels_n[part, None]
            labels = labels.masked_fill(labels == IGNORE_INDEX, 0)
            probabilities.scatter_add_(1, labels, probabilities.new_full((len(probabilities), 1), -1.0))
            result[part] = probabilities.mul_(gradient)
        result[labels_n == IGNORE_INDEX] = 0
        return result, None


def _rows(logits_nV: Tensor) -> int:
    """Rows of a chunk, at least one."""
    return max(1, CHUNK_VALUES.get(logits_nV.device.type, CHUNK_VALUES_ELSEWHERE) // logits_nV.shape[1])


def cross_entropy(logits_nV: Tensor, labels_n: Tensor, divisor: int | Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood of the labels that are not -100.

    Under a compiler the plain formula is left to it.

    Args:
        logits_nV: (n, V), any floating dtype.
        labels_n: integers (n,).
        divisor: divides the sum in place of the number of labels that count.

    Returns:
        A float32 scalar; without a divisor NaN if no label counts.
    """
    labels_n = labels_n.long()
    # float64 is for gradient checks, which chunking would not change.
    if not has_values(labels_n) or logits_nV.dtype is torch.float64:
        logits_nV = logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32))
        if divisor is None:
            return F.cross_entropy(logits_nV, labels_n, ignore_index=IGNORE_INDEX)
        return F.cross_entropy(logits_nV, labels_n, ignore_index=IGNORE_INDEX, reduction="sum") / divisor
    counted = labels_n != IGNORE_INDEX
    count = int(counted.sum())
    if 2 * count < len(labels_n):  # else a copy of those that count takes longer than to compute the others too
        logits_nV, labels_n = logits_nV[counted], labels_n[counted]
    # An empty sum still hangs on the logits, so that every parameter gets its (zero) gradient.
    total = _ChunkedCrossEntropy.apply(logits_nV, labels_n) if count else logits_nV[:0].float().sum()
    return total / (count or torch.nan) if divisor is None else total / divisor


def sequence_loss(config: XLMRobertaConfig, logits_BK: Tensor, labels: Tensor) -> Tensor:
    """The loss of a sequence classifier, by the problem that config and labels mean.

    Args:
        logits_BK: (B, K).
        labels: as :func:`xlmr_core.head_checks.check_sequence_labels` lets them pass.
    """
    problem = sequence_problem(config, labels_are_integers=labels.dtype in INTEGERS)
    if problem is Problem.SINGLE_LABEL:
        return cross_entropy(logits_BK, labels.flatten())
    logits_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
    labels = labels.to(logits_BK.dtype)
    if problem is Problem.MULTI_LABEL:
        return F.binary_cross_entropy_with_logits(logits_BK, labels)
    return F.mse_loss(logits_BK.flatten(), labels.flatten())


def span_loss(start_logits_BS: Tensor, end_logits_BS: Tensor, start_B: Tensor, end_B: Tensor) -> Tensor:
    """Mean of the start's and the end's cross-entropy over positions; a position outside the sequence is ignored.

    Args:
        start_logits_BS, end_logits_BS: (B, S).
        start_B, end_B: integers (B,) or (B, 1).
    """
    length = start_logits_BS.shape[1]
    losses = []
    for logits_BS, positions in ((start_logits_BS, start_B), (end_logits_BS, end_B)):
        positions = positions.flatten().long().clamp(0, length)
        losses.append(cross_entropy(logits_BS, positions.masked_fill(positions == length, IGNORE_INDEX)))
    return (losses[0] + losses[1]) / 2
