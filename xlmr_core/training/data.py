"""``Data``: what a recipe trains and evaluates on, read and looked at before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from xlmr_core.arguments import suggestion
from xlmr_core.errors import InputError
from xlmr_core.training.batches import Batches, Evaluation
from xlmr_core.training.examples import MOST_LABELS, Examples, read_examples
from xlmr_core.training.features import Features
from xlmr_core.training.lines import Packed, rows_of_lines
from xlmr_core.training.pairs import SCORE, SentenceEmbedding
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.refusals import check_widths
from xlmr_core.training.task import TrainingTask
from xlmr_core.training.tasks import TRAINING
from xlmr_core.training.texts import TextClassification
from xlmr_core.training.tokens import OUTSIDE, TokenClassification
from xlmr_core.wording import counted

__all__ = ["Data"]

WITH_LABELS = (TextClassification, TokenClassification)


@dataclass(frozen=True)
class Data:
    """The data of a recipe.

    Attributes:
        task: of the recipe, with its labels; ``task.settings()`` is what a model's configuration has to say.
        train: the batches of the steps.
        evaluation: what is looked at during the run, if the recipe names some.
        test: what is looked at once at its end, if the recipe names some.
    """

    task: TrainingTask
    train: Batches
    evaluation: Evaluation | None
    test: Evaluation | None

    @classmethod
    def read(cls, recipe: Recipe, tokenizer: Any, config: Any = None, multiple: int = 1) -> Self:
        """Read the files of a recipe.

        Args:
            recipe: what is trained, with files.
            tokenizer: an XLM-R tokenizer.
            config: the configuration that training starts from: where it names the same labels, in its order.
            multiple: rows are padded to a multiple of this; see :class:`~xlmr_core.training.batches.Batches`.

        Raises:
            InputError: for files that are not there, bad lines, and labels that training does not know.
        """
        if config is not None and recipe.max_length > config.max_tokens:
            raise InputError(
                f"expected max_length of at most {config.max_tokens}, which is what the model takes, received "
                f"{recipe.max_length}"
            )
        if config is not None:
            check_widths(recipe.matryoshka, config.hidden_size)
        if not recipe.train:
            raise InputError("expected files to train on, received none; name them in train of the recipe")
        kind = TRAINING[recipe.task]
        train = read_examples(kind, recipe.train, recipe.columns, recipe.languages, recipe.problem or "")
        problem = _problem(kind, recipe, train)
        others = {name: getattr(recipe, name) for name in ("eval", "test")}
        looked_at = {
            name: read_examples(kind, files, recipe.columns, problem=problem) for name, files in others.items() if files
        }
        labels = _labels(kind, recipe, train, problem, config)
        if not issubclass(kind, WITH_LABELS):
            # What the data that is looked at says of itself, such as that some questions have no answer.
            labels = [label for found in looked_at.values() or [train] for label in found.labels]
        if issubclass(kind, SentenceEmbedding):
            _check_scores(looked_at)
        task = kind(recipe, tokenizer, labels, problem)
        _check_labels(task, {"train": train, **looked_at})
        rows = {name: _features(task, found, recipe) for name, found in (("train", train), *looked_at.items())}
        for features in rows.values():
            task.check_rows(features)
        batches = Batches(task, rows.pop("train"), recipe, multiple)
        evaluations = {name: Evaluation(task, features, recipe, multiple) for name, features in rows.items()}
        return cls(task, batches, evaluations.get("eval"), evaluations.get("test"))


def _features(task: TrainingTask, examples: Examples, recipe: Recipe) -> Features:
    if not (task.by_line and recipe.packing):
        return Features(task, examples)
    features = Features(task, examples, every=True)
    # A line of several windows has all of their tokens, so it stands alone; <s> and </s> are counted once a row.
    around = len(task.tokenizer.build_inputs_with_special_tokens([]))
    tokens = np.bincount(features.example, features.lengths - around, len(examples)).astype(np.int64)
    begins = np.array([bool(examples[number].get("begins")) for number in range(len(examples))], np.bool_)
    begins |= np.append(True, np.diff(examples.language) != 0)[: len(begins)]
    return Features(task, Packed(examples, rows_of_lines(tokens, begins, recipe.max_length - around)))


def _problem(kind: type[TrainingTask], recipe: Recipe, train: Examples) -> str:
    if not issubclass(kind, TextClassification):
        return ""
    return recipe.problem or kind.problem_of(train.labels)


def _labels(kind: type[TrainingTask], recipe: Recipe, train: Examples, problem: str, config: Any) -> Sequence[str]:
    """Names of labels in the order of their numbers: the recipe's, the model's if they are the same, or sorted."""
    if problem == "regression":
        return ()
    if len(train.labels) > MOST_LABELS:
        raise InputError(
            f"expected at most {MOST_LABELS} labels, received more; check whether the labels are in the right column, "
            "and whether the problem is 'regression'"
        )
    # A label may stand alone in one row, and in the list of another.
    there = list(dict.fromkeys(map(_name_of, train.labels)))
    if recipe.labels:
        return recipe.labels
    names = {} if config is None else dict(config.id2label)
    own = [str(names[number]) for number in sorted(names)]
    if len(own) > 1 and set(there) <= set(own) and sorted(own) != [f"LABEL_{n}" for n in range(len(own))]:
        return own
    return sorted(there, key=_order)


def _name_of(label: Any) -> str:
    """The name of a label, which one of a list has in a tuple."""
    return str(label[0] if isinstance(label, tuple) else label)


def _order(label: str) -> tuple[Any, ...]:
    """``O``, numbers by their size, then names, ``B-`` before ``I-``."""
    if label == OUTSIDE:
        return (0,)
    if label.isdecimal():
        return (1, int(label), label)
    prefix, sign, name = label.partition("-")
    return (2, name, prefix) if sign and len(prefix) == 1 else (2, label, "")


def _check_scores(looked_at: dict[str, Examples]) -> None:
    """Refuse what cannot be counted in one way: pairs with scores and others."""
    if SCORE in (there := {label for found in looked_at.values() for label in found.labels}) and len(there) > 1:
        raise InputError(
            f"expected pairs that all have scores, or none that has one, in {' and '.join(looked_at)}, received both; "
            "evaluate on one kind"
        )


def _check_labels(task: TrainingTask, read: dict[str, Examples]) -> None:
    """Refuse labels that have no number."""
    for place, examples in read.items():
        for label in examples.labels if task.labels else ():
            name = _name_of(label)
            if name not in task.number_of:
                near = suggestion(name, task.labels, otherwise="name all of them in labels of the recipe")
                raise InputError(
                    f"expected {place} to have labels of the {counted(len(task.labels), 'label')} that are trained, "
                    f"received {name!r}; {near}"
                )
