"""Tensors as bytes with a dtype tag: as a whole in memory, or as a stream of pieces, without a framework.

NumPy has no bfloat16, and an embedding of XL has 2.5 GB: so formats hand each other tags, shapes and bytes, and permute
them as unsigned integers of the same width.
"""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from xlmr_core.bounded_files import opened
from xlmr_core.errors import CheckpointError
from xlmr_core.wording import shown

__all__ = [
    "DTYPES",
    "FLOAT_TAGS",
    "MOST_AXES",
    "MOST_TENSORS",
    "PIECE",
    "Container",
    "DType",
    "Described",
    "LazyTensor",
    "MappedFile",
    "RawTensor",
    "TensorInfo",
    "TensorSource",
    "aligned_empty",
    "as_lazy",
    "checked_name",
    "checked_shape",
]


class DType(NamedTuple):
    """A dtype tag's bytes per value and its NumPy name, where NumPy has it."""

    size: int
    numpy: str | None


DTYPES: dict[str, DType] = {
    "BOOL": DType(1, "bool"),
    "U8": DType(1, "uint8"),
    "I8": DType(1, "int8"),
    "F8_E4M3": DType(1, None),
    "F8_E5M2": DType(1, None),
    "U16": DType(2, "uint16"),
    "I16": DType(2, "int16"),
    "F16": DType(2, "float16"),
    "BF16": DType(2, None),
    "U32": DType(4, "uint32"),
    "I32": DType(4, "int32"),
    "F32": DType(4, "float32"),
    "U64": DType(8, "uint64"),
    "I64": DType(8, "int64"),
    "F64": DType(8, "float64"),
}
# What a model can compute in.
FLOAT_TAGS = ("F16", "BF16", "F32", "F64")
_TAG_OF_NUMPY = {dtype.numpy: tag for tag, dtype in DTYPES.items() if dtype.numpy is not None}

# Bytes of a stream in memory at a time; a multiple of every dtype's size.
PIECE = 1 << 24
# Far more than any model has, with all that an optimizer keeps; and the longest names and shapes.
MOST_TENSORS = 100_000
MOST_NAME = 1000
MOST_AXES = 16
# Bytes; the kernels of TensorFlow and XLA count on it.
ALIGNMENT = 64


@dataclass(frozen=True)
class RawTensor:
    """A tensor as bytes with a dtype tag.

    Attributes:
        dtype: safetensors tag, a key of ``DTYPES``.
        shape: sizes of the axes.
        data: the values, little-endian and contiguous. A writable private view if it was read from a file: a change
            stays in memory.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * DTYPES[self.dtype].size

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The values as an array that shares their memory; bfloat16 becomes a float32 copy, because NumPy has no
        bfloat16.
        """
        name = DTYPES[self.dtype].numpy
        if self.dtype == "BF16":
            halves = np.frombuffer(self.data, np.uint16) if self.nbytes else np.empty(0, np.uint16)
            return (halves.astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if name is None:
            raise CheckpointError(f"NumPy cannot hold the dtype {self.dtype}; convert the tensor to F16, BF16 or F32")
        if not self.nbytes:
            return np.empty(self.shape, name)
        return np.frombuffer(self.data, name).reshape(self.shape)

    def bits(self) -> np.ndarray[Any, Any]:
        """The values as unsigned integers of their width, sharing their memory: what can be permuted whatever the
        dtype.
        """
        kind = np.dtype(f"<u{DTYPES[self.dtype].size}")
        return np.frombuffer(self.data, kind).reshape(self.shape) if self.nbytes else np.empty(self.shape, kind)

    def with_bits(self, bits: np.ndarray[Any, Any]) -> RawTensor:
        """A tensor of the same dtype from what :meth:`bits` became; copied if it is not contiguous."""
        bits = np.ascontiguousarray(bits).reshape(bits.shape)
        return RawTensor(self.dtype, bits.shape, bits.reshape(-1).view(np.uint8).data)

    def pieces(self) -> Iterator[tuple[Any, RawTensor]]:
        """The tensor by rows, some ``PIECE`` bytes at a time: the index of the rows, and the rows.

        When the next piece is asked for, the pages of a mapped file behind the last one are let go; a later look reads
        them again. So the peak of memory is what the pieces are copied to.
        """
        if not self.shape or not self.nbytes:
            yield ..., self
            return
        width = self.nbytes // self.shape[0]
        step = max(1, PIECE // width)
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            data = self.data[start * width : stop * width]
            yield slice(start, stop), RawTensor(self.dtype, (stop - start, *self.shape[1:]), data)
            _let_go(data)

    def to_aligned(
        self, dtype: Any, *, transposed: bool = False, decode: Callable[[RawTensor], np.ndarray[Any, Any]] | None = None
    ) -> np.ndarray[Any, Any]:
        """A copy in memory that a framework can take over as it is, made piece by piece, so that nothing else is held
        on the way.

        Args:
            dtype: of the copy.
            transposed: swap the axes of a matrix.
            decode: makes an array of a piece; by default :meth:`to_numpy`.
        """
        values = aligned_empty(self.shape[::-1] if transposed else self.shape, dtype)
        target = values.T if transposed else values
        for rows, piece in self.pieces():
            target[rows] = piece.to_numpy() if decode is None else decode(piece)
        return values

    def every(self, step: int) -> RawTensor:
        """Every ``step``-th row, without reading the others."""
        width = self.nbytes // max(self.shape[0], 1)
        rows = range(0, self.shape[0], step)
        data = bytearray().join(self.data[row * width : (row + 1) * width] for row in rows)
        return RawTensor(self.dtype, (len(rows), *self.shape[1:]), memoryview(data))

    @classmethod
    def from_numpy(cls, array: np.ndarray[Any, Any]) -> RawTensor:
        """Wrap an array, without copying if it is contiguous."""
        if array.dtype.name not in _TAG_OF_NUMPY:
            raise CheckpointError(
                f"safetensors files hold {', '.join(_TAG_OF_NUMPY)}, received an array of {array.dtype}; convert it"
            )
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        return cls(_TAG_OF_NUMPY[array.dtype.name], array.shape, array.reshape(-1).view(np.uint8).data)


def _let_go(data: memoryview) -> None:
    """Give the pages of a mapped file behind some bytes back to the system."""
    mapped = data.obj
    if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not data.nbytes:
        return
    begin = np.frombuffer(data, np.uint8).ctypes.data - np.frombuffer(mapped, np.uint8, count=1).ctypes.data
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    with contextlib.suppress(OSError):
        mapped.madvise(mmap.MADV_DONTNEED, first, min(begin + data.nbytes, len(mapped)) - first)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An array of unset values in memory that TensorFlow and JAX can take over as it is: it begins at a multiple of
    ``ALIGNMENT``.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    array: np.ndarray[Any, Any] = memory[first : first + size].view(dtype).reshape(shape)
    return array


@dataclass(frozen=True)
class LazyTensor:
    """A tensor to write: its header is known now, its bytes are made piece by piece when their turn comes.

    Attributes:
        dtype, shape: as of :class:`RawTensor`.
        pieces: makes the bytes, in order, each time it is called. A piece is valid until the next one is asked for.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[memoryview]]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * DTYPES[self.dtype].size

    def read(self) -> RawTensor:
        """All of it in memory."""
        data = memoryview(bytearray(self.nbytes))
        filled = 0
        for piece in self.pieces():
            assert filled + piece.nbytes <= self.nbytes, "more bytes than the header says"
            data[filled : filled + piece.nbytes] = piece
            filled += piece.nbytes
        assert filled == self.nbytes, "fewer bytes than the header says"
        return RawTensor(self.dtype, self.shape, data)


# A tensor to write, or a function that makes it when its turn comes.
TensorSource: TypeAlias = RawTensor | LazyTensor | Callable[[], RawTensor]


def as_lazy(source: TensorSource) -> LazyTensor:
    """A source as a stream. A plain function is called now, for dtype and shape, and again for the values; nothing of
    it is kept.
    """
    if isinstance(source, LazyTensor):
        return source
    produce = partial(_itself, source) if isinstance(source, RawTensor) else source
    first = produce()
    dtype, shape = first.dtype, tuple(first.shape)

    def pieces() -> Iterator[memoryview]:
        raw = produce()
        assert (raw.dtype, tuple(raw.shape)) == (dtype, shape), "a tensor changed while it was saved"
        if raw.nbytes:
            yield memoryview(raw.data).cast("B")

    return LazyTensor(dtype, shape, pieces)


def _itself(raw: RawTensor) -> RawTensor:
    return raw


class TensorInfo(NamedTuple):
    """What a header says about a tensor."""

    dtype: str
    shape: tuple[int, ...]
    file: Path


def checked_name(name: str, file: object) -> str:
    """The name of a tensor.

    Raises:
        CheckpointError: if it is too long for one: a tree of long names would take far more memory than its file has.
    """
    if len(name) > MOST_NAME:
        raise CheckpointError(
            f"{file} has a tensor whose name has {len(name)} characters, {shown(name)}; it was altered, fetch or save "
            "it again"
        )
    return name


def checked_shape(shape: Sequence[Any], name: str) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
        ValueError: if it is none.
    """
    if len(shape) > MOST_AXES or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"{shown(name, quoted=False)} has the shape {shown(shape)}")
    return tuple(shape)


class Described(Protocol):
    """What is said about a file of tensors, or about several together, by the names and in the layouts that are stored.

    Attributes:
        path: the file.
        tensors: what it holds.
        metadata: what else it says, as plain values.
    """

    @property
    def path(self) -> Path: ...
    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


class Container(Described, Protocol):
    """An open file of one format."""

    def tensor(self, name: str) -> RawTensor:
        """The tensor as a view of the file, where the format allows one."""

    def stream(self, name: str) -> LazyTensor:
        """The tensor as a stream that leaves no part of the file in memory."""


class MappedFile:
    """A file mapped copy on write: pages are read when touched, and what a user writes into them never reaches the
    file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Map an open file.

        Raises:
            OSError, ValueError: if it cannot be mapped, or is empty.
        """
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
            # Linux would refuse a file larger than the memory, as if every page were going to be written. MAP_NORESERVE
            # (0x4000 on these machines, and not in the mmap module) takes pages into account when they are.
            self.map = mmap.mmap(
                file.fileno(), 0, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
        else:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def view(self, begin: int, end: int, dtype: str) -> memoryview:
        """Bytes of the file, which live as long as the view."""
        data = memoryview(self.map)[begin:end]
        if begin % DTYPES[dtype].size:
            # Some writers do not align; frameworks want aligned values, so these few are copied.
            data = memoryview(bytearray(data))
        return data

    def pieces(self, *ranges: tuple[int, int]) -> Iterator[memoryview]:
        """The bytes of several ranges as a stream, through a small buffer: pages of a map would add up in the
        process.
        """
        buffer = memoryview(bytearray(min(PIECE, max((end - begin for begin, end in ranges), default=0))))
        with cast(io.RawIOBase, opened(self.path, buffering=0)) as file:
            for begin, end in ranges:
                file.seek(begin)
                while begin < end:
                    count = file.readinto(buffer[: min(len(buffer), end - begin)])
                    if not count:
                        raise CheckpointError(f"{self.path} became shorter while it was read; fetch or save it again")
                    yield buffer[:count]
                    begin += count
