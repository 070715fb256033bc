"""What a task is to training: which columns it reads, how an example becomes arrays, and what a metric reads.

``tasks.py`` has the table. A batch is a dictionary of NumPy arrays, whose names are those of the model's call:

========================  ================================================================================
task                      a batch of B rows, int64 where nothing is said
========================  ================================================================================
masked-language-modeling  ``input_ids``, ``attention_mask``, ``labels`` (B, S), -100 where nothing is hidden
causal-language-modeling  ``input_ids``, ``attention_mask``, ``labels`` (B, S), -100 on padding
text-classification       ``input_ids``, ``attention_mask`` (B, S), ``labels`` (B,); regression: float32 (B,);
                          several labels: float32 (B, L)
token-classification      ``input_ids``, ``attention_mask``, ``labels`` (B, S), -100 but on a word's first token
question-answering        ``input_ids``, ``attention_mask`` (B, S), ``start_positions``, ``end_positions`` (B,);
                          both are 0 where the window does not hold the answer
multiple-choice           ``input_ids``, ``attention_mask`` (B, C, S), ``labels`` (B,)
sentence-embedding        ``input_ids``, ``attention_mask`` (k B, S): B first texts, then the B that belong to them,
                          then B that do not, where there are any; ``labels`` float32 (B,) where pairs have scores,
                          else ``group`` (B,): texts of one group are no negatives of each other
rerank                    ``input_ids``, ``attention_mask`` (B (1 + n), S): B right passages, then n B others;
                          ``labels`` float32 (B (1 + n), 1)
========================  ================================================================================

``sentence-embedding`` has a loss outside the model, and that of ``question-answering`` is over real tokens alone; all
others are ``model(**batch).loss``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import suggestion
from xlmr_core.errors import InputError
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.recipe import Recipe
from xlmr_core.wording import counted, shown

if TYPE_CHECKING:
    from xlmr_core.training.features import Features

__all__ = ["IGNORED", "Answers", "Example", "Feature", "TrainingTask", "is_number", "text_in"]

IGNORED = -100  # the label of what does not count
LARGEST = float(np.finfo(np.float32).max)

Example: TypeAlias = dict[str, Any]
"""A row of a file, by the task's names of columns; beside them ``language``, and ``id`` where the file has one."""


@dataclass(frozen=True)
class Feature:
    """What an example, or a window of it, is to the model.

    Attributes:
        arrays: by the names of a batch, without an axis for the batch; ``input_ids`` (S,) or (C, S).
        kept: what :meth:`TrainingTask.answer` needs.
    """

    arrays: Arrays
    kept: Any = None

    @property
    def length(self) -> int:
        """Tokens of its longest row."""
        return int(self.arrays["input_ids"].shape[-1])


@dataclass(frozen=True)
class Answers:
    """What a metric reads, an entry for each example.

    Attributes:
        predicted: by task: the number of a label; a float; a list of 0 and 1; a list of tags; a text; the number of a
            choice; two vectors or more (k, D); the score of a passage; or the mean loss of a batch.
        gold: the same; of questions a list of texts that are right (empty: no answer); of vectors the score of the
            pair, or its two texts, or its id twice; of language models how many tokens the loss is a mean of.
        languages: of the examples, ``""`` where a file does not say.
    """

    predicted: list[Any] = field(default_factory=list)
    gold: list[Any] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)


class TrainingTask(ABC):
    """The base of all.

    Args:
        recipe: what is trained.
        tokenizer: an XLM-R tokenizer.
        labels: names in the order of their numbers; empty for tasks without.
        problem: of text classification, one of ``PROBLEMS``.
    """

    name: ClassVar[str]
    """The published name."""
    auto: ClassVar[str]
    """The Auto class that loads its model, less the prefix of a backend."""
    columns: ClassVar[Mapping[str, Sequence[str]]]
    """Its columns, and under which other names files have them."""
    optional: ClassVar[Sequence[str]] = ()
    """Those of them that a file need not have."""
    outputs: ClassVar[Sequence[str]] = ("logits",)
    """What an evaluation needs of a batch: outputs of the model by name, float32 (B, ...); ``loss`` is a mean, and
    ``embeddings`` are the pooled vectors (k B, D)."""
    metric: str
    """The figure by which the best checkpoint is known."""
    at_once: ClassVar[bool] = False
    """Whether its examples have to be encoded before the first step: they have windows, or are of several kinds."""
    by_line: ClassVar[bool] = False
    """Whether it reads running text, whose lines can be put together until a blank one."""
    numbered: ClassVar[Mapping[str, str]] = {}
    """The pattern of columns that hold one thing each of a list, with its number as group 1."""
    draws_ids: ClassVar[bool] = False
    """Whether batches have other ids than the rows that they are made of."""
    by_batch: ClassVar[bool] = False
    """Whether an evaluation has one answer for a batch, and not one for each example."""

    def __init__(self, recipe: Recipe, tokenizer: Any, labels: Sequence[str] = (), problem: str = "") -> None:
        self.recipe, self.tokenizer, self.labels, self.problem = recipe, tokenizer, tuple(labels), problem
        self.number_of = {label: number for number, label in enumerate(self.labels)}

    # -- files -----------------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """An example of the columns of a row.

        Raises:
            InputError: saying what was expected of which column.
        """

    @classmethod
    def labels_of(cls, example: Example) -> Sequence[Any]:
        """The labels that an example has, as the file has them; none for tasks without."""
        return ()

    @classmethod  # noqa: B027, most tasks have one problem
    def check(cls, example: Example, problem: str) -> None:
        """Refuse an example that a problem cannot have; ``""`` where it is not known yet.

        Raises:
            InputError: saying what was expected of which column.
        """

    # -- arrays ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """The features of each example: one, or one for each window."""

    @abstractmethod
    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """A batch; see the table above.

        Args:
            features: of the rows.
            random: the only source of chance, which the seed and the step decide.
            multiple: rows are padded to a multiple of this, and at most to ``max_length``.
        """

    def draw(self, features: Features, numbers: NDArray[np.int64], random: np.random.Generator) -> list[Feature]:
        """The features of a batch, with what is drawn for them from others.

        Args:
            features: all.
            numbers: of those in the batch.
            random: the only source of chance.
        """
        return features.take(numbers)

    def ids(self, feature: Feature) -> Sequence[NDArray[np.int64]]:
        """All ids that batches can have of a row."""
        return [feature.arrays["input_ids"]]

    def has_label(self, feature: Feature) -> bool:
        """Whether a row has something that can count; one without is left out."""
        return True

    def check_rows(self, features: Features) -> None:  # noqa: B027, most tasks draw nothing
        """Refuse rows of which no batch can be drawn.

        Raises:
            InputError: saying what is missing.
        """

    def kind(self, feature: Feature) -> int:
        """Features of one kind only can share a batch."""
        return 0

    def counted(self, batch: Arrays) -> int:
        """How many labels the loss of a batch is the mean of; places of answers and pairs are as many as rows."""
        return int((batch["labels"] != IGNORED).sum()) if "labels" in batch else len(batch["input_ids"])

    def settings(self) -> dict[str, Any]:
        """What the configuration of a model for this has to say, such as ``id2label``."""
        return {}

    # -- answers ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """What is predicted for an example, and what is right; see :class:`Answers`.

        Args:
            example: of the file.
            features: of it.
            outputs: what the model gave for each of them, float32, without an axis for the batch and as long as the
                longest row of the batch was.
        """

    # -- for the tasks ---------------------------------------------------------------------------------------------

    def number(self, label: str) -> int:
        """The number of a label.

        Raises:
            InputError: for a name that is none.
        """
        if label not in self.number_of:
            near = suggestion(label, self.labels, otherwise="name all of them in labels of the recipe")
            raise InputError(f"expected one of {counted(len(self.labels), 'label')}, received {label!r}; {near}")
        return self.number_of[label]

    def named_labels(self) -> dict[str, Any]:
        """The labels as a configuration has them."""
        return {"id2label": dict(enumerate(self.labels)), "label2id": dict(self.number_of)}

    def pad(self, rows: Sequence[NDArray[Any]], value: int, multiple: int = 1) -> NDArray[np.int64]:
        """Rows (S,) as an array (B, longest); as long as a multiple, but at most ``max_length``."""
        longest = max(len(row) for row in rows)
        width = max(longest, min(-(-longest // multiple) * multiple, self.recipe.max_length))
        padded = np.full((len(rows), width), value, np.int64)
        for place, row in zip(padded, rows, strict=True):
            place[: len(row)] = row
        return padded

    def padded(self, features: Sequence[Feature], multiple: int = 1) -> Arrays:
        """``input_ids`` and ``attention_mask`` of features with rows (S,)."""
        rows = [feature.arrays["input_ids"] for feature in features]
        masks = [np.ones(len(row), np.int64) for row in rows]
        return {
            "input_ids": self.pad(rows, self.tokenizer.pad_token_id, multiple),
            "attention_mask": self.pad(masks, 0, multiple),
        }


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text in a column.

    Raises:
        InputError: for anything else, and for nothing.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        received = "nothing" if value is None or value == "" else f"{type(value).__name__} {shown(value, 60)}"
        raise InputError(f"expected a text in the column {column!r}, received {received}")
    return value


def is_number(value: Any) -> bool:
    """Whether a label or a score, as a number or a text, is one that float32 holds: finite, and no truth value."""
    try:
        return not isinstance(value, bool) and abs(float(value)) <= LARGEST
    except (TypeError, ValueError, OverflowError):  # an integer may be of any size
        return False
