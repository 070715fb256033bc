"""The safetensors container: tensors by name in one file, read without copying and written as a stream.

A file is an 8-byte little-endian length, a JSON header of that length (``{name: {dtype, shape, data_offsets}}``, and ``__metadata__``), and
the bytes of all tensors without holes. The safetensors library judges every file that is read here; reading and writing themselves are a few
lines on raw bytes, so that no framework, and no NumPy bfloat16, is needed (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from safetensors import SafetensorError, safe_open

from xlmr_core.errors import CheckpointError

__all__ = [
    "DTYPES",
    "Layout",
    "RawTensor",
    "SafetensorsFile",
    "TensorInfo",
    "TensorSource",
    "layout_of",
    "write_safetensors",
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
_TAGS = {dtype.numpy: tag for tag, dtype in DTYPES.items() if dtype.numpy is not None}
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class RawTensor:
    """A tensor as bytes with a dtype tag.

    Attributes:
        dtype: safetensors tag, a key of ``DTYPES``.
        shape: sizes of the axes.
        data: the values, little-endian and contiguous. A writable private view if it was read from a file: a change stays in memory.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * DTYPES[self.dtype].size

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The values as an array that shares their memory; bfloat16 becomes a float32 copy, because NumPy has no bfloat16."""
        name = DTYPES[self.dtype].numpy
        if self.dtype == "BF16":
            halves = np.frombuffer(self.data, np.uint16) if self.nbytes else np.empty(0, np.uint16)
            return (halves.astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if name is None:
            raise CheckpointError(f"NumPy cannot hold the dtype {self.dtype}; convert the tensor to F16, BF16 or F32")
        if not self.nbytes:
            return np.empty(self.shape, name)
        return np.frombuffer(self.data, name).reshape(self.shape)

    def every(self, step: int) -> RawTensor:
        """Every ``step``-th row, without reading the others."""
        width = self.nbytes // max(self.shape[0], 1)
        rows = range(0, self.shape[0], step)
        data = bytearray().join(self.data[row * width : (row + 1) * width] for row in rows)
        return RawTensor(self.dtype, (len(rows), *self.shape[1:]), memoryview(data))

    @classmethod
    def from_numpy(cls, array: np.ndarray[Any, Any]) -> RawTensor:
        """Wrap an array, without copying if it is contiguous."""
        if array.dtype.name not in _TAGS:
            raise CheckpointError(
                f"safetensors files hold {', '.join(_TAGS)}, received an array of {array.dtype}; convert it"
            )
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        return cls(_TAGS[array.dtype.name], array.shape, array.reshape(-1).view(np.uint8).data)


# A tensor to write, or a function that makes it when its turn comes.
TensorSource: TypeAlias = RawTensor | Callable[[], RawTensor]


class TensorInfo(NamedTuple):
    """What a header says about a tensor."""

    dtype: str
    shape: tuple[int, ...]
    file: Path


def _map_privately(file: BinaryIO) -> mmap.mmap:
    """Map a file copy on write: pages are read when touched, and what a user writes into them never reaches the file."""
    if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
        # Linux would refuse a file larger than the memory, as if every page were going to be written. MAP_NORESERVE (0x4000 on these
        # machines, and not in the mmap module) takes pages into account when they are.
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


class SafetensorsFile:
    """An open file: its header, and its tensors as views of a private memory map.

    Attributes:
        path: the file.
        tensors: what it holds, by name.
        metadata: the texts under ``__metadata__``.
    """

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            CheckpointError: if it is missing or is not a whole, well-formed safetensors file.
        """
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] = {}
        self._offsets: dict[str, tuple[int, int]] = {}
        try:
            with path.open("rb") as file:
                self._read_header(file)
                self._map = _map_privately(file)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"expected a safetensors file at {path}, found none; check the folder, or fetch it again"
            ) from error
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"cannot read {path}: {error.strerror or error}; check the file, its permissions and the free memory"
            ) from error

    def _read_header(self, file: BinaryIO) -> None:
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise CheckpointError(
                f"{self.path} is a git-LFS pointer and not the weights; run 'git lfs pull' in its folder"
            )
        if size == 0:
            raise CheckpointError(f"{self.path} is empty; fetch or save it again")
        try:
            with safe_open(self.path, framework="np"):
                pass
        except (SafetensorError, UnicodeError) as error:
            raise CheckpointError(
                f"{self.path} ({size} bytes) is not a whole safetensors file: {error}; it was cut short or altered, fetch or save it again"
            ) from error
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length), object_pairs_hook=self._without_duplicates)
        self.metadata = header.pop("__metadata__", None) or {}
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise CheckpointError(
                    f"{self.path} stores {name} as {entry['dtype']}; this library reads {', '.join(DTYPES)}"
                )
            begin, end = entry["data_offsets"]
            self.tensors[name] = TensorInfo(entry["dtype"], tuple(entry["shape"]), self.path)
            self._offsets[name] = (8 + length + begin, 8 + length + end)

    def _without_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(
                f"{self.path} names {twice!r} twice in its header; it was altered, fetch or save it again"
            )
        return values

    def tensor(self, name: str) -> RawTensor:
        """The tensor of that name, as a view of the memory map, which lives as long as the view."""
        info = self.tensors[name]
        begin, end = self._offsets[name]
        data = memoryview(self._map)[begin:end]
        if begin % DTYPES[info.dtype].size:
            # Some writers do not align; frameworks want aligned values, so these few are copied.
            data = memoryview(bytearray(data))
        return RawTensor(info.dtype, info.shape, data)


class Layout(NamedTuple):
    """What a header says about a tensor that is yet to be written."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def layout_of(source: TensorSource) -> Layout:
    """Dtype, shape and size of a tensor to write; a function is called for them, and what it returns is not kept."""
    raw = _produce(source)
    return Layout(raw.dtype, tuple(raw.shape), raw.nbytes)


def write_safetensors(
    path: Path, tensors: Mapping[str, TensorSource], layouts: Mapping[str, Layout], metadata: Mapping[str, str]
) -> None:
    """Write tensors to ``path``, one in memory at a time.

    Args:
        path: the file, which is written in place: give a temporary path.
        tensors: by name.
        layouts: of the same names, see :func:`layout_of`.
        metadata: texts for ``__metadata__``.
    """
    # Widest values first, as the safetensors library does: every tensor is then aligned to its own dtype.
    order = sorted(tensors, key=lambda name: -DTYPES[layouts[name].dtype].size)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        dtype, shape, nbytes = layouts[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            raw = _produce(tensors[name])
            data = memoryview(raw.data).cast("B") if raw.nbytes else memoryview(b"")
            assert Layout(raw.dtype, tuple(raw.shape), data.nbytes) == layouts[name], (
                f"{name} changed while it was saved"
            )
            file.write(data)


def _produce(source: TensorSource) -> RawTensor:
    return source if isinstance(source, RawTensor) else source()
