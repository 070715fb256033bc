"""What a step trains, and what an evaluation reads.

Sentence embeddings have a loss outside their model. An answer is looked for among real tokens alone, so that padding
can be left out; the published loss normalises over it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from xlmr_core.checks import MASKED_SCORE
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.parts import EMBEDDING, texts_in
from xlmr_core.training.task import TrainingTask
from xlmr_tf.contrastive import embedding_loss, pooled
from xlmr_tf.losses import span_loss

__all__ = ["answers", "given", "loss_of"]


def given(task: TrainingTask, batch: Arrays) -> Arrays:
    """A batch as :func:`loss_of` and :func:`answers` take it: of embeddings with a number for each text."""
    return {**batch, "texts": texts_in(batch)} if task.name == EMBEDDING else batch


def loss_of(model: Any, task: TrainingTask, part: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The loss of a part of a batch in training, a scalar in float32; of embeddings the part is the batch.

    Args:
        model: to call.
        task: that is trained.
        part: tensors by name, see :func:`given`.
    """
    if task.name != EMBEDDING:
        return tf.cast(_output(model, task, part, training=True)["loss"], tf.float32)
    return _embedding_loss(task, _vectors(model, task, part, training=True), part)


def answers(model: Any, task: TrainingTask, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What an evaluation wants of the model in float32, by the names that the task gives it, and the loss, which is no
    number where no label counts.

    Args:
        model: to call.
        task: that is evaluated.
        batch: tensors by name, see :func:`given`.
    """
    if task.name == EMBEDDING:
        vectors = _vectors(model, task, batch, training=False)
        return {"embeddings": vectors, "loss": _embedding_loss(task, vectors, batch)}
    output = _output(model, task, batch, training=False)
    return {name: tf.cast(output[name], tf.float32) for name in dict.fromkeys([*task.outputs, "loss"])}


def _output(model: Any, task: TrainingTask, batch: Mapping[str, tf.Tensor], training: bool) -> Any:
    """What a model gives for a batch, with its loss; of answers that over the real tokens."""
    if "start_positions" not in batch:
        return model(**batch, training=training)
    places = {name: batch[name] for name in ("start_positions", "end_positions")}
    output = model(**{name: value for name, value in batch.items() if name not in places}, training=training)
    padding_BS = batch["attention_mask"] == 0
    for name in task.outputs:
        output[name] = tf.where(padding_BS, tf.cast(MASKED_SCORE, output[name].dtype), output[name])
    output["loss"] = span_loss(*(output[name] for name in task.outputs), *places.values())
    return output


def _vectors(model: Any, task: TrainingTask, batch: Mapping[str, tf.Tensor], training: bool) -> tf.Tensor:
    """(k B, D) in float32."""
    mask = batch["attention_mask"]
    states = model(input_ids=batch["input_ids"], attention_mask=mask, training=training).last_hidden_state
    return pooled(states, mask, task.recipe.pooling)


def _embedding_loss(task: TrainingTask, vectors_kBD: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return embedding_loss(vectors_kBD, batch, task.recipe.temperature, task.recipe.matryoshka)
