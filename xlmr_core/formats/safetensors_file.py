"""The safetensors container: tensors by name in one file, read without copying and written as a stream.

A file is an 8-byte little-endian length, a JSON header of that length (``{name: {dtype, shape, data_offsets}}``, and
``__metadata__``), and the bytes of all tensors without holes. The safetensors library judges every file that is read
here; reading and writing themselves are a few lines on raw bytes, so that no framework, and no NumPy bfloat16, is
needed (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import safe_open

from xlmr_core.bounded_files import opened, parse_json, refusing, why
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.finding import refuse_pointer
from xlmr_core.formats.tensors import (
    DTYPES,
    MOST_TENSORS,
    LazyTensor,
    MappedFile,
    RawTensor,
    TensorInfo,
    TensorSource,
    checked_name,
    checked_shape,
)
from xlmr_core.wording import shown

__all__ = ["DTYPES", "RawTensor", "SafetensorsFile", "TensorInfo", "TensorSource", "write_safetensors"]


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
            with opened(path) as file:
                self._read_header(file)
                self._file = MappedFile(path, file)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"expected a safetensors file at {path}, found none; check the folder, or fetch it again"
            ) from error
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"cannot read {path}: {why(error)}; check the file, its permissions and the free memory"
            ) from error

    def _read_header(self, file: BinaryIO) -> None:
        size = os.fstat(file.fileno()).st_size
        refuse_pointer(self.path, file.read(64))
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        with refusing(
            CheckpointError,
            f"{self.path} ({size} bytes) is not a whole safetensors file: {{why}}; it was cut short or altered, fetch "
            "or save it again",
        ):
            # Looked at before the library judges it: as many tensors as fit into a header take it minutes.
            text = file.read(min(length, size))
            if text.count(b"{") > MOST_TENSORS + 2:
                raise ValueError(f"its header names more than {MOST_TENSORS} tensors")
            with safe_open(self.path, framework="np"):
                pass
            header = parse_json(text, self._without_duplicates)
            self.metadata = header.pop("__metadata__", None) or {}
            for name, entry in header.items():
                if entry["dtype"] not in DTYPES:
                    raise CheckpointError(
                        f"{self.path} stores {shown(name, quoted=False)} as {entry['dtype']}; this library reads "
                        f"{', '.join(DTYPES)}"
                    )
                begin, end = entry["data_offsets"]
                checked_name(name, self.path)
                self.tensors[name] = TensorInfo(entry["dtype"], checked_shape(entry["shape"], name), self.path)
                self._offsets[name] = (8 + length + begin, 8 + length + end)

    def _without_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values:
                raise CheckpointError(
                    f"{self.path} names {shown(name)} twice in its header; it was altered, fetch or save it again"
                )
            values[name] = value
        return values

    def tensor(self, name: str) -> RawTensor:
        """The tensor of that name, as a view of the memory map, which lives as long as the view."""
        info = self.tensors[name]
        return RawTensor(info.dtype, info.shape, self._file.view(*self._offsets[name], info.dtype))

    def stream(self, name: str) -> LazyTensor:
        """The tensor of that name as a stream."""
        info, span = self.tensors[name], self._offsets[name]
        return LazyTensor(info.dtype, info.shape, lambda: self._file.pieces(span))


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str]) -> None:
    """Write tensors to ``path``, one piece in memory at a time.

    Args:
        path: the file, which is written in place: give a temporary path.
        tensors: by name.
        metadata: texts for ``__metadata__``.
    """
    # Widest values first, as the safetensors library does: every tensor is then aligned to its own dtype.
    order = sorted(tensors, key=lambda name: -DTYPES[tensors[name].dtype].size)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            for piece in tensors[name].pieces():
                file.write(piece)
        assert file.tell() == 8 + len(text) + offset, "a tensor gave another number of bytes than its header says"
