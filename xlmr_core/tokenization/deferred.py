"""A tokenizer of the tokenizers library whose vocabulary is made when it pays.

The library puts a quarter of a million pieces into a tree, which is most of the time of a start, and a first text finds
some hundred of them. So the first short calls are answered by a vocabulary of the same size and ids in which only those
pieces have their text and score that stand somewhere in the words of the call. What is not in a text cannot be found
there, and everything else is the library's own work: the same answer, offsets and errors included. Ids become text by
the list of pieces. Later calls, long ones, and all that asks for the vocabulary get the whole, which is made once.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xlmr_core.tokenization import spm

__all__ = ["Deferred", "Vocabulary"]

# Calls that are answered without the whole, and letters of such a call.
CALLS, LETTERS = 3, 4096
# In the place of a piece that no word has, and in no word itself.
_NONE = ""
# What of the library's tokenizer does not depend on its vocabulary.
_SETTINGS = frozenset(
    (
        *("padding", "truncation", "no_padding", "no_truncation", "enable_padding", "enable_truncation"),
        *("normalizer", "pre_tokenizer", "post_processor", "decoder", "encode_special_tokens"),
        *("num_special_tokens_to_add", "get_added_tokens_decoder", "get_vocab_size"),
    )
)


@dataclass(frozen=True)
class Vocabulary:
    """What the library makes a unigram vocabulary of; ``longest``: letters of the longest piece."""

    pieces: Sequence[str]
    scores: np.ndarray[Any, Any]
    longest: int
    unk_id: int
    byte_fallback: bool

    def made(self, only: Collection[int] | None = None) -> Any:
        """The library's own.

        Args:
            only: the ids of the pieces that have their text; by default all.
        """
        from tokenizers import models

        if only is None:
            pairs = list(zip(self.pieces, self.scores.tolist(), strict=True))
        else:
            # The worst score stays: the library makes that of unknown letters of it.
            pairs = [(_NONE, float(self.scores.min()))] * len(self.pieces)
            for index in only:
                pairs[index] = (self.pieces[index], float(self.scores[index]))
        return models.Unigram(pairs, self.unk_id, self.byte_fallback)

    def piece(self, index: int) -> str | None:
        """That of an id, if it has one."""
        return self.pieces[index] if 0 <= index < len(self.pieces) else None

    def among(self, texts: Set[str]) -> dict[str, int]:
        """The ids of those texts that are pieces; of one that is there twice the last, as the library has it."""
        return {text: self._ids[text] for text in texts if text in self._ids}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: index for index, piece in enumerate(self.pieces)}


class Deferred:
    """Stands for a ``tokenizers.Tokenizer``.

    Args:
        tokenizer: with everything but its vocabulary.
        vocabulary: that.
        named: texts whose ids are asked for at once: special and added tokens.
    """

    __slots__ = ("_calls", "_known", "_lock", "_named", "_tokenizer", "_vocabulary")

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary, named: Iterable[str]) -> None:
        named = {*named, *spm.FAIRSEQ_SPECIAL, spm.MASK}
        self._lock = threading.RLock()
        self._tokenizer = tokenizer
        self._vocabulary: Vocabulary | None = vocabulary
        self._known: dict[str, int | None] = {**dict.fromkeys(named), **vocabulary.among(named)}
        self._calls = 0
        self._named = vocabulary.made(only=[index for index in self._known.values() if index is not None])
        tokenizer.model = self._named

    @property
    def whole(self) -> Any:
        """The tokenizer itself, with its vocabulary."""
        with self._lock:
            if self._vocabulary is not None:
                self._tokenizer.model = self._vocabulary.made()
                self._vocabulary = self._named = None
            return self._tokenizer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._tokenizer if name in _SETTINGS else self.whole, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._tokenizer if name in _SETTINGS else self.whole, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.whole,)

    # -- what is asked while a tokenizer is made -----------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The vocabulary; until the whole is made, one of the same kind."""
        return self._tokenizer.model

    def id_to_token(self, index: int) -> str | None:
        """The token of an id."""
        vocabulary = self._vocabulary  # read once: another thread may make the whole meanwhile
        piece = None if vocabulary is None else vocabulary.piece(index)
        if piece is not None:
            return piece
        found: str | None = self._tokenizer.id_to_token(index)
        return found

    def token_to_id(self, token: str) -> int | None:
        """The id of a token."""
        if self._vocabulary is not None and self._known.get(token) is not None:
            return self._known[token]
        found: int | None = self.whole.token_to_id(token)
        return found

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids. The library too looks them up, and lets its decoder join what it found."""
        vocabulary, decoder = self._vocabulary, self._tokenizer.decoder
        if vocabulary is None or decoder is None or min(ids, default=0) < 0:
            return str(self.whole.decode(ids, skip_special_tokens=skip_special_tokens))
        added = self._tokenizer.get_added_tokens_decoder()
        left_out = {token.content for token in added.values() if token.special} if skip_special_tokens else set()
        tokens = (added[index].content if index in added else vocabulary.piece(index) for index in ids)
        return str(decoder.decode([token for token in tokens if token is not None and token not in left_out]))

    # -- text to ids ---------------------------------------------------------------------------------------------------

    def encode(
        self, sequence: Any, pair: Any = None, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Any:
        """One text or pair; see :meth:`encode_batch`."""
        item = sequence if pair is None else (sequence, pair)
        return self.encode_batch([item], is_pretokenized=is_pretokenized, add_special_tokens=add_special_tokens)[0]

    def encode_batch(
        self, input: Sequence[Any], is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> list[Any]:
        """As of ``tokenizers.Tokenizer``."""
        how = {"is_pretokenized": is_pretokenized, "add_special_tokens": add_special_tokens}
        with self._lock:
            words = self._words(input, is_pretokenized)
            if words is None:
                self.whole  # noqa: B018
            elif words:
                vocabulary = self._vocabulary
                assert vocabulary is not None
                parts = {part for word in words for part in _parts(word, vocabulary.longest)}
                self._tokenizer.model = vocabulary.made(only=vocabulary.among(parts).values())
            return list(self._tokenizer.encode_batch(input, **how))

    def _words(self, inputs: Sequence[Any], is_pretokenized: bool) -> set[str] | None:
        """What the vocabulary is asked for, as the library itself cuts the texts; ``None``: ask the whole."""
        if self._vocabulary is None or self._vocabulary.byte_fallback or sum(map(len, _texts(inputs))) > LETTERS:
            return None
        if any(_texts(inputs)):
            self._calls += 1
        if self._calls > CALLS:
            return None
        tokenizer, truncation = self._tokenizer, self._tokenizer.truncation
        how = {"is_pretokenized": is_pretokenized, "add_special_tokens": False}
        tokenizer.no_truncation()
        tokenizer.model = self._named
        try:
            words = _tokens(tokenizer.encode_batch(inputs, **how))
            if not words.isdisjoint(self._known):
                # It may have cut a word at one of these. To a vocabulary without any piece each word is one that it
                # does not know.
                tokenizer.model = self._vocabulary.made(only=())
                words = _tokens(tokenizer.encode_batch(inputs, **how))
        finally:
            if truncation is not None:
                tokenizer.enable_truncation(**truncation)
        return words


def _tokens(rows: Iterable[Any]) -> set[str]:
    return {token for row in rows for token in row.tokens}


def _texts(inputs: Any) -> Iterator[str]:
    """All texts in lists and pairs."""
    for item in inputs:
        if isinstance(item, str):
            yield item
        elif isinstance(item, list | tuple):
            yield from _texts(item)


def _parts(word: str, longest: int) -> Iterator[str]:
    """All that stands in a word and is not longer than the longest piece."""
    for start in range(len(word)):
        for end in range(start + 1, min(len(word), start + longest) + 1):
            yield word[start:end]


def _same(tokenizer: Any) -> Any:
    return tokenizer
