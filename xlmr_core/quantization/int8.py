"""``int8``: a byte a value and a scale a row.

A row is an output channel, or a token of the vocabulary, and its largest magnitude becomes 127. Its values are
``weight[row] * weight_scale[row]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xlmr_core.parameters import Parameter
from xlmr_core.quantization.base import Array, Parts, Scheme, Stored

__all__ = ["INT8", "LARGEST", "SCALE", "Int8"]

LARGEST = 127  # -128 is left out so that the range is symmetric
SCALE = "_scale"  # suffix of the scales

# By bare name (without ``roberta.``): nearly all bytes and nearly all work. Position and type embeddings, norms,
# biases, poolers and the small projections of heads stay float32: under one percent of both, and a head can start fresh
# and be trained.
_QUANTIZED_NAMES = re.compile(
    r"embeddings\.word_embeddings\.weight"
    r"|encoder\.layer\.\d+\..*(query|key|value|dense)\.weight"
    r"|lm_head\.decoder\.weight"
)


@dataclass(frozen=True)
class Int8(Scheme):
    """See the module."""

    name: ClassVar[str] = "int8"

    def written(self) -> dict[str, Any]:
        # The version moves when older readers would misread it.
        return {"quant_method": "xlmr-int8", "version": 1}

    def takes(self, row: Parameter) -> bool:
        return _QUANTIZED_NAMES.fullmatch(row.name.removeprefix("roberta.")) is not None

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
