"""What a step trains, and what an evaluation reads: of a batch, or of the parts that several processes have of it.

Sentence embeddings have a loss outside their model. It compares all texts of a batch, so each process computes it of
all vectors, those of the others as numbers. An answer is looked for among real tokens alone, so that padding can be
left out; the published loss normalises over it too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlmr_core.checks import MASKED_SCORE
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.parts import EMBEDDING, rows_in, texts_in
from xlmr_core.training.task import TrainingTask
from xlmr_torch.contrastive import embedding_loss, pooled
from xlmr_torch.losses import span_loss
from xlmr_torch.processes import Processes

__all__ = ["answers", "loss_of"]


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
        loss: Tensor = _output(model, task, inputs)["loss"]
        return loss
    pairs = rows_in(batch)
    vectors_knD = _vectors(model, task, inputs).unflatten(0, (len(batch["input_ids"]) // pairs, -1))
    vectors_BkD = together.gather(vectors_knD.transpose(0, 1), pairs)
    labels = {**{name: array for name, array in batch.items() if len(array) == pairs}, "texts": texts_in(batch)}
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
        texts = torch.from_numpy(texts_in(batch)).to(device)
        return {"embeddings": vectors, "loss": _embedding_loss(task, vectors, {**inputs, "texts": texts})}
    output = _output(model, task, inputs)
    if task.counted(batch):
        return {name: output[name] for name in dict.fromkeys([*task.outputs, "loss"])}
    # The mean over no label is no number; as nothing is counted, it is 0.
    return {name: torch.zeros(()) if name == "loss" else output[name] for name in task.outputs}


def _output(model: Any, task: TrainingTask, inputs: dict[str, Tensor]) -> Any:
    """What a model gives for a batch, with its loss; of answers that over the real tokens."""
    if "start_positions" not in inputs:
        return model(**inputs)
    places = {name: inputs[name] for name in ("start_positions", "end_positions")}
    output = model(**{name: value for name, value in inputs.items() if name not in places})
    padding_BS = inputs["attention_mask"] == 0
    for name in task.outputs:
        output[name] = output[name].masked_fill(padding_BS, MASKED_SCORE)
    output["loss"] = span_loss(*(output[name] for name in task.outputs), *places.values())
    return output


def _tensors(batch: Arrays, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


def _vectors(model: Any, task: TrainingTask, inputs: dict[str, Tensor]) -> Tensor:
    """(k B, D) in float32."""
    mask = inputs["attention_mask"]
    states = model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    return pooled(states, mask, task.recipe.pooling)


def _embedding_loss(task: TrainingTask, vectors_kBD: Tensor, labels: dict[str, Tensor]) -> Tensor:
    recipe = task.recipe
    with torch.autocast(vectors_kBD.device.type, enabled=False):
        return embedding_loss(vectors_kBD, labels, recipe.temperature, recipe.matryoshka)
