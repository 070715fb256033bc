"""``int8``: a byte a value and a scale a row.

A row is an output channel, or a token of the vocabulary, and its largest magnitude becomes 127. Its values are
``weight[row] * weight_scale[row]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xlmr_core.parameters import Parameter
from xlmr_core.quantization.base import Array, Parts, Stored
from xlmr_core.quantization.own import OwnScheme

__all__ = ["INT8", "LARGEST", "SCALE", "Int8"]

LARGEST = 127  # -128 is left out so that the range is symmetric
SCALE = "_scale"  # suffix of the scales


@dataclass(frozen=True)
class Int8(OwnScheme):
    """See the module."""

    name: ClassVar[str] = "int8"

    def stored(self, row: Parameter) -> tuple[Stored, ...]:
        return Stored("", "I8", row.shape, row.dims), Stored(SCALE, "F32", row.shape[:1], row.dims[:1])

    def encode(self, weight: Array) -> dict[str, Array]:
        """A weight of any floating point dtype; bfloat16, which NumPy has not, as float32."""
        largest = np.maximum(weight.max(1), -weight.min(1)).astype(np.float32)
        scale = np.maximum(largest / np.float32(LARGEST), np.finfo(np.float32).tiny)
        return {"": np.rint(weight / scale[:, None]).astype(np.int8), SCALE: scale}

    def decode(self, parts: Parts, shape: tuple[int, ...]) -> Array:
        values: Array = parts[""].astype(np.float32) * parts[SCALE][:, None]
        return values


INT8 = Int8()
