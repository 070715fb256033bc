"""Checkpoints on disk: a folder with ``model.safetensors``, or with shards and ``model.safetensors.index.json``.

Where a folder holds both, the single file is the checkpoint, as for the original library. Saving relies on that: whatever is killed when,
the folder holds the old checkpoint or the new one. The file that decides is replaced or removed in one step, and only after it the files
that no longer count are removed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from xlmr_core.config import read_config_json
from xlmr_core.errors import CheckpointError
from xlmr_core.files import atomic_path, replaced, write_atomically
from xlmr_core.formats.safetensors_file import (
    Layout,
    RawTensor,
    SafetensorsFile,
    TensorInfo,
    TensorSource,
    layout_of,
    write_safetensors,
)
from xlmr_core.load_plan import LoadPlan, LoadReport, LoadWarning, plan_load

__all__ = [
    "Checkpoint",
    "LoadPlan",
    "LoadReport",
    "LoadWarning",
    "RawTensor",
    "open_checkpoint",
    "plan_load",
    "save_tensors",
]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model(-r\d+)?-\d{5}-of-\d{5}\.safetensors")
_TEMPORARY = re.compile(r"\.model.*\.safetensors(\.index\.json)?\..*\.tmp")
_ABANDONED_AFTER = 3600.0  # seconds without a write, after which a temporary file belongs to a save that was killed

# Weights of other formats, by file name, and what they are.
OTHER_FORMATS = (
    ("*.bin", "PyTorch pickles"),
    ("*.pt", "PyTorch pickles"),
    ("*.ckpt", "PyTorch pickles"),
    ("*.h5", "TensorFlow or Keras weights"),
    ("*.keras", "a Keras model"),
    ("*.msgpack", "Flax weights"),
    ("*.onnx", "an ONNX graph"),
    ("*.gguf", "GGUF weights"),
)


class Checkpoint:
    """The tensors of a checkpoint, by the names in its files. Use it in a ``with`` statement, or close it.

    A tensor stays valid after closing: its memory map lives as long as the tensor.

    Attributes:
        path: the file, or the index, that was opened.
        metadata: the texts of the file or of the index.
    """

    def __init__(self, path: Path, files: Mapping[str, SafetensorsFile], metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata = dict(metadata)
        self._files: dict[str, SafetensorsFile] = dict(files)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the files."""
        return tuple(self._files)

    def info(self, name: str) -> TensorInfo:
        """Dtype tag, shape and file of a tensor."""
        return self._file(name).tensors[name]

    def tensor(self, name: str) -> RawTensor:
        """A tensor as a view of its file: nothing is copied, and memory is touched only when it is used."""
        return self._file(name).tensor(name)

    def _file(self, name: str) -> SafetensorsFile:
        if name not in self._files:
            raise CheckpointError(
                f"{self.path} has no tensor {name!r}" if self._files else f"{self.path} was closed; open it again"
            )
        return self._files[name]

    def close(self) -> None:
        """Let go of the files. Tensors that were handed out keep theirs."""
        self._files = {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint: a folder, a ``.safetensors`` file, or a ``.safetensors.index.json``.

    Raises:
        CheckpointError: if there is none, or if a file is missing, truncated, or tampered with.
    """
    path = Path(folder)
    if path.is_dir():
        path = next((path / name for name in (SINGLE, INDEX) if (path / name).is_file()), path)
        if path.is_dir():
            raise CheckpointError(_nothing_in(path))
    if path.name.endswith(".json"):
        return _open_shards(path)
    if path.suffix != ".safetensors" and path.exists():
        raise CheckpointError(f"expected a folder or a .safetensors file, received {path}; convert it to safetensors")
    file = SafetensorsFile(path)
    return Checkpoint(path, dict.fromkeys(file.tensors, file), file.metadata)


def _nothing_in(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    expected = f"expected {SINGLE} or {INDEX} in {folder}"
    named_otherwise = fnmatch.filter(files, "*.safetensors")
    if named_otherwise:
        return f"{expected}, found {', '.join(named_otherwise[:3])}; pass the path of the file itself"
    other = [
        f"{', '.join(found[:3])} ({what})"
        for pattern, what in OTHER_FORMATS
        if (found := fnmatch.filter(files, pattern))
    ]
    if other:
        return f"{expected}; this folder holds {'; '.join(other)}: convert it to safetensors"
    return f"{expected}, found no weights; check the folder"


def _open_shards(index: Path) -> Checkpoint:
    content = read_config_json(index)
    weight_map = content.get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise CheckpointError(
            f"{index} has no weight_map from tensor names to files; fetch or save the checkpoint again"
        )
    shards: dict[str, SafetensorsFile] = {}
    for name in dict.fromkeys(weight_map.values()):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names the shard {name!r}; expected the name of a .safetensors file in the same folder"
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index} names the shard {name}, which is not in {index.parent}; fetch or save the checkpoint again"
            )
        shards[name] = SafetensorsFile(index.parent / name)
    for tensor, shard in weight_map.items():
        if tensor not in shards[shard].tensors:
            raise CheckpointError(
                f"{index} says that {shard} holds {tensor}, it does not; fetch or save the checkpoint again"
            )
    # The index decides: a tensor that it does not name is not part of the checkpoint.
    return Checkpoint(
        index, {tensor: shards[shard] for tensor, shard in weight_map.items()}, content.get("metadata") or {}
    )


# Saving


def save_tensors(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    *,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    together: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write a checkpoint, all or nothing, one tensor in memory at a time.

    Args:
        folder: where to; made if it is missing.
        tensors: by the names to store. A function is called when its tensor is needed, for its shape and again for its values.
        max_shard_size: bytes, or a text such as ``5GB`` or ``200MiB``. A larger checkpoint is split into files of at most this size
            (a tensor is never split) with an index, named as the original library names them.
        metadata: texts to store; by default ``{"format": "pt"}``, which loaders of the original library ask for.
        together: small files of the same folder, by name, that belong to these weights (``config.json``). They take their place in the
            same step as the weights, and a failure puts the old ones back.

    Returns:
        The weight files, in order.

    Raises:
        CheckpointError: if the files cannot be written; the old checkpoint is then intact.
    """
    folder = Path(folder)
    metadata = {"format": "pt"} if metadata is None else metadata
    limit = _bytes_of(max_shard_size)
    if folder.is_file():
        raise CheckpointError(f"expected a folder to save to, received the file {folder}; name a folder")
    layouts = {name: layout_of(source) for name, source in tensors.items()}
    total = sum(layout.nbytes for layout in layouts.values())
    groups = _split(layouts, limit)
    beside = {folder / name: content for name, content in (together or {}).items()}
    new: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if len(groups) <= 1:
            with atomic_path(folder / SINGLE, together=beside) as temporary:
                write_safetensors(temporary, tensors, layouts, metadata)
            names = [SINGLE]
        else:
            names = _free_shard_names(folder, len(groups))
            for name, group in zip(names, groups, strict=True):
                new.append(folder / name)
                with atomic_path(folder / name) as temporary:
                    write_safetensors(temporary, {tensor: tensors[tensor] for tensor in group}, layouts, metadata)
            index = {
                "metadata": {
                    "total_parameters": sum(math.prod(row.shape) for row in layouts.values()),
                    "total_size": total,
                },
                "weight_map": {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group},
            }
            # While a single file is there it is the checkpoint: its removal makes the index count.
            single = folder / SINGLE
            text = (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
            write_atomically(folder / INDEX, text, together=None if single.exists() else beside)
            new.clear()
            if single.exists():
                with replaced(beside):
                    single.unlink()
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"cannot save {total} bytes to {folder}: {error.strerror or error}; make room or choose another folder "
            "(what was there before is intact)"
        ) from error
    finally:
        for path in new:
            path.unlink(missing_ok=True)
    _remove_stale(folder, set(names))
    return [folder / name for name in names]


_UNITS: dict[str, int] = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS[f"{_letter}B"], _UNITS[f"{_letter}IB"] = 1000**_power, 1024**_power


def _bytes_of(size: int | str) -> int:
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size if isinstance(size, str) else "")
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise CheckpointError(
            f"max_shard_size must be a number of bytes or a text such as '5GB' or '200MiB', received {size!r}"
        )
    return math.floor(float(match[1]) * _UNITS[match[2].upper()])


def _split(layouts: Mapping[str, Layout], limit: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, layout in layouts.items():
        if groups[-1] and filled + layout.nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += layout.nbytes
    return groups


def _free_shard_names(folder: Path, count: int) -> list[str]:
    """Names for shards of which none is taken: to overwrite a shard of the old checkpoint would make a mixture."""
    revision = 1
    while True:
        stem = "model" if revision == 1 else f"model-r{revision}"
        names = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        if not any((folder / name).exists() for name in names):
            return names
        revision += 1


def _remove_stale(folder: Path, current: set[str]) -> None:
    # The index first, so that it never names a shard that is gone. What cannot be removed does no harm: nothing refers to it.
    with contextlib.suppress(OSError):
        if SINGLE in current:
            (folder / INDEX).unlink(missing_ok=True)
        for file in folder.iterdir():
            stale = _SHARD.fullmatch(file.name) and file.name not in current
            abandoned = _TEMPORARY.fullmatch(file.name) and time.time() - file.stat().st_mtime > _ABANDONED_AFTER
            if stale or abandoned:
                file.unlink(missing_ok=True)
