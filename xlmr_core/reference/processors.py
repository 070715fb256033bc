"""What changes scores, in float64 NumPy: the judges of the functions that every backend has under the same names.

Each is called with ids (R, L), how many of them are there, scores (R, V), and its arguments, see
:mod:`xlmr_core.generation.processors`; it gives new scores and leaves those that came as they are. Written row by row
where that is what it means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xlmr_core.generation.processors import OF_ENCODER, Processor
from xlmr_core.reference.mathematics import Array, Integers, log_softmax, softmax

__all__ = ["REFERENCE_PROCESSORS", "apply"]

Words = tuple[tuple[int, ...], ...]


def apply(
    processor: Processor, ids_RL: Integers, length: int, scores_RV: Array, encoder_ids_RM: Integers | None = None
) -> Array:
    """Scores after one processor.

    Args:
        processor: its name and arguments.
        ids_RL: all tokens.
        length: how many of them are there.
        scores_RV: logits, or log-probabilities.
        encoder_ids_RM: the encoder's, for those of ``OF_ENCODER``; those of the prompt where there is no encoder.
    """
    function = REFERENCE_PROCESSORS[processor.name]
    before: tuple[Any, ...] = (encoder_ids_RM,) if processor.name in OF_ENCODER else ()
    return function(ids_RL, length, scores_RV.copy(), *before, *processor.arguments)


# ---- Tokens that are there already


def encoder_repetition_penalty(
    ids_RL: Integers, length: int, scores_RV: Array, encoder_ids_RM: Integers, penalty: float, padding: int
) -> Array:
    for row, ids in enumerate(encoder_ids_RM):
        penalize(scores_RV[row], set(ids.tolist()) - {padding}, 1 / penalty)
    return scores_RV


def repetition_penalty(
    ids_RL: Integers, length: int, scores_RV: Array, penalty: float, padding: int, prompt_length: int
) -> Array:
    for row, ids in enumerate(ids_RL.tolist()):
        penalize(scores_RV[row], set(ids[:prompt_length]) - {padding} | set(ids[prompt_length:length]), penalty)
    return scores_RV


def penalize(scores_V: Array, tokens: set[int], penalty: float) -> None:
    """Divide positive scores, multiply negative ones."""
    for token in tokens:
        scores_V[token] = scores_V[token] * penalty if scores_V[token] < 0 else scores_V[token] / penalty


def no_repeat_ngram(
    ids_RL: Integers, length: int, scores_RV: Array, size: int, padding: int, prompt_length: int
) -> Array:
    for row, ids in enumerate(ids_RL[:, :length].tolist()):
        text = [None if token == padding and at < prompt_length else token for at, token in enumerate(ids)]
        scores_RV[row, [*ends_of_groups(text, ids, size)]] = -np.inf
    return scores_RV


def encoder_no_repeat_ngram(
    ids_RL: Integers, length: int, scores_RV: Array, encoder_ids_RM: Integers, size: int, padding: int
) -> Array:
    for row, (ids, encoder_ids) in enumerate(zip(ids_RL[:, :length].tolist(), encoder_ids_RM.tolist(), strict=True)):
        text = [None if token == padding else token for token in encoder_ids]
        scores_RV[row, [*ends_of_groups(text, ids, size)]] = -np.inf
    return scores_RV


def ends_of_groups(text: list[int | None], ids: list[int], size: int) -> Iterator[int]:
    """The last tokens of the groups of a text whose other tokens stand at the end of ``ids``; ``None`` is no token."""
    if len(ids) < size - 1:
        return
    begin = ids[len(ids) - size + 1 :]
    for start in range(len(text) - size + 1):
        *before, last = text[start : start + size]
        if before == begin and last is not None:
            yield last


# ---- Words


def sequence_bias(ids_RL: Integers, length: int, scores_RV: Array, words: Words, biases: tuple[float, ...]) -> Array:
    for row, ids in enumerate(ids_RL[:, :length].tolist()):
        for word, bias in zip(words, biases, strict=True):
            before = len(word) - 1
            if before <= length and tuple(ids[length - before :]) == word[:-1]:
                scores_RV[row, word[-1]] += bias
    return scores_RV


def bad_words(ids_RL: Integers, length: int, scores_RV: Array, words: Words) -> Array:
    return sequence_bias(ids_RL, length, scores_RV, words, (-np.inf,) * len(words))


def suppress(ids_RL: Integers, length: int, scores_RV: Array, tokens: tuple[int, ...]) -> Array:
    scores_RV[:, list(tokens)] = -np.inf
    return scores_RV


def begin_suppress(ids_RL: Integers, length: int, scores_RV: Array, begin: int, tokens: tuple[int, ...]) -> Array:
    return suppress(ids_RL, length, scores_RV, tokens) if length == begin else scores_RV


# ---- Lengths


def min_length(ids_RL: Integers, length: int, scores_RV: Array, least: int, ends: tuple[int, ...]) -> Array:
    return suppress(ids_RL, length, scores_RV, ends) if length < least else scores_RV


def forced_bos(ids_RL: Integers, length: int, scores_RV: Array, begin: int, token: int) -> Array:
    return force(scores_RV, (token,)) if length == begin else scores_RV


def forced_eos(ids_RL: Integers, length: int, scores_RV: Array, last: int, tokens: tuple[int, ...]) -> Array:
    return force(scores_RV, tokens) if length == last else scores_RV


def force(scores_RV: Array, tokens: tuple[int, ...]) -> Array:
    """Nothing but these tokens."""
    scores_RV[:] = -np.inf
    scores_RV[:, list(tokens)] = 0
    return scores_RV


def exponential_decay_length(
    ids_RL: Integers, length: int, scores_RV: Array, start: int, factor: float, ends: tuple[int, ...]
) -> Array:
    if length > start:
        columns = list(ends)
        scores_RV[:, columns] += np.abs(scores_RV[:, columns]) * (factor ** (length - start) - 1)
    return scores_RV


# ---- Numbers


def remove_invalid(ids_RL: Integers, length: int, scores_RV: Array) -> Array:
    most = float(np.finfo(np.float32).max)  # scores of the backends are float32
    return np.nan_to_num(scores_RV, nan=0.0, posinf=most, neginf=-most)


def renormalize(ids_RL: Integers, length: int, scores_RV: Array) -> Array:
    return log_softmax(scores_RV)


def temperature(ids_RL: Integers, length: int, scores_RV: Array, value: float) -> Array:
    return np.asarray(scores_RV / value)


# ---- What may be drawn


def top_k(ids_RL: Integers, length: int, scores_RV: Array, k: int) -> Array:
    """Those that are as good as the k-th best stay too."""
    worst_R1 = np.sort(scores_RV, axis=1)[:, [-min(k, scores_RV.shape[1])]]
    return np.where(scores_RV < worst_R1, -np.inf, scores_RV)


def top_p(ids_RL: Integers, length: int, scores_RV: Array, p: float, keep: int) -> Array:
    """Of equal ones at the limit, those with the greater ids stay."""
    order_RV = np.argsort(scores_RV, axis=1, kind="stable")  # worst first
    below_RV = np.cumsum(softmax(np.take_along_axis(scores_RV, order_RV, axis=1)), axis=1) <= 1 - p
    return without(scores_RV, order_RV, below_RV, keep)


def min_p(ids_RL: Integers, length: int, scores_RV: Array, p: float, keep: int) -> Array:
    order_RV = np.argsort(scores_RV, axis=1, kind="stable")
    probabilities_RV = softmax(np.take_along_axis(scores_RV, order_RV, axis=1))
    return without(scores_RV, order_RV, probabilities_RV < p * probabilities_RV[:, -1:], keep)


def typical_p(ids_RL: Integers, length: int, scores_RV: Array, p: float, keep: int) -> Array:
    information_RV = -log_softmax(scores_RV)
    probabilities_RV = np.exp(-information_RV)
    # What cannot come is infinitely surprising, and is not expected.
    finite_RV = np.where(probabilities_RV > 0, information_RV, 0)
    expected_R1 = (probabilities_RV * finite_RV).sum(axis=1, keepdims=True)
    surprise_RV = np.abs(information_RV - expected_R1)
    order_RV = np.argsort(surprise_RV, axis=1, kind="stable")  # most typical first
    sums_RV = np.cumsum(np.take_along_axis(probabilities_RV, order_RV, axis=1), axis=1)
    last_R1 = np.minimum((sums_RV < p).sum(axis=1, keepdims=True), scores_RV.shape[1] - 1)
    limit_R1 = np.take_along_axis(np.take_along_axis(surprise_RV, order_RV, axis=1), last_R1, axis=1)
    beyond_RV = np.take_along_axis(surprise_RV, order_RV, axis=1) > limit_R1
    return without(scores_RV, order_RV[:, ::-1], beyond_RV[:, ::-1], keep)


def epsilon_cutoff(ids_RL: Integers, length: int, scores_RV: Array, epsilon: float, keep: int) -> Array:
    order_RV = np.argsort(scores_RV, axis=1, kind="stable")
    probabilities_RV = softmax(np.take_along_axis(scores_RV, order_RV, axis=1))
    return without(scores_RV, order_RV, probabilities_RV < epsilon, keep)


def eta_cutoff(ids_RL: Integers, length: int, scores_RV: Array, epsilon: float, keep: int) -> Array:
    order_RV = np.argsort(scores_RV, axis=1, kind="stable")
    probabilities_RV = softmax(np.take_along_axis(scores_RV, order_RV, axis=1))
    logarithms_RV = np.log(np.where(probabilities_RV > 0, probabilities_RV, 1))
    entropy_R1 = -(probabilities_RV * logarithms_RV).sum(axis=1, keepdims=True)
    eta_R1 = np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-entropy_R1))
    return without(scores_RV, order_RV, probabilities_RV < eta_R1, keep)


def without(scores_RV: Array, order_RV: Integers, dropped_RV: Any, keep: int) -> Array:
    """Minus infinity for what is dropped.

    Args:
        scores_RV: of all tokens.
        order_RV: the tokens, the last to be dropped last.
        dropped_RV: whether, in that order.
        keep: so many at the end of it stay in any case.
    """
    dropped_RV = dropped_RV.copy()
    dropped_RV[:, -keep:] = False
    gone_RV = np.zeros(scores_RV.shape, dtype=bool)
    np.put_along_axis(gone_RV, order_RV, dropped_RV, axis=1)
    return np.where(gone_RV, -np.inf, scores_RV)


REFERENCE_PROCESSORS: dict[str, Callable[..., Array]] = {
    "sequence_bias": sequence_bias,
    "encoder_repetition_penalty": encoder_repetition_penalty,
    "repetition_penalty": repetition_penalty,
    "no_repeat_ngram": no_repeat_ngram,
    "encoder_no_repeat_ngram": encoder_no_repeat_ngram,
    "bad_words": bad_words,
    "min_length": min_length,
    "forced_bos": forced_bos,
    "forced_eos": forced_eos,
    "remove_invalid": remove_invalid,
    "exponential_decay_length": exponential_decay_length,
    "suppress": suppress,
    "begin_suppress": begin_suppress,
    "temperature": temperature,
    "top_k": top_k,
    "top_p": top_p,
    "min_p": min_p,
    "typical_p": typical_p,
    "epsilon_cutoff": epsilon_cutoff,
    "eta_cutoff": eta_cutoff,
    "renormalize": renormalize,
}
