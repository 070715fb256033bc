"""Int8 inference: weights of a byte, a float32 scale per output channel, activations quantized per token as they come.

What becomes int8 is in ``xlmr_core/quantization/int8.py``; residuals, norms, attention, position embeddings and the
small projections of heads stay float32. ``quantize``, in ``quantized.py``, puts these layers into a model.

A weight row is ``weight * weight_scale``, symmetric. A token's vector is ``q * scale + middle`` with q in [-127, 127]
from the least to the greatest of its values: activations lean to one side (after a gelu all but entirely), and half a
range wasted would be one bit lost.

The product is one of float32 of the same integers: TensorFlow has no fast one of int8 on CPUs. So a model takes a
quarter of the memory, and gives the answers that PyTorch gives, but is no faster than in float32.

Shapes: n tokens, D inputs, O outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import INT8, Scheme
from xlmr_core.quantization.asked import refuse_gradient
from xlmr_core.quantization.int8 import LARGEST, SCALE
from xlmr_core.quantization.widening import spans
from xlmr_tf.linear import dims
from xlmr_tf.widening import QuantizedLayer, WidenedLinear, encoded

__all__ = ["Int8Embedding", "Int8Linear", "encoded", "int8_linear", "layer", "quantize_tokens"]


def quantize_tokens(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Float (n, D) as int8 (n, D), and the float32 scale and middle of each token (n, 1).

    ``x`` is about ``q * scale + middle``.
    """
    x = tf.cast(x, tf.float32)
    low, high = tf.reduce_min(x, 1, keepdims=True), tf.reduce_max(x, 1, keepdims=True)
    middle = (low + high) / 2
    # Measured from the middle as rounded, so that nothing lies beyond 127.
    largest = tf.maximum(high - middle, middle - low)
    scale = tf.maximum(largest / LARGEST, np.finfo(np.float32).tiny)
    return tf.cast(tf.round((x - middle) * tf.math.reciprocal(scale)), tf.int8), scale, middle


def int8_linear(x: tf.Tensor, weight: Any, weight_scale: Any, bias: Any = None) -> tf.Tensor:
    """A linear layer of int8 weights.

    Args:
        x: float (..., D).
        weight: int8 (O, D).
        weight_scale: float32 (O,).
        bias: float32 (O,), or ``None``.

    Returns:
        (..., O) of the dtype of ``x``.

    Raises:
        InputError: if a gradient with respect to ``x`` is wanted.
    """
    *leading, width = dims(x)

    @tf.custom_gradient
    def multiplied(x_nD: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], NoReturn]]:
        q_nD, scale_n1, middle_n1 = quantize_tokens(x_nD)
        # A last row of ones gives the sum of each output's weights, with which the middle counts.
        q_nD = tf.pad(tf.cast(q_nD, tf.float32), [[0, 1], [0, 0]], constant_values=1)
        columns: list[tf.Tensor] = []
        for begin, end in spans(weight.shape[0], width):
            with tf.control_dependencies(columns[-1:]):
                sums = tf.matmul(q_nD, tf.cast(weight[begin:end], tf.float32), transpose_b=True)
                columns.append((sums[:-1] * scale_n1 + middle_n1 * sums[-1]) * weight_scale[begin:end])
        return columns[0] if len(columns) == 1 else tf.concat(columns, 1), _no_gradient

    y_nO = multiplied(tf.reshape(x, (-1, width)))
    if bias is not None:
        y_nO += tf.cast(bias, tf.float32)
    return tf.cast(tf.reshape(y_nO, (*leading, weight.shape[0])), x.dtype)


def _no_gradient(upstream: tf.Tensor) -> NoReturn:
    refuse_gradient("stop them with tf.stop_gradient")


class _Int8Module(QuantizedLayer):
    """Frozen int8 rows and their scales."""

    weight: keras.Variable
    weight_scale: keras.Variable

    def _hold(self, weight: Any, weight_scale: Any) -> None:
        self.hold("weight", weight)
        self.hold("weight" + SCALE, weight_scale)

    def set_values(self, weight: tf.Tensor) -> None:
        """Quantize a float weight into this layer's variables."""
        parts = encoded(INT8, weight)
        self.weight.assign(parts[""])
        self.weight_scale.assign(parts[SCALE])

    def rows(self, begin: int, end: int) -> tf.Tensor:
        return tf.cast(self.weight[begin:end], tf.float32) * self.weight_scale[begin:end, None]

    def product(self, x: tf.Tensor) -> tf.Tensor:
        return int8_linear(x, self.weight, self.weight_scale)


class Int8Embedding(_Int8Module):
    """A table of V int8 rows, looked up as values."""

    def __init__(self, weight: Any, weight_scale: Any, *, dtype: Any = None) -> None:
        super().__init__(*weight.shape, dtype=dtype)
        self.input_dim, self.output_dim = self.out_features, self.in_features
        self._hold(weight, weight_scale)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Integers (...) to (..., D)."""
        values = tf.cast(tf.gather(self.weight, ids), tf.float32) * tf.gather(self.weight_scale, ids)[..., None]
        return tf.cast(values, self.compute_dtype)


class Int8Linear(_Int8Module, WidenedLinear):
    """A linear layer of int8 weights."""

    def __init__(self, weight: Any, weight_scale: Any, bias: keras.Variable | None, *, dtype: Any = None) -> None:
        WidenedLinear.__init__(self, *weight.shape, bias, dtype=dtype)
        self._hold(weight, weight_scale)

    def product_dtype(self, x: tf.Tensor) -> tf.DType:
        return tf.float32


def layer(
    scheme: Scheme, row: Parameter, tensors: Mapping[str, Any], bias: keras.Variable | None, *, dtype: Any
) -> QuantizedLayer:
    """The layer of a weight that is stored in these tensors, by suffix."""
    if row.role is Role.EMBEDDING:
        return Int8Embedding(*tensors.values(), dtype=dtype)
    return Int8Linear(*tensors.values(), bias, dtype=dtype)
