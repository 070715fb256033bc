"""The options of generation: published names and defaults, what each may be, and which are only kept.

One row an option, in the order of the published documentation; ``GenerationConfig`` is made of this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    *("CACHE_IMPLEMENTATIONS", "NOT_SERVED", "OPTIONS", "OWN_OPTIONS", "POSITION_NUMBERINGS", "SAMPLING_ONLY"),
    *("SPECIAL_TOKENS", "Option", "as_plain"),
]

# What a value has to be, in words, and whether one is that.
Kind: TypeAlias = tuple[str, Callable[[Any], bool]]


@dataclass(frozen=True)
class Option:
    """An option of generation.

    Attributes:
        default: the value where nobody says one.
        kind: what it has to be, in words, and the test of it.
    """

    default: Any
    kind: Kind


# ---- Kinds


# No length, count or id is larger; integers of a file can be of any size.
MOST = 2**31


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MOST < value < MOST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _whole(least: int) -> Kind:
    words = {0: "0 or a positive integer", 1: "a positive integer"}
    return words[least], lambda value: _is_whole(value) and value >= least


def _or_none(kind: Kind) -> Kind:
    words, test = kind
    return f"{words}, or None", lambda value: value is None or test(value)


def _number(words: str, test: Callable[[float], bool]) -> Kind:
    return words, lambda value: _is_number(value) and test(value)


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_whole(token) and token >= 0 for token in value)


def _is_bias(value: Any) -> bool:
    if isinstance(value, Mapping):
        pairs = [([*ids] if isinstance(ids, tuple) else ids, bias) for ids, bias in value.items()]
    elif isinstance(value, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        pairs = [(pair[0], pair[1]) for pair in value]
    else:
        return False
    return bool(pairs) and all(
        _is_token_ids(ids) and len(ids) > 0 and (_is_number(bias) or bias in (-math.inf, math.inf))
        for ids, bias in pairs
    )


def _is_start_and_factor(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and _is_whole(value[0]) and _is_number(value[1])


FLAG: Kind = ("True or False", lambda value: isinstance(value, bool))
PROBABILITY = _number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
# Published as well, and the same as 1: everything is kept.
NUCLEUS = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
POSITIVE = _number("a number above 0", lambda value: value > 0)
CUTOFF = _number("a number from 0 to below 1", lambda value: 0 <= value < 1)
TOKEN = _or_none(("a token's id, 0 or more", lambda value: _is_whole(value) and value >= 0))
TOKENS = _or_none(
    (
        "a token's id, 0 or more, or a list of such",
        lambda value: (_is_whole(value) and value >= 0) or (_is_token_ids(value) and len(value) > 0),
    )
)
TOKEN_LIST = _or_none(("a list of tokens' ids", _is_token_ids))
WORDS = _or_none(
    (
        "a list of words, each a list of at least one token's id",
        lambda value: (
            isinstance(value, list | tuple)
            and len(value) > 0
            and all(_is_token_ids(word) and len(word) > 0 for word in value)
        ),
    )
)
BIAS = _or_none(("a dictionary of tuples of ids to numbers, or a list of [ids, number]", _is_bias))
TEXTS = _or_none(
    (
        "a text or a list of texts, none of them empty",
        lambda value: (
            bool(value)
            and isinstance(value, str | list | tuple)
            and all(isinstance(text, str) and text for text in ([value] if isinstance(value, str) else value))
        ),
    )
)
START_AND_FACTOR = _or_none(("two numbers: after how many new tokens, and a factor", _is_start_and_factor))
ANYTHING: Kind = ("anything", lambda value: True)


def _one_of(*values: Any) -> Kind:
    return (
        " or ".join(map(repr, values)),
        lambda value: any(value is one or (isinstance(one, str) and value == one) for one in values),
    )


# How positions are counted. The first is ours and the default: tokens that are not padding count from pad_token_id + 1,
# as in every forward pass and in the training of the checkpoints. The second is what the original library's generation
# does since 4.46 with base and large (not with XL): 0, 1, 2, ... over the attention mask, and 1 for padding.
POSITION_NUMBERINGS = ("model", "zero_based")
# The kinds of caches that there are, by their published names; ``None`` leaves it to the backend.
CACHE_IMPLEMENTATIONS = (None, "dynamic", "static")

OPTIONS: dict[str, Option] = {
    # How long
    "max_length": Option(20, _or_none(_whole(1))),
    "max_new_tokens": Option(None, _or_none(_whole(1))),
    "min_length": Option(0, _or_none(_whole(0))),
    "min_new_tokens": Option(None, _or_none(_whole(0))),
    "early_stopping": Option(False, _one_of(False, True, "never")),
    "max_time": Option(None, _or_none(POSITIVE)),
    "stop_strings": Option(None, TEXTS),
    # How
    "do_sample": Option(False, FLAG),
    "num_beams": Option(1, _whole(1)),
    "num_beam_groups": Option(1, _whole(1)),
    "use_cache": Option(True, FLAG),
    "cache_implementation": Option(None, _or_none(("a text", lambda value: isinstance(value, str)))),
    # Which tokens
    "temperature": Option(1.0, _or_none(POSITIVE)),
    "top_k": Option(50, _or_none(_whole(0))),
    "top_p": Option(1.0, _or_none(NUCLEUS)),
    "min_p": Option(None, _or_none(NUCLEUS)),
    "typical_p": Option(1.0, _or_none(PROBABILITY)),
    "epsilon_cutoff": Option(0.0, _or_none(CUTOFF)),
    "eta_cutoff": Option(0.0, _or_none(CUTOFF)),
    "diversity_penalty": Option(0.0, _number("0 or a positive number", lambda value: value >= 0)),
    "repetition_penalty": Option(1.0, _or_none(POSITIVE)),
    "encoder_repetition_penalty": Option(1.0, _or_none(POSITIVE)),
    "length_penalty": Option(1.0, ("a number", _is_number)),
    "no_repeat_ngram_size": Option(0, _or_none(_whole(0))),
    "encoder_no_repeat_ngram_size": Option(0, _or_none(_whole(0))),
    "bad_words_ids": Option(None, WORDS),
    "renormalize_logits": Option(False, FLAG),
    "forced_bos_token_id": Option(None, TOKEN),
    "forced_eos_token_id": Option(None, TOKENS),
    "remove_invalid_values": Option(False, FLAG),
    "exponential_decay_length_penalty": Option(None, START_AND_FACTOR),
    "suppress_tokens": Option(None, TOKEN_LIST),
    "begin_suppress_tokens": Option(None, TOKEN_LIST),
    "sequence_bias": Option(None, BIAS),
    # What comes back
    "num_return_sequences": Option(1, _whole(1)),
    "output_attentions": Option(False, FLAG),
    "output_hidden_states": Option(False, FLAG),
    "output_scores": Option(False, FLAG),
    "output_logits": Option(None, _or_none(FLAG)),
    "return_dict_in_generate": Option(False, FLAG),
    # Special tokens
    "pad_token_id": Option(None, TOKEN),
    "bos_token_id": Option(None, TOKEN),
    "eos_token_id": Option(None, TOKENS),
    "decoder_start_token_id": Option(None, TOKENS),
    # Our own
    "position_numbering": Option("model", _one_of(*POSITION_NUMBERINGS)),
    # Of what is not computed here: kept, and refused where they would have to act, see NOT_SERVED.
    "token_healing": Option(False, ANYTHING),
    "guidance_scale": Option(None, ANYTHING),
    "watermarking_config": Option(None, ANYTHING),
    "penalty_alpha": Option(None, ANYTHING),
    "dola_layers": Option(None, ANYTHING),
    "constraints": Option(None, ANYTHING),
    "force_words_ids": Option(None, ANYTHING),
    "prompt_lookup_num_tokens": Option(None, ANYTHING),
    "assistant_early_exit": Option(None, ANYTHING),
    "prefill_chunk_size": Option(None, ANYTHING),
    # Of things that need nothing here: kept.
    "cache_config": Option(None, ANYTHING),
    "compile_config": Option(None, ANYTHING),
    "disable_compile": Option(False, ANYTHING),
    "low_memory": Option(None, ANYTHING),
    "return_legacy_cache": Option(None, ANYTHING),
    "is_assistant": Option(False, ANYTHING),
    "num_assistant_tokens": Option(20, ANYTHING),
    "num_assistant_tokens_schedule": Option("constant", ANYTHING),
    "assistant_confidence_threshold": Option(0.4, ANYTHING),
    "assistant_lookbehind": Option(10, ANYTHING),
    "target_lookbehind": Option(10, ANYTHING),
    "max_matching_ngram_size": Option(None, ANYTHING),
}

OWN_OPTIONS = ("position_numbering",)
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
# Options of drawing: without ``do_sample`` they do nothing, and may be anything in a file.
SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

# Published options of what is not computed here: which values ask for nothing, and what to do in place of any other.
NOT_SERVED: dict[str, tuple[tuple[Any, ...], str]] = {
    "token_healing": ((False, None), "end the prompt at a word's end"),
    "guidance_scale": ((None, 1, 1.0), "pass a logits_processor that mixes in the scores without the prompt"),
    "watermarking_config": ((None,), "pass a logits_processor that prefers the marked tokens"),
    "penalty_alpha": ((None, 0, 0.0), "contrastive search is not computed here; sample with top_k or typical_p"),
    "dola_layers": ((None,), "decoding by contrasted layers is not computed here; sample, or use num_beams"),
    "constraints": ((None,), "pass prefix_allowed_tokens_fn, which says at each step what may follow"),
    "force_words_ids": ((None,), "pass prefix_allowed_tokens_fn, or prefer words with sequence_bias"),
    "prompt_lookup_num_tokens": ((None,), "every token is computed by the model itself; leave it out"),
    "assistant_early_exit": ((None,), "every token is computed by the whole model; leave it out"),
    "prefill_chunk_size": ((None,), "a prompt of this model fits in one pass; leave it out"),
}


def as_plain(value: Any) -> Any:
    """A number of NumPy as Python's own, which can be written to a file and hashed; anything else as it is."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value
