"""The ONNX container: the initial values of a graph as tensors by name, read where they lie.

A file is a message of protobuf (``ModelProto`` of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Values lie
in it, or where they are too many for one message in a file beside it, which they name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core import protobuf
from xlmr_core.bounded_files import opened
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import (
    DTYPES,
    MOST_TENSORS,
    LazyTensor,
    MappedFile,
    RawTensor,
    TensorInfo,
    checked_name,
    checked_shape,
)

__all__ = ["CODE_OF_TAG", "OWN", "PRODUCER", "OnnxFile"]

# How ONNX numbers dtypes (``TensorProto.DataType``), by our tags.
CODE_OF_TAG: Mapping[str, int] = {
    "F32": 1,
    "U8": 2,
    "I8": 3,
    "U16": 4,
    "I16": 5,
    "I32": 6,
    "I64": 7,
    "BOOL": 9,
    "F16": 10,
    "F64": 11,
    "U32": 12,
    "U64": 13,
    "BF16": 16,
}
_TAG_OF_CODE = {code: tag for tag, code in CODE_OF_TAG.items()}
# What we call ourselves in a file, and how names of values begin that are no parameters.
PRODUCER, OWN = "xlmr", "/"

# Fields of ModelProto, GraphProto, TensorProto and StringStringEntryProto.
_PRODUCER, _GRAPH, _METADATA, _INITIALIZER = 2, 7, 14, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL = 1, 2, 8, 9, 13
_KEY, _VALUE = 1, 2


class OnnxFile:
    """An open file.

    Attributes:
        path: the file.
        tensors: initial values by name.
        metadata: what it says beside them, as texts, and its ``producer``.
        graph: where the ``GraphProto`` lies in it.
    """

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            CheckpointError: if a file that it names is not there, or elsewhere.
            OSError, ValueError: if it cannot be read, or is no whole message.
        """
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, Any] = {}
        self._places: dict[str, tuple[MappedFile, int, int]] = {}
        self._files: dict[str, MappedFile] = {}
        with opened(path) as file:
            self._own = MappedFile(path, file)
        self.data = memoryview(self._own.map)
        self.graph: protobuf.Span = (0, 0)
        for key, value in protobuf.fields(self.data):
            if key == _PRODUCER:
                self.metadata["producer"] = protobuf.text(self.data, value)
            elif key == _METADATA and not isinstance(value, int):
                name, said = self._pair(value)
                self.metadata[name] = said
            elif key == _GRAPH and not isinstance(value, int):
                self.graph = value
                self._read_graph(*value)

    def _pair(self, span: protobuf.Span) -> tuple[str, str]:
        found = {key: protobuf.text(self.data, value) for key, value in protobuf.fields(self.data, *span)}
        return found.get(_KEY, ""), found.get(_VALUE, "")

    def _read_graph(self, begin: int, end: int) -> None:
        for key, value in protobuf.fields(self.data, begin, end):
            if key != _INITIALIZER or isinstance(value, int):
                continue
            if len(self.tensors) >= MOST_TENSORS:
                raise ValueError(f"it has more than {MOST_TENSORS} initial values")
            self._read_tensor(value)

    def _read_tensor(self, span: protobuf.Span) -> None:
        name, code, sizes, raw, external = "", 0, list[int](), (0, 0), dict[str, str]()
        for key, value in protobuf.fields(self.data, *span):
            if key == _DIMS:
                sizes += protobuf.integers(self.data, value)
            elif key == _DATA_TYPE and isinstance(value, int):
                code = value
            elif key == _NAME:
                name = checked_name(protobuf.text(self.data, value), self.path)
            elif key == _RAW_DATA and not isinstance(value, int):
                raw = value
            elif key == _EXTERNAL and not isinstance(value, int):
                external.update([self._pair(value)])
        tag = _TAG_OF_CODE.get(code)
        if tag is None or name in self.tensors:
            raise ValueError(f"the initial value {name!r} has a dtype numbered {code}, or is there twice")
        shape = checked_shape(sizes, name)
        nbytes = math.prod(shape) * DTYPES[tag].size
        file, begin, end = self._own, *raw
        if external:
            begin = int(external.get("offset", "0"))
            file, end = self._beside(external.get("location", "")), begin + int(external.get("length", str(nbytes)))
        if end - begin != nbytes:
            # Other writers put values into fields for numbers, which nobody here asks for.
            return
        if not 0 <= begin <= end <= file.size:
            raise ValueError(f"the initial value {name!r} lies outside of {file.path.name}")
        self.tensors[name] = TensorInfo(tag, shape, file.path)
        self._places[name] = (file, begin, end)

    def _beside(self, name: str) -> MappedFile:
        if name not in self._files:
            path = self.path.parent / name
            if Path(name).name != name or "\\" in name or not path.is_file():
                raise CheckpointError(
                    f"{self.path} names the file {name[:100]!r} for its values, expected one in its own folder; fetch "
                    "both again"
                )
            with opened(path) as file:
                self._files[name] = MappedFile(path, file)
        return self._files[name]

    def tensor(self, name: str) -> RawTensor:
        """The tensor as a view of the file."""
        info, (file, begin, end) = self.tensors[name], self._places[name]
        return RawTensor(info.dtype, info.shape, file.view(begin, end, info.dtype))

    def stream(self, name: str) -> LazyTensor:
        """The tensor as a stream that leaves no part of the file in memory."""
        info, (file, begin, end) = self.tensors[name], self._places[name]
        return LazyTensor(info.dtype, info.shape, lambda: file.pieces((begin, end)))
