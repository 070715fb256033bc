"""The layers with weights, with the published names of their parameters. Values are left unset: a model fills them by
the parameter table, or loads them.

Each multiplies in the dtype of what comes in, whatever its parameters have; the plan of a call says which that is.
Products and norms accumulate in float32 at least: in bfloat16 that is both more exact and faster. What is added up
along the layers stays so wide, and is narrowed where it is multiplied, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

__all__ = [
    *("LayerNorm", "Linear", "accumulator", "by_rows", "dropout", "is_loading", "loading", "narrowed"),
    *("select_columns", "select_rows", "unset"),
]


def unset(*shape: int) -> nnx.Param[Array]:
    """A float32 parameter of which only the shape is known."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32))


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which sums of a dtype are made."""
    return jnp.promote_types(dtype, jnp.float32)


def narrowed(x: Array, dtype: jnp.dtype | None) -> Array:
    """The same in the dtype that is multiplied in; ``None``: as it is."""
    return x if dtype is None else x.astype(dtype)


class Linear(nnx.Module):
    """A dense layer with a kernel (in, out) and a bias (out,)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        # ---- Layers
        self.kernel = unset(in_features, out_features)
        self.bias = unset(out_features)

    def __call__(self, x: Array) -> Array:
        """(..., in) to (..., out)."""
        return self.wide(x).astype(x.dtype)

    def wide(self, x: Array) -> Array:
        """(..., in) to (..., out), in the dtype that sums are made in."""
        product = jnp.matmul(x, self.kernel[...].astype(x.dtype), preferred_element_type=accumulator(x.dtype))
        return product + self.bias[...].astype(product.dtype)


def by_rows(x: Array, table_VD: Array) -> Array:
    """(..., D) times the rows of a table (V, D): (..., V), in the dtype that sums are made in.

    The table stays as it lies. Of its transpose XLA would make a copy, which takes ten times as long as the product
    itself where x has few rows, as in a step of a decoder.
    """
    axes = (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, table_VD.astype(x.dtype), axes, preferred_element_type=accumulator(x.dtype))


class LayerNorm(nnx.Module):
    """Norm over the last axis (Ba et al. 2016)."""

    def __init__(self, width: int, *, eps: float) -> None:
        # ---- Layers
        self.scale = unset(width)
        self.bias = unset(width)
        # ---- Config
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """(..., D) to (..., D)."""
        wide = x.astype(accumulator(x.dtype))
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.eps)
        return (normed * self.scale[...].astype(wide.dtype) + self.bias[...].astype(wide.dtype)).astype(x.dtype)


def dropout(x: Array, probability: float, key: Array | None) -> Array:
    """``x`` with values dropped at random (Srivastava et al. 2014); without a key, as in evaluation, ``x`` itself."""
    if key is None or probability == 0.0:
        return x
    if probability == 1.0:
        return jnp.zeros_like(x)
    kept = jax.random.bernoulli(key, 1.0 - probability, x.shape)
    return jnp.where(kept, x / (1.0 - probability), 0).astype(x.dtype)


def select_rows(layer: Linear, rows: np.ndarray) -> Linear:
    """A copy with some of the outputs."""
    return _like(layer, lambda kernel: kernel[:, rows], lambda bias: bias[rows])


def select_columns(layer: Linear, columns: np.ndarray) -> Linear:
    """A copy with some of the inputs."""
    return _like(layer, lambda kernel: kernel[columns], lambda bias: bias)


def _like(layer: Linear, kernel: Callable[[Array], Array], bias: Callable[[Array], Array]) -> Linear:
    def of(parameter: nnx.Param[Array], select: Callable[[Array], Array]) -> nnx.Param[Array]:
        value = parameter.get_value()
        abstract = isinstance(value, jax.ShapeDtypeStruct)
        return nnx.Param(jax.eval_shape(select, value) if abstract else select(value))

    copy = Linear(0, 0)
    copy.kernel, copy.bias = of(layer.kernel, kernel), of(layer.bias, bias)
    return copy


# ---- Values that come from a file

_loading = ContextVar("loading", default=False)


@contextmanager
def loading() -> Iterator[None]:
    """Models made inside draw no fresh values, because all of them are about to be loaded."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def is_loading() -> bool:
    """Whether values are about to be loaded."""
    return _loading.get()
