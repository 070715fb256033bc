"""How Keras's ``fit``, ``evaluate`` and ``predict`` deal with a model's inputs, labels and outputs.

==============================  ======================================================================================
labels come                     and the loss is
==============================  ======================================================================================
among the inputs                the model's own, or the one given to ``compile``
beside the inputs, as ``y``     the one given to ``compile``, or without one the model's own
==============================  ======================================================================================

A loss given to ``compile`` and every metric see the labels and the logits. Of heads that label tokens the metrics see
only tokens whose label is not -100 (XLA, which wants every size to be known, leaves all in).

``sample_weight`` and ``class_weight`` weigh whichever loss it is. Keras itself turns the weights of classes into those
of examples, but where the labels are of tokens it would take a row of them for one label; there, and for the model's
own loss, it is done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.errors import InputError
from xlmr_core.heads import LossKind
from xlmr_core.losses import Problem, sequence_problem
from xlmr_core.outputs import ModelOutput
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.asked import refuse_training
from xlmr_tf.datasets import collated, prepared
from xlmr_tf.inputs import is_xla
from xlmr_tf.losses import next_tokens

__all__ = ["TrainedByKeras"]

# What the published classes take as the name of the model's own loss.
OWN_LOSS = ("auto", "auto_with_warning", "passthrough")
OF_TOKENS = (LossKind.TOKENS, LossKind.NEXT_TOKENS)


class TrainedByKeras:
    """The part of a model that Keras's training loop calls; stands before ``keras.Model`` among the bases."""

    config: Any
    _task_head: Any
    _compile_loss: Any
    quantization_scheme: Scheme | None
    trainable_variables: list[keras.Variable]
    call_signature_parameters: list[str]
    # Pairs of a class and its weight, of the calls of ``fit`` that the graph of training was made for.
    _class_weight: tuple[tuple[int, float], ...] = ()

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keras's own. What is not given is not kept from an earlier call: without a loss, or with one of the published
        words for it (``auto``, ``passthrough``), the model's own is trained.
        """
        self._compile_loss = self._compile_metrics = None
        self._class_weight = ()
        super().compile(optimizer, None if isinstance(loss, str) and loss in OWN_LOSS else loss, *args, **kwargs)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keras's own.

        Args:
            x, y, *args, **kwargs: as of ``keras.Model.fit``.
            class_weight: factors of the classes' losses, in any form of data, labels among the inputs too.
            sample_weight: factors of the rows' or the labels' losses, of labels among the inputs too.

        Raises:
            InputError: for weights of classes where there are none, or weights without labels; for a quantized model of
                which no part is trained.
        """
        self._refuse_codes()
        x, y = self._apart(x, y, sample_weight)
        class_weight = self._weights_for_keras(class_weight)
        return super().fit(x, y, *args, class_weight=class_weight, sample_weight=sample_weight, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Keras's own; ``sample_weight`` as of :meth:`fit`."""
        x, y = self._apart(x, y, sample_weight)
        return super().evaluate(x, y, *args, sample_weight=sample_weight, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Keras's own; weights as of :meth:`fit`."""
        self._refuse_codes()
        x, y = self._apart(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, self._weights_for_keras(class_weight), return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Keras's own; ``sample_weight`` as of :meth:`fit`."""
        x, y = self._apart(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, return_dict)

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Any = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> tf.data.Dataset:
        """The rows of a ``datasets.Dataset`` as batches for ``fit``: the model's inputs by name, with labels beside
        them. Columns that the model does not know are left out.

        Args:
            dataset: rows; see :func:`xlmr_tf.datasets.prepared`.
            batch_size: rows of a batch.
            shuffle: in another order each time.
            tokenizer: pads the rows of a batch; without one they must be of one length.
            collate_fn: makes a dictionary of arrays of a list of rows, in place of the tokenizer.
            collate_fn_args: further arguments of it, by name.
            drop_remainder: leave a last batch of fewer rows out; default: where rows are shuffled.
            prefetch: prepare the next batch while one is trained.

        Raises:
            InputError: for what has no rows and columns, or none that the model knows, or rows of several lengths
                without a tokenizer.
        """
        return prepared(
            dataset,
            self.call_signature_parameters,
            batch_size=batch_size,
            shuffle=shuffle,
            collate=collate_fn or partial(collated, tokenizer=tokenizer),
            options=collate_fn_args or {},
            drop_remainder=shuffle if drop_remainder is None else drop_remainder,
            prefetch=prefetch,
        )

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
        return super().train_step(self._with_labels(data, self._class_weight))

    def test_step(self, data: Any) -> Any:
        """One step of ``evaluate``."""
        return super().test_step(self._with_labels(data))

    def predict_step(self, data: Any) -> Any:
        """One step of ``predict``; labels among the inputs are passed over."""
        x, _, _ = unpack_x_y_sample_weight(data)
        if isinstance(x, Mapping):
            x = {name: value for name, value in x.items() if name not in (*self._task_head.labels, "sample_weight")}
        return super().predict_step((x,))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss given to ``compile``, or without one the model's own, and what layers add (regularizers).

        Raises:
            InputError: if there is neither, or for weights of examples where the model's own loss takes none.
        """
        if self._compile_loss is not None:
            y = self._labels_of(x) if y is None else y
            return super().compute_loss(x, y, self._predicted(y_pred, y), sample_weight, training)
        if sample_weight is not None and "sample_weight" not in self.call_signature_parameters:
            raise InputError(
                f"expected sample_weight among the arguments of {type(self).__name__}.call, whose loss it is to weigh, "
                "received none; add it there, or give compile() a loss"
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
        if y is not None and tf.is_tensor(predicted) and self._task_head.loss in OF_TOKENS:
            y, predicted, sample_weight = self._counted(y, predicted, sample_weight)
        return super().compute_metrics(x, y, predicted, sample_weight)

    def _with_labels(self, data: Any, class_weight: Iterable[tuple[int, float]] = ()) -> Any:
        """The batch with its ``y`` and its weights among the inputs, where the model's own loss is to be computed from
        them.

        A loss over positions normalises over all of them, padding included, so a model that answers with spans sees its
        labels also where the loss is another: they make it compute every position.
        """
        x, y, weights = unpack_x_y_sample_weight(data)
        names = self._task_head.labels
        own, spans = self._compile_loss is None, self._task_head.loss is LossKind.SPAN
        if not names:
            return data
        if y is not None and (own or spans):
            x = {**_by_name(x), **self._named(y)}
            y = None if own else y
        if class_weight:
            if weights is not None:
                raise InputError(
                    "expected sample_weight or class_weight, received both; multiply the weights of the examples"
                )
            weights = self._weights_of_classes(self._labels_of(x) if y is None else y, class_weight)
        if own and weights is not None and "sample_weight" in self.call_signature_parameters:
            given = weights
            if spans:  # Keras has a structure of weights like that of the labels
                weights = dict.fromkeys(names, weights) if tf.is_tensor(weights) else self._named(weights)
                given = tf.stack([tf.reshape(weights[name], (-1,)) for name in names], 1)
            x = {**_by_name(x), "sample_weight": given}
        return x, y, weights

    def _refuse_codes(self) -> None:
        """Refuse to train a quantized model without a part that can be, or its codes."""
        trained = self.trainable_variables
        if self.quantization_scheme is not None and not (
            trained and all(tf.as_dtype(variable.dtype).is_floating for variable in trained)
        ):
            refuse_training(self.quantization_scheme.name)

    def _apart(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Inputs and labels, apart where labels are to be weighed: Keras passes over weights without a ``y``."""
        if weights is None or y is not None or not isinstance(x, Mapping | list | tuple | np.ndarray | tf.Tensor):
            return x, y
        labels = self._labels_of(x)
        if labels is None:
            raise InputError(
                "sample_weight weighs labels, expected them as y or among the inputs, received none; pass both"
            )
        return {name: value for name, value in x.items() if name not in self._task_head.labels}, labels

    def _named(self, y: Any) -> dict[str, Any]:
        """Labels by name, or what belongs to each of them."""
        names = self._task_head.labels
        found = dict(y) if isinstance(y, Mapping) else dict(zip(names, _listed(y), strict=False))
        if set(found) != set(names):
            raise InputError(f"expected y to hold {' and '.join(names)}, received {', '.join(found)}")
        return found

    # ---- Weights of classes

    def _weights_for_keras(self, class_weight: Mapping[int, float] | None) -> Mapping[int, float] | None:
        """The weights of classes if Keras itself is to apply them; otherwise ``train_step`` does."""
        keras_does = self._compile_loss is not None and self._task_head.loss not in OF_TOKENS
        own = () if keras_does or class_weight is None else tuple((int(k), float(w)) for k, w in class_weight.items())
        if own and self._task_head.loss in (LossKind.SPAN, LossKind.NONE):
            raise InputError(
                f"class_weight weighs classes, which {type(self).__name__} does not have; expected None, "
                "pass sample_weight"
            )
        if own != self._class_weight:
            self._class_weight = own
            self.train_function = None  # the weights are constants of its graph
        return class_weight if keras_does else None

    def _weights_of_classes(self, labels: Any, class_weight: Iterable[tuple[int, float]]) -> tf.Tensor:
        """The weight of each label: of its class, or where a row says of each class whether it applies, of that."""
        if labels is None:
            raise InputError("class_weight weighs the classes of labels, expected labels, received none")
        labels = tf.convert_to_tensor(labels)
        config, integers = self.config, labels.dtype.is_integer
        if self._task_head.loss is LossKind.SEQUENCE and self._compile_loss is None:
            problem = sequence_problem(config, labels_are_integers=integers)
            if problem is Problem.REGRESSION:
                raise InputError(
                    "class_weight weighs classes, a regression has none; expected None, pass sample_weight"
                )
            if problem is Problem.MULTI_LABEL:
                labels = tf.broadcast_to(tf.range(config.num_labels), tf.shape(labels))
        weights = tf.ones(tf.shape(labels))
        for label, weight in class_weight:
            weights = tf.where(labels == tf.cast(label, labels.dtype), weight, weights)
        return weights

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
        if sample_weight is not None:
            sample_weight = tf.broadcast_to(tf.reshape(sample_weight, (tf.shape(y)[0], -1)), tf.shape(y))
        if self._task_head.loss is LossKind.NEXT_TOKENS:
            y = next_tokens(y, IGNORE_INDEX)
            sample_weight = None if sample_weight is None else next_tokens(sample_weight, 0)
        counted = y != IGNORE_INDEX
        if sample_weight is not None:
            sample_weight = tf.boolean_mask(sample_weight, counted)
        return tf.boolean_mask(y, counted), tf.boolean_mask(logits, counted), sample_weight


def _by_name(x: Any) -> dict[str, Any]:
    """Inputs by name, which came so or in the published order."""
    if isinstance(x, Mapping):
        return dict(x)
    return dict(zip(("input_ids", "attention_mask", "token_type_ids", "position_ids"), _listed(x), strict=False))


def _listed(x: Any) -> Any:
    return x if isinstance(x, list | tuple) else (x,)
