"""Layers whose values are left unset: a model fills them by the parameter table, or loads them.

Keras's own constructors would draw every weight once more, which costs seconds at base size and touches all of the
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["Linear", "dropout", "layer_norm", "linear", "select_columns", "select_rows", "unset"]


def unset(shape: Any, dtype: Any = None) -> tf.Tensor:
    """An initializer that reserves memory and does not touch it."""
    return tf.raw_ops.Empty(shape=tuple(shape), dtype=dtype or keras.config.floatx(), init=False)


class Linear(keras.layers.Dense):
    """A dense layer that multiplies two matrices, whatever axes come before the last.

    With more than two axes TensorFlow would multiply in batches, whose gradient holds the kernel once for each row of
    the batch.
    """

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """(..., in) to (..., out)."""
        return self._by_rows(super().call, inputs, training)

    def quantized_call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """What Keras calls after its own ``quantize``: (..., in) to (..., out)."""
        return self._by_rows(super().quantized_call, inputs, training)

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        """Keras's own, which would leave subclasses of its layers out."""
        super().quantize(mode, type_check=False, config=config)

    def _by_rows(self, compute: Callable[..., tf.Tensor], inputs: Any, training: bool | None) -> tf.Tensor:
        if inputs.shape.rank == 2:
            return compute(inputs, training=training)
        *leading, width = dims(inputs)
        return tf.reshape(compute(tf.reshape(inputs, (-1, width)), training=training), (*leading, self.units))


def linear(in_features: int, out_features: int, dtype: Any, *, bias: bool = True) -> Linear:
    """A built layer with unset kernel (in, out) and, unless there is none, bias (out,)."""
    layer = Linear(out_features, use_bias=bias, kernel_initializer=unset, bias_initializer=unset, dtype=dtype)
    layer.build((None, in_features))
    return layer


def layer_norm(width: int, epsilon: float, dtype: Any) -> keras.layers.LayerNormalization:
    """A built layer norm of unset scale and bias (width,)."""
    layer = keras.layers.LayerNormalization(
        epsilon=epsilon, gamma_initializer=unset, beta_initializer=unset, dtype=dtype
    )
    layer.build((None, width))
    return layer


def dropout(rate: float, dtype: Any) -> keras.layers.Dropout:
    """A built dropout layer."""
    layer = keras.layers.Dropout(rate, dtype=dtype)
    layer.build(())
    return layer


def select_rows(layer: Linear, rows: NDArray[np.int64]) -> None:
    """Keep some of the outputs."""
    replace_values(layer, "_kernel", layer._kernel.numpy()[:, rows])
    replace_values(layer, "bias", layer.bias.numpy()[rows])
    layer.units = len(rows)


def select_columns(layer: Linear, columns: NDArray[np.int64]) -> None:
    """Keep some of the inputs."""
    replace_values(layer, "_kernel", layer._kernel.numpy()[columns])
    layer.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: len(columns)})


def replace_values(layer: keras.layers.Layer, attribute: str, values: Any, dtype: Any = None) -> None:
    """Put a variable of other values, of any shape and dtype, in the place of one that a layer has."""
    old = getattr(layer, attribute)
    layer._tracker.unlock()
    layer._untrack_variable(old)
    new = layer.add_weight(
        values.shape, initializer=unset, dtype=dtype or old.dtype, trainable=old.trainable, name=old.name
    )
    setattr(layer, attribute, new)
    layer._tracker.lock()
    new.assign(values)


def dims(x: Any) -> list[Any]:
    """The sizes of a tensor: numbers where they are known, scalars of the graph where they are not."""
    dynamic = None if x.shape.is_fully_defined() else tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape.as_list())]


# ---- Values that come from a file

_loading: ContextVar[list[Any] | None] = ContextVar("loading", default=None)


@contextmanager
def loading() -> Iterator[list[Any]]:
    """Models made inside draw no fresh values, because all of them are about to be loaded.

    Gives the list of these models.
    """
    models: list[Any] = []
    token = _loading.set(models)
    try:
        yield models
    finally:
        _loading.reset(token)


def is_loading() -> bool:
    """Whether values are about to be loaded."""
    return _loading.get() is not None


def leave_unset(model: Any) -> bool:
    """Whether a model was made where values are about to be loaded; it is then in the list that ``loading()`` gives."""
    models = _loading.get()
    if models is not None:
        models.append(model)
    return models is not None
