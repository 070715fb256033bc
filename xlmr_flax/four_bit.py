"""Layers of the schemes ``int4``, ``nf4`` and ``fp4``; what they hold is in ``xlmr_core/quantization/four_bit.py``.

A weight is widened while it is used, and multiplied in the dtype of what comes in. Norms, attention and the sums
between layers are as in a model that is not quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.four_bit import MIDDLE, FourBit
from xlmr_core.quantization.int8 import SCALE
from xlmr_flax.widening import QuantizedLayer, WidenedLinear, from_codes, held_back, rows_of

__all__ = ["FourBitEmbedding", "FourBitLinear", "layer"]


def layer(scheme: Scheme, row: Parameter, tensors: Mapping[str, Any], bias: nnx.Param[Array] | None) -> QuantizedLayer:
    """The layer of a weight (N, K) that is stored in these tensors, by suffix."""
    assert isinstance(scheme, FourBit)
    if row.role is Role.EMBEDDING:
        return FourBitEmbedding(scheme, row.shape, tensors)
    return FourBitLinear(scheme, row.shape, bias, tensors)


class _FourBitLayer(QuantizedLayer):
    """Codes, scales, and of int4 middles."""

    scheme: FourBit

    def rows(self, begin: Any, count: int, x: Array | None = None) -> Array:
        parts = {suffix: rows_of(self.part(suffix), begin, count) for suffix in self.suffixes}
        if x is not None:
            parts[""] = held_back(parts[""], x)
        return self.widened(parts)

    def widened(self, parts: Mapping[str, Array]) -> Array:
        """Codes (rows, K / 2) and what lies beside them as float32 (rows, K)."""
        middle = parts.get(MIDDLE)
        values = from_codes(
            parts[""].reshape(-1),
            self.scheme.book,
            parts[SCALE].reshape(-1).astype(jnp.float32),
            self.scheme.group_size,
            None if middle is None else middle.reshape(-1).astype(jnp.float32) / 16,
        )
        return values.reshape(-1, self.in_features)


class FourBitEmbedding(_FourBitLayer):
    """A table of V rows of codes, looked up as float32."""

    def __init__(self, scheme: FourBit, shape: tuple[int, ...], tensors: Mapping[str, Any]) -> None:
        super().__init__(shape, tensors)
        self.scheme = scheme

    def __call__(self, ids: Array) -> Array:
        """Integers (...) to float32 (..., K)."""
        flat = ids.reshape(-1)
        # Outside of the table is NaN, as of a float one: that of the scales.
        parts = {suffix: jnp.take(self.part(suffix), flat, axis=0) for suffix in self.suffixes}
        return self.widened(parts).reshape(*ids.shape, self.in_features)


class FourBitLinear(_FourBitLayer, WidenedLinear):
    """A linear layer of four bit codes."""

    def __init__(
        self, scheme: FourBit, shape: tuple[int, ...], bias: nnx.Param[Array] | None, tensors: Mapping[str, Any]
    ) -> None:
        WidenedLinear.__init__(self, shape, bias, tensors)
        self.scheme = scheme
