"""Masked language modelling: which tokens are hidden, and what stands in their place. The caller seeds it.

Of the tokens that are hidden 80 % become ``<mask>``, 10 % another token, and 10 % stay as they are (Devlin et al.
2019, section 3.1); they are drawn anew for each batch (Liu et al. 2019), out of the whole batch, so that a batch of
short rows has its share too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.training.task import IGNORED

__all__ = ["LONGEST_WORD", "SHARES", "Vocabulary", "Words", "as_typed", "mask"]

# Of the hidden tokens: those that become <mask>, and those that become another token.
SHARES = (0.8, 0.1)
LONGEST_WORD = 6  # tokens; scripts without spaces have no words that could be seen
SPACE = "▁"


@dataclass(frozen=True)
class Words:
    """What each token is to words: arrays (V,). Neither beginning one nor with a letter: punctuation.

    Attributes:
        begins: bool, ``▁`` alone or with a letter behind it.
        letters: bool, with a letter, a mark on one (a vowel sign can be a piece of its own), or a digit.
    """

    begins: NDArray[np.bool_]
    letters: NDArray[np.bool_]

    @classmethod
    def of(cls, pieces: Sequence[str], ordinary: NDArray[np.bool_]) -> Words:
        """Of the pieces of a vocabulary.

        Args:
            pieces: by their number, with ``▁`` for the space before a word.
            ordinary: bool (V,), false for special tokens, which are nothing to words.
        """
        letters = np.zeros(len(pieces), np.bool_)
        begins = np.zeros(len(pieces), np.bool_)
        for token in np.flatnonzero(ordinary).tolist():
            piece = pieces[token]
            letters[token] = any(unicodedata.category(sign)[0] in "LMN" for sign in piece)
            begins[token] = piece.startswith(SPACE) and (letters[token] or piece == SPACE)
        return cls(begins, letters)


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer.

    Attributes:
        mask: the number of ``<mask>``.
        pad: and of ``<pad>``.
        ordinary: bool (V,), false for special tokens: those are never hidden, and never stand in a token's place.
    """

    mask: int
    pad: int
    ordinary: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Of a tokenizer.

        Raises:
            InputError: for one without a ``<mask>``.
        """
        if tokenizer.mask_token_id is None:
            raise InputError("expected a tokenizer with a mask_token, received one without; set tokenizer.mask_token")
        ordinary = np.ones(len(tokenizer), np.bool_)
        ordinary[[number for number in tokenizer.all_special_ids if number is not None]] = False
        return cls(int(tokenizer.mask_token_id), int(tokenizer.pad_token_id), ordinary)

    def words(self, tokenizer: Any) -> Words:
        """What its tokens are to words."""
        return Words.of(tokenizer.convert_ids_to_tokens(list(range(len(self.ordinary)))), self.ordinary)

    def openings(self, tokenizer: Any) -> NDArray[np.int64]:
        """What each token becomes where a text starts with it, see :func:`as_typed`: int64 (V,)."""
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(self.ordinary))))
        opens = np.arange(len(pieces))
        inside = [n for n in np.flatnonzero(self.ordinary).tolist() if not pieces[n].startswith(SPACE)]
        alone = int(tokenizer.convert_tokens_to_ids(SPACE))
        found = tokenizer([pieces[n] for n in inside], add_special_tokens=False, verbose=False)["input_ids"]
        for number, ids in zip(inside, found, strict=True):
            joined = len(ids) == 1 and pieces[ids[0]] == SPACE + pieces[number]
            opens[number] = ids[0] if joined else -alone
        return opens


def mask(
    ids: NDArray[np.integer],
    vocabulary: Vocabulary,
    rate: float,
    random: np.random.Generator,
    words: Words | None = None,
    shares: tuple[float, float] = SHARES,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hide a share of the ordinary tokens of a batch, at least one where there are any, and none for a rate of 0.

    Args:
        ids: token ids (B, S).
        vocabulary: of the tokenizer.
        rate: the share.
        random: the only source of chance.
        words: hide whole words, all tokens of each, and no punctuation; by default, and where there is no word, tokens
            are hidden whatever they are.
        shares: of the hidden tokens, those that become ``<mask>``, and those that become another token.
        allowed: bool (B, S), which tokens may be hidden; special ones never are.

    Returns:
        The ids to feed and the labels (-100 where nothing was hidden), int64 (B, S).
    """
    flat = ids.reshape(-1).astype(np.int64)
    hideable = vocabulary.ordinary[flat]
    ordinary = np.flatnonzero(hideable if allowed is None else hideable & allowed.reshape(-1))
    labels = np.full_like(flat, IGNORED)
    if not rate:
        return flat.reshape(ids.shape), labels.reshape(ids.shape)
    chosen = np.zeros(0, np.int64) if words is None else _whole_words(flat, ordinary, rate, random, words)
    if not len(chosen) and len(ordinary):
        chosen = random.choice(ordinary, size=max(1, round(rate * len(ordinary))), replace=False)
    labels[chosen] = flat[chosen]
    kind = random.random(len(chosen))
    flat[chosen[kind < shares[0]]] = vocabulary.mask
    drawn = chosen[kind >= 1 - shares[1]]
    others = np.flatnonzero(vocabulary.ordinary)
    flat[drawn] = others[random.integers(0, len(others), size=len(drawn))]
    return flat.reshape(ids.shape), labels.reshape(ids.shape)


def _whole_words(
    flat: NDArray[np.int64], ordinary: NDArray[np.int64], rate: float, random: np.random.Generator, words: Words
) -> NDArray[np.int64]:
    """Places of whole random words until they make up the share, if there are so many.

    The tokens of a run of more than ``LONGEST_WORD`` are hidden one by one: it is a script without spaces.
    """
    if not len(ordinary):
        return ordinary
    tokens = flat[ordinary]
    begins, letters = words.begins[tokens], words.letters[tokens]
    # A word goes on while letters follow each other without a gap and none begins a new one; punctuation ends it.
    punctuation_before = np.append(True, ~(begins | letters)[:-1])
    new = begins | ~letters | punctuation_before | (np.diff(ordinary, prepend=-2) != 1)
    word = np.cumsum(new) - 1
    single = np.bincount(word)[word] > LONGEST_WORD
    word = np.cumsum(new | single | np.append(False, single[:-1])) - 1
    sizes = np.bincount(word)
    order = random.permutation(np.flatnonzero(np.bincount(word, letters)))
    reached = np.cumsum(sizes[order])
    hidden = order[: 1 + np.searchsorted(reached, rate * len(ordinary))]
    return ordinary[np.isin(word, hidden)]


def as_typed(
    fed: NDArray[np.int64],
    labels: NDArray[np.int64],
    vocabulary: Vocabulary,
    opens: NDArray[np.int64],
    longest: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What a tokenizer makes of a typed ``<mask>``: the text behind it starts anew, so its first token opens a word.

    ``model <mask>.`` is ``▁model <mask> ▁ .`` and not ``▁model <mask> .``, so a model that never saw the lone ``▁``
    cannot read the full stop.

    Args:
        fed: ids to feed (B, S).
        labels: (B, S).
        vocabulary: of the tokenizer.
        opens: (V,), what each token becomes behind ``<mask>``: itself, the token with ``▁`` before it, or minus the
            number of the lone ``▁`` that is put before it.
        longest: tokens of a row at most; what is more is cut off before the ``</s>`` that ends the row, as a tokenizer
            does that truncates.

    Returns:
        Both, (B, S') with S' at most ``longest``; ids are padded with ``<pad>``, labels with -100.
    """
    behind = np.zeros(fed.shape, np.bool_)
    behind[:, 1:] = (fed[:, :-1] == vocabulary.mask) & vocabulary.ordinary[fed[:, 1:]]
    behind &= labels == IGNORED  # what stands in place of a hidden token is no text
    joined = behind & (opens[fed] > 0)
    apart = behind & (opens[fed] < 0)
    fed = np.where(joined, opens[fed], fed)
    # Where each token goes: past all that is put in before it in its row.
    column = np.arange(fed.shape[1]) + np.cumsum(apart, axis=1)
    width = int(column[fed != vocabulary.pad].max()) + 1
    wider = np.full((len(fed), width + 1), vocabulary.pad, np.int64)
    wider_labels = np.full_like(wider, IGNORED)
    row, old = np.nonzero(fed != vocabulary.pad)
    wider[row, column[row, old]] = fed[row, old]
    wider_labels[row, column[row, old]] = labels[row, old]
    row, old = np.nonzero(apart)
    wider[row, column[row, old] - 1] = -opens[fed[row, old]]
    ends = np.where(fed != vocabulary.pad, column, -1).max(axis=1) + 1
    for cut in np.flatnonzero(ends > longest).tolist():
        last = wider[cut, ends[cut] - 1]
        if not vocabulary.ordinary[last] and last != vocabulary.mask:
            wider[cut, longest - 1], wider_labels[cut, longest - 1] = last, IGNORED
    return wider[:, : min(width, longest)], wider_labels[:, : min(width, longest)]
