"""Padding and truncation, shared by both tokenizer classes: what a call means, and how lists of ids are cut and filled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from xlmr_core.errors import TokenizerError

__all__ = [
    "NO_LIMIT",
    "LengthPlan",
    "PaddingStrategy",
    "TruncationStrategy",
    "check_side",
    "pad_row",
    "plan_lengths",
    "target_length",
    "truncate",
]

logger = logging.getLogger("xlmr_core.tokenization")

NO_LIMIT = int(1e30)
"""``model_max_length`` of a tokenizer that knows no limit (the value published files hold)."""

_LARGE = int(1e20)
_NO_MAX_LENGTH = "this tokenizer has no model_max_length; pass max_length= to "
T = TypeVar("T", bound=StrEnum)


class PaddingStrategy(StrEnum):
    """Values of ``padding=``."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"


class TruncationStrategy(StrEnum):
    """Values of ``truncation=``."""

    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    DO_NOT_TRUNCATE = "do_not_truncate"


@dataclass(frozen=True)
class LengthPlan:
    """What a call's ``padding``, ``truncation``, ``max_length``, ... come to."""

    padding: PaddingStrategy
    truncation: TruncationStrategy
    max_length: int | None
    stride: int
    multiple_of: int | None
    padding_side: str
    truncation_side: str

    @property
    def truncates(self) -> bool:
        """Whether texts may be cut."""
        return self.truncation is not TruncationStrategy.DO_NOT_TRUNCATE and self.max_length is not None

    @property
    def pads(self) -> bool:
        """Whether rows may be filled."""
        return self.padding is not PaddingStrategy.DO_NOT_PAD

    def check(self, special: int, stride_matters: bool) -> None:
        """Refuse a length that the special tokens or the overlap leave no room in.

        Args:
            special: how many special tokens a row gets.
            stride_matters: whether windows overlap by ``stride`` (they cannot if it fills them).
        """
        if not self.truncates or self.max_length is None:
            return
        if self.max_length < special:
            raise TokenizerError(
                f"expected max_length of at least {special} (the special tokens of a row), received {self.max_length}; "
                "pass a larger max_length or add_special_tokens=False"
            )
        if stride_matters and self.stride > 0 and self.stride >= self.max_length - special:
            raise TokenizerError(
                f"expected stride below {self.max_length - special} (max_length {self.max_length} less {special} special "
                f"tokens), received {self.stride}; pass a smaller stride or a larger max_length"
            )


def plan_lengths(
    *,
    padding: bool | str | None,
    truncation: bool | str | None,
    max_length: int | None,
    stride: int = 0,
    multiple_of: int | None = None,
    padding_side: str,
    truncation_side: str,
    model_max_length: int,
    has_pad_token: bool,
    advise: Callable[[str, str], None],
) -> LengthPlan:
    """Decide what a call means.

    ``padding``: True or 'longest', 'max_length', False. ``truncation``: True or 'longest_first', 'only_first', 'only_second',
    False; None means True where only ``max_length`` is given. Without ``max_length`` the tokenizer's ``model_max_length`` counts,
    if it has one. What is odd about the call goes to ``advise``, with the published name of the warning.

    Raises:
        TokenizerError: unknown names, negative lengths, or padding without a padding token.
    """
    for name, number, least in (
        ("max_length", max_length, 0),
        ("stride", stride, 0),
        ("pad_to_multiple_of", multiple_of, 1),
    ):
        if number is not None and (
            not isinstance(number, int | np.integer) or isinstance(number, bool) or number < least
        ):
            raise TokenizerError(f"expected {name} to be an integer of at least {least}, received {number!r}")
    for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
        check_side(name, side)
    pad = _strategy("padding", padding, PaddingStrategy, PaddingStrategy.LONGEST, PaddingStrategy.DO_NOT_PAD)
    cut = _strategy(
        "truncation",
        truncation,
        TruncationStrategy,
        TruncationStrategy.LONGEST_FIRST,
        TruncationStrategy.DO_NOT_TRUNCATE,
    )
    # padding='do_not_pad' says in words that nothing is to happen, and no padding= says nothing.
    if truncation is None and max_length is not None and padding in (None, False):
        advise(
            "Truncation-not-explicitly-activated",
            f"max_length={max_length} without truncation= is taken as truncation='longest_first'",
        )
        cut = TruncationStrategy.LONGEST_FIRST
    if max_length is None and (pad is PaddingStrategy.MAX_LENGTH or cut is not TruncationStrategy.DO_NOT_TRUNCATE):
        if model_max_length <= _LARGE:
            max_length = model_max_length
        else:
            if pad is PaddingStrategy.MAX_LENGTH:
                advise("Asking-to-pad-to-max_length", _NO_MAX_LENGTH + "pad to it")
                pad = PaddingStrategy.DO_NOT_PAD
            if cut is not TruncationStrategy.DO_NOT_TRUNCATE:
                advise("Asking-to-truncate-to-max_length", _NO_MAX_LENGTH + "truncate to it")
                cut = TruncationStrategy.DO_NOT_TRUNCATE
    if pad is not PaddingStrategy.DO_NOT_PAD and not has_pad_token:
        raise TokenizerError(
            "expected a padding token to pad with, received none; set tokenizer.pad_token, e.g. tokenizer.pad_token = '<pad>'"
        )
    plan = LengthPlan(pad, cut, max_length, stride, multiple_of, padding_side, truncation_side)
    if plan.truncates and plan.pads and multiple_of and max_length is not None and max_length % multiple_of:
        raise TokenizerError(
            f"Truncation and padding are both activated but truncation length ({max_length}) is not a multiple of "
            f"pad_to_multiple_of ({multiple_of}). Pass a max_length that is."
        )
    return plan


def check_side(name: str, side: Any) -> None:
    """Refuse a side that is neither 'left' nor 'right'."""
    if side not in ("left", "right"):
        raise TokenizerError(f"expected {name} 'left' or 'right', received {side!r}")


def _strategy(name: str, value: Any, kind: type[T], if_true: T, if_false: T) -> T:
    if value is None or value is False:
        return if_false
    if value is True:
        return if_true
    try:
        return kind(getattr(value, "value", value))
    except ValueError as error:
        allowed = ", ".join(repr(item.value) for item in kind)
        raise TokenizerError(f"expected {name} True, False or one of {allowed}, received {value!r}") from error


def truncate(
    ids: list[int],
    pair_ids: list[int] | None,
    excess: int,
    strategy: TruncationStrategy | str,
    stride: int,
    side: str,
) -> tuple[list[int], list[int] | None, list[int]]:
    """Cut ``excess`` ids off a text or pair, on ``side``.

    Returns:
        the text's ids, the pair's ids, and the ids cut off with ``stride`` of those kept beside them (nothing where both
        texts are cut). A text too short to be cut by ``excess`` is left as it is, with a logged error.
    """
    strategy = TruncationStrategy(strategy)
    if excess <= 0 or strategy is TruncationStrategy.DO_NOT_TRUNCATE:
        return ids, pair_ids, []
    if strategy is TruncationStrategy.LONGEST_FIRST and pair_ids is not None:
        longer, shorter = max(len(ids), len(pair_ids)), min(len(ids), len(pair_ids))
        alone = min(longer - shorter, excess)
        rest = excess - alone
        # Ties and odd remainders fall on the pair.
        if len(ids) > len(pair_ids):
            from_first, from_second = alone + rest // 2, rest - rest // 2
        else:
            from_first, from_second = rest // 2, alone + rest - rest // 2
        return _cut(ids, from_first, side), _cut(pair_ids, from_second, side), []
    second = strategy is TruncationStrategy.ONLY_SECOND and pair_ids is not None
    if strategy is TruncationStrategy.ONLY_SECOND and pair_ids is None:
        return ids, pair_ids, []
    target = pair_ids if second and pair_ids is not None else ids
    # A text alone may lose everything; one of a pair may not (then the other should have been cut).
    if len(target) < excess or (len(target) == excess and pair_ids is not None):
        logger.error(
            "cannot cut %d tokens from a text of %d: left as it is; choose another truncation, such as 'longest_first'",
            excess,
            len(target),
        )
        return ids, pair_ids, []
    window = min(len(target), stride + excess)
    overflow = target[:window] if side == "left" else target[len(target) - window :]
    kept = _cut(target, excess, side)
    return (ids, kept, overflow) if second else (kept, pair_ids, overflow)


def _cut(ids: list[int], count: int, side: str) -> list[int]:
    return ids[count:] if side == "left" else ids[: len(ids) - count]


def target_length(plan: LengthPlan, lengths: Sequence[int]) -> int:
    """The length that rows of these lengths are padded to (0: not at all)."""
    if not plan.pads or not lengths:
        return 0
    target = max(lengths) if plan.padding is PaddingStrategy.LONGEST or plan.max_length is None else plan.max_length
    return -(-target // plan.multiple_of) * plan.multiple_of if plan.multiple_of else target


def pad_row(row: dict[str, Any], target: int, side: str, fill: Mapping[str, Any]) -> None:
    """Fill a row's lists up to ``target``, in place; names that are not in ``fill`` stay as they are."""
    for key, value in row.items():
        if key in fill and (missing := target - len(value)) > 0:
            extra = [fill[key]] * missing
            row[key] = extra + value if side == "left" else value + extra
