"""What a pipeline reads one by one: an iterable, a generator, an open file, a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xlmr_core.errors import InputError

__all__ = ["Answers", "length_of", "one_by_one"]


class Answers(Iterator[Any]):
    """The answers to a data set, as they are asked for, with its length.

    Args:
        answers: one after the other.
        total: how many there are, those that were given included.
    """

    def __init__(self, answers: Iterator[Any], total: int) -> None:
        self._answers, self._total = answers, total

    def __next__(self) -> Any:
        return next(self._answers)

    def __len__(self) -> int:
        return self._total


def one_by_one(inputs: Any, from_line: Callable[[str], Any]) -> Iterator[Any]:
    """The inputs of a call that holds neither one nor a list.

    A line of a file is read as ``xlmr run`` reads it; its end is no part of it. A data set may have numbered items and
    a length in place of an iterator. Bytes, which data sets of TensorFlow give, are read as UTF-8.

    Args:
        inputs: what was passed.
        from_line: what a line holds; see ``Task.from_line``.

    Raises:
        InputError: for what is none of these.
    """
    if isinstance(inputs, os.PathLike):
        raise InputError(f"expected texts, received the path {os.fspath(inputs)!r}; pass the open file")
    if isinstance(inputs, Mapping | bytes) or not (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")):
        raise InputError(
            f"expected a text, a list of texts or an iterable of them, received {type(inputs).__name__}; pass the texts"
        )
    if hasattr(inputs, "readline"):
        return (from_line(_plain(line).rstrip("\r\n")) for line in inputs)
    if not hasattr(inputs, "__iter__") and hasattr(inputs, "__len__"):
        return (_plain(inputs[number]) for number in range(len(inputs)))
    return map(_plain, inputs)


def length_of(inputs: Any) -> int | None:
    """How many there are, if that is known."""
    try:
        return len(inputs)
    except TypeError:  # also of a data set of TensorFlow that has a length, but not now
        return None


def _plain(given: Any) -> Any:
    """An input without what a framework wraps around texts."""
    if isinstance(given, dict):
        return {name: _plain(value) for name, value in given.items()}
    if hasattr(given, "numpy") and len(getattr(given, "shape", "unknown")) == 0:
        given = given.numpy()
    if not isinstance(given, bytes):
        return given
    try:
        return given.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8, received other bytes: {error}; convert the input") from error
