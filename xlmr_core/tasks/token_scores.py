"""Labels and scores of words from those of their tokens, and of a long text from those of its windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xlmr_core.tasks.task import softmax
from xlmr_core.tasks.token_entities import Numbers, Scores

__all__ = ["BY_WORD", "first_of", "means", "probabilities", "seen_best"]


def probabilities(logits_TK: Scores) -> Scores:
    """Those of the labels of each token, in float32 as published: where the surest decides, ties are its ties.

    Raises:
        InputError: for logits that are not finite.
    """
    return softmax(logits_TK).astype(np.float32)


def seen_best(windows: Sequence[tuple[int, int]], logits: Sequence[Scores]) -> Scores:
    """The logits of each token of a text (T, K), from the window where most tokens stand around it.

    Args:
        windows: each as its first token and the one after its last.
        logits: of the tokens of each window.
    """
    if len(logits) == 1:
        return logits[0]
    count = max(end for _, end in windows)
    best_TK, depth_T = np.zeros((count, logits[0].shape[1]), np.float32), np.full(count, -1)
    for (start, end), logits_SK in zip(windows, logits, strict=True):
        place_S = np.arange(start, end)
        # The ends of the text are no ends of a window.
        left_S = place_S - start if start else np.full(end - start, count)
        right_S = end - 1 - place_S if end < count else np.full(end - start, count)
        depth_S = np.minimum(left_S, right_S)
        deeper_S = depth_S > depth_T[start:end]
        best_TK[start:end][deeper_S] = logits_SK[deeper_S]
        depth_T[start:end][deeper_S] = depth_S[deeper_S]
    return best_TK


def first_of(scores_TK: Scores, word_W: Numbers) -> tuple[Numbers, Scores]:
    """The label and score of each word: those of its first token.

    Args:
        scores_TK: of each token.
        word_W: the first token of each word; a word goes on to the next.
    """
    scores_WK = scores_TK[word_W]
    label_W = scores_WK.argmax(axis=1)
    return label_W, scores_WK[np.arange(len(word_W)), label_W]


def last_of(scores_TK: Scores, word_W: Numbers) -> tuple[Numbers, Scores]:
    """... those of its last token."""
    return first_of(scores_TK, np.append(word_W[1:], len(scores_TK)) - 1)


def average_of(scores_TK: Scores, word_W: Numbers) -> tuple[Numbers, Scores]:
    """... those of the mean over its tokens."""
    return first_of(means(scores_TK, word_W), np.arange(len(word_W)))


def surest_of(scores_TK: Scores, word_W: Numbers) -> tuple[Numbers, Scores]:
    """... those of its token with the highest score, of equal ones the first."""
    score_T = scores_TK.max(axis=1)
    count = len(score_T)
    best_T = np.repeat(np.maximum.reduceat(score_T, word_W), np.diff(np.append(word_W, count)))
    return first_of(scores_TK, np.minimum.reduceat(np.where(score_T == best_T, np.arange(count), count), word_W))


def means(values: Scores, starts: Numbers) -> Scores:
    """The mean of each part of an array that begins at one of ``starts``."""
    counts = np.diff(np.append(starts, len(values))).astype(np.float32)
    sums: Scores = np.add.reduceat(values, starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


BY_WORD: dict[str, Callable[[Scores, Numbers], tuple[Numbers, Scores]]] = {
    "first": first_of,
    "last": last_of,
    "average": average_of,
    "max": surest_of,
}
"""Which of its tokens says the label of a word."""
