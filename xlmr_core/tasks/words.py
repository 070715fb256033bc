"""Where words begin in a text, for scripts with spaces and without.

A word ends at white space, wherever that comes from. Besides:

- punctuation and symbols stand alone, except a hyphen or a point between letters or digits (``Saint-Denis``, ``a.m``)
  and a comma between digits (``1,5``);
- in scripts that are written without spaces (Han, Hiragana, Thai, Lao, Khmer, Myanmar and others) every letter may
  begin a word, so that there the tokens of a model decide; a run of Katakana is one word;
- what belongs to the letter before it never begins a word: marks, joiners, vowels that follow their consonant, small
  kana, repetition signs. Nor does what follows a joiner or a Thai or Lao vowel that is written before its consonant.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["blank_chars", "word_numbers"]

# What a character is to its neighbours. Neighbours of one kind are one word, except where every one stands alone.
BLANK, LETTER, KATAKANA, ALONE, ATTACHED = range(5)
# And what it is besides.
DIGIT, HOLDS, JOINS_ALL, JOINS_DIGITS = 8, 16, 32, 64
_KIND = 7

_ALONE = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F)),
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x302F), (0x3040, 0x309F), (0x3100, 0x312F), (0x31A0, 0x31BF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F)),
    (0x20000, 0x3FFFF),
)
_KATAKANA = ((0x30A0, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
_SKIN_TONES = ((0x1F3FB, 0x1F3FF),)
_BLANK = "\u200b\u2028\u2029\ufeff"
# Vowels after their consonant, repetition signs, small kana: letters for Unicode, no beginning for a reader.
_ATTACHED = "\u0e30\u0e32\u0e33\u0e45\u0e46\u0eb0\u0eb2\u0eb3\u0ec6\u3005\u309d\u309e\u30fcぁぃぅぇぉっゃゅょゎ"
# The joiner of emoji and of Indic letters, the signs that stack a consonant below, vowels before their consonant.
_HOLDS = "\u200d\u1039\u17d2\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"
_JOINS_ALL = "-\u2010\u2011."
_JOINS_DIGITS = ","


def blank_chars(text: str) -> NDArray[np.bool_]:
    """For each character of a text whether it is white space (C,)."""
    blank_C: NDArray[np.bool_] = (_kinds(text) & _KIND) == BLANK
    return blank_C


def word_numbers(text: str) -> NDArray[np.int64]:
    """For each character of a text the number of its word, from 0 on (C,). White space has that of the last."""
    flags_C = _kinds(text)
    kind_C = flags_C & _KIND
    if not len(kind_C):
        return np.zeros(0, np.int64)
    letter_C = _carried(kind_C) == LETTER
    digit_C = (flags_C & DIGIT) > 0
    joined_C = _between((flags_C & JOINS_ALL) > 0, letter_C) | _between((flags_C & JOINS_DIGITS) > 0, digit_C)
    kind_C = _carried(np.where(joined_C, LETTER, kind_C))
    attached_C = (flags_C & _KIND) == ATTACHED
    new_C = ((kind_C == ALONE) & ~attached_C) | _differs(kind_C)
    new_C[1:] &= (flags_C[:-1] & HOLDS) == 0
    return np.cumsum(new_C & (kind_C != BLANK)) - 1


def _between(sign_C: NDArray[np.bool_], side_C: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a sign has something on both sides."""
    found_C = np.zeros_like(sign_C)
    found_C[1:-1] = sign_C[1:-1] & side_C[:-2] & side_C[2:]
    return found_C


def _carried(kind_C: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is attached is of the kind of what it is attached to; a letter, where that is nothing or white space."""
    bearer_C = np.maximum.accumulate(np.where(kind_C == ATTACHED, 0, np.arange(len(kind_C))))
    carried_C = kind_C[bearer_C]
    lost_C = (kind_C == ATTACHED) & ((carried_C == BLANK) | (carried_C == ATTACHED))
    return np.where(lost_C, LETTER, carried_C)


def _differs(kind_C: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.append(True, kind_C[1:] != kind_C[:-1])


def _kinds(text: str) -> NDArray[np.int64]:
    codes_C = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    # A text has few different characters, so each is looked up once.
    codes, place_C = np.unique(codes_C, return_inverse=True)
    return np.fromiter(map(_kind, codes.tolist()), np.int64, len(codes))[place_C.reshape(-1)]


@cache
def _kind(code: int) -> int:
    char = chr(code)
    category = unicodedata.category(char)
    flags = (
        (DIGIT if category == "Nd" else 0)
        | (HOLDS if char in _HOLDS else 0)
        | (JOINS_ALL if char in _JOINS_ALL else 0)
        | (JOINS_DIGITS if char in _JOINS_DIGITS else 0)
    )
    if char.isspace() or char in _BLANK or category == "Zs":
        return flags | BLANK
    if category[0] == "M" or category == "Cf" or char in _ATTACHED or _within(code, _SKIN_TONES):
        return flags | ATTACHED
    if category[0] in "PS" and char != "_":
        return flags | ALONE
    if category != "Nd" and _within(code, _KATAKANA):
        return flags | KATAKANA
    return flags | (ALONE if category != "Nd" and _within(code, _ALONE) else LETTER)


def _within(code: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= code <= last for first, last in ranges)
