"""Lengths: what a call's padding and truncation come to, and how lists of ids are cut and filled."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from xlmr_core.errors import TokenizerError
from xlmr_core.wording import shown

__all__ = [
    "NO_LIMIT",
    "LengthPlan",
    "PaddingStrategy",
    "TruncationStrategy",
    "as_strategy",
    "check_side",
    "cut",
    "cut_off",
    "losses",
    "pad_columns",
    "truncate",
]

logger = logging.getLogger("xlmr_core.tokenization")

NO_LIMIT = int(1e30)
"""``model_max_length`` of a tokenizer that knows no limit (the value published files hold)."""

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


def as_strategy(name: str, value: Any, if_true: T, if_false: T) -> T:
    """A strategy from True, False, None, its name, or a member of any enumeration that has this name as its value.

    Raises:
        TokenizerError: something else.
    """
    if value is None or value is False:
        return if_false
    if value is True:
        return if_true
    strategies = type(if_true)
    try:
        return strategies(getattr(value, "value", value))
    except ValueError as error:
        allowed = ", ".join(repr(item.value) for item in strategies)
        raise TokenizerError(
            f"expected {name} True, False or one of {allowed}, received {shown(value)}{_meant(value, strategies)}"
        ) from error


def _meant(value: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(value)[:60], [str(word) for word in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_side(name: str, side: Any) -> None:
    """Refuse a side that is neither 'left' nor 'right'."""
    if side not in ("left", "right"):
        raise TokenizerError(
            f"expected {name} 'left' or 'right', received {shown(side)}{_meant(side, ('left', 'right'))}"
        )


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
                f"expected stride below {self.max_length - special} (max_length {self.max_length} less {special} "
                f"special tokens), received {self.stride}; pass a smaller stride or a larger max_length"
            )

    def target(self, lengths: Sequence[int]) -> int:
        """The length that rows of these lengths are padded to (0: not at all)."""
        if not self.pads or not lengths:
            return 0
        to_longest = self.padding is PaddingStrategy.LONGEST or self.max_length is None
        target = max(lengths) if to_longest or self.max_length is None else self.max_length
        return -(-target // self.multiple_of) * self.multiple_of if self.multiple_of else target


def truncate(
    ids: list[int], pair_ids: list[int] | None, excess: int, strategy: TruncationStrategy, stride: int, side: str
) -> tuple[list[int], list[int] | None, list[int]]:
    """Cut ``excess`` ids off a text and its pair.

    Returns:
        the text's ids, the pair's ids, and the ids cut off with ``stride`` of those kept beside them (nothing where
        both texts may be cut). A text too short for that is left as it is, with a logged error.
    """
    first, second = losses(len(ids), None if pair_ids is None else len(pair_ids), excess, strategy)
    if pair_ids is None:
        return cut(ids, first, side), None, cut_off(ids, first, stride, side)
    overflow = cut_off(pair_ids if second else ids, first + second, stride, side)
    both = strategy is TruncationStrategy.LONGEST_FIRST
    return cut(ids, first, side), cut(pair_ids, second, side), [] if both else overflow


def losses(length: int, pair_length: int | None, excess: int, strategy: TruncationStrategy) -> tuple[int, int]:
    """How many tokens a text and its pair (None: there is none) lose, to lose ``excess`` together.

    A text too short for that loses nothing, with a logged error.
    """
    if strategy is TruncationStrategy.LONGEST_FIRST and pair_length is not None:
        alone = min(abs(length - pair_length), excess)
        rest = excess - alone
        # Ties and odd remainders fall on the pair.
        if length > pair_length:
            return alone + rest // 2, rest - rest // 2
        return rest // 2, alone + rest - rest // 2
    second = strategy is TruncationStrategy.ONLY_SECOND
    target = pair_length if second else length
    if target is None or excess <= 0 or strategy is TruncationStrategy.DO_NOT_TRUNCATE:
        return 0, 0
    # A text alone may lose everything; one of a pair may not (then the other should have been cut).
    if target < excess or (target == excess and pair_length is not None):
        logger.error(
            "cannot cut %d tokens from a text of %d: left as it is; choose another truncation, such as 'longest_first'",
            excess,
            target,
        )
        return 0, 0
    return (0, excess) if second else (excess, 0)


def cut(tokens: list[Any], count: int, side: str) -> list[Any]:
    """All but ``count`` of the tokens."""
    return tokens[count:] if side == "left" else tokens[: len(tokens) - count]


def cut_off(tokens: list[Any], count: int, stride: int, side: str) -> list[Any]:
    """The ``count`` tokens that :func:`cut` takes away, with ``stride`` of those it keeps beside them."""
    window = min(len(tokens), count + stride) if count else 0
    return tokens[:window] if side == "left" else tokens[len(tokens) - window :]


def pad_columns(columns: dict[str, list[Any]], target: int, side: str, fill: Mapping[str, Any]) -> None:
    """Replace the rows of each column that ``fill`` names by rows of ``target`` items, filled with what it says."""
    for name, value in fill.items():
        if name in columns:
            rows = columns[name]
            # One gap for all rows of a length: ten thousand more lists would wake the garbage collector.
            gaps = {length: [value] * (target - length) for length in set(map(len, rows))}
            if side == "left":
                columns[name] = [gaps[len(row)] + row for row in rows]
            else:
                columns[name] = [row + gaps[len(row)] for row in rows]
