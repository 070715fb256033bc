"""How a sentence counts: one thing or several, with which article, and which known word a wrong one is near; and how
what a file, a hub or a user says is shown, so that none of them speaks to the terminal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sized
from typing import Any

__all__ = ["MOST_COMPARED", "an", "counted", "letters_apart", "nearest", "number", "seen", "seen_in_json", "shown"]


# What a terminal takes for commands: control characters but for the tab, those that end a line, and those that turn the
# direction of writing. Half a character cannot be written at all.
_COMMANDS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def seen(text: str, *, lines: bool = False) -> str:
    """A text as it is shown: in one line, with the characters written out that a terminal takes for commands.

    Everything that is printed of a file, a hub, or a user's words comes through here, and every error and warning of
    this library.

    Args:
        text: from wherever.
        lines: the ends of lines are ours, and stay.
    """
    return _COMMANDS.sub(lambda found: found[0] if lines and found[0] == "\n" else ascii(found[0])[1:-1], text)


def seen_in_json(text: str) -> str:
    """As :func:`seen`, of a text in JSON, which says the same after it; the ends of its lines are ours."""
    return _COMMANDS.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def counted(count: int, noun: str, nouns: str = "") -> str:
    """``1 check``, ``13 checks``.

    Args:
        count: how many.
        noun: what one is called.
        nouns: what several are called, where that is not the noun with an s.
    """
    return f"{count} {number(count, noun, nouns or noun + 's')}"


def number(things: int | Sized, one: str, several: str) -> str:
    """The word for one thing, or that for several (or none): ``number(names, "has", "have")``."""
    return one if (things if isinstance(things, int) else len(things)) == 1 else several


# So many names are compared with those that were probably meant: a hostile file has a million.
MOST_COMPARED = 1000


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or an empty text."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)), "")


def letters_apart(one: str, other: str, most: int) -> int:
    """How many letters have to be added, left out, replaced, or swapped with their neighbour to make one word of the
    other; ``most + 1`` for more than ``most``.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            step = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                step = min(step, before[j - 2] + 1)
            row.append(step)
        before, last = last, row
    return min(last[-1], most + 1)


def an(noun: str) -> str:
    """A noun with its article: ``an XLMRobertaConfig``, ``a TFXLMRobertaModel``, ``an int``."""
    first = noun[:1]
    said_as_a_letter = noun[:2].isupper()  # XLMRoberta..., TFXLMRoberta...
    return f"an {noun}" if first in ("AEFHILMNORSX" if said_as_a_letter else "aeioAEIO") else f"a {noun}"


def shown(value: Any, most: int = 120, *, quoted: bool = True) -> str:
    """A value of a file or a user as Python writes it, cut to so many characters.

    Of a large value only the beginning is ever made: a few bytes of a pickle can hold lists of lists that would be
    2**60 values long.

    Args:
        value: anything.
        most: how many characters.
        quoted: whether a text stands in quotes, with what cannot be printed spelled out.
    """
    if not quoted and isinstance(value, str):
        return value if len(value) <= most else f"{value[: most - 3]}..."
    text = ""
    for part in _parts(value, most):
        text += part
        if len(text) > most:
            return f"{text[: most - 3]}..."
    return text


# How containers are written, by the type that they are: begin, between, end.
_BRACKETS = {dict: "{}", list: "[]", tuple: "()", set: "{}", frozenset: "{}"}


def _parts(value: Any, most: int) -> Iterator[str]:
    """The text of a value, in parts that are made when they are asked for; each level makes one before the next."""
    kind = next((kind for kind in _BRACKETS if isinstance(value, kind)), None)
    if isinstance(value, str | bytes | bytearray):
        yield repr(value[: most + 1])
    elif isinstance(value, int) and value.bit_length() > 1024:
        yield f"an integer of {value.bit_length()} bits"
    elif kind is None or (not value and kind in (set, frozenset)):
        yield _own_text(value)
    else:
        begin, end = tuple(_BRACKETS[kind])
        yield begin
        for number, item in enumerate(value.items() if kind is dict else value):
            if number:
                yield ", "
            if kind is dict:
                yield from _parts(item[0], most)
                yield ": "
                item = item[1]
            yield from _parts(item, most)
        yield f",{end}" if kind is tuple and len(value) == 1 else end


def _own_text(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # of a user's class
        return f"<{type(value).__name__}>"
