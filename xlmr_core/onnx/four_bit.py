"""Weights of four bits in a graph, as they lie: products of nf4 and fp4 by ONNX Runtime's own operator ``MatMulBnb4``,
and the int4 tables of our own schemes by standard operators.

``MatMulBnb4`` takes the codes of a weight (N, K) row by row, two a byte, the first in the high half, in blocks with a
float32 scale each: the bytes of bitsandbytes, and of our own schemes. It widens the weight at every call, for the time
of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlmr_core.errors import CheckpointError
from xlmr_core.onnx.graph import FLOAT, INT32, Graph
from xlmr_core.parameters import Parameter
from xlmr_core.quantization import BitsAndBytes
from xlmr_core.quantization.bitsandbytes import ABSMAX, NESTED_ABSMAX, NESTED_MAP
from xlmr_core.quantization.four_bit import MIDDLE, FourBit
from xlmr_core.quantization.int8 import SCALE

__all__ = ["MICROSOFT", "Codes", "codes_of"]

# The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"
# How that operator numbers codebooks, and the sizes of blocks that it knows.
_NUMBERS: Mapping[str, int] = {"fp4": 0, "nf4": 1}
_BLOCKS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Codes:
    """A weight of four bits.

    Attributes:
        name: canonical, of the weight, and of the tensor with its codes.
        kind: ``nf4``, ``fp4`` or ``int4``.
        shape: of the weight, (N, K).
        block: how many values share a scale.
        nested: of scales that are quantized themselves, how many share a scale, and what is added to each.
        is_own: whether the scheme is one of our own, which stores scales for each row.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    block: int
    nested: tuple[int, float] | None = None
    is_own: bool = True

    @property
    def is_table(self) -> bool:
        """Whether it has no operator of its own for products."""
        return self.kind not in _NUMBERS

    def product(self, g: Graph, x: str) -> str:
        """(1, T, K) to (1, T, N), without a bias."""
        count, width = self.shape
        how = {"K": width, "N": count, "block_size": self.block, "quant_type": _NUMBERS[self.kind]}
        return g("MatMulBnb4", x, g.parameter(self.name), self._scales(g), domain=MICROSOFT, **how)

    def rows(self, g: Graph, indices_1T: str) -> str:
        """Rows of an int4 table: (1, T) to (1, T, K)."""
        return self._widened(g, 1, *(g("Gather", part, indices_1T, axis=0) for part in self._parts(g)))

    def table(self, g: Graph) -> str:
        """All of an int4 table (N, K), which is widened once, when a session starts."""
        return self._widened(g, 0, *self._parts(g))

    def _parts(self, g: Graph) -> list[str]:
        return [g.parameter(self.name + suffix) for suffix in ("", SCALE, MIDDLE)]

    def _widened(self, g: Graph, more: int, pairs: str, scale: str, middle: str) -> str:
        """``(code - 8 + middle / 16) * scale`` of rows that have so many axes more than a table."""
        four, width = g.constant(4, np.uint8), self.shape[1]
        first = g("BitShift", pairs, four, direction="RIGHT")
        second = g("BitShift", g("BitShift", pairs, four, direction="LEFT"), four, direction="RIGHT")
        last = g.constant([-1])
        codes = g("Concat", g("Unsqueeze", first, last), g("Unsqueeze", second, last), axis=-1)
        lead = [1] * more + [-1]
        in_groups = g("Reshape", codes, g.constant([*lead, width // self.block, self.block]))
        shift = g("Sub", g("Div", g("Cast", middle, to=FLOAT), g.constant(16.0)), g.constant(8.0))
        steps = g("Add", g("Cast", in_groups, to=FLOAT), g("Unsqueeze", shift, last))
        values = g("Mul", steps, g("Unsqueeze", g("Cast", scale, to=FLOAT), last))
        return g("Reshape", values, g.constant([*lead, width]))

    def _scales(self, g: Graph) -> str:
        """Of each block, float32: computed once, when a session starts."""
        if self.is_own:
            return g("Cast", g("Reshape", g.parameter(self.name + SCALE), g.constant([-1])), to=FLOAT)
        if self.nested is None:
            return g.parameter(self.name + ABSMAX)
        (size, offset), blocks = self.nested, -(-self.shape[0] * self.shape[1] // self.block)
        codes = g("Cast", g.parameter(self.name + ABSMAX), to=INT32)
        values = g("Gather", g.parameter(self.name + NESTED_MAP), codes, axis=0)
        repeated = g.constant([-(-blocks // size), size])
        scales = g("Expand", g("Unsqueeze", g.parameter(self.name + NESTED_ABSMAX), g.constant([-1])), repeated)
        scales = g("Slice", g("Reshape", scales, g.constant([-1])), g.constant([0]), g.constant([blocks]))
        return g("Add", g("Mul", values, scales), g.constant(offset))


def codes_of(rows: Mapping[str, Parameter], name: str) -> dict[str, Codes]:
    """The weights of four bits among the parameters of a model, by name.

    Args:
        rows: the parameter table of the model.
        name: of the checkpoint, for errors.

    Raises:
        CheckpointError: for one that no operator takes.
    """
    found = {}
    for row in rows.values():
        part = row.quantized
        if part is None or part.suffix or row.tied_to is not None:
            continue
        codes = _codes(part.scheme, row, part.shape)
        is_table = row.name.endswith(("word_embeddings.weight", "lm_head.decoder.weight"))
        if codes is None or (codes.is_table and not is_table) or (not codes.is_table and codes.block not in _BLOCKS):
            raise CheckpointError(
                f"{name} has {part.scheme.name} weights already, of which no operator of ONNX Runtime takes those of "
                f"{row.name}; export the checkpoint it was made from, or one that xlmr convert --dequantize wrote"
            )
        found[row.name] = codes
    return found


def _codes(scheme: Any, row: Parameter, shape: tuple[int, ...]) -> Codes | None:
    if isinstance(scheme, FourBit):
        return Codes(row.name, scheme.name, shape, scheme.group_size)
    if not isinstance(scheme, BitsAndBytes) or row.dtype != "U8" or scheme.found is None:
        return None
    state = scheme.found[row.name.removeprefix("roberta.")]
    nested = (state.nested_block, state.nested_offset) if state.nested_block else None
    return Codes(row.name, state.kind, shape, state.block, nested, is_own=False)
