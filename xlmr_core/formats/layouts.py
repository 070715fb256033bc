"""How a stored tensor becomes a canonical one and back: each layout knows its inverse, on bytes of any dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import LazyTensor, RawTensor

__all__ = ["KEPT", "TRANSPOSED", "Layout", "folded", "lowered", "rows"]

Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layout:
    """A pair of a way in and a way out.

    Attributes:
        name: for messages.
        shape: the canonical shape for a stored one; ``None`` if no tensor of that shape can be stored so.
        decode: stored values to canonical ones; ``None`` if the bytes stay in order, so that only the shape changes.
        stored_shape, encode: the way out; ``encode`` is ``None`` in the same case. A layout that is only read has no
            ``stored_shape``.
    """

    name: str
    shape: Callable[[Shape], Shape | None]
    decode: Callable[[Array], Array] | None = None
    stored_shape: Callable[[Shape], Shape] | None = None
    encode: Callable[[Array], Array] | None = None

    def canonical(self, raw: RawTensor) -> RawTensor:
        """A stored tensor in the canonical layout."""
        shape = self.shape(raw.shape)
        assert shape is not None, "checked when the file was opened"
        if self.decode is None:
            return RawTensor(raw.dtype, shape, raw.data)
        return raw.with_bits(self.decode(raw.bits()))

    def canonical_stream(self, tensor: LazyTensor) -> LazyTensor:
        """The same as a stream. Values that have to be permuted are in memory for the moment, twice."""
        shape = self.shape(tensor.shape)
        assert shape is not None, "checked when the file was opened"
        if self.decode is None:
            return LazyTensor(tensor.dtype, shape, tensor.pieces)
        return LazyTensor(tensor.dtype, shape, lambda: _whole(self.canonical(tensor.read())))

    def stored(self, tensor: LazyTensor) -> LazyTensor:
        """A canonical tensor in this layout."""
        assert self.stored_shape is not None, f"the layout {self.name} is only read"
        shape = self.stored_shape(tensor.shape)
        encode = self.encode
        if encode is None:
            # The same object where nothing changes: what is stored under two names can then share its bytes.
            return tensor if shape == tensor.shape else LazyTensor(tensor.dtype, shape, tensor.pieces)

        def permuted() -> Iterator[memoryview]:
            raw = tensor.read()
            return _whole(raw.with_bits(encode(raw.bits())))

        return LazyTensor(tensor.dtype, shape, permuted)


def _whole(raw: RawTensor) -> Iterator[memoryview]:
    if raw.nbytes:
        yield raw.data


def _same(shape: Shape) -> Shape:
    return shape


def _reversed(shape: Shape) -> Shape:
    return shape[::-1]


KEPT = Layout("kept", _same, None, _same)
# Linear weights as (in, out).
TRANSPOSED = Layout(
    "transposed",
    lambda shape: _reversed(shape) if len(shape) == 2 else None,
    np.transpose,
    _reversed,
    np.transpose,
)


def rows(part: int, of: int) -> Layout:
    """One of several tensors of equal size that are stored below each other. Read only."""

    def shape(stored: Shape) -> Shape | None:
        return (stored[0] // of, *stored[1:]) if stored and stored[0] % of == 0 else None

    def decode(stored: Array) -> Array:
        size = stored.shape[0] // of
        return stored[part * size : (part + 1) * size]

    return Layout(f"part {part + 1} of {of}", shape, decode)


def folded(inputs: int, outputs: int) -> Layout:
    """A linear weight stored as (in, out) with its sides split into several axes, such as (in, heads, head size). Read
    only.
    """

    def shape(stored: Shape) -> Shape | None:
        if len(stored) != inputs + outputs:
            return None
        if not inputs:
            return (math.prod(stored),)
        return (math.prod(stored[inputs:]), math.prod(stored[:inputs]))

    def decode(stored: Array) -> Array:
        return stored.reshape(math.prod(stored.shape[:inputs]), -1).T

    return Layout(f"folded {inputs}+{outputs}", shape, decode if inputs else None)


def lowered(count: int) -> Layout:
    """A table that is stored without its first rows, which are zeros then. Read only."""

    def shape(stored: Shape) -> Shape | None:
        return (stored[0] + count, *stored[1:]) if stored else None

    def decode(stored: Array) -> Array:
        return np.concatenate([np.zeros((count, *stored.shape[1:]), stored.dtype), stored])

    return Layout(f"{count} rows lower", shape, decode)


def refuse_shape(file: object, name: str, shape: Shape, layout: Layout) -> CheckpointError:
    """The error for a stored tensor that cannot have the layout its name asks for."""
    return CheckpointError(
        f"{file} stores {name} with the shape {shape}, which cannot be laid out as {layout.name}; "
        "the file was altered or is of another kind, fetch or save it again"
    )
