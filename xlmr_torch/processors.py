"""What changes the scores of the next token, one function for each name of :mod:`xlmr_core.generation.processors`.

Shapes: R rows, L the length of the buffer of tokens, V the vocabulary. ``ids_RL`` holds ``length`` tokens a row, scores
are float32 and are never changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xlmr_core.generation import OF_ENCODER, Processor

__all__ = ["FUNCTIONS", "process"]

Words = tuple[tuple[int, ...], ...]


def process(
    processors: tuple[Processor, ...], ids_RL: Tensor, length: int, scores_RV: Tensor, encoder_ids_RM: Tensor
) -> Tensor:
    """Scores after some processors, in their order.

    Args:
        processors: of a :class:`~xlmr_core.generation.Generation`.
        ids_RL: tokens, of which the first ``length`` are there.
        length: how many.
        scores_RV: float32.
        encoder_ids_RM: the encoder's tokens, or of a decoder alone its prompt.
    """
    for one in processors:
        of_encoder = (encoder_ids_RM,) if one.name in OF_ENCODER else ()
        scores_RV = FUNCTIONS[one.name](ids_RL, length, scores_RV, *of_encoder, *one.arguments)
    return scores_RV


# ---- Which tokens


def sequence_bias(ids_RL: Tensor, length: int, scores_RV: Tensor, words: Words, biases: tuple[float, ...]) -> Tensor:
    """Add a bias to the last token of each word whose other tokens stand at the end."""
    bias_RV = torch.zeros_like(scores_RV)
    for word, bias in zip(words, biases, strict=True):
        bias_RV[:, word[-1]] += _ends_with(ids_RL, length, word[:-1]) * bias
    return scores_RV + bias_RV


def encoder_repetition_penalty(
    ids_RL: Tensor, length: int, scores_RV: Tensor, encoder_ids_RM: Tensor, penalty: float, padding: int
) -> Tensor:
    """Make the encoder's tokens more likely (penalty above 1)."""
    return _penalized(scores_RV, encoder_ids_RM, encoder_ids_RM != padding, 1 / penalty)


def repetition_penalty(
    ids_RL: Tensor, length: int, scores_RV: Tensor, penalty: float, padding: int, prompt_length: int
) -> Tensor:
    """Make tokens that are there less likely (Keskar et al. 2019)."""
    return _penalized(scores_RV, ids_RL[:, :length], _text(ids_RL, length, padding, prompt_length), penalty)


def no_repeat_ngram(
    ids_RL: Tensor, length: int, scores_RV: Tensor, size: int, padding: int, prompt_length: int
) -> Tensor:
    """Forbid tokens that would end a group of ``size`` tokens that is there already (Paulus et al. 2018)."""
    is_text_RL = _text(ids_RL, length, padding, prompt_length)
    return _without_groups(ids_RL, length, scores_RV, ids_RL[:, :length], is_text_RL, size)


def encoder_no_repeat_ngram(
    ids_RL: Tensor, length: int, scores_RV: Tensor, encoder_ids_RM: Tensor, size: int, padding: int
) -> Tensor:
    """Forbid tokens that would end a group of ``size`` tokens that is in the encoder's text."""
    return _without_groups(ids_RL, length, scores_RV, encoder_ids_RM, encoder_ids_RM != padding, size)


def bad_words(ids_RL: Tensor, length: int, scores_RV: Tensor, words: Words) -> Tensor:
    """Forbid the last token of each word whose other tokens stand at the end."""
    banned_RV = torch.zeros_like(scores_RV, dtype=torch.bool)
    for word in words:
        banned_RV[:, word[-1]] |= _ends_with(ids_RL, length, word[:-1])
    return scores_RV.masked_fill(banned_RV, -math.inf)


def min_length(ids_RL: Tensor, length: int, scores_RV: Tensor, least: int, ends: tuple[int, ...]) -> Tensor:
    """Forbid ends while there are fewer than so many tokens."""
    return suppress(ids_RL, length, scores_RV, ends) if length < least else scores_RV


def forced_bos(ids_RL: Tensor, length: int, scores_RV: Tensor, begin: int, token: int) -> Tensor:
    """Forbid all but one where there are exactly so many tokens."""
    return _only(scores_RV, (token,)) if length == begin else scores_RV


def forced_eos(ids_RL: Tensor, length: int, scores_RV: Tensor, last: int, tokens: tuple[int, ...]) -> Tensor:
    """Forbid all but these at the last place."""
    return _only(scores_RV, tokens) if length == last else scores_RV


def remove_invalid(ids_RL: Tensor, length: int, scores_RV: Tensor) -> Tensor:
    """Numbers in the place of infinities, and 0 in that of what is no number."""
    return torch.nan_to_num(scores_RV, nan=0.0)


def exponential_decay_length(
    ids_RL: Tensor, length: int, scores_RV: Tensor, start: int, factor: float, ends: tuple[int, ...]
) -> Tensor:
    """Make ends more and more likely (factor above 1) after ``start`` tokens."""
    if length <= start:
        return scores_RV
    columns = list(ends)
    scores_RV = scores_RV.clone()
    scores_RV[:, columns] += scores_RV[:, columns].abs() * (factor ** (length - start) - 1)
    return scores_RV


def suppress(ids_RL: Tensor, length: int, scores_RV: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Forbid these."""
    known = [token for token in tokens if token < scores_RV.shape[1]]
    return scores_RV.index_fill(1, torch.tensor(known, dtype=torch.int64, device=scores_RV.device), -math.inf)


def begin_suppress(ids_RL: Tensor, length: int, scores_RV: Tensor, begin: int, tokens: tuple[int, ...]) -> Tensor:
    """Forbid these where there are exactly so many tokens."""
    return suppress(ids_RL, length, scores_RV, tokens) if length == begin else scores_RV


# ---- Of sampling


def temperature(ids_RL: Tensor, length: int, scores_RV: Tensor, value: float) -> Tensor:
    """Divide all."""
    return scores_RV / value


def top_k(ids_RL: Tensor, length: int, scores_RV: Tensor, k: int) -> Tensor:
    """Keep the best (Fan et al. 2018)."""
    return scores_RV.masked_fill(scores_RV < _best(scores_RV, k), -math.inf)


def top_p(ids_RL: Tensor, length: int, scores_RV: Tensor, p: float, keep: int) -> Tensor:
    """Keep the best whose probabilities add up to p (Holtzman et al. 2020)."""
    ascending_RV, order_RV = scores_RV.sort(-1)
    removed_RV = ascending_RV.softmax(-1).cumsum(-1) <= 1 - p
    removed_RV[:, -keep:] = False
    return scores_RV.masked_fill(removed_RV.scatter(1, order_RV, removed_RV), -math.inf)


def min_p(ids_RL: Tensor, length: int, scores_RV: Tensor, p: float, keep: int) -> Tensor:
    """Keep what is at least p times as probable as the best (Nguyen et al. 2024)."""
    probabilities_RV = scores_RV.softmax(-1)
    removed_RV = probabilities_RV < p * probabilities_RV.amax(-1, keepdim=True)
    return _without(scores_RV, removed_RV, keep)


def typical_p(ids_RL: Tensor, length: int, scores_RV: Tensor, p: float, keep: int) -> Tensor:
    """Keep those nearest to the expected information that add up to p (Meister et al. 2022)."""
    logarithms_RV = scores_RV.log_softmax(-1)
    entropy_R1 = -(logarithms_RV * logarithms_RV.exp()).nansum(-1, keepdim=True)
    distance_RV, order_RV = (-logarithms_RV - entropy_R1).abs().sort(-1)
    mass_RV = logarithms_RV.exp().gather(1, order_RV).cumsum(-1)
    last_R1 = (mass_RV < p).sum(-1, keepdim=True).clamp(max=scores_RV.shape[1] - 1)
    removed_RV = distance_RV > distance_RV.gather(1, last_R1)
    removed_RV[:, :keep] = False
    return scores_RV.masked_fill(removed_RV.scatter(1, order_RV, removed_RV), -math.inf)


def epsilon_cutoff(ids_RL: Tensor, length: int, scores_RV: Tensor, epsilon: float, keep: int) -> Tensor:
    """Keep what is at least so probable (Hewitt et al. 2022)."""
    return _without(scores_RV, scores_RV.softmax(-1) < epsilon, keep)


def eta_cutoff(ids_RL: Tensor, length: int, scores_RV: Tensor, epsilon: float, keep: int) -> Tensor:
    """Keep what is probable enough, less where the entropy is high (Hewitt et al. 2022)."""
    logarithms_RV = scores_RV.log_softmax(-1)
    probabilities_RV = logarithms_RV.exp()
    entropy_R1 = -(logarithms_RV * probabilities_RV).nansum(-1, keepdim=True)
    least_R1 = (math.sqrt(epsilon) * torch.exp(-entropy_R1)).clamp(max=epsilon)
    return _without(scores_RV, probabilities_RV < least_R1, keep)


def renormalize(ids_RL: Tensor, length: int, scores_RV: Tensor) -> Tensor:
    """Log-probabilities."""
    return scores_RV.log_softmax(-1)


# ---- What they have in common


def _ends_with(ids_RL: Tensor, length: int, tokens: tuple[int, ...]) -> Tensor:
    """(R,): whether these stand at the end of what is there."""
    if len(tokens) > length:
        return torch.zeros(len(ids_RL), dtype=torch.bool, device=ids_RL.device)
    return (ids_RL[:, length - len(tokens) : length] == ids_RL.new_tensor(tokens)).all(1)


def _text(ids_RL: Tensor, length: int, padding: int, prompt_length: int) -> Tensor:
    """(R, length): what is no padding of the prompt."""
    is_text_RL = ids_RL[:, :length] != padding
    is_text_RL[:, prompt_length:] = True
    return is_text_RL


def _penalized(scores_RV: Tensor, ids_RM: Tensor, counts_RM: Tensor, penalty: float) -> Tensor:
    # What does not count stands for a token that does.
    ids_RM = ids_RM.where(counts_RM, ids_RM.gather(1, counts_RM.int().argmax(1, keepdim=True)))
    found_RM = scores_RV.gather(1, ids_RM)
    return scores_RV.scatter(1, ids_RM, torch.where(found_RM < 0, found_RM * penalty, found_RM / penalty))


def _without_groups(
    ids_RL: Tensor, length: int, scores_RV: Tensor, text_RM: Tensor, counts_RM: Tensor, size: int
) -> Tensor:
    if length + 1 < size or text_RM.shape[1] < size:
        return scores_RV
    groups_RGn = text_RM.unfold(1, size, 1)
    begun_Rn = ids_RL[:, length - size + 1 : length]
    same_RG = (groups_RGn[:, :, :-1] == begun_Rn[:, None]).all(-1) & counts_RM.unfold(1, size, 1).all(-1)
    rows, groups = same_RG.nonzero(as_tuple=True)
    scores_RV = scores_RV.clone()
    scores_RV[rows, groups_RGn[rows, groups, -1]] = -math.inf
    return scores_RV


def _only(scores_RV: Tensor, tokens: tuple[int, ...]) -> Tensor:
    only_RV = torch.full_like(scores_RV, -math.inf)
    only_RV[:, list(tokens)] = 0
    return only_RV


def _best(scores_RV: Tensor, count: int) -> Tensor:
    """(R, 1): the worst of so many best scores."""
    return scores_RV.topk(min(count, scores_RV.shape[1])).values[:, -1:]


def _without(scores_RV: Tensor, removed_RV: Tensor, keep: int) -> Tensor:
    return scores_RV.masked_fill(removed_RV & (scores_RV < _best(scores_RV, keep)), -math.inf)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(sequence_bias, encoder_repetition_penalty, repetition_penalty, no_repeat_ngram, encoder_no_repeat_ngram),
        *(bad_words, min_length, forced_bos, forced_eos, remove_invalid, exponential_decay_length),
        *(suppress, begin_suppress, temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff),
        renormalize,
    )
}
