"""Int8 inference: weights of a byte, a float32 scale per output channel, activations quantized per token as they come.

What becomes int8 is in ``xlmr_core/quantization/int8.py``; residuals, norms, attention, position embeddings and the
small projections of heads stay as they are.

A weight row is ``weight * weight_scale``, symmetric. A token's vector is ``q * scale + middle`` with q in [-127, 127]
from the least to the greatest of its values: activations lean to one side (after a gelu all but entirely), and half a
range wasted would be one bit lost.

The product is that of the same integers as in ``xlmr_torch``, in float32, as PyTorch has it where it has no faster one:
XLA multiplies integers of a byte more slowly than that on a CPU.

Shapes: n tokens, D inputs, O outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.asked import refuse_gradient
from xlmr_core.quantization.int8 import LARGEST, SCALE
from xlmr_flax.widening import QuantizedLayer, WidenedLinear, held_back, in_blocks, rows_of

__all__ = ["Int8Embedding", "Int8Linear", "int8_linear", "layer", "quantize_tokens"]


def quantize_tokens(x: Array) -> tuple[Array, Array, Array]:
    """Float (n, D) as whole numbers of a byte (n, D) in float32, and the float32 scale and middle of each token (n, 1).

    ``x`` is about ``q * scale + middle``.
    """
    x = x.astype(jnp.float32)
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    middle = (low + high) / 2
    # Measured from the middle as rounded, so that nothing lies beyond 127.
    largest = jnp.maximum(high - middle, middle - low)
    scale = jnp.maximum(largest / LARGEST, np.finfo(np.float32).tiny)
    return jnp.rint((x - middle) * (1 / scale)), scale, middle


def int8_linear(x: Array, layer: QuantizedLayer) -> Array:
    """(..., D) times the weight of a layer of int8: float32 (..., O)."""
    q_nD, scale_n1, middle_n1 = quantize_tokens(_no_gradient(x.reshape(-1, x.shape[-1])))
    # A last row of ones gives the sum of each output's weights, with which the middle counts.
    sums = in_blocks(jnp.concatenate([q_nD, jnp.ones_like(q_nD, shape=(1, q_nD.shape[1]))]), layer)
    y_nO = (sums[:-1] * scale_n1 + middle_n1 * sums[-1]) * layer.part(SCALE)
    return y_nO.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _no_gradient(x: Array) -> Array:
    return x


def _refused(*_: Any) -> Any:
    refuse_gradient("differentiate by the parameters of the head alone")


_no_gradient.defvjp(_refused, _refused)


class _Int8Module(QuantizedLayer):
    """Rows of int8 and their scales."""

    def rows(self, begin: Any, count: int, x: Array | None = None) -> Array:
        rows = rows_of(self.part(""), begin, count)
        # Whole numbers: the scales count after the product.
        return (rows if x is None else held_back(rows, x)).astype(jnp.float32)

    def dequantize(self) -> Array:
        return super().dequantize() * self.part(SCALE)[:, None]

    def product(self, x: Array) -> Array:
        return int8_linear(x, self)


class Int8Embedding(_Int8Module):
    """A table of V rows of int8, looked up as float32."""

    def __call__(self, ids: Array) -> Array:
        """Integers (...) to float32 (..., D)."""
        # Outside of the table is NaN, as of a float one: that of the scales.
        rows = jnp.take(self.part(""), ids, axis=0).astype(jnp.float32)
        return rows * jnp.take(self.part(SCALE), ids, axis=0)[..., None]


class Int8Linear(_Int8Module, WidenedLinear):
    """A linear layer of int8 weights.

    Raises:
        InputError: if a gradient with respect to its inputs is wanted.
    """


def layer(scheme: Scheme, row: Parameter, tensors: Mapping[str, Any], bias: nnx.Param[Array] | None) -> QuantizedLayer:
    """The layer of a weight (O, D) that is stored in these tensors, by suffix."""
    if row.role is Role.EMBEDDING:
        return Int8Embedding(row.shape, tensors)
    return Int8Linear(row.shape, bias, tensors)
