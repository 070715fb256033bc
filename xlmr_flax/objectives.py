"""What a step trains, and what an evaluation reads, as pure functions of parameters; and batches of few shapes.

An answer is looked for among real tokens alone, so that padding can be left out; the published loss normalises over
it too. A program is compiled for each shape that it meets. So rows are made as long as one of few lengths, and as
many as others of the run; nothing of what is added counts in any loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xlmr_core.checks import MASKED_SCORE
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.parts import EMBEDDING, texts_in
from xlmr_core.training.task import IGNORED, TrainingTask
from xlmr_flax.contrastive import embedding_loss, pooled
from xlmr_flax.inputs import is_integer, narrow
from xlmr_flax.losses import sequence_loss, span_loss

__all__ = ["answers", "fitted", "trimmed", "width_of"]

# Lengths of rows are this one, and two in each octave above it.
SHORTEST = 32
# What stands in places that are added, where it is not the padding token: a position so large is outside any row.
FILL = {"attention_mask": 0, "labels": IGNORED, "start_positions": 1 << 30, "end_positions": 1 << 30}


def answers(
    model: Any, task: TrainingTask, params: Mapping[str, Any], batch: Mapping[str, Any], key: Array | None = None
) -> dict[str, Array]:
    """The loss of a batch, and what an evaluation wants of the model, by the names that the task gives it. What a
    program does not return of it, it does not compute.

    Args:
        model: to call.
        task: that is trained or evaluated.
        params: of the model.
        batch: of :func:`fitted`.
        key: of dropout; without one there is none.
    """
    call = partial(
        model,
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        params=params,
        dropout_rng=key,
        train=key is not None,
        return_dict=True,
    )
    if task.name == EMBEDDING:
        vectors_kBD = pooled(call().last_hidden_state, batch["attention_mask"], task.recipe.pooling)
        loss = embedding_loss(vectors_kBD, batch, task.recipe.temperature, task.recipe.matryoshka)
        return {"embeddings": vectors_kBD, "loss": loss}
    if "start_positions" in batch:
        output = call()
        padding_BS = batch["attention_mask"] == 0
        for name in task.outputs:
            output[name] = jnp.where(padding_BS, MASKED_SCORE, output[name])
        loss = span_loss(*(output[name] for name in task.outputs), batch["start_positions"], batch["end_positions"])
    elif is_integer(batch["labels"]):
        output = call(labels=batch["labels"])
        loss = output.loss
    else:
        output = call()
        loss = _mean_of_rows(model.config, output.logits, batch["labels"], batch["rows"])
    return {**{name: output[name] for name in task.outputs if name != "loss"}, "loss": loss}


def _mean_of_rows(config: Any, logits_BK: Array, labels: Array, rows: Array) -> Array:
    """The mean of the losses of the first so many rows."""

    def of_row(logits_K: Array, label: Array) -> Array:
        return sequence_loss(config, logits_K[None], label[None])

    each_B = jax.vmap(of_row)(logits_BK, labels)
    return jnp.where(jnp.arange(len(each_B)) < rows, each_B, 0).sum() / rows


def fitted(batch: Arrays, task: TrainingTask, rows: int) -> Arrays:
    """A batch in one of few shapes.

    Args:
        batch: see ``xlmr_core/training/task.py``.
        task: whose batch it is.
        rows: that it is to have; those of embeddings, which are all compared, stay as many as they are.

    Returns:
        The batch with int32 for int64, longer rows, and more of them; with ``rows``, how many they were, and of
        embeddings with ``texts`` (k B,), the same number for the same text.
    """
    ids = batch["input_ids"]
    width = ids.shape[-1]
    added = width_of(width, task.recipe.max_length) - width
    found: Arrays = {"rows": np.array(len(ids), np.int32)}
    if task.name == EMBEDDING:
        found["texts"] = narrow(texts_in(batch))
    for name, array in batch.items():
        more = [(0, 0)] * array.ndim
        if task.name != EMBEDDING:
            more[0] = (0, rows - len(array))
        if _is_by_token(array, ids):
            more[-1] = (0, added)
        found[name] = narrow(np.pad(array, more, constant_values=FILL.get(name, task.tokenizer.pad_token_id)))
    return found


def trimmed(found: Mapping[str, Any], batch: Arrays) -> Arrays:
    """The answers to what a batch was before it was fitted, in float32."""
    ids = batch["input_ids"]
    by_token = "start_positions" in batch or _is_by_token(batch.get("labels", ids[:, :0]), ids)
    cut = np.s_[: len(ids), : ids.shape[-1]] if by_token else np.s_[: len(ids)]
    arrays = {name: np.asarray(value, np.float32) for name, value in found.items()}
    return {name: array[cut] if array.ndim else array for name, array in arrays.items()}


def width_of(length: int, most: int) -> int:
    """The least of 32, 48, 64, 96, 128, 192, ... that holds a row of so many tokens, or ``most`` if that is less."""
    width = SHORTEST
    while width < length:
        width = width * 4 // 3 if width % 3 == 0 else width * 3 // 2
    return max(length, min(width, most))


def _is_by_token(array: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> bool:
    """Whether an array has a number for each token."""
    return array.shape == ids.shape and is_integer(array)
