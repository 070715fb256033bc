"""What changes the scores of the next token; which options ask for each is in ``xlmr_core/generation/processors.py``.

Every function is called with the ids (R, L) of all rows, how many of them are there (a scalar that a graph does not
know), scores (R, V) float32, and its own arguments, which a graph does know; it returns scores (R, V). XLA takes all
of them: no size follows from a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from xlmr_core.generation.processors import OF_ENCODER, Processor
from xlmr_tf.linear import dims

__all__ = ["FUNCTIONS", "process"]

Words = tuple[tuple[int, ...], ...]


def process(
    processors: Iterable[Processor],
    ids_RL: tf.Tensor,
    length: tf.Tensor,
    scores_RV: tf.Tensor,
    encoder_ids_RM: tf.Tensor,
) -> tf.Tensor:
    """Scores after some processors, one after the other.

    Args:
        processors: their names and arguments.
        ids_RL: all tokens.
        length: how many of them are there.
        scores_RV: logits, or log-probabilities, float32.
        encoder_ids_RM: the encoder's, or those of the prompt.
    """
    for processor in processors:
        before = (encoder_ids_RM,) if processor.name in OF_ENCODER else ()
        scores_RV = FUNCTIONS[processor.name](ids_RL, length, scores_RV, *before, *processor.arguments)
    return scores_RV


# ---- Tokens


def sequence_bias(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, words: Words, biases: tuple[float, ...]
) -> tf.Tensor:
    """Add a bias to the last token of each word whose other tokens stand at the end."""
    rows, vocabulary = dims(scores_RV)
    alone_V = np.zeros(vocabulary, np.float32)
    longer = []
    for word, bias in zip(words, biases, strict=True):
        if len(word) == 1:
            alone_V[word[0]] += bias
        else:
            longer.append((word, bias))
    scores_RV = scores_RV + alone_V
    if not longer:
        return scores_RV
    found_RW = tf.stack([_ends_with(ids_RL, length, word[:-1]) for word, _ in longer], 1)
    biases_RW = tf.where(found_RW, tf.constant([bias for _, bias in longer], tf.float32), 0.0)
    row_RW = tf.broadcast_to(tf.range(rows)[:, None], (rows, len(longer)))
    token_RW = tf.broadcast_to(tf.constant([word[-1] for word, _ in longer])[None], (rows, len(longer)))
    return tf.tensor_scatter_nd_add(scores_RV, tf.stack([row_RW, token_RW], -1), biases_RW)


def encoder_repetition_penalty(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, encoder_ids_RM: tf.Tensor, penalty: float, padding: int
) -> tf.Tensor:
    """Make the encoder's tokens more likely (penalty above 1)."""
    return _penalized(scores_RV, _marked(encoder_ids_RM, encoder_ids_RM != padding, scores_RV), 1 / penalty)


def repetition_penalty(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, penalty: float, padding: int, prompt_length: int
) -> tf.Tensor:
    """Make tokens that are there less likely (Keskar et al. 2019)."""
    is_text_RL = _is_text(ids_RL, length, padding, prompt_length)
    return _penalized(scores_RV, _marked(ids_RL, is_text_RL, scores_RV), penalty)


def no_repeat_ngram(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, size: int, padding: int, prompt_length: int
) -> tf.Tensor:
    """Forbid tokens that would end a group of ``size`` tokens that is there already."""
    is_text_RL = _is_text(ids_RL, length, padding, prompt_length)
    return _without_groups(ids_RL, is_text_RL, ids_RL, length, scores_RV, size)


def encoder_no_repeat_ngram(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, encoder_ids_RM: tf.Tensor, size: int, padding: int
) -> tf.Tensor:
    """Forbid tokens that would end a group of ``size`` tokens that is in the encoder's text."""
    return _without_groups(encoder_ids_RM, encoder_ids_RM != padding, ids_RL, length, scores_RV, size)


def bad_words(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, words: Words) -> tf.Tensor:
    """Forbid the last token of each word whose other tokens stand at the end."""
    return sequence_bias(ids_RL, length, scores_RV, words, (-np.inf,) * len(words))


# ---- Lengths and numbers


def min_length(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, least: int, ends: tuple[int, ...]
) -> tf.Tensor:
    """Forbid ends while there are fewer than ``least`` tokens."""
    return _forbidden(scores_RV, _among(scores_RV, ends) & (length < least))


def forced_bos(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, begin: int, token: int) -> tf.Tensor:
    """Allow one token only where there are ``begin`` of them."""
    return _forced(scores_RV, length == begin, (token,))


def forced_eos(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, last: int, tokens: tuple[int, ...]
) -> tf.Tensor:
    """Allow some tokens only where there are ``last`` of them."""
    return _forced(scores_RV, length == last, tokens)


def remove_invalid(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
    """Put 0 for what is no number, and the largest and smallest number for the infinities."""
    scores_RV = tf.where(tf.math.is_nan(scores_RV), 0.0, scores_RV)
    return tf.clip_by_value(scores_RV, scores_RV.dtype.min, scores_RV.dtype.max)


def exponential_decay_length(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, start: int, factor: float, ends: tuple[int, ...]
) -> tf.Tensor:
    """Make ends more likely with every token after ``start``."""
    growth = tf.pow(tf.constant(factor, tf.float32), tf.cast(length - start, tf.float32)) - 1
    which_RV = _among(scores_RV, ends) & (length > start) & tf.math.is_finite(scores_RV)
    return tf.where(which_RV, scores_RV + tf.abs(scores_RV) * growth, scores_RV)


def suppress(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, tokens: tuple[int, ...]) -> tf.Tensor:
    """Forbid some tokens."""
    return _forbidden(scores_RV, _among(scores_RV, tokens))


def begin_suppress(
    ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, begin: int, tokens: tuple[int, ...]
) -> tf.Tensor:
    """Forbid some tokens where there are ``begin`` of them."""
    return _forbidden(scores_RV, _among(scores_RV, tokens) & (length == begin))


def temperature(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, value: float) -> tf.Tensor:
    """Divide all."""
    return scores_RV / value


# ---- What may be drawn


def top_k(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, k: int) -> tf.Tensor:
    """Keep those that are as good as the k-th best (Fan et al. 2018)."""
    best_RK, _ = tf.math.top_k(scores_RV, min(k, dims(scores_RV)[1]))
    return _forbidden(scores_RV, scores_RV < best_RK[:, -1:])


def top_p(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, p: float, keep: int) -> tf.Tensor:
    """Keep the best whose probabilities add up to ``p`` (Holtzman et al. 2020)."""
    order_RV = tf.argsort(scores_RV, stable=True)  # worst first
    below_RV = tf.cumsum(tf.nn.softmax(_in_order(scores_RV, order_RV)), 1) <= 1 - p
    return _without(scores_RV, order_RV, below_RV, keep)


def min_p(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, p: float, keep: int) -> tf.Tensor:
    """Keep what is at least ``p`` times as probable as the best (Nguyen et al. 2024)."""
    probabilities_RV = tf.nn.softmax(scores_RV)
    limit_R1 = p * tf.reduce_max(probabilities_RV, 1, keepdims=True)
    return _without_rare(scores_RV, probabilities_RV < limit_R1, keep)


def typical_p(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, p: float, keep: int) -> tf.Tensor:
    """Keep those nearest to the expected information that add up to ``p`` (Meister et al. 2022)."""
    information_RV = -tf.nn.log_softmax(scores_RV)
    probabilities_RV = tf.exp(-information_RV)
    expected_R1 = tf.reduce_sum(tf.math.multiply_no_nan(information_RV, probabilities_RV), 1, keepdims=True)
    surprise_RV = tf.abs(information_RV - expected_R1)
    order_RV = tf.argsort(surprise_RV, stable=True)  # most typical first
    sums_RV = tf.cumsum(_in_order(probabilities_RV, order_RV), 1)
    last_R1 = tf.reduce_sum(tf.cast(sums_RV < p, tf.int32), 1, keepdims=True)
    ordered_RV = _in_order(surprise_RV, order_RV)
    limit_R1 = tf.gather(ordered_RV, tf.minimum(last_R1, dims(scores_RV)[1] - 1), batch_dims=1)
    beyond_RV = tf.reverse(ordered_RV > limit_R1, [1])
    return _without(scores_RV, tf.reverse(order_RV, [1]), beyond_RV, keep)


def epsilon_cutoff(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, epsilon: float, keep: int) -> tf.Tensor:
    """Keep what is at least so probable (Hewitt et al. 2022)."""
    return _without_rare(scores_RV, tf.nn.softmax(scores_RV) < epsilon, keep)


def eta_cutoff(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, epsilon: float, keep: int) -> tf.Tensor:
    """Keep what is probable enough for the entropy that there is (Hewitt et al. 2022)."""
    logarithms_RV = tf.nn.log_softmax(scores_RV)
    probabilities_RV = tf.exp(logarithms_RV)
    entropy_R1 = -tf.reduce_sum(tf.math.multiply_no_nan(logarithms_RV, probabilities_RV), 1, keepdims=True)
    eta_R1 = tf.minimum(epsilon, epsilon**0.5 * tf.exp(-entropy_R1))
    return _without_rare(scores_RV, probabilities_RV < eta_R1, keep)


def renormalize(ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
    """Log-softmax."""
    return tf.nn.log_softmax(scores_RV)


FUNCTIONS: dict[str, Callable[..., tf.Tensor]] = {
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


# ---- What several of them do


def _is_text(ids_RL: tf.Tensor, length: tf.Tensor, padding: int, prompt_length: int) -> tf.Tensor:
    """(R, L): whether there is a token, which in the prompt padding is not."""
    columns_L = tf.range(dims(ids_RL)[1])
    return (columns_L < length) & ((ids_RL != padding) | (columns_L >= prompt_length))


def _penalized(scores_RV: tf.Tensor, which_RV: tf.Tensor, penalty: float) -> tf.Tensor:
    """Divide positive scores, multiply negative ones."""
    return tf.where(which_RV, tf.where(scores_RV < 0, scores_RV * penalty, scores_RV / penalty), scores_RV)


def _without_groups(
    text_RM: tf.Tensor, is_text_RM: tf.Tensor, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor, size: int
) -> tf.Tensor:
    """Minus infinity for the last tokens of the groups of a text whose other tokens stand at the end of the ids."""
    starts = dims(text_RM)[1] - size + 1
    if starts < 1:
        return scores_RV
    windows = [(text_RM[:, at : at + starts], is_text_RM[:, at : at + starts]) for at in range(size)]
    last_RI, found_RI = windows.pop()
    found_RI = found_RI & (length >= size - 1)
    for (token_RI, there_RI), token_R in zip(windows, _last_tokens(ids_RL, length, size - 1), strict=True):
        found_RI = found_RI & there_RI & (token_RI == token_R[:, None])
    return _forbidden(scores_RV, _marked(last_RI, found_RI, scores_RV))


def _last_tokens(ids_RL: tf.Tensor, length: tf.Tensor, count: int) -> list[tf.Tensor]:
    """The last ``count`` tokens that are there, each (R,); anything if there are fewer."""
    return [tf.gather(ids_RL, tf.maximum(length - count + number, 0), axis=1) for number in range(count)]


def _marked(tokens_RI: tf.Tensor, chosen_RI: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
    """(R, V): which tokens are among the chosen ones of each row."""
    rows, count = dims(tokens_RI)
    row_RI = tf.broadcast_to(tf.range(rows)[:, None], (rows, count))
    where_RI2 = tf.stack([row_RI, tf.cast(tokens_RI, tf.int32)], -1)
    return tf.scatter_nd(where_RI2, tf.cast(chosen_RI, tf.int32), dims(scores_RV)) > 0


def _ends_with(ids_RL: tf.Tensor, length: tf.Tensor, tokens: Sequence[int]) -> tf.Tensor:
    """(R,): whether these tokens stand at the end."""
    last = zip(_last_tokens(ids_RL, length, len(tokens)), tokens, strict=True)
    return (length >= len(tokens)) & tf.reduce_all(tf.stack([found_R == token for found_R, token in last]), 0)


def _forbidden(scores_RV: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Minus infinity for some."""
    return tf.where(which, tf.constant(-np.inf, scores_RV.dtype), scores_RV)


def _among(scores_RV: tf.Tensor, tokens: Iterable[int]) -> tf.Tensor:
    """(V,): whether each token is one of these."""
    found_V = np.zeros(dims(scores_RV)[1], bool)
    found_V[list(tokens)] = True
    return tf.constant(found_V)


def _forced(scores_RV: tf.Tensor, is_now: tf.Tensor, tokens: tuple[int, ...]) -> tf.Tensor:
    """Nothing but these tokens, if it is the time for them."""
    only_RV = tf.where(_among(scores_RV, tokens), 0.0, -np.inf) + tf.zeros_like(scores_RV)
    return tf.where(is_now, only_RV, scores_RV)


def _without_rare(scores_RV: tf.Tensor, rare_RV: tf.Tensor, keep: int) -> tf.Tensor:
    """Minus infinity for what is rare, but for the best ``keep``; of equal ones the greater id is better."""
    _, best_RK = tf.math.top_k(tf.reverse(scores_RV, [1]), keep)
    best_RK = dims(scores_RV)[1] - 1 - best_RK
    return _forbidden(scores_RV, rare_RV & ~_marked(best_RK, tf.ones_like(best_RK, tf.bool), scores_RV))


def _without(scores_RV: tf.Tensor, order_RV: tf.Tensor, dropped_RV: tf.Tensor, keep: int) -> tf.Tensor:
    """Minus infinity for what is dropped.

    Args:
        scores_RV: of all tokens.
        order_RV: the tokens, the last to be dropped last.
        dropped_RV: whether, in that order.
        keep: so many at the end of it stay in any case.
    """
    dropped_RV = dropped_RV & (tf.range(dims(scores_RV)[1]) < dims(scores_RV)[1] - keep)
    back_RV = tf.argsort(order_RV, stable=True)
    return _forbidden(scores_RV, _in_order(dropped_RV, back_RV))


def _in_order(x_RV: tf.Tensor, order_RV: tf.Tensor) -> tf.Tensor:
    """(R, V): what is at these places of each row."""
    return tf.gather(x_RV, order_RV, batch_dims=1)
