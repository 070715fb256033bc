"""Runs that learn nothing, seen while they run, with the likely cause.

XLM-R's fine-tuning is known to collapse now and then: the loss stays where a constant answer has it, and the model
gives one answer to everything (Mosbach et al. 2021: vanishing gradients after too high a rate; the large model above
1e-5). Four signs are looked at: a loss that is no number, the loss of a constant answer, one answer to the whole
evaluation, and gradients that have died.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import TrainingError
from xlmr_core.training.metrics import COMPARED, SCORED_PAIRS, Measured
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import IGNORED

__all__ = ["ConstantAnswer", "Finding", "Watch"]

# Steps whose losses and norms are looked at together, and before which nothing is said of them.
WINDOW = 50
# A mean loss above this share of a constant answer's is at its level; one below the other has left it.
AT_LEVEL, LEFT_LEVEL = 0.97, 0.85
# Of the median norm of gradients at the beginning, below which they have died.
DEAD = 1e-3
# A rate so many times the usual one is high, and one so many times less is low.
FAR_OFF = 4.0
# A share of one label above which the labels themselves teach a constant answer.
ONE_LABEL = 0.97
# Kinds of tasks whose loss is binary cross-entropy, and those that have another one than the labels say.
BINARY, OTHER_LOSSES = ("multi_label_classification", "rerank"), (SCORED_PAIRS, "sentence-embedding")
LANGUAGE_MODELS = ("masked-language-modeling", "causal-language-modeling")


@dataclass(frozen=True)
class Finding:
    """What seems to be wrong with a run; empty if nothing does.

    Attributes:
        sign: by which it is seen, in a word or two.
        sentence: what is seen, its likely cause, and what to do.
        is_collapse: the model answers as a constant does. A loss at the level of a constant answer tells that only
            where answers were not looked at, or are not compared in this task.
    """

    sign: str = ""
    sentence: str = ""
    is_collapse: bool = False


class ConstantAnswer:
    """The least loss that the same answer to every example has, by the labels that were seen.

    It is the entropy of whole numbers (cross-entropy); the variance of decimal ones (mean squared error); or of those
    that are 0 and 1, in a column for each label, the mean entropy of a column (binary cross-entropy).

    Args:
        is_binary: decimal numbers are 0 and 1.
    """

    def __init__(self, is_binary: bool = False) -> None:
        self._is_binary = is_binary
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        # How many there were, their sum, and that of their squares, of each column (3, K).
        self._moments: NDArray[np.float64] | None = None

    def add(self, labels: NDArray[Any]) -> None:
        """Count the labels of a batch, of any shape; -100 is none."""
        if labels.dtype.kind == "f":
            rows = labels.reshape(len(labels), -1).astype(np.float64)
            now = np.stack([np.full(rows.shape[1], len(rows)), rows.sum(axis=0), (rows**2).sum(axis=0)])
            self._moments = now if self._moments is None else self._moments + now
            return
        counts = np.bincount(labels[labels != IGNORED].ravel(), minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    @property
    def share(self) -> float:
        """The share of the commonest label; 0 where labels are no whole numbers."""
        return float(self._counts.max() / self._counts.sum()) if self._counts.any() else 0.0

    @property
    def loss(self) -> float | None:
        """The loss; nothing where no label was seen."""
        if self._moments is not None:
            count_K, sum_K, squares_K = self._moments
            means_K = sum_K / count_K
            if self._is_binary:
                return float(np.mean([_entropy(np.array([mean, 1 - mean])) for mean in means_K]))
            return float(np.mean(squares_K / count_K - means_K**2))
        return _entropy(self._counts / self._counts.sum()) if self._counts.any() else None


def _entropy(shares_K: NDArray[np.float64]) -> float:
    shares_K = shares_K[shares_K > 0]
    return float(-(shares_K * np.log(shares_K)).sum())


class Watch:
    """Looks on at a run.

    Args:
        recipe: of the run, completed.
        usual_rate: the rate that its task and its model's width usually have.
        kind: what its task is, as ``metrics.kind_of`` says.
    """

    def __init__(self, recipe: Recipe, usual_rate: float, kind: str) -> None:
        self._recipe = recipe
        self._usual = usual_rate
        self._constant = ConstantAnswer(is_binary=kind in BINARY)
        self._kind = kind
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._first_norms: list[float] = []
        # The least mean loss of a window.
        self._least = math.inf

    def saw(self, batch: Mapping[str, Any]) -> None:
        """Count the labels of a batch that is trained on."""
        if "labels" in batch and self._kind not in OTHER_LOSSES:
            self._constant.add(np.asarray(batch["labels"]))

    def step(self, step: int, loss: float, norm: float | None) -> None:
        """Look at a step; of a run that goes on, first at those that its log has.

        Raises:
            TrainingError: if its loss is no number, or the norm of its gradients: what is trained from there on is
                worth nothing. In float16 such a norm makes the scale of the loss smaller, and the step is left out.
        """
        is_number = norm is None or math.isfinite(norm) or self._recipe.precision == "float16"
        if not math.isfinite(loss):
            raise TrainingError(self._no_number(f"a loss, received {loss}", step, norm))
        if not is_number:
            raise TrainingError(self._no_number(f"a norm of the gradients, received {norm}", step, norm))
        self._losses.append(loss)
        if norm is not None and math.isfinite(norm):
            self._norms.append(norm)
            if len(self._first_norms) < WINDOW:
                self._first_norms.append(norm)
        if len(self._losses) == WINDOW:
            self._least = min(self._least, self._mean)

    @property
    def _mean(self) -> float:
        return float(np.mean(self._losses))

    @property
    def _learned(self) -> bool:
        """Whether the loss has been well below the level of a constant answer."""
        level = self._constant.loss
        return level is not None and self._least < LEFT_LEVEL * level

    def is_early(self, step: int) -> bool:
        """Whether there were not enough steps to tell anything."""
        return step < WINDOW or step <= self._recipe.warmup * self._recipe.steps

    def look(self, step: int, measured: Measured | None) -> Finding:
        """What seems to be wrong at a step; no sentence before there were enough of them to tell.

        Args:
            step: how many steps are done.
            measured: what an evaluation found there, if there was one.
        """
        signs = {}
        if measured is not None and measured.only_answer:
            signs["one answer"] = (
                f"all {measured.examples} examples of the evaluation get one answer, {measured.only_answer}"
            )
        level = self._constant.loss
        # A language model of fresh weights is for long where the frequencies of tokens have it.
        is_told = self._learned or self._kind not in LANGUAGE_MODELS
        is_full = len(self._losses) == WINDOW and not self.is_early(step)
        if level is not None and is_told and is_full and self._mean > AT_LEVEL * level:
            signs["level"] = f"the loss, {self._mean:.4g}, is at the level of a constant answer, {level:.4g}"
        if not signs:
            return Finding()
        is_collapse = "one answer" in signs or measured is None or self._kind not in COMPARED
        sentence = f"step {step}: {', and '.join(signs.values())}. Likely cause: {self._cause()}"
        return Finding(" and ".join(signs), "" if self.is_early(step) else sentence, is_collapse)

    def _cause(self) -> str:
        recipe, rate = self._recipe, self._recipe.learning_rate
        lower = f"begin anew with learning_rate={min(self._usual, rate / FAR_OFF):g}, or with a longer warmup"
        if self._constant.share > ONE_LABEL:
            return (
                f"{self._constant.share:.1%} of the labels that were trained on are one and the same; give more "
                "examples of the others"
            )
        if self._learned:
            return f"the learning rate, {rate:g}, is too high: the model had learned, and has lost it again; {lower}"
        if self._have_died:
            return f"gradients have died (norm {np.median(self._norms):.2g}), which too high a rate does; {lower}"
        if rate > FAR_OFF * self._usual:
            return f"the learning rate, {rate:g}, is {rate / self._usual:.0f} times the usual one; {lower}"
        if rate * FAR_OFF < self._usual:
            return (
                f"the learning rate, {rate:g}, is low for what is trained; begin anew with "
                f"learning_rate={self._usual:g}"
            )
        if recipe.head_only or recipe.freeze_layers:
            set_free = "head_only=False" if recipe.head_only else "freeze_layers=0"
            return f"too little of the model is trained for this; begin anew with {set_free}"
        return (
            "too few steps so far, or labels that do not go with their texts; let it run on, and look at some lines "
            "of the training data if it stays"
        )

    @property
    def _have_died(self) -> bool:
        if len(self._norms) < WINDOW or not self._first_norms:
            return False
        return float(np.median(self._norms)) < DEAD * float(np.median(self._first_norms))

    def _no_number(self, what: str, step: int, norm: float | None) -> str:
        recipe = self._recipe
        before = f"; the loss was {self._losses[-1]:.4g} a step before" if self._losses else ""
        said = f"expected {what} at step {step}{before}. Likely cause: "
        if not self._losses:
            return said + (
                "the weights or the labels, as it is the first one; look at the weights with `xlmr doctor`, and at "
                "the labels of the training data"
            )
        if norm is None or math.isnan(norm):
            norm = self._norms[-1] if self._norms else None
        tail = f"; begin anew with learning_rate={min(self._usual, recipe.learning_rate / FAR_OFF):g}"
        if recipe.precision == "float16":
            return f"{said}numbers too large for float16; begin anew with precision=bfloat16 or precision=float32"
        if norm is not None and (not math.isfinite(norm) or norm > 100 * np.median(self._first_norms or [norm])):
            clip = "" if recipe.clip_norm else " and clip_norm=1.0"
            return f"{said}gradients have blown up (norm {norm:.3g}){tail}{clip}"
        return f"{said}the learning rate, {recipe.learning_rate:g}{tail}"
