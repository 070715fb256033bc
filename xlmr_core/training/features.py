"""``Features``: what the examples of a file are to the model, encoded once where they are few, else when a batch asks.

Of data that is encoded late only the places of its rows in the file are in memory, so it may be larger than that; the
lengths by which rows share a batch are then estimated, by language, from a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlmr_core.training.examples import Examples
from xlmr_core.training.task import Example, Feature

if TYPE_CHECKING:
    from xlmr_core.training.task import TrainingTask

__all__ = ["Features"]

# Characters of the texts that are encoded at once; and how many examples of a language tell the lengths of the others.
MOST_AT_ONCE = 1 << 24
SAMPLE = 128
ENCODED_TOGETHER = 1024


class Features:
    """The features of examples.

    Args:
        task: what encodes.
        examples: of one or several files.
        at_once: encode all now; by default if the texts have at most ``MOST_AT_ONCE`` characters, or the task
            says so.
        every: with the rows that have no label; these are left out by default of what is encoded now.

    Attributes:
        examples: as given.
        lengths: tokens of each feature, (F,); estimated where they are encoded late.
        kinds: features of one kind only share a batch, (F,).
        example: which example each is of, (F,).
        language: the number of its language, (F,).
        languages: names of languages, by number.
    """

    def __init__(
        self, task: TrainingTask, examples: Examples, at_once: bool | None = None, every: bool = False
    ) -> None:
        self._task, self.examples, self._every = task, examples, every
        few = int(examples.sizes.sum()) <= MOST_AT_ONCE
        self._encoded: list[Feature] | None = None
        if task.at_once or (few if at_once is None else at_once):
            self._encode_all()
        else:
            self._estimate()
        self.language: NDArray[np.int64] = examples.language[self.example]
        self.languages: Sequence[str] = examples.languages
        self._windows = np.bincount(self.example, minlength=len(examples))

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[Feature]:
        """The features of these numbers."""
        if self._encoded is not None:
            return [self._encoded[int(number)] for number in numbers]
        encoded = self._task.encode([self.examples[int(number)] for number in numbers])
        return [several[0] for several in encoded]

    def ids(self) -> NDArray[np.int64] | None:
        """All ids that batches can have, rising; ``None`` where others are drawn, or rows are read late."""
        found: NDArray[np.int64] = np.array([self._task.tokenizer.pad_token_id], np.int64)
        if self._encoded is None or self._task.draws_ids:
            return None
        for begin in range(0, len(self._encoded), ENCODED_TOGETHER):
            rows = self._encoded[begin : begin + ENCODED_TOGETHER]
            found = np.unique(np.concatenate([found, *(own.ravel() for row in rows for own in self._task.ids(row))]))
        return found

    def windows(self, example: int) -> int:
        """How many features an example has."""
        return int(self._windows[example])

    def language_of(self, example: int) -> str:
        """The language of an example, empty where its file does not say."""
        return self.languages[int(self.examples.language[example])]

    def _encode_all(self) -> None:
        self._encoded, owners = [], []
        for begin in range(0, len(self.examples), ENCODED_TOGETHER):
            several = [self.examples[i] for i in range(begin, min(begin + ENCODED_TOGETHER, len(self.examples)))]
            for place, found in enumerate(self._task.encode(several)):
                features = [feature for feature in found if self._every or self._task.has_label(feature)]
                self._encoded += features
                owners += [begin + place] * len(features)
        self.example = np.array(owners, np.int64)
        self.lengths = np.array([feature.length for feature in self._encoded], np.int64)
        self.kinds = np.array([self._task.kind(feature) for feature in self._encoded], np.int64)

    def _estimate(self) -> None:
        """Lengths by characters, with the ratio of a sample of each language; one feature an example."""
        examples = self.examples
        self.example = np.arange(len(examples))
        lengths = np.zeros(len(examples))
        for code in np.unique(examples.language).tolist():
            (members,) = np.nonzero(examples.language == code)
            chosen = members[np.linspace(0, len(members) - 1, min(SAMPLE, len(members))).astype(np.int64)]
            sample: list[Example] = [examples[int(number)] for number in chosen]
            tokens = sum(features[0].length for features in self._task.encode(sample))
            lengths[members] = examples.sizes[members] * (tokens / max(1, int(examples.sizes[chosen].sum())))
        self.lengths = np.clip(np.ceil(lengths), 1, self._task.recipe.max_length).astype(np.int64)
        self.kinds = np.zeros(len(examples), np.int64)
