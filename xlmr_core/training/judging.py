"""Evaluations of a run: what they find, which was the best, and whether anything still becomes better."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from xlmr_core.arguments import suggestion
from xlmr_core.errors import InputError, TrainingError
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.batches import Evaluation
from xlmr_core.training.log import CONFUSION, COUNTS, EVALUATION, EXAMPLES, LANGUAGES, STEP
from xlmr_core.training.metrics import FIGURES, LOWER, Measured, kind_of, measure
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import TrainingTask

__all__ = ["Judge", "Predict", "line_of"]

Predict: TypeAlias = Callable[[Arrays], Mapping[str, Any]]
"""Gives the outputs for a batch that ``task.outputs`` names, float32 NumPy arrays, without dropout."""

# What predicts may give it for every task.
LOSS = "loss"
# Labels up to which the log has the confusion matrix of an evaluation.
MOST_LABELS = 200


class Judge:
    """Evaluates for a run.

    Args:
        recipe: of the run.
        task: its task's object.

    Attributes:
        kind: of the task, as ``metrics.kind_of`` says.
        metric: the figure that says what is best.

    Raises:
        InputError: for a ``metric`` of the recipe that the task does not have.
    """

    def __init__(self, recipe: Recipe, task: TrainingTask) -> None:
        self.kind = kind_of(task)
        self.metric = recipe.metric or task.metric
        self._labels, self._patience, self._counted = task.labels, recipe.patience, task.counted
        known = tuple(dict.fromkeys([*FIGURES[self.kind], LOSS]))
        if self.metric not in known:
            near = suggestion(self.metric, known, otherwise="choose one of them")
            raise InputError(f"expected a metric of {', '.join(known)}, received {self.metric!r}; {near}")

    def measured(self, evaluation: Evaluation, predict: Predict | None) -> Measured:
        """What an evaluation finds; with the ``loss``, where that is among the outputs.

        Raises:
            TrainingError: without a function that predicts, without examples, or without the recipe's metric.
        """
        if predict is None:
            raise TrainingError("expected a function that predicts, as there are examples to look at; pass predict=")
        losses: list[tuple[float, int]] = []

        def results() -> Iterator[tuple[Arrays, Any]]:
            for batch in evaluation:
                outputs = predict(batch)
                # A loss is a mean over labels; of a batch without any it is nothing.
                if "loss" in outputs and (count := self._counted(batch)):
                    losses.append((float(outputs["loss"]), count))
                yield batch, outputs

        measured = measure(self.kind, evaluation.answers(results()), self._labels)
        if losses and "loss" not in measured.figures:
            measured.figures["loss"] = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
        if self.metric not in measured.figures:
            raise TrainingError(
                f"expected {self.metric!r} of an evaluation, by which the best is known, received "
                f"{', '.join(measured.figures)}; a loss is there where predict gives one, of examples with labels"
            )
        return measured

    def best(self, lines: Sequence[Mapping[str, Any]]) -> int | None:
        """The step of the best of some evaluations; none of none. Of several with the same figure, which a small
        evaluation often has, the one with the least loss is the best, and of those the first.

        Args:
            lines: of the log.
        """
        sign = -1 if self.metric in LOWER else 1

        def goodness(line: Mapping[str, Any]) -> tuple[float, float]:
            return sign * line[EVALUATION][self.metric], -line[EVALUATION].get("loss", 0.0)

        return int(max(lines, key=goodness)[STEP]) if lines else None

    def has_stalled(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Whether as many of them in a row as the recipe has patience for were no better."""
        best = self.best(lines)
        since = sum(1 for line in lines if best is not None and line[STEP] > best)
        return bool(self._patience) and since >= self._patience


def line_of(measured: Measured, name: str = EVALUATION) -> dict[str, Any]:
    """What the log says of an evaluation, beside its step.

    Args:
        measured: what it found.
        name: under which the figures stand.
    """
    line = {name: measured.figures, LANGUAGES: measured.languages, COUNTS: measured.counts, EXAMPLES: measured.examples}
    if measured.confusion is not None and len(measured.confusion) <= MOST_LABELS:
        line[CONFUSION] = measured.confusion.tolist()
    return line
