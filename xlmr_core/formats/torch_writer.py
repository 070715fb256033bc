"""Writing the zip of ``torch.save`` as a stream, without PyTorch.

The records are those of PyTorch 2: ``data.pkl``, ``byteorder``, ``data/0``, ``data/1``, ..., ``version``; stored, not
compressed, and each storage at a multiple of 64 bytes, so that it can be mapped.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.pickle_reader import STORAGES
from xlmr_core.formats.tensors import LazyTensor

__all__ = ["write_torch"]

STORAGE_OF_TAG = {tag: kind for kind, tag in STORAGES.items() if kind != "Untyped"}
ALIGNMENT = 64
FOLDER = "archive"


def write_torch(path: Path, root: Mapping[str, Any]) -> None:
    """Write what ``torch.load`` reads, one piece of a tensor in memory at a time.

    Args:
        path: the file, which is written in place: give a temporary path.
        root: a dictionary of tensors, dictionaries of them, and plain values (``argparse.Namespace`` too). A tensor
            that is there twice, as the same object, is stored once.
    """
    storages: list[LazyTensor] = []
    content = b"\x80\x02" + _dict(root, storages) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _record(archive, "data.pkl", content)
        _record(archive, "byteorder", b"little")
        for key, tensor in enumerate(storages):
            _record(archive, f"data/{key}", tensor)
        _record(archive, "version", b"3\n")


def _record(archive: zipfile.ZipFile, name: str, content: bytes | LazyTensor) -> None:
    size = len(content) if isinstance(content, bytes) else content.nbytes
    member = zipfile.ZipInfo(f"{FOLDER}/{name}")  # dated 1980, so that equal checkpoints are equal files
    large = size >= zipfile.ZIP64_LIMIT // 2
    assert archive.fp is not None
    begin = archive.fp.tell() + 30 + len(member.filename) + 4 + (20 if large else 0)
    # A field of the header that readers skip moves the content to where it should begin.
    padding = -begin % ALIGNMENT
    member.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(member, "w", force_zip64=large) as file:
        written = 0
        for piece in (content,) if isinstance(content, bytes) else content.pieces():
            written += file.write(piece)
        assert written == size, "a tensor gave another number of bytes than its header says"


# The pickle, protocol 2. Only these few instructions are needed, and no memo.


def _dict(values: Mapping[str, Any], storages: list[LazyTensor]) -> bytes:
    items = b"".join(_plain(key) + _value(value, storages) for key, value in values.items())
    return b"}(" + items + b"u"


def _value(value: Any, storages: list[LazyTensor]) -> bytes:
    if isinstance(value, LazyTensor):
        return _tensor(value, storages)
    if isinstance(value, Mapping):
        return _dict(value, storages)
    return _plain(value)


def _plain(value: Any) -> bytes:
    """A value's own pickle without its first and last instruction, which are those of a whole file."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _tensor(tensor: LazyTensor, storages: list[LazyTensor]) -> bytes:
    if tensor.dtype not in STORAGE_OF_TAG:
        raise CheckpointError(
            f"PyTorch pickles hold {', '.join(STORAGE_OF_TAG)} here, received a tensor of {tensor.dtype}; write "
            "safetensors"
        )
    count = 1
    strides: list[int] = []
    for n in reversed(tensor.shape):
        strides.insert(0, count)
        count *= n
    known = [number for number, other in enumerate(storages) if other is tensor]  # under another name too
    if not known:
        storages.append(tensor)
    key = str(known[0] if known else len(storages) - 1)
    storage = b"(" + _plain("storage") + _global("torch", f"{STORAGE_OF_TAG[tensor.dtype]}Storage")
    storage += _plain(key) + _plain("cpu") + _plain(count) + b"tQ"
    hooks = _global("collections", "OrderedDict") + b")R"
    arguments = b"(" + storage + _plain(0) + _plain(tensor.shape) + _plain(tuple(strides)) + b"\x89" + hooks + b"t"
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()
