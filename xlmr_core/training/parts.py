"""Parts of a batch, which are computed one after the other or by several devices, and how much each counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xlmr_core.tasks.task import Arrays
from xlmr_core.training.task import TrainingTask

__all__ = ["EMBEDDING", "parts", "rows_in", "texts_in"]

# The one task whose rows are compared with each other.
EMBEDDING = "sentence-embedding"


def parts(batch: Arrays, task: TrainingTask, begin: int, count: int, of: int) -> Iterator[tuple[Arrays, float]]:
    """Some parts of a batch, each with the share of the batch's loss that its loss is.

    Args:
        batch: (k B, ...) each, see ``xlmr_core/training/task.py``.
        task: which counts labels.
        begin, count: the parts from ``begin`` to ``begin + count - 1``.
        of: parts of the batch; each has every ``of``-th row. One that would have no row, or no label, has a row that
            counts nothing: all processes take the same steps. A batch without labels has no parts.
    """
    rows = rows_in(batch)
    if task.name != EMBEDDING and not task.counted(batch):
        return
    for index in range(begin, begin + count):
        part = _chosen(batch, rows, slice(index if index < rows else 0, None, of if index < rows else rows))
        if task.name == EMBEDDING:
            yield part, 1 / of
            continue
        share = task.counted(part) / task.counted(batch) if index < rows else 0.0
        if not share:
            single = (_chosen(batch, rows, slice(row, row + 1)) for row in range(rows))
            part = next(one for one in single if task.counted(one))
        yield part, share


def rows_in(batch: Arrays) -> int:
    """Rows of a batch; some arrays may hold several of the model's for each."""
    return min(len(array) for array in batch.values())


def texts_in(batch: Arrays) -> NDArray[np.int64]:
    """(k B,): the same number for the same text."""
    return np.unique(batch["input_ids"], axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _chosen(batch: Arrays, rows: int, chosen: slice) -> Arrays:
    """Some of the ``rows`` of a batch; where an array holds several of the model's for each, all of these."""
    several = {name: array.reshape(-1, rows, *array.shape[1:])[:, chosen] for name, array in batch.items()}
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in several.items()}
