"""A tokenizer's settings: what is no value of one, which names may not be one, and published names not here."""

from __future__ import annotations

import difflib
import inspect
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.checks import describe
from xlmr_core.tokenization.special import DEFAULT_TOKENS, AddedToken
from xlmr_core.wording import MOST_COMPARED

__all__ = [
    "NOT_HERE",
    "NameOfMethodError",
    "advise_on_names",
    "check",
    "check_prefix_space",
    "converted_tokens",
    "names_a_token",
    "refuse_names_of",
]

logger = logging.getLogger("xlmr_core.tokenization")

_CHATS = "chat templates are not served; chat_template is kept and saved"
# Public names of the original tokenizers (4.57.6 and 5.24) that these do not have, each with its reason; the others are
# there (docs/tokenizers.md).
NOT_HERE = {
    **dict.fromkeys(("apply_chat_template", "encode_message_with_chat_template", "get_chat_template"), _CHATS),
    **dict.fromkeys(("save_chat_templates", "parse_response", "get_response_parser", "response_template"), _CHATS),
    "register_for_auto_class": "no code is saved with a tokenizer or fetched with one; import your class and call its "
    "from_pretrained",
    "convert_to_native_format": "a step inside the original's from_pretrained; call from_pretrained",
    "update_post_processor": "XLM-R's template of special tokens is fixed; set backend_tokenizer.post_processor, "
    "or override build_inputs_with_special_tokens in the sentencepiece class",
    **dict.fromkeys(
        ("add_bos_token", "add_eos_token"),
        "XLM-R's template of special tokens is fixed; pass add_special_tokens=False to a call to leave all out",
    ),
    "extra_special_tokens_ids": "version 5's name of additional_special_tokens_ids",
}


class NameOfMethodError(TokenizerError, AttributeError):
    """A setting with the name of a method (the original raises an AttributeError)."""


def _is_length(value: Any) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and value >= 0 and (math.isinf(value) or value == int(value))


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_token(item) for item in value)


def _is_token(value: Any) -> bool:
    return isinstance(value, str | Mapping) or hasattr(value, "content")


def _are_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_TOKENS = "a list of tokens (str or AddedToken)"
_NAMED = "a dict from name to token"
# By setting: what is one, and that in words.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_max_length": (_is_length, "a number of tokens"),
    "model_input_names": (
        lambda value: isinstance(value, list | tuple) and bool(value) and all(isinstance(name, str) for name in value),
        "a list of names, the main input first",
    ),
    "split_special_tokens": (lambda value: isinstance(value, bool), "True or False"),
    "additional_special_tokens": (_are_tokens, _TOKENS),
    "extra_special_tokens": (lambda value: _are_tokens(value) or _are_named(value), f"{_TOKENS}, or {_NAMED}"),
    "model_specific_special_tokens": (_are_named, _NAMED),
    "sp_model_kwargs": (_are_named, "a dict of arguments of SentencePieceProcessor"),
    "added_tokens_decoder": (lambda value: isinstance(value, Mapping), "a dict from id to token"),
}
# What a typing error may have meant.
_NAMES = (
    *(*DEFAULT_TOKENS, *_CHECKS, "padding_side", "truncation_side", "clean_up_tokenization_spaces", "chat_template"),
    *("vocab_file", "tokenizer_file", "add_prefix_space", "merges_file"),
)


def check(values: Mapping[str, Any]) -> None:
    """Refuse settings that are none; None stands for the default.

    Raises:
        TokenizerError: the first such setting.
    """
    for name, value in values.items():
        good, wanted = _CHECKS[name]
        if value is not None and not good(value):
            raise TokenizerError(
                f"expected {name} of a tokenizer to be {wanted}, received {describe(value)}; correct it where it comes "
                "from, the call or tokenizer_config.json"
            )


def check_prefix_space(asked: bool | None, there: bool) -> None:
    """Refuse ``add_prefix_space=False`` where the vocabulary's file puts a space in front of a text.

    Raises:
        TokenizerError: that.
    """
    if asked is False and there:
        raise TokenizerError(
            "expected add_prefix_space=True, received False: XLM-R's tokenizer starts every text with a space, and its "
            "file says so; leave it out, or train the sentencepiece model with add_dummy_prefix=false"
        )


def names_a_token(name: str, value: Any) -> bool:
    """Whether a setting is a special token with a name of its own, as version 5 takes them."""
    return name.endswith("_token") and _is_token(value)


def refuse_names_of(kind: type, settings: Iterable[str], tokens: Iterable[str]) -> None:
    """Refuse settings that bear the name of a method, and tokens that bear the name of anything that is there.

    Raises:
        NameOfMethodError: the first of them.
    """
    for name in settings:
        if inspect.isroutine(getattr(kind, name, None)):
            raise NameOfMethodError(
                f"expected a setting of {kind.__name__}, received {name}=, which conflicts with the method {name}; "
                f"pass it where the method is called, or take it out of tokenizer_config.json"
            )
    for name in tokens:
        if name not in DEFAULT_TOKENS and hasattr(kind, name):
            raise NameOfMethodError(
                f"expected a name of its own for a special token, received {name!r}, which {kind.__name__} has; "
                "choose another"
            )


def advise_on_names(settings: Iterable[str]) -> None:
    """Say which kept settings look like typing errors of one that is known."""
    for name in itertools.islice(settings, MOST_COMPARED):
        near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.8)
        if near and abs(len(near[0]) - len(name)) <= 2 and name not in _NAMES:
            logger.warning("the tokenizer's setting %r is kept and does nothing; did you mean %r?", name, near[0])


def converted_tokens(value: Any, save: bool, add_type_field: bool) -> Any:
    """See ``PreTrainedTokenizerBase.convert_added_tokens``."""
    if isinstance(value, Mapping):
        if not save and value.get("__type") == "AddedToken":
            return AddedToken.of(value)
        return {name: converted_tokens(item, save, add_type_field) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [converted_tokens(item, save, add_type_field) for item in value]
    if save and not isinstance(value, str) and hasattr(value, "content"):
        token = AddedToken.of(value).to_json(with_special=add_type_field)
        return {**token, "__type": "AddedToken"} if add_type_field else token
    return value
