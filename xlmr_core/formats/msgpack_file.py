"""The MessagePack container of Flax: a tree of maps whose leaves are arrays, read in place and written as a stream.

An array is an extension of type 1, whose content is itself MessagePack: shape, name of the dtype, bytes. Arrays of more
than 2**30 bytes are a map of their shape and of flat arrays of that size. Only what Flax writes is read
(https://github.com/msgpack/msgpack/blob/master/spec.md).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from xlmr_core.bounded_files import opened, refusing, why
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.finding import first_bytes
from xlmr_core.formats.tensors import DTYPES, LazyTensor, MappedFile, RawTensor, TensorInfo, checked_name, checked_shape
from xlmr_core.wording import shown

__all__ = ["MsgpackFile", "is_msgpack", "write_msgpack"]

ARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
MOST_CHUNK_BYTES = 2**30
MOST_LEVELS = 32
# Texts, numbers, maps and lists; the largest known file, with all that an optimizer keeps, has some 50 000.
MOST_VALUES = 1_000_000
TAG_OF_MSGPACK = {dtype.numpy: tag for tag, dtype in DTYPES.items() if dtype.numpy is not None} | {
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
MSGPACK_OF_TAG = {tag: name for name, tag in TAG_OF_MSGPACK.items()}


class Array(NamedTuple):
    """Where an array lies in the file: dtype tag, shape, and ranges of bytes."""

    dtype: str
    shape: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def is_msgpack(path: Path) -> bool:
    """Whether a file begins like a map with a text for its first key."""
    start = first_bytes(path)
    after = {0xDE: 3, 0xDF: 5}.get(start[0], 1 if start[0] & 0xF0 == 0x80 else 0)
    return after > 0 and len(start) > after and (start[after] & 0xE0 == 0xA0 or start[after] in (0xD9, 0xDA))


class MsgpackFile:
    """An open file.

    Attributes:
        path: the file.
        tensors: its arrays, by their keys joined with ``/``.
        metadata: nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        self.path = path
        self.metadata: dict[str, Any] = {}
        self._arrays: dict[str, Array] = {}
        first_bytes(path)
        try:
            with opened(path) as file:
                self._file = MappedFile(path, file)
        except OSError as error:
            raise CheckpointError(
                f"cannot read {path}: {why(error)}; check the file, its permissions and the free memory"
            ) from error
        reader = _Reader(memoryview(self._file.map), 0, self._file.size)
        with refusing(
            CheckpointError,
            f"{path} ({self._file.size} bytes) is not a whole Flax file: {{why}}; it was cut short or altered, fetch "
            "or save it again",
        ):
            root = reader.value(0)
            if reader.position != self._file.size:
                raise ValueError(f"{self._file.size - reader.position} bytes follow after its end")
            if not isinstance(root, dict):
                raise ValueError("its root is no map")
            self._flatten(root, "")
        if not self._arrays:
            held = ", ".join(shown(key, 60) for key in list(root)[:8]) or "an empty map"
            raise CheckpointError(f"{path} holds no arrays: expected parameters by name, found {held}; check the file")
        self.tensors = {name: TensorInfo(array.dtype, array.shape, path) for name, array in self._arrays.items()}

    def _flatten(self, tree: dict[str, Any] | list[Any], before: str) -> None:
        checked_name(before, self.path)
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(value, dict) and CHUNKED in value:
                value = _joined(value)
            if isinstance(value, dict | list):
                self._flatten(value, f"{before}{key}/")
            elif isinstance(value, Array):
                name = checked_name(f"{before}{key}", self.path)
                if name in self._arrays:
                    raise ValueError(f"it names {name} twice")
                self._arrays[name] = value

    def tensor(self, name: str) -> RawTensor:
        """The array of that name: a view of the file, or a copy if it is stored in several parts."""
        dtype, shape, spans = self._arrays[name]
        if len(spans) == 1:
            return RawTensor(dtype, shape, self._file.view(*spans[0], dtype))
        return self.stream(name).read()

    def stream(self, name: str) -> LazyTensor:
        """The array of that name as a stream."""
        dtype, shape, spans = self._arrays[name]
        return LazyTensor(dtype, shape, lambda: self._file.pieces(*spans))


class _Reader:
    """Reads values between two positions. Arrays stay where they are; a length beyond the end is an error before
    anything is made of it.
    """

    def __init__(self, data: memoryview, position: int, end: int) -> None:
        self.data = data
        self.position = position
        self.end = end
        self.left = MOST_VALUES

    def take(self, count: int) -> int:
        """Go on by so many bytes; returns where they begin."""
        begin = self.position
        if count > self.end - begin:
            raise ValueError(f"{count} bytes at {begin} reach beyond its end")
        self.position += count
        return begin

    def number(self, kind: str) -> Any:
        size = struct.calcsize(kind)
        return struct.unpack_from(kind, self.data, self.take(size))[0]

    def text(self, count: int) -> str:
        begin = self.take(count)
        return str(self.data[begin : begin + count], "utf-8")

    def value(self, level: int) -> Any:
        """A map, an array, or a plain value; bytes and unknown extensions count as nothing."""
        self.left -= 1
        if level > MOST_LEVELS or self.left < 0:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep, or has over {MOST_VALUES} values")
        first = self.number("B")
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 0x100
        if first < 0x90:
            return self.map(first & 0x0F, level)
        if first < 0xA0:
            return self.list(first & 0x0F, level)
        if first < 0xC0:
            return self.text(first & 0x1F)
        if first in _PLAIN:
            return _PLAIN[first]
        if first in _NUMBERS:
            return self.number(_NUMBERS[first])
        if first in _SIZED:
            what, kind = _SIZED[first]
            count = self.number(kind) if isinstance(kind, str) else kind
            if what == "map":
                return self.map(count, level)
            if what == "list":
                return self.list(count, level)
            if what == "text":
                return self.text(count)
            if what == "bytes":
                begin = self.take(count)
                return (begin, begin + count)
            return self.extension(self.number("b"), count)
        raise ValueError(f"no value begins with {first:#x}")

    def map(self, count: int, level: int) -> dict[str, Any]:
        if 2 * count > self.end - self.position:
            raise ValueError(f"a map of {count} entries reaches beyond its end")
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(level + 1)
            if isinstance(key, tuple):
                key = str(self.data[slice(*key)], "utf-8")  # a text of writers that knew no texts
            if type(key) is int:
                key = str(key)  # of a layer in a list, as NNX numbers them
            if not isinstance(key, str):
                raise ValueError(f"a key is {shown(key)} and no text")
            if key in values:
                raise ValueError(f"it names {shown(key)} twice")
            values[key] = self.value(level + 1)
        return values

    def list(self, count: int, level: int) -> list[Any]:
        if count > self.end - self.position:
            raise ValueError(f"a list of {count} values reaches beyond its end")
        return [self.value(level + 1) for _ in range(count)]

    def extension(self, kind: int, count: int) -> Array | None:
        begin = self.take(count)
        if kind in (COMPLEX, SCALAR):
            return None
        if kind != ARRAY:
            raise ValueError(f"an extension of type {kind} is none of Flax")
        inner = _Reader(self.data, begin, begin + count)
        inner.left = self.left
        content = inner.value(MOST_LEVELS - 2)
        self.left = inner.left
        if not isinstance(content, list) or len(content) != 3 or inner.position != inner.end:
            raise ValueError("an array is not made of shape, dtype and bytes")
        shape, name, span = content
        if isinstance(name, tuple):
            name = str(self.data[slice(*name)], "utf-8")
        if name not in TAG_OF_MSGPACK:
            raise CheckpointError(
                f"an array has the dtype {shown(name)}; this library reads {', '.join(TAG_OF_MSGPACK)}"
            )
        sizes = _sizes(shape)
        if not isinstance(span, tuple) or math.prod(sizes) * DTYPES[TAG_OF_MSGPACK[name]].size != span[1] - span[0]:
            raise ValueError(f"an array of shape {shown(shape)} has other bytes")
        return Array(TAG_OF_MSGPACK[name], sizes, (span,))


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise ValueError(f"a shape is {shown(values)}")
    return checked_shape(values, "an array")


def _joined(value: dict[str, Any]) -> Array:
    """The array that a map of its parts stands for."""
    shape = _sizes([value["shape"][str(index)] for index in range(len(value["shape"]))])
    parts = [value["chunks"][str(index)] for index in range(len(value["chunks"]))]
    if not parts or not all(isinstance(part, Array) and part.dtype == parts[0].dtype for part in parts):
        raise ValueError("the parts of an array are no arrays of one dtype")
    if math.prod(shape) != sum(math.prod(part.shape) for part in parts):
        raise ValueError(f"the parts of an array of shape {shape} have other bytes")
    return Array(parts[0].dtype, shape, tuple(span for part in parts for span in part.spans))


_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
# What follows, and its size or how that is stored.
_SIZED: dict[int, tuple[str, str | int]] = {
    0xC4: ("bytes", ">B"),
    0xC5: ("bytes", ">H"),
    0xC6: ("bytes", ">I"),
    0xC7: ("extension", ">B"),
    0xC8: ("extension", ">H"),
    0xC9: ("extension", ">I"),
    0xD4: ("extension", 1),
    0xD5: ("extension", 2),
    0xD6: ("extension", 4),
    0xD7: ("extension", 8),
    0xD8: ("extension", 16),
    0xD9: ("text", ">B"),
    0xDA: ("text", ">H"),
    0xDB: ("text", ">I"),
    0xDC: ("list", ">H"),
    0xDD: ("list", ">I"),
    0xDE: ("map", ">H"),
    0xDF: ("map", ">I"),
}


# Writing


def write_msgpack(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write arrays by keys joined with ``/``, one piece in memory at a time.

    Args:
        path: the file, which is written in place: give a temporary path.
        tensors: by name.
    """
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *groups, leaf = name.split("/")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[leaf] = tensor
    with path.open("wb") as file:
        _write_tree(file, tree)


def _write_tree(file: BinaryIO, tree: Mapping[str, Any]) -> None:
    file.write(_header(len(tree), 0x80, 15, 0xDE))
    for key, value in tree.items():
        file.write(_text(key))
        if isinstance(value, LazyTensor):
            _write_array(file, value)
        else:
            _write_tree(file, value)


def _write_array(file: BinaryIO, tensor: LazyTensor) -> None:
    if tensor.nbytes <= MOST_CHUNK_BYTES:
        file.write(_array_header(tensor.dtype, tensor.shape))
        written = sum(file.write(piece) for piece in tensor.pieces())
        assert written == tensor.nbytes, "a tensor gave another number of bytes than its header says"
        return
    size = DTYPES[tensor.dtype].size
    counts = [MOST_CHUNK_BYTES // size] * (tensor.nbytes // MOST_CHUNK_BYTES)
    if tensor.nbytes % MOST_CHUNK_BYTES:
        counts.append(tensor.nbytes % MOST_CHUNK_BYTES // size)
    file.write(_header(3, 0x80, 15, 0xDE) + _text(CHUNKED) + b"\xc3" + _text("shape"))
    file.write(_header(len(tensor.shape), 0x80, 15, 0xDE))
    for index, n in enumerate(tensor.shape):
        file.write(_text(str(index)) + _integer(n))
    file.write(_text("chunks") + _header(len(counts), 0x80, 15, 0xDE))
    ranges = _cut(tensor.pieces(), [count * size for count in counts])
    for index, count in enumerate(counts):
        file.write(_text(str(index)) + _array_header(tensor.dtype, (count,)))
        for piece in next(ranges):
            file.write(piece)


def _cut(pieces: Iterator[memoryview], sizes: list[int]) -> Iterator[Iterator[memoryview]]:
    """A stream as several streams of given sizes, each to be used up before the next."""
    rest = memoryview(b"")

    def one(size: int) -> Iterator[memoryview]:
        nonlocal rest
        while size:
            if not rest:
                rest = next(pieces)
            piece, rest = rest[:size], rest[size:]
            size -= len(piece)
            yield piece

    for size in sizes:
        yield one(size)


def _array_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    nbytes = math.prod(shape) * DTYPES[dtype].size
    inner = _header(3, 0x90, 15, 0xDC) + _header(len(shape), 0x90, 15, 0xDC) + b"".join(map(_integer, shape))
    inner += _text(MSGPACK_OF_TAG[dtype]) + _bytes_header(nbytes)
    count = len(inner) + nbytes
    if count in (1, 2, 4, 8, 16):
        before = struct.pack("B", 0xD4 + count.bit_length() - 1)
    elif count < 2**8:
        before = struct.pack(">BB", 0xC7, count)
    elif count < 2**16:
        before = struct.pack(">BH", 0xC8, count)
    else:
        before = struct.pack(">BI", 0xC9, count)
    return before + struct.pack("b", ARRAY) + inner


def _header(count: int, short: int, most: int, long: int) -> bytes:
    if count <= most:
        return struct.pack("B", short | count)
    return struct.pack(">BH", long, count) if count < 2**16 else struct.pack(">BI", long + 1, count)


def _bytes_header(count: int) -> bytes:
    if count < 2**8:
        return struct.pack(">BB", 0xC4, count)
    return struct.pack(">BH", 0xC5, count) if count < 2**16 else struct.pack(">BI", 0xC6, count)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 32:
        return struct.pack("B", 0xA0 | len(data)) + data
    return (
        struct.pack(">BB", 0xD9, len(data)) + data if len(data) < 2**8 else struct.pack(">BH", 0xDA, len(data)) + data
    )


def _integer(value: int) -> bytes:
    if value < 2**7:
        return struct.pack("B", value)
    for code, kind in ((0xCC, ">BB"), (0xCD, ">BH"), (0xCE, ">BI"), (0xCF, ">BQ")):
        if value < 1 << 8 * (struct.calcsize(kind) - 1):
            return struct.pack(kind, code, value)
    raise AssertionError(f"{value} is no size of an axis")
