"""``Run``: the folder of a training run. It gives the loop its batches and rates, and keeps what comes of it.

=====================  ==============================================================================================
in the folder          what it is
=====================  ==============================================================================================
``recipe.toml``        what decides the result, with a value for everything
``log.jsonl``          a line of JSON for each step and each evaluation
``checkpoints/``       what is needed to go on: the newest and the best
``tensorboard/``       the curves, as events
at the end             the model and its tokenizer, ``README.md`` (the model card), ``evaluation.json``,
                       ``curves.png`` and ``confusion.png``
=====================  ==============================================================================================

The loop is open, and a backend's::

    step = run.restore(load)
    while run.goes_on(step):
        batch, rate = run.batch(step), run.rate(step)
        ...  # a step of the optimizer
        step += 1
        run.after(step, loss, norm, save=save, predict=predict)
    run.finish(save_pretrained, predict=predict)

A kill at any moment loses the work since the last checkpoint; the same call goes on there, with the same batches. Where
several processes train together all have a run, for its batches and rates, and the first alone calls the others.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xlmr_core.errors import InputError, TrainingError
from xlmr_core.progress import ProgressBar, stepping_aside
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.batches import Batches, Evaluation
from xlmr_core.training.card import publish
from xlmr_core.training.checkpoints import Checkpoints
from xlmr_core.training.collapse import WINDOW, Watch
from xlmr_core.training.events import Events
from xlmr_core.training.judging import Judge, Predict, line_of
from xlmr_core.training.log import COLLAPSED, CONFUSION, NORM, RATE, STEP, Log
from xlmr_core.training.opening import check_place, opened
from xlmr_core.training.preparing import prepared
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.reports import Outcome, said
from xlmr_core.training.schedules import factor
from xlmr_core.wording import counted, seen

__all__ = ["Run"]

CHECKPOINTS, EVENTS = "checkpoints", "tensorboard"

ToFolder = Callable[[Path], object]
Tell = Callable[[str, str], None]


class Run:
    """A training run in a folder. One process at a time has it, from the first call of :meth:`open` or :meth:`restore`
    to :meth:`close` or :meth:`finish`; a ``with`` statement closes it too.

    Args:
        folder: of the run. A run that is in it goes on, if it has the same recipe and the same data.
        recipe: what decides the result, completed (``Recipe.completed``).
        batches: to train on.
        evaluation: to look at during the run, if there is one.
        test: to look at once at the end, if there is one.
        data: what tells the training data, and whatever else the result depends on, from other data, in plain Python.
        usual_rate: the rate that the task and the width of the model usually have.
        tell: is told how it goes, by a kind (``"warning"``, or an empty text) and a sentence; by default standard
            error is.
        progress: show a bar; by default where standard error is a terminal.
        restart: forget what is there of a run.

    Attributes:
        steps: of the whole run.
        tell: tells how it goes, see above.
        task: the task's object, which knows what a model for it has to be (``task.auto``, ``task.settings()``).

    Raises:
        TrainingError: for a folder that holds something else.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: Recipe,
        batches: Batches,
        evaluation: Evaluation | None = None,
        test: Evaluation | None = None,
        *,
        data: Mapping[str, Any] | None = None,
        usual_rate: float = 0.0,
        tell: Tell | None = None,
        progress: bool | None = None,
        restart: bool = False,
    ) -> None:
        if not recipe.steps or recipe.learning_rate is None:
            raise InputError("expected a recipe with steps and a learning_rate; recipe.completed() fills them in")
        self.folder, self.recipe, self.steps = Path(folder), recipe, recipe.steps
        self.batches, self.evaluation, self.test, self.task = batches, evaluation, test, batches.task
        self._judge = Judge(recipe, self.task)
        self._data = dict(data or {})
        self.tell: Tell = tell or _tell
        self._bar = ProgressBar(progress, " steps")
        self._restart = restart
        self._watch = Watch(recipe, usual_rate or recipe.learning_rate, self._judge.kind)
        self._checkpoints = Checkpoints(self.folder / CHECKPOINTS, recipe.keep)
        self._opened: Log | None = None
        self._events: Events | None = None
        self._load: ToFolder | None = None
        self._pending: tuple[int, Any, Any] | None = None
        self._stops = False
        # Steps that are done, that were when it began here, and that a checkpoint has.
        self._reached = self._begun = self._kept = 0
        self._since, self._before = time.monotonic(), 0.0
        # By which sign something seems to be wrong, and whether the model seems to have collapsed.
        self._sign, self._is_collapsed = "", False
        check_place(self.folder)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        folder: str | os.PathLike[str],
        *,
        multiple: int = 1,
        made_with: Mapping[str, Any] | None = None,
        tell: Tell | None = None,
        progress: bool | None = None,
        restart: bool = False,
    ) -> Self:
        """The run of a recipe: its files are read, and everything is checked, before anything starts.

        Args:
            recipe: what to do; what the model and the data decide is filled in.
            folder: of the run.
            multiple: rows are padded to a multiple of this, for backends that compile for each shape.
            made_with: whatever else the result depends on, such as the backend, in plain Python.
            tell, progress, restart: as of the class.

        Raises:
            XLMRError: for files, columns, labels or a model that cannot be trained with, naming which.
        """
        check_place(Path(folder))  # reading data may take long
        found = prepared(recipe, multiple)
        return cls(
            folder,
            found.recipe,
            found.batches,
            found.evaluation,
            found.test,
            data={**found.data, **(made_with or {})},
            usual_rate=found.usual_rate,
            tell=tell,
            progress=progress,
            restart=restart,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the configuration of a model for this run has to say: arguments of its ``from_pretrained``."""
        dropout = self.recipe.dropout
        names = () if dropout is None else ("hidden_dropout_prob", "attention_probs_dropout_prob")
        return {**self.task.settings(), **dict.fromkeys(names, dropout)}

    # ---- The folder

    def open(self) -> Self:
        """Take the folder, and begin a run in it or go on with the one that is there; :meth:`restore` does it too.

        Raises:
            TrainingError: if there is a run of another recipe or other data, or another process has the folder.
        """
        if self._opened is None:
            self._opened = opened(self.folder, self.recipe, self._data, self._checkpoints, self._restart)
            self._restart = False
        return self

    @property
    def _log(self) -> Log:
        assert self._opened is not None, "open() or restore() comes first"
        return self._opened

    # ---- What the loop asks

    @property
    def done(self) -> bool:
        """Whether the run is over, and its model written."""
        return self._log.done is not None

    def restore(self, load: ToFolder) -> int:
        """The first step to do, counted from 0.

        Args:
            load: reads weights, optimizer and whatever else a step depends on from the folder of a checkpoint; it is
                called with the newest that is whole, or not at all where there is none, and at the end with the best;
                of a run that is over with the one whose model is in the folder.

        Raises:
            TrainingError: as :meth:`open`, if the log does not reach as far as the checkpoint, and if the checkpoint
                of the best step is not there any more.
        """
        log, self._load = self.open()._log, load
        if log.done is not None:
            self.tell("", f"the run in {self.folder} is over; its model is there")
            self._load_what_is_over(load)
            return int(log.done[STEP])
        step = max(self._checkpoints.steps(), default=0)
        if step:
            if log.last is None or log.last[STEP] < step:
                raise TrainingError(
                    f"expected {log.path} to reach as far as the checkpoint of step {step}; bring it back, or pass "
                    "restart=True to begin anew"
                )
            load(self._checkpoints.place(step))
            self.tell("", f"goes on after step {step} of {self.steps}")
        log.cut(step)
        self._check_best()
        for line in log.lines():
            if "loss" in line:
                self._watch.step(line[STEP], line["loss"], line.get(NORM))
        for number in range(max(0, step - WINDOW), step):
            self._watch.saw(self.batches[number])
        self._since, self._before = time.monotonic(), float(log.last["seconds"]) if log.last else 0.0
        self._reached = self._begun = self._kept = step
        self._events = Events(self.folder / EVENTS, log.lines(), self._before)
        self._checkpoints.prune(self._best_step)
        self._show(None)
        if self.evaluation is None:  # the log says what evaluations found
            found = self._watch.look(step, None)
            self._sign, self._is_collapsed = found.sign, found.is_collapse
        return step

    def goes_on(self, step: int) -> bool:
        """Whether another step is to be done: not behind the last, when nothing has become better for long, after
        :meth:`stop`, or when the run is over.
        """
        is_stopped = self._stops and self._kept == step
        return step < self.steps and not (is_stopped or self.done or self._has_stalled)

    def batch(self, step: int) -> Arrays:
        """The batch of a step, counted from 0: NumPy arrays by the names of the model's call."""
        batch = self.batches[step]
        self._watch.saw(batch)
        return batch

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        recipe = self.recipe
        assert recipe.learning_rate is not None
        return recipe.learning_rate * factor(recipe.schedule, step, round(recipe.warmup * self.steps), self.steps)

    def after(self, step: int, loss: Any, norm: Any = None, *, save: ToFolder, predict: Predict | None = None) -> None:
        """Say that a step is done: it is logged, and when it is time the model is evaluated and a checkpoint made.

        Args:
            step: how many steps are done.
            loss: of the step; a number, or an array or tensor of one. It is read when the next step is done, so that a
                device need not be waited for.
            norm: of the gradients, before they were cut.
            save: writes weights, optimizer and the like into a folder that it is given.
            predict: gives the outputs for a batch that ``task.outputs`` names, float32 NumPy arrays, without dropout;
                if ``loss`` is among them, the loss of evaluations is logged too.

        Raises:
            TrainingError: if the loss is no number, with the likely cause.
            CheckpointError: if there is no room for a checkpoint.
        """
        self._flush()
        self._pending, self._reached = (step, loss, norm), step
        looks = step >= self.steps or step % self.recipe.evaluate_every == 0
        saves = step >= self.steps or step % self.recipe.checkpoint_every == 0 or self._stops
        if not (looks or saves):
            return
        self._flush()
        if looks:
            self._look(step, predict)
        if saves or self._best_step == step:
            self._log.sync()
            self._checkpoints.save(step, save)
            self._checkpoints.prune(self._best_step)
            self._kept = step

    def stop(self) -> None:
        """Let the run end with a checkpoint after the step that is being done; a signal may call it."""
        self._stops = True

    def finish(self, save_pretrained: ToFolder, *, predict: Predict | None = None) -> Outcome | None:
        """Write what came of the run into its folder: the model at its best, and everything beside it.

        Args:
            save_pretrained: writes the model into a folder, as ``from_pretrained`` reads it.
            predict: as of :meth:`after`, for the examples of ``test``.

        Returns:
            What came of it; ``None`` where the run was stopped, and the same call goes on.

        Raises:
            TrainingError: if the checkpoint of the best step is not there any more.
            CheckpointError: if there is no room.
        """
        self._flush()
        if not self.done:
            if self._stops and self._reached < self.steps and not self._has_stalled:
                self.tell("", f"stopped after step {self._reached} of {self.steps}; the same call goes on")
                self.close()
                return None
            self._publish(save_pretrained, predict)
        outcome = self.outcome
        self.close()
        return outcome

    @property
    def outcome(self) -> Outcome:
        """What the log says of the run so far."""
        return Outcome.of(self._log, self._judge.metric, self._best_step)

    # ---- What it does then

    def _flush(self) -> None:
        """Log the step that was done last."""
        if self._pending is None:
            return
        (step, loss, norm), self._pending = self._pending, None
        loss, norm = float(loss), None if norm is None else float(norm)
        self._watch.step(step, loss, norm)
        line: dict[str, Any] = {STEP: step, "loss": loss, RATE: self.rate(step - 1)}
        line |= {NORM: norm} if norm is not None and math.isfinite(norm) else {}
        self._add({**line, "seconds": round(self._before + time.monotonic() - self._since, 3)})
        self._show(loss)

    def _add(self, line: Mapping[str, Any]) -> None:
        self._log.add(line)
        if self._events is not None:
            self._events.add(line)

    def _show(self, loss: float | None) -> None:
        beside = "" if loss is None else f"loss {loss:.4g}, rate {self.rate(max(0, self._reached - 1)):.2g}"
        self._bar("training", self._reached, self.steps, self._begun, beside)

    def _look(self, step: int, predict: Predict | None) -> None:
        """Evaluate, where there are examples for that, and say how it goes; what seems to be wrong once, and again when
        it is something else.
        """
        measured = None if self.evaluation is None else self._judge.measured(self.evaluation, predict)
        found = self._watch.look(step, measured)
        if measured is not None:
            self._add({STEP: step, **line_of(measured), **({COLLAPSED: found.sign} if found.is_collapse else {})})
            best = " (the best)" if self._best_step == step else ""
            self.tell("", f"step {step} of {self.steps}: {said(measured.figures)}{best}")
        if found.sentence and found.sign != self._sign:
            self.tell("warning", found.sentence)
        if found.sentence or not found.sign:
            self._sign = found.sign
        self._is_collapsed = found.is_collapse
        if self._has_stalled and step < self.steps:
            evaluations = counted(self.recipe.patience, "evaluation")
            self.tell("", f"ends after step {step}: {self._judge.metric} has not become better in {evaluations}")

    @property
    def _best_step(self) -> int | None:
        return self._judge.best(self._log.evaluations)

    @property
    def _has_stalled(self) -> bool:
        return self._judge.has_stalled(self._log.evaluations)

    def _check_best(self) -> None:
        best = self._best_step
        if best is not None and best not in self._checkpoints.steps():
            raise TrainingError(
                f"expected the checkpoint of the best step, {best}, in {self._checkpoints.folder}; bring it back, or "
                "pass restart=True to begin anew"
            )

    def _load_what_is_over(self, load: ToFolder) -> None:
        assert self._log.done is not None, "the run is over"
        step = self._log.done["best"] or self._log.done[STEP]
        if step in self._checkpoints.steps():
            load(self._checkpoints.place(step))
        else:
            self.tell(
                "warning",
                f"the checkpoint of step {step} is not there any more, so the weights of the model stay as they are; "
                f"load those of the run with from_pretrained({str(self.folder)!r})",
            )

    def _publish(self, save_pretrained: ToFolder, predict: Predict | None) -> None:
        best = self._best_step
        if best is not None and best != self._reached:
            self._check_best()
            assert self._load is not None, "restore() comes before finish()"
            self._load(self._checkpoints.place(best))
        # Of the weights that are published.
        line = self._log.evaluation(best)
        sign = line.get(COLLAPSED, "") if line else self._sign if self._is_collapsed else ""
        sign = "" if self._watch.is_early(self._reached) else sign
        done = {"done": True, STEP: self._reached, "best": best, COLLAPSED: sign}
        if self.test is not None:
            measured = self._judge.measured(self.test, predict)
            done |= {name: value for name, value in line_of(measured, "test").items() if name != CONFUSION}
            self.tell("", f"test: {said(measured.figures)}")
        save_pretrained(self.folder)
        self.task.tokenizer.save_pretrained(self.folder)
        publish(self.folder, self._log, self.recipe, self.task, self._judge.metric, best, done)
        self._log.add(done)
        self._log.sync()
        self.tell("", f"{counted(self._reached, 'step')}; the model is in {self.folder}")

    # ---- Its end

    def close(self) -> None:
        """Let others have the folder."""
        self._bar.close()
        if self._events is not None:
            self._events.close()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tell(kind: str, text: str) -> None:
    if sys.stderr is not None:
        with stepping_aside():
            print(f"{kind}: {seen(text)}" if kind else seen(text), file=sys.stderr, flush=True)
