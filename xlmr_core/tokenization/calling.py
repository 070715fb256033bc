"""Reading a call: its arguments, which are declared here once, and its texts in every form that they come in."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypedDict, TypeVar

import numpy as np

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.checks import no_text
from xlmr_core.tokenization.lengths import LengthPlan, PaddingStrategy, TruncationStrategy, as_strategy, check_side
from xlmr_core.wording import shown

__all__ = [
    "BATCH_ENCODE_PLUS",
    "CALL",
    "ENCODE",
    "PREPARE_FOR_MODEL",
    "CallArguments",
    "CallOptions",
    "Tokenizer",
    "bound",
    "published",
    "read_batch",
    "read_options",
    "read_texts",
    "warn_if_too_long",
    "warn_of_unknown",
    "warn_once",
]

logger = logging.getLogger("xlmr_core.tokenization")
Method = TypeVar("Method", bound=Callable[..., Any])

_LARGE = int(1e20)
_NO_MAX_LENGTH = "this tokenizer has no model_max_length; pass max_length= to "


# -- arguments ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CallOptions:
    """What a call takes beside its texts, in the published order; read and completed by :func:`read_options`."""

    add_special_tokens: bool = True
    padding: bool | str | None = False
    truncation: bool | str | None = None
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    verbose: bool = True
    split_special_tokens: bool | None = None
    # What the lengths among them come to.
    plan: LengthPlan = field(init=False)


class CallArguments(TypedDict, total=False):
    """The same by name for editors and type checkers, and two names of the first releases."""

    add_special_tokens: bool
    padding: bool | str | None
    truncation: bool | str | None
    max_length: int | None
    stride: int
    is_split_into_words: bool
    pad_to_multiple_of: int | None
    padding_side: str | None
    return_tensors: str | None
    return_token_type_ids: bool | None
    return_attention_mask: bool | None
    return_overflowing_tokens: bool
    return_special_tokens_mask: bool
    return_offsets_mapping: bool
    return_length: bool
    verbose: bool
    split_special_tokens: bool | None
    pad_to_max_length: bool
    truncation_strategy: str | None


# Which of them each published method shows, in order; it takes the others by name.
CALL = tuple(option.name for option in fields(CallOptions) if option.name not in ("split_special_tokens", "plan"))
ENCODE = (*CALL[: CALL.index("is_split_into_words")], "padding_side", "return_tensors")
BATCH_ENCODE_PLUS = (*CALL, "split_special_tokens")
PREPARE_FOR_MODEL = (*(name for name in CALL if name != "is_split_into_words"), "prepend_batch_axis")

_KNOWN = frozenset(CallArguments.__annotations__)
_SHOWN = {option.name: (option.type, option.default) for option in fields(CallOptions)} | {
    "padding": ("bool | str", False),
    "split_special_tokens": ("bool", False),
    "prepend_batch_axis": ("bool", False),
}


def published(names: Sequence[str]) -> Callable[[Method], Method]:
    """Show what a method takes as ``*args`` and ``**kwargs`` in the signature that notebooks and help() read."""

    def show(method: Method) -> Method:
        signature = inspect.signature(method)
        own = [item for item in signature.parameters.values() if item.kind is item.POSITIONAL_OR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)
            for name in names
            for kind, default in [_SHOWN[name]]
        ]
        others = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation="Any")
        method.__signature__ = signature.replace(parameters=[*own, *options, others])  # type: ignore[attr-defined]
        return method

    return show


def bound(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name: positional ones in the order of ``names``, and those given by name.

    Raises:
        TypeError: too many positional arguments, or one given twice.
    """
    if not args:
        return dict(kwargs)
    if len(args) > len(names):
        raise TypeError(f"expected at most {len(names)} arguments after the texts, received {len(args)}")
    positional = dict(zip(names, args, strict=False))
    for name in positional:
        if name in kwargs:
            raise TypeError(f"expected one value of {name}, received it both by position and by name")
    return {**positional, **kwargs}


class Tokenizer(Protocol):
    """What a call reads of its tokenizer: settings, and published methods that a subclass may have its own way of."""

    model_max_length: int
    padding_side: str
    truncation_side: str
    model_input_names: list[str]
    split_special_tokens: bool
    deprecation_warnings: dict[str, bool]
    pad_token_type_id: int

    @property
    def pad_token_id(self) -> int | None: ...
    def build_inputs_with_special_tokens(self, ids: list[int], pair_ids: list[int] | None = None, /) -> list[int]: ...
    def get_special_tokens_mask(self, ids: list[int], pair_ids: list[int] | None = None, /) -> list[int]: ...
    def num_special_tokens_to_add(self, pair: bool = False) -> int: ...
    def _edges(self) -> tuple[int, int] | None:
        """The ids before and after every text, or None where a subclass builds rows in its own way."""


def read_options(tokenizer: Tokenizer, arguments: dict[str, Any]) -> CallOptions:
    """The options of a call, complete with the tokenizer's own settings; what is odd about them is logged.

    Raises:
        TokenizerError: unknown names, negative lengths, or padding without a padding token.
    """
    if unknown := arguments.keys() - _KNOWN:
        if arguments.get("verbose", True):
            warn_of_unknown(tokenizer, unknown)
        arguments = {name: value for name, value in arguments.items() if name in _KNOWN}
    # Two names of the first releases, which scripts from 2020 still pass.
    if arguments.pop("pad_to_max_length", False) and not arguments.get("padding"):
        arguments["padding"] = "longest" if arguments.get("max_length") is None else "max_length"
    strategy = arguments.pop("truncation_strategy", None)
    if strategy is not None and arguments.get("truncation") is None:
        arguments["truncation"] = strategy
    options = CallOptions(**arguments)
    options.plan = _plan_lengths(tokenizer, options)
    if options.return_token_type_ids is None:
        options.return_token_type_ids = "token_type_ids" in tokenizer.model_input_names
    if options.return_attention_mask is None:
        options.return_attention_mask = "attention_mask" in tokenizer.model_input_names
    if options.split_special_tokens is None:
        options.split_special_tokens = tokenizer.split_special_tokens
    return options


def _plan_lengths(tokenizer: Tokenizer, asked: CallOptions) -> LengthPlan:
    """Decide what a call's lengths mean.

    ``padding``: True or 'longest', 'max_length', False. ``truncation``: True or 'longest_first', 'only_first',
    'only_second', False; None means True where only ``max_length`` is given. Without ``max_length`` the tokenizer's
    ``model_max_length`` counts, if it has one.
    """
    for name, number, least in (
        ("max_length", asked.max_length, 0),
        ("stride", asked.stride, 0),
        ("pad_to_multiple_of", asked.pad_to_multiple_of, 1),
    ):
        if number is not None and (
            not isinstance(number, int | np.integer) or isinstance(number, bool) or number < least
        ):
            raise TokenizerError(f"expected {name} to be an integer of at least {least}, received {shown(number)}")
    padding_side = asked.padding_side or tokenizer.padding_side
    check_side("padding_side", padding_side)
    check_side("truncation_side", tokenizer.truncation_side)
    pad = as_strategy("padding", asked.padding, PaddingStrategy.LONGEST, PaddingStrategy.DO_NOT_PAD)
    cut = as_strategy(
        "truncation", asked.truncation, TruncationStrategy.LONGEST_FIRST, TruncationStrategy.DO_NOT_TRUNCATE
    )

    def advise(name: str, message: str) -> None:
        if asked.verbose:
            warn_once(tokenizer, name, message)

    max_length = asked.max_length
    # padding='do_not_pad' says in words that nothing is to happen, and no padding= says nothing.
    if asked.truncation is None and max_length is not None and asked.padding in (None, False):
        advise(
            "Truncation-not-explicitly-activated",
            f"max_length={max_length} without truncation= is taken as truncation='longest_first'",
        )
        cut = TruncationStrategy.LONGEST_FIRST
    pads_to_it, cuts = pad is PaddingStrategy.MAX_LENGTH, cut is not TruncationStrategy.DO_NOT_TRUNCATE
    if max_length is None and (pads_to_it or cuts):
        if tokenizer.model_max_length <= _LARGE:
            max_length = tokenizer.model_max_length
        else:
            if pads_to_it:
                advise("Asking-to-pad-to-max_length", _NO_MAX_LENGTH + "pad to it")
                pad = PaddingStrategy.DO_NOT_PAD
            if cuts:
                advise("Asking-to-truncate-to-max_length", _NO_MAX_LENGTH + "truncate to it")
                cut = TruncationStrategy.DO_NOT_TRUNCATE
    multiple_of = asked.pad_to_multiple_of
    plan = LengthPlan(pad, cut, max_length, asked.stride, multiple_of, padding_side, tokenizer.truncation_side)
    if plan.pads and tokenizer.pad_token_id is None:
        raise TokenizerError(
            "expected a padding token to pad with, received none; set tokenizer.pad_token, e.g. "
            "tokenizer.pad_token = '<pad>'"
        )
    if plan.truncates and plan.pads and multiple_of and max_length is not None and max_length % multiple_of:
        raise TokenizerError(
            f"Truncation and padding are both activated but truncation length ({max_length}) is not a multiple of "
            f"pad_to_multiple_of ({multiple_of}). Pass a max_length that is."
        )
    return plan


# -- warnings ----------------------------------------------------------------------------------------------------------


def warn_once(tokenizer: Tokenizer, name: str, message: str) -> None:
    """Log a warning the first time; scripts silence one by setting its name in ``deprecation_warnings``."""
    if not tokenizer.deprecation_warnings.get(name):
        tokenizer.deprecation_warnings[name] = True
        logger.warning(message)


def warn_if_too_long(lengths: Iterable[int], options: CallOptions, tokenizer: Tokenizer) -> None:
    """Say that the model will refuse a row that nobody cuts."""
    limit = tokenizer.model_max_length
    if options.verbose and options.plan.max_length is None:
        for length in lengths:
            if length > limit:
                message = (
                    "Token indices sequence length is longer than the specified maximum sequence length for this model "
                    f"({length} > {limit}); pass truncation=True, or the model will refuse it"
                )
                return warn_once(tokenizer, "sequence-length-is-longer-than-the-specified-maximum", message)


def warn_of_unknown(tokenizer: Tokenizer, names: Iterable[str]) -> None:
    """Log the keyword arguments that nobody knows, each once."""
    fresh = [name for name in sorted(names) if not tokenizer.deprecation_warnings.get(f"keyword-{name}")]
    if fresh:
        tokenizer.deprecation_warnings |= {f"keyword-{name}": True for name in fresh}
        near = [found for name in fresh for found in difflib.get_close_matches(name, sorted(_KNOWN), n=1)]
        meant = f"; did you mean {', '.join(near)}?" if near else ""
        logger.warning("keyword arguments %s are not known to the tokenizer and do nothing%s", fresh, meant)


# -- texts -------------------------------------------------------------------------------------------------------------


def read_texts(text: Any, pair: Any, words: bool) -> tuple[list[Any], list[Any] | None, bool]:
    """The texts of a call, their pairs (None where no text has one), and whether it is one text and no batch.

    Args:
        text: a text, a batch of texts, or a batch of (text, pair).
        pair: None, or in the form of ``text``.
        words: a text is a list of words.
    """
    for given in (text, pair):
        # One that holds several texts and is no list: NumPy's and pandas' arrays, columns of data sets, generators.
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | list | tuple):
            raise no_text(given, words, wanted="a text (str) or a list of texts")
    if not isinstance(text, list | tuple) or (words and not (text and isinstance(text[0], list | tuple))):
        return [text], None if pair is None else [pair], True
    if pair is None:
        return *read_batch(text, words), False
    if not isinstance(pair, list | tuple):
        raise TokenizerError(
            f"expected a list of {len(text)} text pairs beside a list of texts, received {type(pair).__name__}; "
            "pass lists for both"
        )
    if len(text) != len(pair):
        raise TokenizerError(f"expected as many texts as text pairs, received {len(text)} and {len(pair)}")
    return list(text), list(pair), False


def read_batch(batch: Collection[Any], words: bool) -> tuple[list[Any], list[Any] | None]:
    """The texts of a batch, and their pairs where items are (text, pair)."""
    pairs = [_is_pair(item, words) for item in batch]
    if not any(pairs):
        return list(batch), None
    split = [item if paired else (item, None) for item, paired in zip(batch, pairs, strict=True)]
    return [text for text, _ in split], [pair for _, pair in split]


def _is_pair(item: Any, words: bool) -> bool:
    if not isinstance(item, list | tuple) or len(item) != 2:
        return False
    return isinstance(item[0], list | tuple) if words else all(isinstance(part, str | list | tuple) for part in item)
