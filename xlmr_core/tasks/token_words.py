"""Token classification by words: of scripts with and without spaces, with exact characters, a long text as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_core.tasks.token_entities import Entity, Flags, Labels, Numbers, Scores, Tokens, entities, shown_labels
from xlmr_core.tasks.token_scores import BY_WORD, means, probabilities, seen_best
from xlmr_core.tasks.words import blank_chars, word_numbers

__all__ = ["found_spans", "found_words"]


@dataclass(frozen=True)
class _Words:
    """The words of a text, labelled.

    Attributes:
        number_W: its number in the text, or among the words that were given.
        start_W, end_W: its characters, without white space around them.
        label_W, score_W: its label, and how sure that is.
    """

    number_W: Numbers
    start_W: Numbers
    end_W: Numbers
    label_W: Numbers
    score_W: Scores


def found_words(
    tokens: Tokens, logits: Sequence[Scores], labels: Labels, word_label: str, ignored: frozenset[str]
) -> list[Entity]:
    """The words of a text that have no ignored label.

    Args:
        tokens: of the text.
        logits: of the tokens of each of its windows.
        labels: of the model.
        word_label: which of its tokens says the label of a word; see ``BY_WORD``.
        ignored: labels that are left out.
    """
    words = _labelled(tokens, logits, word_label)
    shown_W = shown_labels(labels.names, ignored, words.label_W)
    start_W, end_W = words.start_W[shown_W], words.end_W[shown_W]
    return entities(
        "entity",
        [labels.names[label] for label in words.label_W[shown_W].tolist()],
        score=words.score_W[shown_W],
        index=words.number_W[shown_W],
        word=_texts(tokens, start_W, end_W),
        start=start_W,
        end=end_W,
    )


def found_spans(
    tokens: Tokens, logits: Sequence[Scores], labels: Labels, word_label: str, ignored: frozenset[str]
) -> list[Entity]:
    """The spans of words that belong together by their labels; arguments as of :func:`found_words`.

    A score is the mean over the words.
    """
    words = _labelled(tokens, logits, word_label)
    if not len(words.label_W):
        return []
    tag_W = labels.tags[words.label_W]
    begins_W = labels.begins[words.label_W] | np.append(True, tag_W[1:] != tag_W[:-1])
    begins_W[1:] |= labels.ends[words.label_W[:-1]]
    span_G = np.flatnonzero(begins_W)
    last_G = np.append(span_G[1:], len(begins_W)) - 1
    label_G, score_G = words.label_W[span_G], means(words.score_W, span_G)
    shown_G = shown_labels(labels.groups, ignored, label_G)
    start_G, end_G = words.start_W[span_G[shown_G]], words.end_W[last_G[shown_G]]
    return entities(
        "entity_group",
        [labels.groups[label] for label in label_G[shown_G].tolist()],
        score=score_G[shown_G],
        word=_texts(tokens, start_G, end_G),
        start=start_G,
        end=end_G,
    )


def _texts(tokens: Tokens, start_W: Numbers, end_W: Numbers) -> list[str]:
    return [tokens.text[start:end] for start, end in zip(start_W.tolist(), end_W.tolist(), strict=True)]


def _labelled(tokens: Tokens, logits: Sequence[Scores], word_label: str) -> _Words:
    """Tokens are never divided: one that has parts of several words makes one of them."""
    size = len(tokens.text)
    start_T, end_T = _without_blanks(tokens)
    real_T = np.flatnonzero(start_T < size)  # what has nothing but white space after it is of no word
    start_T, end_T = start_T[real_T], np.maximum(start_T[real_T], end_T[real_T])
    if tokens.word_T is not None:
        first_T = last_T = tokens.word_T[real_T]
    else:
        number_C = word_numbers(tokens.text)
        first_T = number_C[start_T]
        last_T = np.maximum(first_T, number_C[np.maximum(end_T - 1, 0)])
    word_W = np.flatnonzero(_begins(first_T, last_T))
    if not len(word_W):
        return _Words(word_W, word_W, word_W, word_W, np.zeros(0, np.float32))
    label_W, score_W = BY_WORD[word_label](probabilities(seen_best(tokens.windows, logits))[real_T], word_W)
    start_W, end_W = start_T[word_W], np.maximum.reduceat(end_T, word_W)
    number_W = np.arange(len(word_W)) if tokens.word_T is None else first_T[word_W]
    seen_W = end_W > start_W
    return _Words(number_W[seen_W], start_W[seen_W], end_W[seen_W], label_W[seen_W], score_W[seen_W])


def _without_blanks(tokens: Tokens) -> tuple[Numbers, Numbers]:
    """Where the tokens stand, without white space before and after them; a blank one is where the next begins."""
    blank_C = np.append(blank_chars(tokens.text), False)
    size = len(tokens.text)
    place_C = np.arange(size + 1)
    next_C = np.minimum.accumulate(np.where(blank_C, size, place_C)[::-1])[::-1]
    after_C = np.maximum.accumulate(np.append(0, np.where(blank_C[:-1], 0, place_C[1:])))
    return next_C[np.minimum(tokens.start_T, size)], after_C[np.minimum(tokens.end_T, size)]


def _begins(first_T: Numbers, last_T: Numbers) -> Flags:
    """Where a word begins: at a token with a later word than all before it.

    Args:
        first_T, last_T: the words of its first and last character.
    """
    begins_T = np.ones(len(first_T), np.bool_)
    begins_T[1:] = first_T[1:] > np.maximum.accumulate(last_T)[:-1]
    return begins_T
