"""What changes the scores of the next token, one function a name of ``xlmr_core/generation/processors.py``.

All of them have the form ``(ids_RL, length, scores_RV, *arguments) -> scores_RV``: ``ids_RL`` is the buffer of all
tokens, of which the first ``length`` are there, a number that may be traced. Scores are float32: logits, or in beam
search log-probabilities. Those of ``OF_ENCODER`` take the encoder's ids (R, M) after the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from xlmr_core.generation import OF_ENCODER, Processor

__all__ = ["FUNCTIONS", "process"]

Words = tuple[tuple[int, ...], ...]


def process(
    processors: Iterable[Processor], ids_RL: Array, length: Any, scores_RV: Array, encoder_ids_RM: Array
) -> Array:
    """The scores after all of the processors, in their order.

    Args:
        processors: of the plan.
        ids_RL: the buffer of all tokens.
        length: how many columns of it are there.
        scores_RV: float32.
        encoder_ids_RM: the encoder's ids; of a decoder alone its prompt.
    """
    for one in processors:
        of_encoder = (encoder_ids_RM,) if one.name in OF_ENCODER else ()
        scores_RV = FUNCTIONS[one.name](ids_RL, length, scores_RV, *of_encoder, *one.arguments)
    return scores_RV


# ---- Which tokens


def sequence_bias(ids_RL: Array, length: Any, scores_RV: Array, words: Words, biases: tuple[float, ...]) -> Array:
    """A bias for the last token of each word whose other tokens stand at the end."""
    bias_RV = jnp.zeros_like(scores_RV)
    for word, bias in zip(words, biases, strict=True):
        ends_R = _ends_with(ids_RL, length, word[:-1])
        bias_RV = bias_RV.at[:, word[-1]].add(jnp.where(ends_R, jnp.float32(bias), 0))
    return scores_RV + bias_RV


def encoder_repetition_penalty(
    ids_RL: Array, length: Any, scores_RV: Array, encoder_ids_RM: Array, penalty: float, padding: int
) -> Array:
    """More for tokens of the encoder."""
    return _penalized(encoder_ids_RM, encoder_ids_RM != padding, scores_RV, 1 / penalty)


def repetition_penalty(
    ids_RL: Array, length: Any, scores_RV: Array, penalty: float, padding: int, prompt_length: int
) -> Array:
    """Less for tokens that are there, padding of the prompt left out (Keskar et al. 2019)."""
    return _penalized(ids_RL, _is_text(ids_RL, length, padding, prompt_length), scores_RV, penalty)


def no_repeat_ngram(ids_RL: Array, length: Any, scores_RV: Array, size: int, padding: int, prompt_length: int) -> Array:
    """Minus infinity for a token that would end a group of so many that is there already (Paulus et al. 2018)."""
    return _without_groups(ids_RL, length, scores_RV, ids_RL, _is_text(ids_RL, length, padding, prompt_length), size)


def encoder_no_repeat_ngram(
    ids_RL: Array, length: Any, scores_RV: Array, encoder_ids_RM: Array, size: int, padding: int
) -> Array:
    """The same for groups that are in the encoder's text."""
    return _without_groups(ids_RL, length, scores_RV, encoder_ids_RM, encoder_ids_RM != padding, size)


def bad_words(ids_RL: Array, length: Any, scores_RV: Array, words: Words) -> Array:
    """Minus infinity for the last token of each word whose other tokens stand at the end."""
    return sequence_bias(ids_RL, length, scores_RV, words, (-np.inf,) * len(words))


def min_length(ids_RL: Array, length: Any, scores_RV: Array, least: int, ends: tuple[int, ...]) -> Array:
    """No end while there are fewer tokens."""
    return _without(scores_RV, ends, length < least)


def forced_bos(ids_RL: Array, length: Any, scores_RV: Array, begin: int, token: int) -> Array:
    """This where there are exactly so many tokens."""
    return _forced(scores_RV, (token,), length == begin)


def forced_eos(ids_RL: Array, length: Any, scores_RV: Array, last: int, tokens: tuple[int, ...]) -> Array:
    """One of these behind ``last`` tokens."""
    return _forced(scores_RV, tokens, length == last)


def remove_invalid(ids_RL: Array, length: Any, scores_RV: Array) -> Array:
    """0 for what is no number, the largest and smallest number for the infinities."""
    return jnp.nan_to_num(scores_RV, nan=0.0)


def exponential_decay_length(
    ids_RL: Array, length: Any, scores_RV: Array, start: int, factor: float, ends: tuple[int, ...]
) -> Array:
    """More and more for the ends, after ``start`` tokens."""
    grown = jnp.where(length > start, factor ** jnp.maximum(length - start, 0).astype(jnp.float32) - 1, 0)
    of_ends = scores_RV[:, np.array(ends)]
    return scores_RV.at[:, np.array(ends)].set(of_ends + jnp.abs(of_ends) * grown)


def suppress(ids_RL: Array, length: Any, scores_RV: Array, tokens: tuple[int, ...]) -> Array:
    """Minus infinity for these."""
    return _without(scores_RV, tokens, True)


def begin_suppress(ids_RL: Array, length: Any, scores_RV: Array, begin: int, tokens: tuple[int, ...]) -> Array:
    """Minus infinity for these where there are exactly so many tokens."""
    return _without(scores_RV, tokens, length == begin)


# ---- Of sampling


def temperature(ids_RL: Array, length: Any, scores_RV: Array, divisor: float) -> Array:
    """All divided by it."""
    return scores_RV / divisor


def top_k(ids_RL: Array, length: Any, scores_RV: Array, k: int) -> Array:
    """The k best (Fan et al. 2018)."""
    return jnp.where(scores_RV < _best(scores_RV, k), -jnp.inf, scores_RV)


def top_p(ids_RL: Array, length: Any, scores_RV: Array, p: float, keep: int) -> Array:
    """The best whose probabilities add up to p (Holtzman et al. 2020); of equal ones those with the greater ids."""
    probs_RV, order_RV = jax.nn.softmax(scores_RV, axis=-1), _order(scores_RV)
    limit_R1 = _limit(order_RV, probs_RV, lambda below_R1: below_R1 <= 1 - p)
    below_RV, at_RV = order_RV < limit_R1, order_RV == limit_R1
    sum_R1 = jnp.where(below_RV, probs_RV, 0).sum(-1, keepdims=True)
    each_R1 = jnp.where(at_RV, probs_RV, 0).max(-1, keepdims=True)
    goes_RV = below_RV | (at_RV & (sum_R1 + jnp.cumsum(at_RV, axis=-1) * each_R1 <= 1 - p))
    return jnp.where(goes_RV & ~_last_best(scores_RV, keep), -jnp.inf, scores_RV)


def min_p(ids_RL: Array, length: Any, scores_RV: Array, p: float, keep: int) -> Array:
    """What is at least p times as probable as the best (Nguyen et al. 2024)."""
    probs_RV = jax.nn.softmax(scores_RV, axis=-1)
    return _without_improbable(scores_RV, probs_RV < p * probs_RV.max(-1, keepdims=True), keep)


def typical_p(ids_RL: Array, length: Any, scores_RV: Array, p: float, keep: int) -> Array:
    """Those nearest to the expected information whose probabilities add up to p (Meister et al. 2022)."""
    logs_RV, probs_RV, entropy_R1 = _entropy(scores_RV)
    surprise_RV = jnp.abs(-logs_RV - entropy_R1)
    order_RV = _order(surprise_RV)
    goes_RV = order_RV > _limit(order_RV, probs_RV, lambda below_R1: below_R1 < p)
    return jnp.where(goes_RV & ~_first_best(-surprise_RV, keep), -jnp.inf, scores_RV)


def epsilon_cutoff(ids_RL: Array, length: Any, scores_RV: Array, epsilon: float, keep: int) -> Array:
    """What is at least so probable (Hewitt et al. 2022)."""
    return _without_improbable(scores_RV, jax.nn.softmax(scores_RV, axis=-1) < epsilon, keep)


def eta_cutoff(ids_RL: Array, length: Any, scores_RV: Array, epsilon: float, keep: int) -> Array:
    """What is at least min(epsilon, sqrt(epsilon) * exp(-entropy)) probable (Hewitt et al. 2022)."""
    _, probs_RV, entropy_R1 = _entropy(scores_RV)
    eta_R1 = jnp.minimum(epsilon, np.float32(np.sqrt(epsilon)) * jnp.exp(-entropy_R1))
    return _without_improbable(scores_RV, probs_RV < eta_R1, keep)


def renormalize(ids_RL: Array, length: Any, scores_RV: Array) -> Array:
    """The logarithms of probabilities that add up to 1."""
    return jax.nn.log_softmax(scores_RV, axis=-1)


# ---- What they have in common


def _from(ids_RL: Array, start: Any, count: int) -> Array:
    """(R, count): the columns from ``start`` on."""
    return lax.dynamic_slice_in_dim(ids_RL, start, count, axis=1)


def _ends_with(ids_RL: Array, length: Any, tokens: tuple[int, ...]) -> Array:
    """(R,): whether rows end with these tokens."""
    if not 0 < len(tokens) <= ids_RL.shape[1]:
        return jnp.full(ids_RL.shape[0], not tokens)
    last_RN = _from(ids_RL, length - len(tokens), len(tokens))
    return (last_RN == np.array(tokens)).all(1) & (length >= len(tokens))


def _is_text(ids_RL: Array, length: Any, padding: int, prompt_length: int) -> Array:
    """(R, L): which columns hold a token that counts."""
    columns_L = jnp.arange(ids_RL.shape[1])
    return (columns_L < length) & ((ids_RL != padding) | (columns_L >= prompt_length))


def _marked(ids_RL: Array, where_RL: Array, vocab: int) -> Array:
    """(R, V): the tokens of a row that are marked."""
    rows = jnp.arange(ids_RL.shape[0])[:, None]
    found_RV = jnp.zeros((ids_RL.shape[0], vocab), bool)
    return found_RV.at[rows, jnp.where(where_RL, ids_RL, vocab)].set(True, mode="drop")


def _penalized(ids_RL: Array, is_text_RL: Array, scores_RV: Array, penalty: float) -> Array:
    there_RV = _marked(ids_RL, is_text_RL, scores_RV.shape[1])
    return jnp.where(there_RV, jnp.where(scores_RV < 0, scores_RV * penalty, scores_RV / penalty), scores_RV)


def _without_groups(
    ids_RL: Array, length: Any, scores_RV: Array, text_RM: Array, is_text_RM: Array, size: int
) -> Array:
    """Minus infinity for what stands in a text behind the last ``size - 1`` tokens of a row."""
    places = text_RM.shape[1] - size + 1
    if places < 1 or ids_RL.shape[1] < size:
        return scores_RV
    last_RN = _from(ids_RL, length - size + 1, size - 1)
    same_RP = is_text_RM[:, size - 1 :] & (length >= size - 1)
    for number in range(size - 1):
        part = slice(number, number + places)
        same_RP &= is_text_RM[:, part] & (text_RM[:, part] == last_RN[:, number : number + 1])
    return jnp.where(_marked(text_RM[:, size - 1 :], same_RP, scores_RV.shape[1]), -jnp.inf, scores_RV)


def _one_of(tokens: tuple[int, ...], vocab: int) -> np.ndarray:
    """(V,): whether a token is one of these; one beyond the vocabulary is none."""
    return np.isin(np.arange(vocab), tokens)


def _without(scores_RV: Array, tokens: tuple[int, ...], when: Any) -> Array:
    return jnp.where(when & _one_of(tokens, scores_RV.shape[1]), -jnp.inf, scores_RV)


def _forced(scores_RV: Array, tokens: tuple[int, ...], when: Any) -> Array:
    only_V = jnp.where(_one_of(tokens, scores_RV.shape[1]), jnp.float32(0), -jnp.inf)
    return jnp.where(when, only_V, scores_RV)


def _entropy(scores_RV: Array) -> tuple[Array, Array, Array]:
    """Logarithms of probabilities, probabilities, and their entropy (R, 1)."""
    logs_RV = jax.nn.log_softmax(scores_RV, axis=-1)
    probs_RV = jnp.exp(logs_RV)
    return logs_RV, probs_RV, -jnp.where(probs_RV > 0, probs_RV * logs_RV, 0).sum(-1, keepdims=True)


def _best(scores_RV: Array, k: int) -> Array:
    """(R, 1): the k-th best score of a row."""
    return lax.top_k(scores_RV, min(k, scores_RV.shape[1]))[0][:, -1:]


def _first_best(scores_RV: Array, keep: int) -> Array:
    """(R, V): which are the best, so many; of equal ones those with the smaller ids."""
    rows, vocab = scores_RV.shape
    places_RK = lax.top_k(scores_RV, min(keep, vocab))[1]
    return jnp.zeros(scores_RV.shape, bool).at[jnp.arange(rows)[:, None], places_RK].set(True)


def _last_best(scores_RV: Array, keep: int) -> Array:
    """(R, V): the same; of equal ones those with the greater ids."""
    return _first_best(scores_RV[:, ::-1], keep)[:, ::-1]


def _without_improbable(scores_RV: Array, improbable_RV: Array, keep: int) -> Array:
    return jnp.where(improbable_RV & ~_last_best(scores_RV, keep), -jnp.inf, scores_RV)


def _order(x_RV: Array) -> Array:
    """Numbers without a sign that are ordered as float32 are."""
    bits_RV = lax.bitcast_convert_type(x_RV.astype(jnp.float32), jnp.uint32)
    return jnp.where(bits_RV >> 31 == 1, ~bits_RV, bits_RV | jnp.uint32(1 << 31))


def _limit(order_RV: Array, weights_RV: Array, holds: Callable[[Array], Array]) -> Array:
    """(R, 1): the greatest number such that something holds of the sum of the weights below it, found bit by bit.

    Sorting the vocabulary says the same, and takes a CPU as long as the whole model.
    """

    def with_bit(number: Array, limit_R1: Array) -> Array:
        higher_R1 = limit_R1 | (jnp.uint32(1) << (31 - number).astype(jnp.uint32))
        below_R1 = jnp.where(order_RV < higher_R1, weights_RV, 0).sum(-1, keepdims=True)
        return jnp.where(holds(below_R1), higher_R1, limit_R1)

    return lax.fori_loop(0, 32, with_bit, jnp.zeros((order_RV.shape[0], 1), jnp.uint32))


FUNCTIONS: dict[str, Callable[..., Array]] = {
    one.__name__: one
    for one in (
        *(sequence_bias, encoder_repetition_penalty, repetition_penalty, no_repeat_ngram, encoder_no_repeat_ngram),
        *(bad_words, min_length, forced_bos, forced_eos, remove_invalid, exponential_decay_length, suppress),
        *(begin_suppress, temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, renormalize),
    )
}
