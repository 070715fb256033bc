"""The list of pieces and scores of a ``tokenizer.json``, taken out of it by Python and NumPy.

A writer lays all pairs out alike: one and the same text stands between each piece and its score, and one between a
score and the next piece. With a single byte in the place of each, what is left are the pieces and the scores. Whatever
is laid out otherwise is read as JSON.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Taken", "taken_out"]

_VOCABULARY = re.compile(rb'"vocab"\s*:\s*(?=\[)')
_LAYOUT = {b"SPACE": rb"[ \n\r\t]*", b"NUMBER": rb"-?[0-9]+\.[0-9]+"}
# The first pair up to the second piece, and the last one: the libraries write the vocabulary near the end of the file.
_FIRST = re.compile(
    rb'\[%(SPACE)b\[%(SPACE)b"([^"\\]*)("%(SPACE)b,%(SPACE)b)%(NUMBER)b(%(SPACE)b\]%(SPACE)b,%(SPACE)b\[%(SPACE)b")'
    % _LAYOUT
)
_LAST = re.compile(rb'"%(SPACE)b,%(SPACE)b(%(NUMBER)b)%(SPACE)b\]%(SPACE)b\]' % _LAYOUT)
_TAIL = 1 << 12
# What stands for the text between a score and the next piece, and for that between a piece and its score. No text in
# JSON has control characters as they are.
_NEXT, _SCORE, _CONTROL = 0, 1, 0x20
# For an escaped quote and an escaped backslash: bytes that UTF-8 does not have.
_QUOTE, _BACKSLASH = b"\xfe", b"\xff"
_UNESCAPED = bytes.maketrans(_QUOTE + _BACKSLASH, b'"\\')
# So many digits an integer of 64 bits holds.
_MOST_DIGITS = 18
_POWERS = np.array([float(f"1e{exponent}") for exponent in range(_MOST_DIGITS + 1)])


class Taken(NamedTuple):
    """A file without its vocabulary.

    ``pieces`` and ``scores`` (float64 of shape (pieces,)) are in id order; ``rest`` has an empty list in their place.
    """

    pieces: list[str]
    scores: np.ndarray[Any, Any]
    rest: str


def taken_out(data: bytes) -> Taken | None:
    """The vocabulary of a ``tokenizer.json``, and the rest; ``None`` where it is not as every writer has it.

    No text in JSON has a quote in it that no backslash stands before, so that what looks like the key is one.

    Raises:
        ValueError: damaged, or scores that are read otherwise.
        RecursionError: damaged.
    """
    key = _VOCABULARY.search(data)
    if key is None:
        return None
    taken = _laid_out_alike(data, key.end()) or _read_as_json(data, key.end())
    # A file may have another vocabulary elsewhere.
    return taken if taken is not None and len(_VOCABULARY.findall(taken.rest.encode())) == 1 else None


def _laid_out_alike(data: bytes, start: int) -> Taken | None:
    """As :func:`taken_out`, of a list whose pairs are laid out alike."""
    first = _FIRST.match(data, start)
    last = None
    for found in _LAST.finditer(data, max(start, len(data) - _TAIL)):
        last = found
    if first is None or last is None or last.end(1) < first.end():
        return None
    marked = _without_escapes(data[first.start(1) : last.end(1)])
    if marked is None:
        return None
    quotes = marked.count(b'"')
    marked = marked.replace(first[3], bytes([_NEXT])).replace(first[2], bytes([_SCORE])) + bytes([_NEXT])
    signs = np.frombuffer(marked, np.uint8)
    marks = np.flatnonzero(signs < _CONTROL)
    # Each mark has taken one quote, and there are no others: then pieces are what stands between an opening and a
    # closing one, and scores the rest.
    alike = len(marks) == quotes + 1 and b'"' not in marked
    if not alike or (signs[marks[::2]] != _SCORE).any() or (signs[marks[1::2]] != _NEXT).any():
        return None
    is_text = np.repeat(np.arange(len(marks)) % 2 == 0, np.diff(marks, prepend=-1))
    texts, numbers = signs[is_text].tobytes(), signs[~is_text]
    numbers[numbers == _NEXT] = ord(",")
    try:
        scores = _scores(numbers.tobytes())
    except ValueError:  # perhaps a space more in front of one
        return None
    rest = data[:start] + b"[]" + data[last.end() :]
    pieces = texts[:-1].translate(_UNESCAPED).decode().split(chr(_SCORE))
    return Taken(pieces, scores, rest.decode())


def _without_escapes(text: bytes) -> bytes | None:
    """With a byte for each escaped quote and backslash; ``None`` where other letters are escaped."""
    if _QUOTE in text or _BACKSLASH in text:
        return None
    first, *others = text.split(b"\\")
    parts, escaped = [first], iter(others)
    for part in escaped:
        if part.startswith(b'"'):
            parts += [_QUOTE, part[1:]]
        elif not part and (behind := next(escaped, None)) is not None:
            parts += [_BACKSLASH, behind]
        else:
            return None
    return b"".join(parts) if others else text


class _Number(str):
    """A number with a point or an exponent, as it is written."""


def _refuse(constant: str) -> None:
    raise ValueError(f"expected a number, received {constant}")


# An integer in the place of a score stays one, which no score is.
_NUMBERS: dict[str, Any] = {"parse_float": _Number, "parse_constant": _refuse}


def _read_as_json(data: bytes, start: int) -> Taken | None:
    """As :func:`taken_out`, of a list laid out in any way."""
    text = data.decode()
    start = len(data[:start].decode())
    with _no_collections():
        pairs, end = json.JSONDecoder(**_NUMBERS).raw_decode(text, start)
        if set(map(type, pairs)) != {list} or set(map(len, pairs)) != {2}:
            return None
        pieces, numbers = map(list, zip(*pairs, strict=True))
        del pairs
        if set(map(type, pieces)) != {str} or set(map(type, numbers)) != {_Number}:
            return None
        if "\\u" in text:  # no half of a character, which the library would meet later
            "".join(pieces).encode()
        return Taken(pieces, _scores(",".join([*numbers, ""]).encode()), f"{text[:start]}[]{text[end:]}")


@contextmanager
def _no_collections() -> Iterator[None]:
    """No collection of garbage meanwhile: a list for each piece would wake it hundreds of times."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _scores(text: bytes) -> np.ndarray[Any, Any]:
    """Numbers as the tokenizers library's reader of JSON makes them: the digits as an integer, over a power of ten.
    That is not always the nearest float, and scores that differ in the last bit decide otherwise between ways to spell
    a text.

    Args:
        text: the numbers, a comma behind each.

    Returns:
        float64 of shape (numbers,).

    Raises:
        ValueError: no numbers, an exponent, or more digits than an integer holds.
    """
    signs = np.frombuffer(text, np.uint8)
    ends, points = np.flatnonzero(signs == ord(",")), np.flatnonzero(signs == ord("."))
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_negative = signs[starts] == ord("-")
    firsts = starts + is_negative
    others = text.translate(None, b"0123456789.,")
    if (
        others.strip(b"-")
        or len(others) != is_negative.sum()
        or len(points) != len(ends)
        or (points <= firsts).any()
        or (points + 1 >= ends).any()
        or ((signs[firsts] == ord("0")) & (points != firsts + 1)).any()
    ):
        raise ValueError("expected numbers of digits with a point, received others")
    if (ends - firsts).max() > _MOST_DIGITS + 1:
        raise ValueError(f"expected numbers of at most {_MOST_DIGITS} digits, received longer ones")
    digits = np.fromstring(text[:-1].replace(b".", b""), np.int64, sep=",")
    values = np.abs(digits) / _POWERS[ends - points - 1]
    found: np.ndarray[Any, Any] = np.where(is_negative, -values, values)
    return found
