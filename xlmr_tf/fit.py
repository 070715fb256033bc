"""How Keras's ``fit``, ``evaluate`` and ``predict`` deal with a model's inputs, labels and outputs.

==============================  ======================================================================================
labels come                     and the loss is
==============================  ======================================================================================
among the inputs                the model's own, or the one given to ``compile``
beside the inputs, as ``y``     the one given to ``compile``, or without one the model's own
==============================  ======================================================================================

A loss given to ``compile`` and every metric see the labels and the logits. Of heads that label tokens the metrics see
only tokens whose label is not -100 (XLA, which wants every size to be known, leaves all in).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.errors import InputError
from xlmr_core.heads import LossKind
from xlmr_core.outputs import ModelOutput
from xlmr_tf.inputs import is_xla

__all__ = ["TrainedByKeras"]


class TrainedByKeras:
    """The part of a model that Keras's training loop calls; stands before ``keras.Model`` among the bases."""

    _task_head: Any
    _compile_loss: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras's own. What is not given is not kept from an earlier call: without a loss, the model's own is
        trained.
        """
        self._compile_loss = self._compile_metrics = None
        super().compile(*args, **kwargs)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile as a saved model was; Keras asks for this method where ``compile`` is another than its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def _resolve_auto_jit_compile(self) -> bool:
        """What ``jit_compile="auto"`` means: not to XLA, whose fixed sizes leave packing out. ``True`` compiles the
        padded path.
        """
        return False

    def train_step(self, data: Any) -> Any:
        """One step of ``fit``."""
        return super().train_step(self._with_labels(data))

    def test_step(self, data: Any) -> Any:
        """One step of ``evaluate``."""
        return super().test_step(self._with_labels(data))

    def predict_step(self, data: Any) -> Any:
        """One step of ``predict``; labels among the inputs are passed over."""
        x, _, _ = unpack_x_y_sample_weight(data)
        if isinstance(x, Mapping):
            x = {name: value for name, value in x.items() if name not in self._task_head.labels}
        return super().predict_step((x,))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss given to ``compile``, or without one the model's own, and what layers add (regularizers).

        Raises:
            InputError: if there is neither, or for weights of examples without a loss that takes them.
        """
        if self._compile_loss is not None:
            y = self._labels_of(x) if y is None else y
            return super().compute_loss(x, y, self._predicted(y_pred, y), sample_weight, training)
        if sample_weight is not None:
            raise InputError(
                "sample_weight and class_weight weigh a loss that is given to compile(), received none; "
                "compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)) for example"
            )
        loss = y_pred.get("loss") if isinstance(y_pred, ModelOutput) else None
        if loss is None:
            wanted = " and ".join(self._task_head.labels) or "no labels of its own"
            raise InputError(
                f"expected a loss in compile(), or labels for the model's own ({wanted}), received neither; "
                "pass y, or labels among the inputs"
            )
        return keras.ops.sum([self._aggregate_additional_loss(part) for part in (loss, *self.losses)])

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Update the metrics with labels and logits, and return all results."""
        y = self._labels_of(x) if y is None else y
        predicted = self._predicted(y_pred, y)
        if (
            y is not None
            and tf.is_tensor(predicted)
            and self._task_head.loss in (LossKind.TOKENS, LossKind.NEXT_TOKENS)
        ):
            y, predicted, sample_weight = self._counted(y, predicted, sample_weight)
        return super().compute_metrics(x, y, predicted, sample_weight)

    def _with_labels(self, data: Any) -> Any:
        """The batch with its ``y`` among the inputs, where the model's own loss is to be computed from it.

        A loss over positions normalises over all of them, padding included, so a model that answers with spans sees its
        labels also where the loss is another: they make it compute every position.
        """
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        spans = self._task_head.loss is LossKind.SPAN
        if y is None or (self._compile_loss is not None and not spans) or not self._task_head.labels:
            return data
        if isinstance(y, Mapping):
            labels = dict(y)
        else:
            labels = dict(zip(self._task_head.labels, y if isinstance(y, list | tuple) else (y,), strict=False))
        if set(labels) != set(self._task_head.labels):
            raise InputError(f"expected y to hold {' and '.join(self._task_head.labels)}, received {', '.join(labels)}")
        if not isinstance(x, Mapping):
            order = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
            x = dict(zip(order, x if isinstance(x, list | tuple) else (x,), strict=False))
        return {**x, **labels}, None if self._compile_loss is None else y, sample_weight

    def _labels_of(self, x: Any) -> Any:
        """Labels among the inputs, if all are there: one, or as many as the head has by name."""
        if (
            not isinstance(x, Mapping)
            or not self._task_head.labels
            or not all(name in x for name in self._task_head.labels)
        ):
            return None
        return (
            {name: x[name] for name in self._task_head.labels}
            if len(self._task_head.labels) > 1
            else x[self._task_head.labels[0]]
        )

    def _predicted(self, y_pred: Any, y: Any) -> Any:
        """The part of an output that belongs to the labels, of their structure."""
        if not isinstance(y_pred, ModelOutput):
            return y_pred
        if self._task_head.loss is not LossKind.SPAN:
            return y_pred["logits"] if "logits" in y_pred else y_pred[0]
        start, end = y_pred["start_logits"], y_pred["end_logits"]
        return {name: start if "start" in name else end for name in y} if isinstance(y, Mapping) else (start, end)

    def _counted(self, y: tf.Tensor, logits: tf.Tensor, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """Labels and logits of the tokens that have a label; of next tokens each beside the logits that predict it."""
        y = tf.convert_to_tensor(y)
        if y.shape.rank != 2 or logits.shape.rank != 3 or is_xla():
            return y, logits, sample_weight
        if self._task_head.loss is LossKind.NEXT_TOKENS:
            y = tf.pad(y[:, 1:], [[0, 0], [0, 1]], constant_values=IGNORE_INDEX)
        counted = y != IGNORE_INDEX
        if sample_weight is not None:
            sample_weight = tf.boolean_mask(
                tf.broadcast_to(tf.reshape(sample_weight, (tf.shape(y)[0], -1)), tf.shape(y)), counted
            )
        return tf.boolean_mask(y, counted), tf.boolean_mask(logits, counted), sample_weight
