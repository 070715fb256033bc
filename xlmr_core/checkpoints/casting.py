"""One floating point dtype to another on raw bytes, rounding to nearest and ties to even, without a framework (NumPy
has no bfloat16).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import DTYPES, LazyTensor

__all__ = ["TAG_OF_FLOAT", "blocks", "cast", "rounded", "tag_of", "widened"]

Array: TypeAlias = NDArray[Any]

# By the published names of a dtype.
TAG_OF_FLOAT = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
# So many values of a stream are in the works at a time.
BLOCK = 1 << 20


def tag_of(dtype: str) -> str:
    """The tag of a dtype's name.

    Raises:
        CheckpointError: for a name that is no floating point dtype.
    """
    if dtype not in TAG_OF_FLOAT:
        raise CheckpointError(f"dtype must be one of {', '.join(TAG_OF_FLOAT)}, received {dtype!r}")
    return TAG_OF_FLOAT[dtype]


def cast(tensor: LazyTensor, tag: str, *, name: str = "the tensor", allow_overflow: bool = False) -> LazyTensor:
    """A tensor in another floating point dtype, block by block when it is written; the same object if it has that dtype
    already.

    Args:
        tensor: values of a floating point dtype.
        tag: ``F16``, ``BF16``, ``F32`` or ``F64``.
        name: of the tensor, for messages.
        allow_overflow: let finite values that are too large for the dtype become infinite.

    Raises:
        CheckpointError: for a dtype that is not floating point; when it is written, for a value that would become
            infinite.
    """
    if tensor.dtype not in TAG_OF_FLOAT.values():
        raise CheckpointError(
            f"{name} holds {tensor.dtype}, and only {', '.join(TAG_OF_FLOAT.values())} can be cast; leave dtype out"
        )
    if tensor.dtype == tag:
        return tensor

    def pieces() -> Iterator[memoryview]:
        for block in blocks(tensor):
            values = widened(block, tensor.dtype)
            result = rounded(values, tag)
            if not allow_overflow:
                _refuse_overflow(values, result, tag, name)
            yield result.view(np.uint8).data

    return LazyTensor(tag, tensor.shape, pieces)


def blocks(tensor: LazyTensor) -> Iterator[memoryview]:
    """The bytes of a stream in blocks of ``BLOCK`` values, the last one of what is left. A block is valid until the
    next one is asked for.
    """
    block = memoryview(bytearray(min(BLOCK * DTYPES[tensor.dtype].size, tensor.nbytes)))
    filled = 0
    for piece in tensor.pieces():
        while piece.nbytes:
            count = min(piece.nbytes, len(block) - filled)
            block[filled : filled + count] = piece[:count]
            piece, filled = piece[count:], filled + count
            if filled == len(block):
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def widened(data: memoryview, dtype: str) -> Array:
    """The values of some bytes, exactly, as float32 or float64."""
    if dtype == "BF16":
        widened: Array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        return widened
    values = np.frombuffer(data, f"<f{DTYPES[dtype].size}")
    with np.errstate(invalid="ignore"):  # a NaN that asks for a signal
        return values.astype(np.float32) if dtype == "F16" else values


def rounded(values: Array, tag: str) -> Array:
    """Float32 or float64 values in a dtype, as an array whose bytes are theirs."""
    if tag == "BF16":
        return _to_bfloat16(values if values.dtype == np.float32 else _to_odd(values))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(f"<f{DTYPES[tag].size}")


def _to_bfloat16(values: Array) -> Array:
    """The upper halves of float32 values, rounded; a NaN stays one."""
    bits = values.view(np.uint32)
    # Half of a last place, less a little where the last place is even: what carries over is the rounding. Infinity
    # stays as it is.
    upper = ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    is_nan = np.isnan(values)
    if is_nan.any():
        upper[is_nan] = (bits[is_nan] >> 16).astype(np.uint16) | 0x0040
    return upper


def _to_odd(values: Array) -> Array:
    """Float64 values in float32, inexact ones with an odd last place, so that rounding them once more is as good as
    rounding once.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        inexact = (single != values) & np.isfinite(values)
    bits = single.view(np.uint32)
    too_far = inexact & (np.abs(single.astype(np.float64)) > np.abs(values))
    return np.where(inexact, (bits - too_far.astype(np.uint32)) | 1, bits).view(np.float32)


def _refuse_overflow(values: Array, result: Array, tag: str, name: str) -> None:
    is_infinite = (result & 0x7FFF) == 0x7F80 if tag == "BF16" else np.isinf(result)
    too_large = is_infinite & np.isfinite(values)
    if too_large.any():
        dtype = next(key for key, found in TAG_OF_FLOAT.items() if found == tag)
        raise CheckpointError(
            f"{name} holds {float(values[too_large][0]):.6g}, which is infinite in {dtype}; "
            "choose a dtype with larger numbers, or pass allow_overflow=True"
        )
