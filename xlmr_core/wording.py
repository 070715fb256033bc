"""How a sentence counts: one thing or several, and which known word a wrong one is near."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sized

__all__ = ["counted", "nearest", "number"]


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


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or an empty text."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)), "")
