"""Language modelling on running text, a sentence or paragraph a line: masked and causal.

A blank line ends a document. With ``packing`` the lines of a document are put together, with a space between them as in
running text, until a row is full; a line that is longer than a row makes several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xlmr_core.tasks.task import Arrays
from xlmr_core.tasks.texts import windows
from xlmr_core.training.examples import Examples
from xlmr_core.training.masking import Vocabulary, Words, as_typed, mask
from xlmr_core.training.task import IGNORED, Example, Feature, TrainingTask, text_in

__all__ = ["CausalLanguageModeling", "MaskedLanguageModeling", "Packed", "rows_of_lines"]


class _Lines(TrainingTask):
    """What both have in common."""

    columns: ClassVar[Mapping[str, Sequence[str]]] = {"text": ("content", "sentence")}
    outputs: ClassVar[Sequence[str]] = ("loss",)
    metric = "perplexity"
    by_line = True
    by_batch = True

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """A line."""
        return {"text": text_in(row, "text").strip()}

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """``<s> text </s>``, several rows of a long text."""
        ids = self.tokenizer([example["text"] for example in examples], add_special_tokens=False, verbose=False)
        room = self.recipe.max_length - len(self.tokenizer.build_inputs_with_special_tokens([]))
        return [
            [
                Feature({"input_ids": np.array(self.tokenizer.build_inputs_with_special_tokens(own[begin:end]))})
                for begin, end in windows(len(own), room, 0)
            ]
            for own in ids["input_ids"]
        ]

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """There is one answer for a batch; see ``by_batch``."""
        raise NotImplementedError


class MaskedLanguageModeling(_Lines):
    """Hidden tokens are found again: Devlin et al. 2019, with the dynamic masks of Liu et al. 2019."""

    name = "masked-language-modeling"
    auto = "AutoModelForMaskedLM"
    draws_ids = True  # a token in ten that are hidden becomes any other one

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the tokenizer."""
        return Vocabulary.of(self.tokenizer)

    @cached_property
    def _words(self) -> Words:
        return self.vocabulary.words(self.tokenizer)

    @cached_property
    def _opens(self) -> NDArray[np.int64]:
        return self.vocabulary.openings(self.tokenizer)

    def has_label(self, feature: Feature) -> bool:
        """Special tokens, such as those of a text of signs that are not known, are never hidden."""
        return bool(self.vocabulary.ordinary[feature.arrays["input_ids"]].any())

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """Rows with other tokens hidden at each step."""
        recipe, pad = self.recipe, self.vocabulary.pad
        ids = self.pad([feature.arrays["input_ids"] for feature in features], pad)
        # Drawn only where it decides, so that a run without whole words does not change with it.
        whole = recipe.whole_words > 0 and random.random() < recipe.whole_words
        fed, labels = mask(ids, self.vocabulary, recipe.masking_rate, random, self._words if whole else None)
        if whole and recipe.as_typed:
            fed, labels = as_typed(fed, labels, self.vocabulary, self._opens, recipe.max_length)
        fed, labels = self.pad(list(fed), pad, multiple), self.pad(list(labels), IGNORED, multiple)
        return {"input_ids": fed, "attention_mask": (fed != pad).astype(np.int64), "labels": labels}


class CausalLanguageModeling(_Lines):
    """Each token is foretold from those before it."""

    name = "causal-language-modeling"
    auto = "AutoModelForCausalLM"

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """Rows that are their own labels; the model moves them by one place."""
        batch = self.padded(features, multiple)
        labels = np.where(batch["attention_mask"] > 0, batch["input_ids"], IGNORED)
        return {**batch, "labels": labels}

    def counted(self, batch: Arrays) -> int:
        """The first token of a row is not foretold."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def settings(self) -> dict[str, Any]:
        """A decoder, which sees what stands before."""
        return {"is_decoder": True}


class Packed(Examples):
    """Lines put together to rows: examples with the text of one or several lines of one document.

    Args:
        lines: examples of lines.
        starts: the first line of each row, ascending from 0, (R,).
    """

    def __init__(self, lines: Examples, starts: NDArray[np.int64]) -> None:
        self._lines, self._starts = lines, np.append(starts, len(lines))
        self.languages, self.labels = lines.languages, []
        self.language = lines.language[starts]
        self.sizes = np.add.reduceat(lines.sizes, starts) if len(starts) else lines.sizes

    def _read(self, number: int) -> Example:
        own = self._lines[int(self._starts[number]) : int(self._starts[number + 1])]
        return {**own[0], "text": " ".join(line["text"] for line in own)}


def rows_of_lines(tokens: NDArray[np.int64], begins: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Where rows start that are filled with lines in order, each as far as the next line still fits.

    Args:
        tokens: of each line, without ``<s>`` and ``</s>``, (N,).
        begins: whether a document, and so a row, begins with it, (N,).
        most: tokens of a row.

    Returns:
        The number of the first line of each row, (R,).
    """
    starts, filled = [], most + 1
    for line, (count, new) in enumerate(zip(tokens.tolist(), begins.tolist(), strict=True)):
        if new or filled + count > most:
            starts.append(line)
            filled = 0
        filled += count
    return np.array(starts, np.int64)
