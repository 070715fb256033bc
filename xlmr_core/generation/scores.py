"""The scores of what was generated, token by token: ``compute_transition_scores``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["transition_scores"]


def transition_scores(
    sequences: NDArray[Any],
    scores: Sequence[NDArray[Any]],
    beam_indices: NDArray[Any] | None = None,
    normalize_logits: bool = False,
) -> NDArray[np.float32]:
    """(R, G): the score of each new token of each sequence that came back.

    Args:
        sequences: (R, L) ids, the prompt first.
        scores: for each of G steps (rows, V): ``scores`` or ``logits`` of the output.
        beam_indices: (R, G) of the output of beam search: of which row each token's scores are, -1 after the end.
        normalize_logits: log-softmax them first.
    """
    stacked_GRV = np.stack([np.asarray(step, dtype=np.float32) for step in scores])
    if normalize_logits:
        shifted = stacked_GRV - stacked_GRV.max(axis=-1, keepdims=True)
        stacked_GRV = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    if beam_indices is None:
        beam_indices = np.tile(np.arange(stacked_GRV.shape[1])[:, None], (1, len(scores)))
    ended_RG = beam_indices < 0
    steps = int((~ended_RG).sum(axis=1).max())
    rows_RG, ended_RG = np.where(ended_RG, 0, beam_indices)[:, :steps], ended_RG[:, :steps]
    # Where beams ended before the steps did, sequences are shorter than prompt and steps together.
    tokens_RG = np.asarray(sequences)[:, -steps:]
    found = stacked_GRV[np.arange(steps)[None, :], rows_RG, np.where(ended_RG, 0, tokens_RG)]
    return np.where(ended_RG, np.float32(0), found).astype(np.float32)
