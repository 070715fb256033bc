"""Graphs whose values stay in their file: ONNX Runtime maps them from there, and reads what it needs when it does.

Of a file ONNX Runtime makes two copies of all values in memory before a session is ready, but not of values that a
graph says to be elsewhere ("external data"). So it is given the graph alone, in memory, in which each tensor names its
place in the very file that it comes from. The file is the usual one, and anything else reads it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from xlmr_core import protobuf
from xlmr_core.bounded_files import opened
from xlmr_core.formats.tensors import MappedFile

__all__ = ["Mapped", "SMALLEST", "map_values"]

# Bytes of a tensor that is worth a mapping; what the runtime computes shapes from is always smaller.
SMALLEST = 1024
# Where values may begin that are used as they lie.
_ALIGNMENT = 64
# Bytes of what remains of a graph; more has its values elsewhere than in tensors.
_MOST = 1 << 26

# Fields of ModelProto, GraphProto, TensorProto and StringStringEntryProto.
_GRAPH, _INITIALIZER, _RAW_DATA, _EXTERNAL, _LOCATION = 7, 5, 9, 13, 14
_KEY, _VALUE = 1, 2


class Mapped(NamedTuple):
    """A graph without its values.

    Attributes:
        graph: a ``ModelProto``.
        folder: of the file that has the values.
    """

    graph: bytes
    folder: Path


def map_values(path: Path) -> Mapped | None:
    """The graph of a file, each tensor of which names its place in that file; ``None`` where the values cannot be used
    as they lie, as in most files of other libraries, or lie beside it anyway.

    Raises:
        OSError: if the file cannot be read.
    """
    path = path.resolve()  # a link's target, whose folder is where it is looked for
    with opened(path) as file:
        try:
            data = memoryview(MappedFile(path, file).map)
            graph = b"".join(_model(data, path.name))
        except ValueError:
            return None  # damaged: what reads the file will say how
    return Mapped(graph, path.parent) if len(graph) < min(_MOST, len(data)) else None


def _model(data: memoryview, name: str) -> Iterator[bytes]:
    for key, value, (begin, end) in protobuf.placed_fields(data):
        if key == _GRAPH and not isinstance(value, int):
            graph = b"".join(_graph(data, value, name))
            yield protobuf.field(_GRAPH, graph)
        else:
            yield bytes(data[begin:end])


def _graph(data: memoryview, span: protobuf.Span, name: str) -> Iterator[bytes]:
    left = _MOST
    for key, value, (begin, end) in protobuf.placed_fields(data, *span):
        part = None
        if key == _INITIALIZER and not isinstance(value, int):
            part = _reference(data, value, name)
        left -= end - begin if part is None else len(part)
        if left < 0:
            raise ValueError("its values cannot be used as they lie")
        yield bytes(data[begin:end]) if part is None else part


def _reference(data: memoryview, span: protobuf.Span, name: str) -> bytes | None:
    """A tensor that names the place of its values; ``None`` where they are few, or cannot be used there.

    Raises:
        ValueError: if it names one already.
    """
    parts, raw = list[bytes](), None
    for key, value, (begin, end) in protobuf.placed_fields(data, *span):
        if key == _RAW_DATA and not isinstance(value, int):
            raw = value
        elif key in (_EXTERNAL, _LOCATION):
            raise ValueError("its values are in another file")
        elif end - begin < SMALLEST:
            parts.append(bytes(data[begin:end]))
        else:
            return None  # numbers in fields of their own
    if raw is None or raw[0] % _ALIGNMENT or raw[1] - raw[0] < SMALLEST:
        return None
    place = {"location": name, "offset": str(raw[0]), "length": str(raw[1] - raw[0])}
    for said, text in place.items():
        parts.append(protobuf.field(_EXTERNAL, protobuf.field(_KEY, said) + protobuf.field(_VALUE, text)))
    parts.append(protobuf.field(_LOCATION, 1))
    return protobuf.field(_INITIALIZER, b"".join(parts))
