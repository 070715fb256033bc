"""Training over several devices or machines with ``tf.distribute``, where Keras's own ``fit`` does not reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.errors import InputError
from xlmr_core.heads import LossKind

__all__ = ["training_step"]

SUM = tf.distribute.ReduceOp.SUM


def training_step(model: Any, optimizer: keras.optimizers.Optimizer) -> Callable[[Mapping[str, Any]], tf.Tensor]:
    """A function that trains on a global batch and returns its loss, equal to that of one device.

    For every strategy of ``tf.distribute``; ``MultiWorkerMirroredStrategy`` needs it, because ``fit`` of Keras 3 does
    not support that one::

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = TFXLMRobertaForSequenceClassification.from_pretrained("xlmr-mini")
            step = training_step(model, keras.optimizers.AdamW(3e-5))
        for batch in strategy.experimental_distribute_dataset(dataset):
            loss = step(batch)

    A replica's loss is a mean over its own labels. Here it counts by their number, so that replicas with few labels
    weigh little.

    Args:
        model: made in the scope of the strategy; its own loss is trained.
        optimizer: made there too. Its gradients are summed over all replicas.

    Returns:
        A function of a batch: inputs by name, with labels, each a tensor or what the strategy made of a dataset. Its
        result is a scalar.

    Raises:
        InputError: for a model without a loss of its own, or a quantized one of which no part is trained; when called,
            for a batch without labels.
    """
    if not model._task_head.labels:
        raise InputError(f"{type(model).__name__} has no loss to train; use a head such as TFXLMRobertaForMaskedLM")
    model._refuse_codes()
    strategy = tf.distribute.get_strategy()
    with strategy.scope():
        optimizer.build(model.trainable_variables)

    def of_replica(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        missing = [name for name in model._task_head.labels if name not in inputs]
        if missing:
            raise InputError(f"expected {' and '.join(missing)} in the batch, received {', '.join(inputs)}")
        counted = tf.cast(_labels_counted(model, inputs), tf.float32)
        total = tf.distribute.get_replica_context().all_reduce(SUM, counted)
        with tf.GradientTape() as tape:
            loss = model(dict(inputs), training=True)["loss"]
            loss = tf.math.multiply_no_nan(loss, tf.cast(counted / total, loss.dtype))
            for added in model.losses:  # regularizers, the same on every replica
                loss += tf.cast(added, loss.dtype) / strategy.num_replicas_in_sync
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    @tf.function(reduce_retracing=True, autograph=False)
    def step(batch: Mapping[str, Any]) -> tf.Tensor:
        return strategy.reduce(SUM, strategy.run(of_replica, args=(batch,)), axis=None)

    return step


def _labels_counted(model: Any, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """How many labels the loss is a mean over; of answers to questions, how many rows."""
    labels = inputs[model._task_head.labels[0]]
    if model._task_head.loss is LossKind.SPAN or not labels.dtype.is_integer:
        return tf.shape(labels)[0]
    if model._task_head.loss is LossKind.NEXT_TOKENS:
        labels = labels[:, 1:]
    counted = labels != IGNORE_INDEX
    mask = inputs.get("attention_mask")
    if not getattr(model, "counts_masked_labels", True) and mask is not None and mask.shape.rank == 2:
        counted &= mask != 0
    return tf.math.count_nonzero(counted)
