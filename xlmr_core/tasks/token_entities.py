"""What token classification works on: the tokens of a text, the labels of a model, and what is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entity", "Flags", "Labels", "Numbers", "Scores", "Tokens", "entities", "shown_labels"]

Numbers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Scores: TypeAlias = NDArray[np.float32]


class Entity(TypedDict, total=False):
    """What was found: a token or a word has ``entity`` and ``index``, a span has ``entity_group``.

    ``start`` and ``end`` are characters of the text; ``index`` is the token's number in its row, or the word's in the
    text.
    """

    entity: str
    entity_group: str
    score: float
    index: int
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text, without special ones.

    Attributes:
        text: the text.
        ids_T: their ids.
        start_T, end_T: where they stand in the text.
        word_T: the number of each one's word, where words were given.
        windows: which of them each row has, from a first to before a last.
        before: special tokens before them in a row.
    """

    text: str
    ids_T: Numbers
    start_T: Numbers
    end_T: Numbers
    word_T: Numbers | None
    windows: Sequence[tuple[int, int]]
    before: int


class Labels:
    """The labels of a model, as numbers that whole texts are compared by.

    Args:
        names: in the order of the model's outputs.

    A label ``B-PER`` begins a person and ``I-PER`` goes on with it. Where a model has such labels, ``E-`` and ``L-``
    are known as the last word of a span, ``S-`` and ``U-`` as the only one, ``M-`` as one in the middle. An ``I-``
    after something else begins a span. Where it has none, neighbours with the same label are a span. The published
    groups know ``B-`` and ``I-`` only.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        marked = any(name[:2] in ("B-", "I-") for name in names)
        marks = [name[0] if marked and name[1:2] == "-" and name[0] in "BIELSUM" else "" for name in names]
        self.groups = [name[2:] if mark else name for name, mark in zip(names, marks, strict=True)]
        self.tags = _numbered(self.groups)
        self.begins = np.array([mark in ("B", "S", "U") for mark in marks])
        self.ends = np.array([mark in ("E", "L", "S", "U") for mark in marks])
        self.published_groups = [name.split("-", 1)[-1] for name in names]
        self.published_tags = _numbered([name[2:] if name[:2] in ("B-", "I-") else name for name in names])
        self.published_begins = np.array([name[:2] == "B-" for name in names])


def _numbered(names: Sequence[str]) -> Numbers:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def shown_labels(names: Sequence[str], ignored: frozenset[str], label_W: Numbers) -> Numbers:
    """The places of those labels that are not ignored."""
    left_out = np.array([name in ignored for name in names])
    return np.flatnonzero(~left_out[label_W])


def entities(kind: str, labels: Sequence[str], **columns: Sequence[Any] | NDArray[Any]) -> list[Entity]:
    """What was found, a dictionary each with plain Python values.

    Args:
        kind: the key of the label: ``entity`` or ``entity_group``.
        labels: of each.
        **columns: the other values of each, by their keys.
    """
    values = (column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values())
    keys = (kind, *columns)
    return [cast(Entity, dict(zip(keys, one, strict=True))) for one in zip(labels, *values, strict=True)]
