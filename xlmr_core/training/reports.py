"""What came of a run, as data and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from xlmr_core.training.log import COLLAPSED, COUNTS, EVALUATION, EXAMPLES, LANGUAGES, STEP, Log

__all__ = ["Figures", "Outcome", "as_values", "in_columns", "in_markdown", "said", "table"]


@dataclass(frozen=True)
class Figures:
    """The figures of the examples of ``eval``, or of ``test``.

    Attributes:
        all: by name, over all examples.
        languages: the same for each language.
        counts: examples of each language; of language models, tokens.
        examples: how many there are of all languages; the same.
    """

    all: Mapping[str, float]
    languages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    examples: int = 0

    @property
    def unit(self) -> str:
        """What ``counts`` and ``examples`` count: ``tokens`` where there is a perplexity, else ``examples``."""
        return "tokens" if "perplexity" in self.all else "examples"

    @classmethod
    def of(cls, line: Mapping[str, Any], name: str) -> Self | None:
        """Those of a line of the log; none where it has none."""
        if name not in line:
            return None
        return cls(line[name], line.get(LANGUAGES, {}), line.get(COUNTS, {}), line.get(EXAMPLES, 0))


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        steps: that were done.
        seconds: that they took.
        loss: of the last step.
        metric: the figure that says what is best.
        best: the step of the best evaluation, whose weights the model has; none without evaluations.
        evaluation: the figures there.
        test: the figures of ``test``, of the same weights.
        collapsed: by which sign the run seems to have learned nothing, in a word or two; else empty.
    """

    steps: int
    seconds: float
    loss: float | None
    metric: str
    best: int | None = None
    evaluation: Figures | None = None
    test: Figures | None = None
    collapsed: str = ""

    @classmethod
    def of(cls, log: Log, metric: str, best: int | None, done: Mapping[str, Any] | None = None) -> Self:
        """What a log says.

        Args:
            log: of the run.
            metric: the figure that says what is best.
            best: the step of the best evaluation.
            done: the last line of the log, where it is not written yet.
        """
        done = log.done or done or {}
        last = log.last or {}
        return cls(
            steps=int(last.get(STEP, 0)),
            seconds=float(last.get("seconds", 0.0)),
            loss=last.get("loss"),
            metric=metric,
            best=best,
            evaluation=Figures.of(log.evaluation(best), EVALUATION),
            test=Figures.of(done, "test"),
            collapsed=done.get(COLLAPSED, ""),
        )


def said(figures: Mapping[str, float]) -> str:
    """Figures in words: ``accuracy 0.812, f1 0.79``."""
    return ", ".join(f"{name} {_number(value)}" for name, value in figures.items())


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def table(figures: Figures) -> list[list[str]]:
    """A table with a head, a row for each language, and rows for their mean and for all examples together."""
    names = list(figures.all)
    rows = []
    for language, own in figures.languages.items():
        # The loss of a batch is that of several languages.
        known = [_number(own[name]) if name in own else "" for name in names]
        rows.append([language, str(figures.counts.get(language, "")), *known])
    if len(rows) > 1:
        of_each = {name: [own[name] for own in figures.languages.values() if name in own] for name in names}
        rows.append(["mean", "", *(_number(float(np.mean(own))) if own else "" for own in of_each.values())])
    rows.append(["all", str(figures.examples), *(_number(figures.all[name]) for name in names)])
    return [["language", figures.unit, *names], *rows]


def in_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines for a terminal, numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def as_values(outcome: Outcome) -> dict[str, Any]:
    """An outcome in plain Python, for JSON; ``examples`` are tokens where there is a perplexity."""

    def told(figures: Figures | None) -> Any:
        return figures and {"figures": figures.all, LANGUAGES: figures.languages, EXAMPLES: figures.examples}

    return {
        "metric": outcome.metric,
        "steps": outcome.steps,
        "best": outcome.best,
        "seconds": outcome.seconds,
        EVALUATION: told(outcome.evaluation),
        "test": told(outcome.test),
        COLLAPSED: outcome.collapsed,
    }
