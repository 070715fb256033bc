"""Pictures of a run, by matplotlib: the curves of its log, and the confusion matrix of its evaluation, as PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.training.log import EVALUATION, NORM, RATE, STEP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_picture", "curves_picture", "thinned"]

# Points of a curve; more than that are means of neighbours.
MOST_POINTS = 1000
# Labels with which a matrix still has a number in each cell, and the most that have a name each.
MOST_NUMBERS, MOST_NAMES = 20, 100
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def curves_picture(lines: Iterable[Mapping[str, Any]], title: str) -> bytes:
    """The curves of a run: loss, the figures of its evaluations, the rate and the norm of the gradients.

    Args:
        lines: of its log.
        title: what stands above.

    Returns:
        A picture in PNG.
    """
    steps, evaluations = [], []
    for line in lines:
        if EVALUATION in line:
            evaluations.append(line)
        elif "loss" in line:
            steps.append(line)
    figure = _figure(11, 3.2)
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    at = np.array([line[STEP] for line in steps], float)
    _line(left, at, [line["loss"] for line in steps], "training", COLOURS[0])
    _points(left, evaluations, "loss", "evaluation", COLOURS[1])
    _named(left, "loss")
    names = [name for name in (evaluations[0][EVALUATION] if evaluations else ()) if name != "loss"]
    shares = [name for name in names if all(0 <= line[EVALUATION].get(name, 0) <= 1 for line in evaluations)]
    for name, colour in zip(shares or names[:1], COLOURS, strict=False):
        _points(middle, evaluations, name, name, colour)
    _named(middle, "evaluation")
    if shares:
        middle.set_ylim(0, 1)
    _line(right, at, [line[RATE] for line in steps], "learning rate", COLOURS[2])
    other = right.twinx()
    norms = [np.nan if line.get(NORM) is None else line[NORM] for line in steps]
    _line(other, at, norms, "gradient norm", COLOURS[3])
    other.set_ylabel("gradient norm")
    _named(right, "learning rate")
    return _png(figure)


def confusion_picture(labels: Sequence[str], counts_KK: NDArray[np.int64]) -> bytes:
    """How often each label (rows) was answered by each label (columns), darker for a larger share of its row.

    Args:
        labels: their names.
        counts_KK: integers (K, K).

    Returns:
        A picture in PNG.
    """
    size = min(14.0, 2.5 + 0.32 * len(labels))
    figure = _figure(size + 1, size)
    axes = figure.subplots()
    shares_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MOST_NAMES:
        letters = 9 if len(labels) <= MOST_NUMBERS else 5
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=letters)
        axes.set_yticks(range(len(labels)), labels, fontsize=letters)
    if len(labels) <= MOST_NUMBERS:
        for row, column in np.ndindex(counts_KK.shape):
            colour = "white" if shares_KK[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts_KK[row, column]), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("answered")
    axes.set_ylabel("right")
    return _png(figure)


def thinned(x_N: NDArray[Any], y_N: NDArray[Any], most: int = MOST_POINTS) -> tuple[NDArray[Any], NDArray[Any]]:
    """A curve with at most so many points, each the mean of its neighbours; as it is if it has no more.

    Args:
        x_N, y_N: its points, (N,) each.
        most: how many.
    """
    if len(x_N) <= most:
        return x_N, y_N
    edges = np.linspace(0, len(x_N), most + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, len(x_N)))
    return np.add.reduceat(x_N, edges) / sizes, np.add.reduceat(y_N, edges) / sizes


def _line(axes: Any, x: NDArray[Any], y: Sequence[float], label: str, colour: str) -> None:
    if len(x):
        axes.plot(*thinned(x, np.array(y, float)), color=colour, linewidth=1, label=label)


def _points(axes: Any, evaluations: Sequence[Mapping[str, Any]], name: str, label: str, colour: str) -> None:
    points = [(line[STEP], line[EVALUATION][name]) for line in evaluations if name in line[EVALUATION]]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, linewidth=1, label=label)


def _named(axes: Any, what: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(what)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot, which would choose a window

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of signs that its font lacks
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
