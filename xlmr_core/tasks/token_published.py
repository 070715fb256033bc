"""Token classification as published: tokens, or groups of tokens or words with one label, each window by itself.

A word begins where a space is, so that a text in Chinese is one word; a token that begins one has the space before it
among its characters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlmr_core.tasks.token_entities import Entity, Flags, Labels, Numbers, Scores, Tokens, entities, shown_labels
from xlmr_core.tasks.token_scores import BY_WORD, first_of, means, probabilities

__all__ = ["published_entities"]


def published_entities(
    tokens: Tokens, logits: Sequence[Scores], labels: Labels, strategy: str, ignored: frozenset[str], tokenizer: Any
) -> list[Entity]:
    """What is found in a text; of answers of windows that overlap the longer, or of equal ones the surer, stays.

    Args:
        tokens: of the text.
        logits: of the tokens of each of its windows.
        labels: of the model.
        strategy: ``none``, ``simple``, ``first``, ``average`` or ``max``.
        ignored: labels that are left out; of groups without ``B-`` and ``I-``.
        tokenizer: the model's.
    """
    # The tokens of all windows, one window after another.
    token_T = np.concatenate([np.arange(start, end) for start, end in tokens.windows])
    opens_T = np.zeros(len(token_T), np.bool_)
    opens_T[np.cumsum([0, *(end - start for start, end in tokens.windows[:-1])])] = True
    scores_TK = probabilities(np.concatenate(logits))
    found = (
        _tokens(tokens, token_T, opens_T, scores_TK, labels, ignored, tokenizer)
        if strategy == "none"
        else _groups(tokens, token_T, opens_T, scores_TK, labels, ignored, tokenizer, strategy)
    )
    return found if len(tokens.windows) == 1 else _merged(found)


def _tokens(
    tokens: Tokens,
    token_T: Numbers,
    opens_T: Flags,
    scores_TK: Scores,
    labels: Labels,
    ignored: frozenset[str],
    tokenizer: Any,
) -> list[Entity]:
    """The tokens whose labels are not ignored, each with its number in its row.

    Args:
        tokens: of the text.
        token_T: which of them the windows have.
        opens_T: whether it is the first of its window.
        scores_TK: of its labels.
        labels, ignored, tokenizer: as of :func:`published_entities`.
    """
    label_T, score_T = first_of(scores_TK, np.arange(len(scores_TK)))
    shown_T = shown_labels(labels.names, ignored, label_T)
    place_T = token_T[shown_T]
    number_T = np.arange(len(token_T))
    number_T -= np.maximum.accumulate(np.where(opens_T, number_T, 0))
    return entities(
        "entity",
        [labels.names[label] for label in label_T[shown_T].tolist()],
        score=score_T[shown_T],
        index=number_T[shown_T] + tokens.before,
        word=_pieces(tokens, place_T, tokenizer),
        start=tokens.start_T[place_T],
        end=tokens.end_T[place_T],
    )


def _groups(
    tokens: Tokens,
    token_T: Numbers,
    opens_T: Flags,
    scores_TK: Scores,
    labels: Labels,
    ignored: frozenset[str],
    tokenizer: Any,
    strategy: str,
) -> list[Entity]:
    """Neighbouring words of one label as a group, of a window each; a ``simple`` word is a token."""
    if strategy == "simple":
        word_W = np.arange(len(token_T))
        label_W, score_W = first_of(scores_TK, word_W)
    else:
        word_W = np.flatnonzero(_begins_at_space(tokens, tokenizer.unk_token_id)[token_T] | opens_T)
        label_W, score_W = BY_WORD[strategy](scores_TK, word_W)
    tag_W = labels.published_tags[label_W]
    begins_W = opens_T[word_W] | labels.published_begins[label_W] | np.append(True, tag_W[1:] != tag_W[:-1])
    first_G = np.flatnonzero(begins_W)
    after_G = np.append(first_G[1:], len(word_W))
    label_G, score_G = label_W[first_G], means(score_W, first_G)
    shown_G = shown_labels(labels.published_groups, ignored, label_G)
    first_G, after_G = first_G[shown_G], after_G[shown_G]
    edge_W = np.append(word_W, len(token_T))
    return entities(
        "entity_group",
        [labels.published_groups[label] for label in label_G[shown_G].tolist()],
        score=score_G[shown_G],
        word=[
            _joined(tokens, token_T, edge_W[first : after + 1], strategy, tokenizer)
            for first, after in zip(first_G.tolist(), after_G.tolist(), strict=True)
        ],
        start=tokens.start_T[token_T[edge_W[first_G]]],
        end=tokens.end_T[token_T[edge_W[after_G] - 1]],
    )


def _joined(tokens: Tokens, token_T: Numbers, bounds: Numbers, strategy: str, tokenizer: Any) -> str:
    """The text of a group: the pieces of each word are joined, and then the words once more.

    Args:
        tokens: of the text.
        token_T: which of them the windows have.
        bounds: where in these its words begin, and where the last ends.
        strategy: with ``simple`` tokens are joined at once.
        tokenizer: the model's.
    """
    pieces = _pieces(tokens, token_T[bounds[0] : bounds[-1]], tokenizer)
    join = tokenizer.convert_tokens_to_string
    if strategy != "simple":
        cuts = (bounds - bounds[0]).tolist()
        pieces = [join(pieces[first:last]) for first, last in itertools.pairwise(cuts)]
    text: str = join(pieces)
    return text


def _pieces(tokens: Tokens, place_T: Numbers, tokenizer: Any) -> list[str]:
    """The pieces of some tokens, and of an unknown one what stands in the text."""
    ids_T = tokens.ids_T[place_T]
    pieces: list[str] = tokenizer.convert_ids_to_tokens(ids_T.tolist())
    for number in np.flatnonzero(ids_T == tokenizer.unk_token_id).tolist():
        at = place_T[number]
        pieces[number] = tokens.text[tokens.start_T[at] : tokens.end_T[at]]
    return pieces


def _begins_at_space(tokens: Tokens, unknown: int) -> Flags:
    """Where a word begins: at a token with a space at its first character or before it, and at every unknown one."""
    codes_C = np.frombuffer(tokens.text.encode("utf-32-le", "surrogatepass"), np.uint32)
    space_C = np.append(codes_C == ord(" "), False)
    start_T = np.minimum(tokens.start_T, len(codes_C))
    begins_T: Flags = (start_T == 0) | space_C[start_T] | space_C[np.maximum(start_T - 1, 0)]
    begins_T |= tokens.ids_T == unknown
    return begins_T


def _merged(found: Sequence[Entity]) -> list[Entity]:
    kept: list[Entity] = []
    for one in sorted(found, key=lambda one: one["start"]):
        best = kept[-1] if kept else None
        if best is None or not best["start"] <= one["start"] < best["end"]:
            kept.append(one)
            continue
        longer = (one["end"] - one["start"]) - (best["end"] - best["start"])
        if longer > 0 or (longer == 0 and one["score"] > best["score"]):
            kept[-1] = one
    return kept
