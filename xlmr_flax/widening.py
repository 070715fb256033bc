"""Layers that hold codes and widen them while they are used: what they have in common, whoever's codes they are.

A weight (N, K) is widened inside the compiled call, and if it would take more than 64 MB, a block of rows after the
other is widened and multiplied. Nothing wide is kept for the backward pass, which widens once more: gradients flow to
inputs, and so to adapters, never to codes.

Tensors of quantized weights are variables of a kind of their own, ``Codes``: they are no parameters, so that no
optimizer and no gradient finds them, and lie as in a file, by rows of outputs.

Shapes: N outputs, K inputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from xlmr_core.quantization.bitsandbytes import STATE
from xlmr_core.quantization.widening import spans
from xlmr_flax.functional import attribute_of
from xlmr_flax.linear import accumulator, by_rows

__all__ = [
    *("Codes", "Derived", "QuantizedLayer", "Text", "WidenedLinear"),
    *("from_codes", "held_back", "in_blocks", "rows_of"),
]


class Codes(nnx.Variable[Any]):
    """A tensor of a quantized weight: codes, or what lies beside them."""


class Text(Codes):
    """One that no computation reads, and that may be longer in one layer than in the next."""


class Derived(Codes):
    """One that follows from the others, and stands in no file."""


def from_codes(codes: Array, book: Any, scales: Array, block: int, middles: Array | None = None) -> Array:
    """What codes stand for.

    Args:
        codes: uint8 (bytes,), two codes each.
        book: float32 (16,), the value of each code.
        scales: float32, one for each ``block`` values; the last block may be short.
        block: values that share a scale.
        middles: float32, as many, added before a value is scaled.

    Returns:
        float32 (2 * bytes,).
    """
    # XLA reads a value a code faster than the two of a byte at once.
    numbers = jnp.stack([codes >> 4, codes & 15], 1).reshape(-1)
    values = jnp.asarray(book).at[numbers].get(mode="promise_in_bounds")
    whole = values.size // block
    blocks, rest = values[: whole * block].reshape(-1, block), values[whole * block :]
    if middles is not None:
        blocks = blocks + middles[:whole, None]
    scaled = (blocks * scales[:whole, None]).reshape(-1)
    return jnp.concatenate([scaled, rest * scales[whole:]]) if rest.size else scaled


def rows_of(part: Array, begin: Any, count: int) -> Array:
    """``count`` rows of a tensor, from one on that may be traced."""
    rows: Array = lax.dynamic_slice_in_dim(part, begin, count)
    return rows


@jax.custom_batching.custom_vmap
def held_back(part: Array, x: Array) -> Array:
    """Integers that are not there before ``x`` is.

    What depends on no input XLA makes first of all: the wide weights of all layers at once. A barrier does not keep it
    from that, what depends on values does: a zero of which it does not know that it is one.
    """
    bits = lax.bitcast_convert_type(x.reshape(-1)[:1].astype(jnp.float32), jnp.uint32)
    return part ^ ((bits & 1) >> 1).astype(part.dtype) if bits.size else part


@held_back.def_vmap
def _held_back_once(size: int, batched: Any, part: Array, x: Array) -> tuple[Array, bool]:
    """A weight is widened once, however many inputs there are side by side."""
    return (part, True) if batched[0] else (held_back(part, x), False)


class QuantizedLayer(nnx.Module):
    """A layer that holds the tensors of a quantized weight.

    Args:
        shape: (N, K) of the weight.
        tensors: by suffix, as a file has them; shapes and dtypes alone where they are about to be loaded.

    Attributes:
        suffixes: those of the tensors.
    """

    # Of how many rows the first one of a block must be a multiple.
    alignment = 1

    def __init__(self, shape: tuple[int, ...], tensors: Mapping[str, Any]) -> None:
        self.out_features, self.in_features = shape
        self.suffixes = tuple(tensors)
        for suffix, value in tensors.items():
            setattr(self, attribute_of(suffix), (Text if suffix.startswith(STATE) else Codes)(value))

    def part(self, suffix: str) -> Array:
        """A tensor of the weight."""
        value: Array = getattr(self, attribute_of(suffix))[...]
        return value

    @abstractmethod
    def rows(self, begin: Any, count: int, x: Array | None = None) -> Array:
        """Some rows of the weight, widened.

        Args:
            begin: the first one, which may be traced.
            count: how many.
            x: what they will be multiplied with, see :func:`held_back`.
        """

    def dequantize(self) -> Array:
        """The weight (N, K), widened."""
        return self.rows(0, self.out_features)

    def product(self, x: Array) -> Array:
        """(..., K) times the weight: (..., N), in the dtype that sums are made in."""
        return _product(x, self)


class WidenedLinear(QuantizedLayer):
    """A linear layer of codes.

    Args:
        shape: (N, K).
        bias: (N,); a projection to the vocabulary has it elsewhere.
        tensors: by suffix.
    """

    def __init__(self, shape: tuple[int, ...], bias: nnx.Param[Array] | None, tensors: Mapping[str, Any]) -> None:
        super().__init__(shape, tensors)
        self.bias = bias

    def product_dtype(self, x: Array) -> Any:
        """The dtype in which inputs are multiplied."""
        return x.dtype

    def __call__(self, x: Array) -> Array:
        """(..., K) to (..., N), of the same dtype."""
        return self.wide(x).astype(x.dtype)

    def wide(self, x: Array) -> Array:
        """(..., K) to (..., N), in the dtype that sums are made in."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)

    def product(self, x: Array) -> Array:
        return _product(x.astype(self.product_dtype(x)), self)


@jax.custom_vjp
def _product(x: Array, layer: QuantizedLayer) -> Array:
    """A product that keeps nothing wide."""
    return in_blocks(x, layer)


def _forward(x: Array, layer: QuantizedLayer) -> tuple[Array, Any]:
    return in_blocks(x, layer), (layer, x[..., :0])


def _backward(kept: Any, gradient: Array) -> tuple[Array, None]:
    layer, like = kept
    gradient = gradient.astype(like.dtype)
    step, whole, rest = _steps(layer)
    sums = accumulator(like.dtype)

    def part(begin: Any, count: int) -> Array:
        some = lax.dynamic_slice_in_dim(gradient, begin, count, axis=-1)
        rows = layer.rows(begin, count, some).astype(some.dtype)
        return jnp.matmul(some, rows, preferred_element_type=sums)

    if whole == 1:
        found = part(0, step)
    else:
        start = jnp.zeros((*gradient.shape[:-1], layer.in_features), sums)
        found = lax.fori_loop(0, whole, lambda n, y: y + part(n * step, step), start)
    if rest:
        found = found + part(whole * step, rest)
    return found.astype(like.dtype), None


_product.defvjp(_forward, _backward)


def _steps(layer: QuantizedLayer) -> tuple[int, int, int]:
    """How many rows are widened at a time, how often, and how many are left after that."""
    blocks = spans(layer.out_features, layer.in_features, layer.alignment)
    step = blocks[0][1]
    whole = layer.out_features // step
    return step, whole, layer.out_features - whole * step


def in_blocks(x: Array, layer: QuantizedLayer) -> Array:
    """(..., K) times the rows of a layer: (..., N)."""
    step, whole, rest = _steps(layer)

    def part(begin: Any, count: int) -> Array:
        return by_rows(x, layer.rows(begin, count, x))

    if whole == 1 and not rest:
        return part(0, step)

    def put(n: Any, y: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(y, part(n * step, step), n * step, axis=-1)

    y = jnp.zeros((*x.shape[:-1], layer.out_features), accumulator(x.dtype))
    y = lax.fori_loop(0, whole, put, y)
    return y.at[..., whole * step :].set(part(whole * step, rest)) if rest else y
