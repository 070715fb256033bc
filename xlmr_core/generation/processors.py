"""What changes the scores of the next token: which options ask for it, in which order, with which arguments.

Every backend has a file ``processors.py`` with one function for each name of ``PROCESSORS``::

    (ids_RL, length, scores_RV, *arguments) -> scores_RV

``ids_RL`` is the buffer of all tokens (R rows, L the whole length), of which the first ``length`` are there (a number,
or a traced scalar). Scores are float32: logits in greedy search and sampling, log-probabilities in beam search. Those
of ``OF_ENCODER`` take the encoder's ids (R, M) after the scores; a decoder without an encoder takes its prompt.
The NumPy functions of ``xlmr_core/reference/processors.py`` are the judges.

The order is the published one: the processors, those of the user, the warpers (of sampling only), and the
renormalization.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xlmr_core.generation.config import GenerationConfig

__all__ = [
    "FORCED",
    "OF_ENCODER",
    "PROCESSORS",
    "RENORMALIZE",
    "WARPERS",
    "Processor",
    "planned_processors",
    "planned_warpers",
]


@dataclass(frozen=True)
class Processor:
    """A change of the scores.

    Attributes:
        name: of ``PROCESSORS``, ``WARPERS`` or ``RENORMALIZE``.
        arguments: after the scores; hashable.
    """

    name: str
    arguments: tuple[Any, ...] = ()


# What each does, in words, with its arguments; in the order in which they are applied.
PROCESSORS: dict[str, str] = {
    "sequence_bias": "(words, biases): adds a bias to the last token of each word whose other tokens stand at the end",
    "encoder_repetition_penalty": "(penalty, padding): multiplies positive scores of the encoder's tokens by it, "
    "divides negative ones; padding stays as it is",
    "repetition_penalty": "(penalty, padding, prompt_length): divides positive scores of tokens that are there by it, "
    "multiplies negative ones (Keskar et al. 2019); padding in the prompt does not count",
    "no_repeat_ngram": "(size, padding, prompt_length): minus infinity for a token that would end a group of so many "
    "that is there already (Paulus et al. 2018); groups with padding of the prompt in them do not count",
    "encoder_no_repeat_ngram": "(size, padding): the same for groups that are in the encoder's text, without padding",
    "bad_words": "(words,): minus infinity for the last token of each word whose other tokens stand at the end",
    "min_length": "(length, ends): minus infinity for ends while there are fewer than so many tokens, prompt included",
    "forced_bos": "(length, token): minus infinity for all but this where there are exactly so many; which gets 0",
    "forced_eos": "(last, tokens): minus infinity for all but these when there are `last` tokens; which get 0",
    "remove_invalid": "(): 0 for what is no number, the largest and smallest number for the infinities",
    "exponential_decay_length": "(start, factor, ends): after start tokens, prompt included, adds |score| * (factor ** "
    "(length - start) - 1) to the ends",
    "suppress": "(tokens,): minus infinity for these",
    "begin_suppress": "(length, tokens): minus infinity for these where there are exactly so many tokens",
}
# Of sampling only. `keep` tokens are always left.
WARPERS: dict[str, str] = {
    "temperature": "(temperature,): divides all",
    "top_k": "(k,): minus infinity for what is below the k-th best (Fan et al. 2018)",
    "top_p": "(p, keep): keeps the best whose probabilities add up to p (Holtzman et al. 2020)",
    "min_p": "(p, keep): keeps what is at least p times as probable as the best (Nguyen et al. 2024)",
    "typical_p": "(p, keep): keeps those nearest to the expected information that add up to p (Meister et al. 2022)",
    "epsilon_cutoff": "(epsilon, keep): keeps what is at least so probable (Hewitt et al. 2022)",
    "eta_cutoff": "(epsilon, keep): keeps what is at least min(epsilon, sqrt(epsilon) * exp(-entropy)) probable "
    "(Hewitt et al. 2022)",
}
RENORMALIZE = "renormalize"  # log-softmax, after everything
# These leave nothing but what they name.
FORCED = ("forced_bos", "forced_eos")
# These take the encoder's ids (R, M) after the scores.
OF_ENCODER = ("encoder_repetition_penalty", "encoder_no_repeat_ngram")


def planned_processors(
    config: GenerationConfig,
    *,
    ends: tuple[int, ...],
    padding: int,
    prompt_length: int,
    came_length: int,
    max_length: int,
    min_length: int,
) -> tuple[Processor, ...]:
    """The processors that options ask for, in their order, without those of users and of sampling.

    Args:
        config: the options, checked.
        ends: ids that end a row.
        padding: the id that fills the prompts up.
        prompt_length: tokens of the prompt in the buffer.
        came_length: tokens of the prompt as it came.
        max_length, min_length: most and least tokens in the buffer.
    """
    found: list[Processor] = []

    def add(name: str, *arguments: Any) -> None:
        assert name in PROCESSORS
        found.append(Processor(name, arguments))

    if config.sequence_bias is not None:
        add("sequence_bias", *_words_and_biases(config.sequence_bias))
    if config.encoder_repetition_penalty not in (None, 1):
        add("encoder_repetition_penalty", float(config.encoder_repetition_penalty), padding)
    if config.repetition_penalty not in (None, 1):
        add("repetition_penalty", float(config.repetition_penalty), padding, prompt_length)
    if config.no_repeat_ngram_size:
        add("no_repeat_ngram", config.no_repeat_ngram_size, padding, prompt_length)
    if config.encoder_no_repeat_ngram_size:
        add("encoder_no_repeat_ngram", config.encoder_no_repeat_ngram_size, padding)
    if config.bad_words_ids is not None:
        # An end is no bad word: where it must not come yet, min_new_tokens says so.
        words = tuple(tuple(word) for word in config.bad_words_ids if not (len(word) == 1 and word[0] in ends))
        if words:
            add("bad_words", words)
    if ends and min_length > prompt_length:
        add("min_length", min_length, ends)
    if config.forced_bos_token_id is not None and came_length == 1:
        add("forced_bos", prompt_length, config.forced_bos_token_id)
    if config.forced_eos_token_id is not None:
        add("forced_eos", max_length - 1, _tuple(config.forced_eos_token_id))
    if config.remove_invalid_values:
        add("remove_invalid")
    if config.exponential_decay_length_penalty is not None and ends:
        start, factor = config.exponential_decay_length_penalty
        add("exponential_decay_length", start + prompt_length, float(factor), ends)
    if config.suppress_tokens:
        add("suppress", tuple(config.suppress_tokens))
    if config.begin_suppress_tokens:
        # After a forced first token comes the first that is free.
        begin = prompt_length + (came_length == 1 and config.forced_bos_token_id is not None)
        add("begin_suppress", begin, tuple(config.begin_suppress_tokens))
    return tuple(found)


def planned_warpers(config: GenerationConfig, ends: tuple[int, ...]) -> tuple[Processor, ...]:
    """The warpers of sampling that options ask for, in their order."""
    if not config.do_sample:
        return ()
    # Beams have to go on even if one candidate of each ends.
    keep = 1 + max(1, len(ends)) if config.num_beams > 1 else 1
    found = []
    if config.temperature not in (None, 1):
        found.append(Processor("temperature", (float(config.temperature),)))
    if config.top_k:
        found.append(Processor("top_k", (max(config.top_k, keep),)))
    if config.top_p is not None and config.top_p < 1:
        found.append(Processor("top_p", (float(config.top_p), keep)))
    if config.min_p is not None:
        found.append(Processor("min_p", (float(config.min_p), keep)))
    if config.typical_p is not None and config.typical_p < 1:
        found.append(Processor("typical_p", (float(config.typical_p), keep)))
    if config.epsilon_cutoff:
        found.append(Processor("epsilon_cutoff", (float(config.epsilon_cutoff), keep)))
    if config.eta_cutoff:
        found.append(Processor("eta_cutoff", (float(config.eta_cutoff), keep)))
    return tuple(found)


def _tuple(ids: int | list[int] | tuple[int, ...]) -> tuple[int, ...]:
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _words_and_biases(bias: Any) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """The words and their biases, of either published form."""
    pairs = bias.items() if isinstance(bias, Mapping) else bias
    words, biases = zip(*((tuple(ids), float(number)) for ids, number in pairs), strict=True)
    return words, biases
