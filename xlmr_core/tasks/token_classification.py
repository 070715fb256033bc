"""Token classification: from texts to what is found in them: names of people and places, parts of speech, punctuation.

``aggregation_strategy`` says what an answer lists. The first five are the published ones and answer as published
(``token_published.py``):

- ``none``: each token, with its own label;
- ``simple``: spans of tokens with one label;
- ``first``, ``average``, ``max``: each word has the label of its first token, of the mean over its tokens, or of its
  surest token, and words with one label are a span. A word begins at a space, so that a Chinese text is one word.

The other two (``token_words.py``) know the words of scripts with and without spaces, give what stands in the text from
``start`` to ``end`` exactly, without the space before, and see a long text whole, in windows that overlap:

- ``words``: each word, with its label;
- ``spans``: words that belong together by their labels, ``B-`` and ``I-`` among others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xlmr_core.errors import InputError, TooLongError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Item, Task, check_texts, shown, visible
from xlmr_core.tasks.texts import places_of, row_of, windows
from xlmr_core.tasks.token_entities import Entity, Labels, Tokens
from xlmr_core.tasks.token_published import published_entities
from xlmr_core.tasks.token_scores import BY_WORD
from xlmr_core.tasks.token_words import found_spans, found_words

__all__ = ["Entity", "TokenClassification", "TokenClassificationOptions"]

PUBLISHED = ("none", "simple", "first", "average", "max")
WITH_WORDS = {"words": found_words, "spans": found_spans}
# Windows that follow each other share a quarter of their tokens, where nothing is said.
SHARED = 4


@dataclass(frozen=True)
class TokenClassificationOptions(TaskOptions):
    """What a call can choose.

    ``on_overflow``, where nothing is said, is ``"window"`` for ``words``, ``spans`` and with ``stride``, and else
    ``"truncate"``.

    Attributes:
        aggregation_strategy: what an answer lists; see the module. By default ``none``.
        ignore_labels: labels that are left out, by default ``["O"]``; of spans without their ``B-`` or ``I-``.
        stride: tokens that windows of a long text share, by default a quarter of a window.
        word_label: which of its tokens says the label of a word of ``words`` and ``spans``: the ``first``, the
            ``last``, the mean of them (``average``), or the surest (``max``).
        is_split_into_words: a text is a list of words.
        delimiter: what stands between these words in the text that ``start`` and ``end`` count in.
        offset_mapping: where each token of a text stands, special tokens too, in place of what the tokenizer says; a
            list of pairs for each text. Of a call only.
        grouped_entities, ignore_subwords: older names: ``simple``, and together ``first``.
    """

    aggregation_strategy: str | None = option(
        None, "what an answer lists (default: none)", choices=(*PUBLISHED, *WITH_WORDS)
    )
    ignore_labels: str | Sequence[str] | None = option(None, "a label to leave out (default: O)", several=True)
    stride: int | None = option(None, "tokens that windows of a long text share", least=0)
    word_label: str = option("first", "which token says the label of words and spans", choices=tuple(BY_WORD))
    is_split_into_words: bool = option(False, "a text is a list of words", python_only=True)
    delimiter: str = option(" ", "what stands between words", python_only=True)
    offset_mapping: Sequence[Any] | None = option(None, "where tokens stand", python_only=True)
    grouped_entities: bool | None = option(None, "older name of simple", python_only=True)
    ignore_subwords: bool | None = option(None, "with grouped_entities, older name of first", python_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "aggregation_strategy", _strategy(self.aggregation_strategy))
        if isinstance(self.ignore_labels, str):
            object.__setattr__(self, "ignore_labels", [self.ignore_labels])
        super().__post_init__()
        if self.offset_mapping is not None:
            raise InputError("offset_mapping belongs to the texts of a call; pass it there")

    @staticmethod
    def renamed(said: Mapping[str, Any]) -> dict[str, Any]:
        """Older names; a stride and ``none`` are refused where they are said together, as published."""
        new = dict(said)
        older = new.pop("grouped_entities", None), new.pop("ignore_subwords", None)
        if older != (None, None):
            new["aggregation_strategy"] = ("first" if older[1] else "simple") if older[0] else "none"
        if new.get("stride") is not None and _strategy(new.get("aggregation_strategy")) == "none":
            raise InputError(
                "stride merges what windows find, so it needs an aggregation_strategy, received 'none'; choose "
                "another, or leave it out to have tokens merged"
            )
        return new

    @property
    def strategy(self) -> str:
        """What an answer lists."""
        return self.aggregation_strategy or "none"

    @property
    def ignored(self) -> frozenset[str]:
        """The labels that are left out."""
        return frozenset(("O",) if self.ignore_labels is None else self.ignore_labels)

    @property
    def overflow(self) -> str:
        """What happens to a text that is too long."""
        by_windows = self.stride is not None or self.strategy in WITH_WORDS
        return self.on_overflow or ("window" if by_windows else "truncate")


def _strategy(said: Any) -> Any:
    """Published values are of any case, or members of an enumeration."""
    value = getattr(said, "value", said)
    return value.lower() if isinstance(value, str) else value


@dataclass(frozen=True)
class _Given:
    """A text whose tokens' places were given with it."""

    text: Any
    offsets: Any

    def __repr__(self) -> str:
        return repr(self.text)


class TokenClassification(Task):
    """The task; see the module."""

    Options = TokenClassificationOptions
    wanted = ("logits",)
    single = (str, _Given)

    @cached_property
    def labels(self) -> Labels:
        """The labels of the model."""
        names = self.config.id2label
        return Labels([str(names[number]) for number in sorted(names)])

    def read(
        self, *inputs: Any, is_split_into_words: bool | None = None, offset_mapping: Any = None, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """As published: no text at all is a mistake, and one list of words is a list of one text."""
        given, options = super().read(*inputs, **options)
        several = isinstance(given, list | tuple)
        if several and not given:
            raise InputError("expected at least one text, received none; pass a text")
        if several and is_split_into_words and not all(isinstance(words, list | tuple) for words in given):
            given = [given]
        if offset_mapping is not None:
            given = _with_offsets(given, offset_mapping)
        return given, {"is_split_into_words": is_split_into_words, **options}

    def prepare(self, options: TokenClassificationOptions) -> TokenClassificationOptions:
        """Refuse a stride that leaves windows no room to move on."""
        room = self.longest - self.tokenizer.num_special_tokens_to_add()
        if options.stride is not None and options.stride >= room:
            raise InputError(
                f"stride must be below {room}, the tokens of a text that a row has room for, received "
                f"{options.stride}; pass a smaller one"
            )
        return options

    def encode(self, inputs: Sequence[Any], options: TokenClassificationOptions) -> list[Item]:
        """Tokenize texts and cut them into rows that the model takes.

        Raises:
            InputError: naming the first that is no text, no list of words, or too long where ``on_overflow="error"``.
        """
        if not inputs:
            return []
        given = [one.offsets if isinstance(one, _Given) else None for one in inputs]
        texts = [one.text if isinstance(one, _Given) else one for one in inputs]
        if options.is_split_into_words:
            _check_words(texts)
        else:
            check_texts(texts)
        encoded = self.tokenizer(
            texts,
            is_split_into_words=options.is_split_into_words,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        whole = [options.delimiter.join(words) for words in texts] if options.is_split_into_words else texts
        items = []
        for index, ids in enumerate(encoded["input_ids"]):
            offsets = encoded["offset_mapping"][index]
            if given[index] is not None:
                offsets = _checked_offsets(given[index], len(ids), index)
            own = np.flatnonzero(np.equal(encoded["special_tokens_mask"][index], 0))
            first, after = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
            start_T, end_T = (side_S[first:after] for side_S in places_of(offsets, whole[index]))
            word_T = None
            if options.is_split_into_words:
                word_T = np.asarray(encoded.word_ids(index)[first:after], np.int64)
                sizes = [len(word) + len(options.delimiter) for word in texts[index]]
                shift_T = np.cumsum([0, *sizes])[word_T]
                start_T, end_T = start_T + shift_T, end_T + shift_T
            around = len(ids) - (after - first)
            cuts, truncated = self._windows(after - first, around, options, shown(whole, index))
            ids_T = np.asarray(ids[first:after], np.int64)
            if truncated:
                read = slice(*cuts[0])
                ids_T, start_T, end_T = ids_T[read], start_T[read], end_T[read]
                word_T, cuts = None if word_T is None else word_T[read], [(0, len(ids_T))]
            rows = [row_of([*ids[:first], *ids_T[start:end], *ids[after:]]) for start, end in cuts if end > start]
            items.append(Item(rows, Tokens(whole[index], ids_T, start_T, end_T, word_T, cuts, first), truncated))
        return items

    def _windows(
        self, count: int, around: int, options: TokenClassificationOptions, where: str
    ) -> tuple[list[tuple[int, int]], bool]:
        """The windows of a text, and whether they leave out some of it.

        Args:
            count: its tokens.
            around: special tokens of a row.
            options: of the call.
            where: which text an error means.
        """
        room = self.longest - around
        if count <= room:
            return [(0, count)], False
        if options.overflow == "error":
            raise TooLongError(
                f"expected at most {self.longest} tokens, received {count + around}; shorten {where}, or pass "
                "on_overflow='window' to have all of it read"
            )
        shared = room // SHARED if options.stride is None else options.stride
        parts = windows(count, room, shared, self.tokenizer.truncation_side)
        return (parts[:1], True) if options.overflow == "truncate" else (parts, False)

    def decode(self, item: Item, outputs: Sequence[Arrays], options: TokenClassificationOptions) -> list[Entity]:
        """What is found in a text, from the logits (S, K) of each of its windows."""
        tokens: Tokens = item.kept
        if not len(tokens.ids_T):
            return []
        first = tokens.before
        logits = [
            found["logits"][first : first + end - start]
            for found, (start, end) in zip(outputs, tokens.windows, strict=True)
        ]
        if options.strategy in WITH_WORDS:
            return WITH_WORDS[options.strategy](tokens, logits, self.labels, options.word_label, options.ignored)
        return published_entities(tokens, logits, self.labels, options.strategy, options.ignored, self.tokenizer)

    def text(self, answer: Any) -> str:
        """A score, a label, a place and what stands there a line, which is last and breaks no columns."""
        if not answer:
            return "  nothing found"
        labels = [found.get("entity_group", found.get("entity", "")) for found in answer]
        places = [f"{found['start']}-{found['end']}" for found in answer]
        wide, far = max(map(len, labels)), max(map(len, places))
        return "\n".join(
            f"  {found['score']:.4f}  {label:{wide}}  {place:{far}}  {visible(found['word'])}"
            for found, label, place in zip(answer, labels, places, strict=True)
        )


def _with_offsets(inputs: Any, offset_mapping: Any) -> Any:
    """The texts with where their tokens stand, which is given for one or for each."""
    if not isinstance(inputs, str | list | tuple):
        raise InputError(
            f"offset_mapping needs a text or a list of texts, received {type(inputs).__name__}; pass a list"
        )
    of_one = bool(len(offset_mapping)) and np.ndim(offset_mapping[0]) == 1
    mappings = [offset_mapping] if of_one else list(offset_mapping)
    texts = [inputs] if isinstance(inputs, str) else inputs
    if len(mappings) != len(texts):
        raise InputError(
            f"expected an offset_mapping for each text, received {len(mappings)} for {len(texts)}; pass one of each"
        )
    given = [_Given(text, offsets) for text, offsets in zip(texts, mappings, strict=True)]
    return given[0] if isinstance(inputs, str) else given


def _checked_offsets(offsets: Any, count: int, index: int) -> Any:
    if np.shape(offsets) != (count, 2):
        raise InputError(
            f"expected offset_mapping of {count} pairs, one for each token, received {len(offsets)} at index {index}; "
            "the tokenizer gives them with return_offsets_mapping=True"
        )
    return offsets


def _check_words(texts: Sequence[Any]) -> None:
    for index, words in enumerate(texts):
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise InputError(
                f"expected a list of words because of is_split_into_words, received {type(words).__name__} {words!r} "
                f"at index {index}; pass a list of texts for each"
            )
