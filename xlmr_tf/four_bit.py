"""Layers of the schemes ``int4``, ``nf4`` and ``fp4``; what they hold is in ``xlmr_core/quantization/four_bit.py``.

A weight is widened to float32 and multiplied in the dtype of the inputs. A table is widened for the tokens that are
looked up. Norms, attention and the sums between layers are those of the dtype policy in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.four_bit import MIDDLE, FourBit
from xlmr_core.quantization.int8 import SCALE
from xlmr_tf.linear import dims
from xlmr_tf.widening import QuantizedLayer, WidenedLinear, encoded, from_codes, pairs_of

__all__ = ["FourBitEmbedding", "FourBitLinear", "encoded", "layer"]


def layer(
    scheme: Scheme, row: Parameter, tensors: Mapping[str, Any], bias: keras.Variable | None, *, dtype: Any
) -> QuantizedLayer:
    """The layer of a weight that is stored in these tensors, by suffix."""
    assert isinstance(scheme, FourBit)
    if row.role is Role.EMBEDDING:
        return FourBitEmbedding(scheme, *tensors.values(), dtype=dtype)
    return FourBitLinear(scheme, bias, *tensors.values(), dtype=dtype)


class _FourBitLayer(QuantizedLayer):
    """Frozen codes, scales, and of int4 middles."""

    weight: keras.Variable
    weight_scale: keras.Variable
    weight_middle: keras.Variable | None

    def _hold(self, scheme: FourBit, weight: Any, weight_scale: Any, weight_middle: Any) -> None:
        self.scheme = scheme
        self.hold("weight", weight)
        self.hold("weight" + SCALE, weight_scale)
        self.weight_middle = None
        if weight_middle is not None:
            self.hold("weight" + MIDDLE, weight_middle)

    def set_values(self, weight: tf.Tensor) -> None:
        """Quantize a float weight into this layer's variables."""
        for attribute, values in zip(self.kept, encoded(self.scheme, weight).values(), strict=True):
            getattr(self, attribute).assign(values)

    def rows(self, begin: int, end: int) -> tf.Tensor:
        middle = None if self.weight_middle is None else self.weight_middle[begin:end]
        return self.widened(self.weight[begin:end], self.weight_scale[begin:end], middle)

    def widened(self, weight: tf.Tensor, scale: tf.Tensor, middle: tf.Tensor | None) -> tf.Tensor:
        """Codes (rows, K / 2) and what lies beside them as float32 (rows, K)."""
        pairs = pairs_of(tf.constant(self.scheme.book))
        scales = tf.cast(tf.reshape(scale, (-1,)), tf.float32)
        middles = None if middle is None else tf.cast(tf.reshape(middle, (-1,)), tf.float32) / 16
        values = from_codes(tf.reshape(weight, (-1,)), pairs, scales, self.scheme.group_size, middles)
        return tf.reshape(values, (-1, self.in_features))


class FourBitEmbedding(_FourBitLayer):
    """A table of V rows of codes, looked up as values."""

    def __init__(
        self, scheme: FourBit, weight: Any, weight_scale: Any, weight_middle: Any = None, *, dtype: Any = None
    ) -> None:
        super().__init__(weight.shape[0], 2 * weight.shape[1], dtype=dtype)
        self.input_dim, self.output_dim = self.out_features, self.in_features
        self._hold(scheme, weight, weight_scale, weight_middle)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Integers (...) to (..., D)."""
        flat = tf.reshape(ids, (-1,))
        middle = None if self.weight_middle is None else tf.gather(self.weight_middle, flat)
        values = self.widened(tf.gather(self.weight, flat), tf.gather(self.weight_scale, flat), middle)
        return tf.cast(tf.reshape(values, (*dims(ids), self.output_dim)), self.compute_dtype)


class FourBitLinear(_FourBitLayer, WidenedLinear):
    """A linear layer of four bit codes."""

    def __init__(
        self,
        scheme: FourBit,
        bias: keras.Variable | None,
        weight: Any,
        weight_scale: Any,
        weight_middle: Any = None,
        *,
        dtype: Any = None,
    ) -> None:
        WidenedLinear.__init__(self, weight.shape[0], 2 * weight.shape[1], bias, dtype=dtype)
        self._hold(scheme, weight, weight_scale, weight_middle)

    def product_dtype(self, x: tf.Tensor) -> tf.DType:
        return x.dtype
