"""Classification of texts and of pairs of texts, and multiple choice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.jobs.rows import list_in
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.recipe import PROBLEMS, Recipe
from xlmr_core.training.task import Example, Feature, TrainingTask, is_number, text_in
from xlmr_core.wording import shown

__all__ = ["MultipleChoice", "TextClassification"]

REGRESSION, ONE_LABEL, SEVERAL_LABELS = PROBLEMS
_WITH_A_POINT = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+")


class TextClassification(TrainingTask):
    """A label of a text or of a pair (as of NLI), a number, or several labels.

    Which of them, where the recipe does not say: lists mean several labels; numbers of which some have a decimal point
    mean regression, and are refused beside texts; anything else means one label.
    """

    name = "text-classification"
    auto = "AutoModelForSequenceClassification"
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "text": ("sentence", "text1", "sentence1", "premise", "question1", "review", "content"),
        "pair": ("text_pair", "text2", "sentence2", "hypothesis", "question2"),
        "label": ("labels", "score", "class", "category"),
    }
    optional: ClassVar[Sequence[str]] = ("pair",)

    def __init__(self, recipe: Recipe, tokenizer: Any, labels: Sequence[str] = (), problem: str = "") -> None:
        super().__init__(recipe, tokenizer, labels, problem or ONE_LABEL)
        self.metric = {REGRESSION: "pearson", ONE_LABEL: "accuracy", SEVERAL_LABELS: "f1"}[self.problem]

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """A text, perhaps its pair, and a label: a text or number, or a list of texts, in a cell of csv as JSON."""
        label = row.get("label")
        if isinstance(label, str) and (several := list_in(label)) is not None:
            label = several
        if isinstance(label, list):
            if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in label):
                raise InputError(f"expected labels to be texts, received {shown(label, 60)}")
            label = [str(one) for one in label]
        elif label is None or label == "" or not isinstance(label, str | int | float) or label != label:
            received = "nothing" if label in (None, "") else shown(label, 60)
            raise InputError(f"expected a label, a text or a number, received {received}")
        elif isinstance(label, bool | int):
            label = str(label)
        pair = {"pair": text_in(row, "pair")} if "pair" in row else {}
        return {"text": text_in(row, "text"), **pair, "label": label}

    @classmethod
    def labels_of(cls, example: Example) -> Sequence[Any]:
        """Its label, a text or a number; labels of a list each in a tuple."""
        label = example["label"]
        return [(one,) for one in label] if isinstance(label, list) else [label]

    @classmethod
    def problem_of(cls, labels: Sequence[Any]) -> str:
        """What labels mean, by all that there are; see the class.

        Raises:
            InputError: for numbers with a decimal point beside texts, which mean nothing together.
        """
        if any(isinstance(label, tuple) for label in labels):
            return SEVERAL_LABELS
        fractions = [label for label in labels if isinstance(label, float) or _WITH_A_POINT.fullmatch(label)]
        texts = [label for label in labels if not is_number(label)]
        if fractions and texts:
            raise InputError(
                f"expected labels that are numbers alone, or none with a decimal point, received {shown(texts[0], 60)} "
                f"beside {fractions[0]}; leave such rows out, or say problem, {REGRESSION!r} or {ONE_LABEL!r}"
            )
        return REGRESSION if fractions else ONE_LABEL

    @classmethod
    def check(cls, example: Example, problem: str) -> None:
        """A regression has numbers, and one label is no list."""
        label = example["label"]
        if problem == REGRESSION and not is_number(label):
            raise InputError(f"expected a finite number as the label of a regression, received {shown(label, 60)}")
        if problem == ONE_LABEL and isinstance(label, list):
            raise InputError(
                f"expected one label, received the list {shown(label, 60)}; with several labels for a text problem is "
                f"{SEVERAL_LABELS!r}"
            )

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """``<s> text </s>``, or ``<s> text </s></s> pair </s>``, of which the longer is cut first."""
        found: list[list[Feature]] = [[] for _ in examples]
        for paired in (False, True):
            places = [place for place, example in enumerate(examples) if ("pair" in example) is paired]
            if not places:
                continue
            sides = [[examples[place][side] for place in places] for side in ("text", "pair")[: 1 + paired]]
            limit = self.recipe.max_length
            encoded = self.tokenizer(*sides, truncation=True, max_length=limit, verbose=False)["input_ids"]
            for place, ids in zip(places, encoded, strict=True):
                label = self._label(examples[place]["label"])
                found[place] = [Feature({"input_ids": np.array(ids, np.int64), "labels": label})]
        return found

    def _label(self, label: Any) -> Any:
        if self.problem == REGRESSION:
            return np.float32(label)
        if self.problem == ONE_LABEL:
            return np.int64(self.number(str(label)))
        several = np.zeros(len(self.labels), np.float32)
        # A single text is a set of one.
        several[[self.number(one) for one in (label if isinstance(label, list) else [str(label)])]] = 1
        return several

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """Rows with their labels."""
        labels = np.stack([feature.arrays["labels"] for feature in features])
        return {**self.padded(features, multiple), "labels": labels}

    def settings(self) -> dict[str, Any]:
        """The labels and the problem; a regression has one output."""
        if self.problem == REGRESSION:
            return {"num_labels": 1, "problem_type": REGRESSION}
        return {**self.named_labels(), "problem_type": self.problem}

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """The label with the highest logit; all labels with one above 0; or the number."""
        logits, gold = outputs[0]["logits"], features[0].arrays["labels"]
        if self.problem == REGRESSION:
            return float(logits[0]), float(gold)
        if self.problem == ONE_LABEL:
            return int(logits.argmax()), int(gold)
        return (logits > 0).astype(int).tolist(), gold.astype(int).tolist()


class MultipleChoice(TrainingTask):
    """Which of several texts goes on from a prompt."""

    name = "multiple-choice"
    auto = "AutoModelForMultipleChoice"
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "prompt": ("premise", "context", "sent1", "startphrase"),
        "question": ("sent2",),
        "choices": ("endings", "options"),
        "label": ("labels", "answer"),
    }
    optional: ClassVar[Sequence[str]] = ("question",)
    numbered: ClassVar[Mapping[str, str]] = {"choices": r"(?:choice|ending|option|answer)_?(\d+)"}
    metric = "accuracy"
    at_once = True

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """A prompt with its question behind it, the choices, and which is right: its place from 0, or its text."""
        choices, label = row["choices"], row.get("label")
        if (
            not isinstance(choices, list)
            or len(choices) < 2
            or not all(isinstance(one, str) and one.strip() for one in choices)
        ):
            raise InputError(
                f"expected a list of two choices or more, all of them texts, received {shown(choices, 60)}"
            )
        if isinstance(label, str):
            label = _place(label, choices)
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
            raise InputError(
                f"expected the right choice, its place from 0 to {len(choices) - 1} or its text, received "
                f"{shown(row.get('label'), 60)}"
            )
        # Exams have questions whose text is a picture that is not there: one part of the two will do.
        parts = [part for part in (row.get("prompt"), row.get("question")) if isinstance(part, str) and part.strip()]
        prompt = " ".join(parts) or text_in(row, "prompt")
        return {"prompt": prompt, "choices": choices, "label": label}

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """The prompt with each of its choices, a row each."""
        prompts = [example["prompt"] for example in examples for _ in example["choices"]]
        choices = [choice for example in examples for choice in example["choices"]]
        limit = self.recipe.max_length
        rows = iter(self.tokenizer(prompts, choices, truncation=True, max_length=limit, verbose=False)["input_ids"])
        found = []
        for example in examples:
            own = [Feature({"input_ids": np.array(next(rows), np.int64)}) for _ in example["choices"]]
            found.append([Feature({**self.padded(own), "labels": np.array(example["label"], np.int64)})])
        return found

    def kind(self, feature: Feature) -> int:
        """How many choices there are: a batch has one axis for them."""
        return len(feature.arrays["input_ids"])

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """Rows (B, C, S) and the right choices (B,)."""
        batch: Arrays = {}
        for name, fill in (("input_ids", self.tokenizer.pad_token_id), ("attention_mask", 0)):
            rows = [row for feature in features for row in feature.arrays[name]]
            batch[name] = self.pad(rows, fill, multiple).reshape(len(features), self.kind(features[0]), -1)
        return {**batch, "labels": np.stack([feature.arrays["labels"] for feature in features])}

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """The place of the choice with the highest logit."""
        return int(outputs[0]["logits"].argmax()), int(example["label"])


def _place(label: str, choices: Sequence[str]) -> int | str:
    """The place of a choice that a text says, by its text or by the number; the text where it says none.

    Raises:
        InputError: for a text that is one choice and the place of another.
    """
    number = int(label) if label.isdecimal() and int(label) < len(choices) else None
    if label not in choices:
        return label if number is None else number
    place = choices.index(label)
    if number is not None and choices[number] != label:
        raise InputError(
            f"expected to know the right choice, received {label!r}, which is the text of the choice {place} and the "
            f"place of another one; in a file of JSON Lines say the place as a number, {place} or {number}"
        )
    return place
