"""Layers that hold codes and widen them while they are used: what they have in common, whoever's codes they are.

A weight (N, K) is widened once a call, and if it would take more than 64 MB, a block of rows after the other is
widened and multiplied. Nothing wide is kept for the backward pass, which widens once more: gradients flow to inputs,
never to codes.

Variables lie as files have them, by outputs, and not transposed as the kernels of Keras.

Shapes: N outputs, K inputs, n tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.quantization import Scheme
from xlmr_core.quantization.widening import rows_at_once, spans
from xlmr_tf.linear import dims, unset

__all__ = ["QuantizedLayer", "WidenedLinear", "encoded", "from_codes", "pairs_of"]

_BYTE = np.arange(256)


def encoded(scheme: Scheme, weight: tf.Tensor) -> dict[str, tf.Tensor]:
    """The tensors of a weight by suffix, to the bits of the ``encode`` of a scheme that stores each row by itself."""
    step = rows_at_once(weight.shape[1])
    pieces = [weight[begin : begin + step] for begin in range(0, weight.shape[0], step)]
    parts = [scheme.encode(tf.cast(piece, tf.float32).numpy()) for piece in pieces]
    return {suffix: tf.concat([part[suffix] for part in parts], 0) for suffix in parts[0]}


def pairs_of(book: tf.Tensor) -> tf.Tensor:
    """Of 16 float32 values, those of both codes in each of 256 bytes: as int64 (256,), which one look-up reads."""
    return tf.bitcast(tf.stack([tf.gather(book, _BYTE >> 4), tf.gather(book, _BYTE & 15)], 1), tf.int64)


def from_codes(
    codes: tf.Tensor, pairs: tf.Tensor, scales: tf.Tensor, block: int, middles: tf.Tensor | None = None
) -> tf.Tensor:
    """What codes stand for.

    Args:
        codes: uint8 (bytes,), two codes each.
        pairs: see :func:`pairs_of`.
        scales: float32, one for each ``block`` values; the last block may be short where the number of codes is known.
        block: values that share a scale.
        middles: float32, as many, added before a value is scaled.

    Returns:
        float32 (2 * bytes,).
    """
    values = tf.reshape(tf.bitcast(tf.gather(pairs, tf.cast(codes, tf.int32)), tf.float32), (-1,))
    count = values.shape[0]
    short = 0 if count is None else -count % block
    blocks = tf.reshape(tf.pad(values, [[0, short]]) if short else values, (-1, block))
    if middles is not None:
        blocks = blocks + middles[:, None]
    scaled = tf.reshape(blocks * scales[:, None], (-1,))
    return scaled[:count] if short else scaled


class QuantizedLayer(keras.layers.Layer):
    """A layer whose weight (N, K) lies in variables that keep their dtypes and are never trained.

    Args:
        out_features, in_features: N and K.
        dtype: the dtype policy of what goes in and comes out.
    """

    # Attributes that hold tensors of the quantized weight.
    kept: tuple[str, ...] = ()
    # Of how many rows the first one of a block must be a multiple.
    alignment: int = 1

    def __init__(self, out_features: int, in_features: int, *, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        self.out_features, self.in_features = out_features, in_features
        self.built = True

    def hold(self, attribute: str, values: Any) -> None:
        """Keep a tensor of the weight.

        Args:
            attribute: where.
            values: the tensor, or of one that is about to be loaded its ``tf.TensorSpec``.
        """
        dtype = tf.as_dtype(values.dtype).name
        variable = self.add_weight(
            tuple(values.shape), initializer=unset, dtype=dtype, trainable=False, autocast=False, name=attribute
        )
        setattr(self, attribute, variable)
        self.kept = (*self.kept, attribute)
        if not isinstance(values, tf.TensorSpec):
            variable.assign(values)

    def set_to_zero(self) -> None:
        """Give variables that no values were put into some."""
        for attribute in self.kept:
            variable = getattr(self, attribute)
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def settle(self) -> None:
        """Make what follows from the values of variables, which others have put in place."""

    # ---- Files

    @property
    def stored_names(self) -> dict[str, str]:
        """What checkpoints call the variables of this layer, by attribute."""
        return {attribute: attribute for attribute in self.kept}

    def stored_shape(self, attribute: str) -> tuple[int, ...]:
        """The sizes of a variable as checkpoints have it."""
        return tuple(getattr(self, attribute).shape)

    def stored_value(self, attribute: str) -> NDArray[Any]:
        """The values of a variable as checkpoints have it; a copy."""
        values: NDArray[Any] = getattr(self, attribute).numpy()
        return values

    def save_own_variables(self, store: Any) -> None:
        """Keras's own files have the names of checkpoints."""
        for attribute, name in self.stored_names.items():
            store[name] = getattr(self, attribute)

    def load_own_variables(self, store: Any) -> None:
        """The way back from :meth:`save_own_variables`."""
        for attribute, name in self.stored_names.items():
            getattr(self, attribute).assign(store[name])
        self.settle()

    # ---- The weight

    @abstractmethod
    def rows(self, begin: int, end: int) -> tf.Tensor:
        """Some rows of the weight, widened."""

    def dequantize(self) -> tf.Tensor:
        """The weight (N, K), widened."""
        return self.rows(0, self.out_features)

    def product(self, x: tf.Tensor) -> tf.Tensor:
        """(..., K) to (..., N): inputs times the transposed weight."""
        *leading, width = dims(x)

        @tf.custom_gradient
        def multiplied(x_nK: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            columns = self.by_blocks(lambda begin, end, rows: tf.matmul(x_nK, tf.cast(rows, x.dtype), transpose_b=True))

            def gradient(upstream_nN: tf.Tensor) -> tf.Tensor:
                return tf.add_n(
                    self.by_blocks(
                        lambda begin, end, rows: tf.matmul(upstream_nN[:, begin:end], tf.cast(rows, x.dtype))
                    )
                )

            return columns[0] if len(columns) == 1 else tf.concat(columns, 1), gradient

        return tf.reshape(multiplied(tf.reshape(x, (-1, width))), (*leading, self.out_features))

    def by_blocks(self, make: Callable[[int, int, tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        """What is made of the weight by blocks of widened rows, one after the other, so that one of them is there at a
        time.

        Args:
            make: of the first row, of the one behind the last, and of the rows.
        """
        found: list[tf.Tensor] = []
        for begin, end in spans(self.out_features, self.in_features, self.alignment):
            with tf.control_dependencies(found[-1:]):  # a graph would widen all of them at once
                found.append(make(begin, end, self.rows(begin, end)))
        return found


class WidenedLinear(QuantizedLayer):
    """A linear layer of codes.

    Args:
        out_features, in_features: N and K.
        bias: the variable (N,) of the layer in whose place it stands, if that has one.
        dtype: the dtype policy of what goes in and comes out.
    """

    def __init__(self, out_features: int, in_features: int, bias: keras.Variable | None, *, dtype: Any) -> None:
        super().__init__(out_features, in_features, dtype=dtype)
        trained = bias is not None and bias.trainable
        if bias is not None:
            bias.trainable = True  # or Keras would take it for one that never is
        self.bias = bias
        if bias is not None:
            bias.trainable = trained

    @property
    def units(self) -> int:
        """N, by the name that Keras has for it."""
        return self.out_features

    @property
    def stored_names(self) -> dict[str, str]:
        return super().stored_names | ({} if self.bias is None else {"bias": "bias"})

    @abstractmethod
    def product_dtype(self, x: tf.Tensor) -> tf.DType:
        """The dtype in which inputs are multiplied."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(..., K) to (..., N), of the same dtype."""
        y = self.product(tf.cast(inputs, self.product_dtype(inputs)))
        if self.bias is not None:
            y += tf.cast(self.bias, y.dtype)
        return tf.cast(y, inputs.dtype)
