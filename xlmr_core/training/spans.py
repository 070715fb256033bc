"""How right an answer to a question is: exact match and F1, by the rule of SQuAD and its multilingual form.

Of both texts upper case, punctuation, the articles of their language and spare white space are left out; then they are
the same or not (exact match), and F1 is of the words that both have. In SQuAD (Rajpurkar et al. 2016) a word is what
stands between spaces; in MLQA (Lewis et al. 2020) each letter of a script that is written without spaces is one too,
which is what holds here.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from xlmr_core.tasks.words import word_numbers

__all__ = ["normalized", "overlap", "words_of"]

# The articles of MLQA's languages; other languages have none that are left out.
ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "ar": r"\sال^|ال",
}


def normalized(text: str, language: str) -> str:
    """A text without what does not count: ``"The Eiffel Tower!"`` is ``"eiffel tower"`` in English.

    Args:
        text: an answer.
        language: its code; English where it is empty, as in SQuAD.
    """
    kept = "".join(sign for sign in text.lower() if not _is_punctuation(sign))
    articles = ARTICLES.get(language or "en")
    return " ".join((re.sub(articles, " ", kept) if articles else kept).split())


def words_of(text: str) -> list[str]:
    """The words of a normalized text: by spaces, and in scripts without spaces letter by letter."""
    words = []
    for part in text.split():
        numbers = word_numbers(part)
        kinds = [unicodedata.category(sign) for sign in part]
        for place, sign in enumerate(part):
            # A sign such as that of a currency is a part of its word; only letters without case part one.
            begins = place == 0 or (numbers[place] != numbers[place - 1] and "Lo" in kinds[place - 1 : place + 1])
            words += [""] if begins else []
            words[-1] += sign
    return words


def overlap(predicted: str, right: Sequence[str], language: str) -> tuple[float, float]:
    """Exact match and F1 of an answer, the best over the texts that are right.

    Args:
        predicted: the answer; empty for none.
        right: the texts that are right; without any the question has no answer, and an empty text is right.
        language: of both.
    """
    answer = normalized(predicted, language)
    both = [_one(answer, normalized(text, language)) for text in right or ("",)]
    return max(exact for exact, _ in both), max(f1 for _, f1 in both)


def _one(answer: str, right: str) -> tuple[float, float]:
    answered, wanted = words_of(answer), words_of(right)
    if not answered or not wanted:
        return float(answer == right), float(answer == right)
    shared = sum((Counter(answered) & Counter(wanted)).values())
    return float(answer == right), 2 * shared / (len(answered) + len(wanted))


def _is_punctuation(sign: str) -> bool:
    return sign in string.punctuation or unicodedata.category(sign).startswith("P")
