"""What a step trains, and what an evaluation reads: of a batch, or of the parts that several processes have of it.

Only sentence embeddings have a loss outside their model. It compares all texts of a batch, so each process computes it
of all vectors, those of the others as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlmr_core.tasks.task import Arrays
from xlmr_core.training.task import TrainingTask
from xlmr_torch.contrastive import embedding_loss, pooled
from xlmr_torch.processes import Processes

__all__ = ["EMBEDDING", "answers", "loss_of", "parts"]

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
    rows = _rows(batch)
    if task.name != EMBEDDING and not task.counted(batch):
        return
    for index in range(begin, begin + count):
        part = rows_of(batch, rows, slice(index if index < rows else 0, None, of if index < rows else rows))
        if task.name == EMBEDDING:
            yield part, 1 / of
            continue
        share = task.counted(part) / task.counted(batch) if index < rows else 0.0
        if not share:
            single = (rows_of(batch, rows, slice(row, row + 1)) for row in range(rows))
            part = next(one for one in single if task.counted(one))
        yield part, share


def rows_of(batch: Arrays, rows: int, chosen: slice) -> Arrays:
    """Some of the ``rows`` of a batch; where an array holds several of the model's for each, all of these."""
    several = {name: array.reshape(-1, rows, *array.shape[1:])[:, chosen] for name, array in batch.items()}
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in several.items()}


def loss_of(model: Any, task: TrainingTask, part: Arrays, batch: Arrays, together: Processes) -> Tensor:
    """The loss of a part of a batch.

    Args:
        model: to call.
        task: that is trained.
        part: what this process computes.
        batch: the whole, which embeddings are compared in.
        together: the processes.
    """
    inputs = _tensors(part, together.device)
    if task.name != EMBEDDING:
        loss: Tensor = model(**inputs).loss
        return loss
    pairs = _rows(batch)
    vectors_knD = _vectors(model, task, inputs).unflatten(0, (len(batch["input_ids"]) // pairs, -1))
    vectors_BkD = together.gather(vectors_knD.transpose(0, 1), pairs)
    labels = {**{name: array for name, array in batch.items() if len(array) == pairs}, "texts": _texts(batch)}
    loss = _embedding_loss(task, vectors_BkD.transpose(0, 1).flatten(0, 1), _tensors(labels, together.device))
    # The gradients of a process are waited for also where no row of the batch is its own.
    return loss + 0.0 * vectors_knD.sum()


def answers(model: Any, task: TrainingTask, batch: Arrays, device: torch.device) -> dict[str, Tensor]:
    """What an evaluation wants of the model, by the names that the task gives it; and the loss, if a label counts.

    Args:
        model: to call.
        task: that is evaluated.
        batch: of the evaluation.
        device: of the model.
    """
    inputs = _tensors(batch, device)
    if task.name == EMBEDDING:
        vectors = _vectors(model, task, inputs)
        texts = torch.from_numpy(_texts(batch)).to(device)
        return {"embeddings": vectors, "loss": _embedding_loss(task, vectors, {**inputs, "texts": texts})}
    output = model(**inputs)
    if task.counted(batch):
        return {name: output[name] for name in dict.fromkeys([*task.outputs, "loss"])}
    # The mean over no label is no number; as nothing is counted, it is 0.
    return {name: torch.zeros(()) if name == "loss" else output[name] for name in task.outputs}


def _tensors(batch: Arrays, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


def _rows(batch: Arrays) -> int:
    """Rows of a batch; some arrays may hold several of the model's for each."""
    return min(len(array) for array in batch.values())


def _texts(batch: Arrays) -> NDArray[np.int64]:
    """(k B,): the same number for the same text."""
    return np.unique(batch["input_ids"], axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _vectors(model: Any, task: TrainingTask, inputs: dict[str, Tensor]) -> Tensor:
    """(k B, D) in float32."""
    mask = inputs["attention_mask"]
    states = model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    return pooled(states, mask, task.recipe.pooling)


def _embedding_loss(task: TrainingTask, vectors_kBD: Tensor, labels: dict[str, Tensor]) -> Tensor:
    recipe = task.recipe
    with torch.autocast(vectors_kBD.device.type, enabled=False):
        return embedding_loss(vectors_kBD, labels, recipe.temperature, recipe.matryoshka)
