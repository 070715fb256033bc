"""Saving a checkpoint of any format: a file of weights, or several and an index.

Where a folder holds both, the single file is the checkpoint, as for the original library. Saving relies on that:
whatever is killed when, the folder holds the old checkpoint or the new one. The file that decides is replaced or
removed in one step, and only after it the files that no longer count are removed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from xlmr_core.atomic_files import atomic_path, replaced, write_atomically
from xlmr_core.checkpoints.found import format_of
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import FORMATS, Format, Model
from xlmr_core.formats.tensors import LazyTensor, TensorSource, as_lazy

__all__ = ["save_checkpoint", "save_tensors"]

_ABANDONED_AFTER = 3600.0  # seconds without a write, after which a temporary file belongs to a save that was killed


def save_checkpoint(
    folder: str | os.PathLike[str],
    format: str,
    tensors: Mapping[str, TensorSource],
    config: XLMRobertaConfig,
    head: str,
    *,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    together: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write a checkpoint of any format, all or nothing, one piece in memory at a time.

    Args:
        folder: where to; made if it is missing.
        format: a word of ``FORMATS`` whose row can write.
        tensors: by canonical name.
        config, head: of the model that they are. Some formats store its name or its numbers.
        max_shard_size: bytes, or a text such as ``5GB`` or ``200MiB``. A larger checkpoint is split into files of at
            most this size (a tensor is never split) with an index, named as the original library names them, where the
            format has one.
        metadata: texts to store, where the format has a place for them.
        together: small files of the same folder, by name, that belong to these weights (``config.json``). They take
            their place in the same step as the weights, and a failure puts the old ones back.

    Returns:
        The weight files, in order.

    Raises:
        CheckpointError: if the format is only read or cannot hold the model, or if the files cannot be written; the old
            checkpoint is then intact.
    """
    row = format_of(format)
    if row.write is None:
        writable = ", ".join(name for name, other in FORMATS.items() if other.can_write)
        raise CheckpointError(f"{row.title} is only read; write one of {writable}")
    return _save(Path(folder), row, tensors, Model(config, head, metadata), max_shard_size, together or {})


def save_tensors(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    *,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    together: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write tensors of any names as safetensors; arguments, return value and errors as of :func:`save_checkpoint`."""
    # The format asks for no model: names and layouts are the canonical ones.
    model = Model(XLMRobertaConfig(), "Model", metadata)
    return _save(Path(folder), FORMATS["safetensors"], tensors, model, max_shard_size, together or {})


def _save(
    folder: Path,
    format: Format,
    tensors: Mapping[str, TensorSource],
    model: Model,
    max_shard_size: int | str,
    together: Mapping[str, bytes],
) -> list[Path]:
    write = format.write
    assert write is not None
    limit = _bytes_of(max_shard_size)
    if folder.is_file():
        raise CheckpointError(f"expected a folder to save to, received the file {folder}; name a folder")
    stored = format.encode({name: as_lazy(source) for name, source in tensors.items()}, model)
    total = sum(tensor.nbytes for tensor in stored.values())
    groups = _split(stored, limit) if format.index else [list(stored)]
    beside = {folder / name: content for name, content in together.items()}
    new: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if len(groups) <= 1:
            with atomic_path(folder / format.single, together=beside) as temporary:
                write(temporary, stored, model)
            names = [format.single]
        else:
            names = _free_shard_names(folder, format, len(groups))
            for name, group in zip(names, groups, strict=True):
                new.append(folder / name)
                with atomic_path(folder / name) as temporary:
                    write(temporary, {tensor: stored[tensor] for tensor in group}, model._replace(sharded=True))
            index = {
                "metadata": {
                    "total_parameters": sum(math.prod(tensor.shape) for tensor in stored.values()),
                    "total_size": total,
                },
                "weight_map": {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group},
            }
            # While a single file is there it is the checkpoint: its removal makes the index count.
            single = folder / format.single
            text = (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
            write_atomically(folder / format.index, text, together=None if single.exists() else beside)
            new.clear()
            if single.exists():
                with replaced(beside):
                    single.unlink()
    except CheckpointError:
        raise
    except OSError as error:
        why = " ".join(str(error.strerror or error).split())  # HDF5 speaks in several lines
        raise CheckpointError(
            f"cannot save {total} bytes to {folder}: {why}; make room or choose another folder (what was there before "
            "is intact)"
        ) from error
    finally:
        for path in new:
            path.unlink(missing_ok=True)
    _remove_stale(folder, format, set(names))
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


def _split(tensors: Mapping[str, LazyTensor], limit: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if groups[-1] and filled + tensor.nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += tensor.nbytes
    return groups


def _free_shard_names(folder: Path, format: Format, count: int) -> list[str]:
    """Names for shards of which none is taken: to overwrite a shard of the old checkpoint would make a mixture."""
    single = Path(format.single)
    revision = 1
    while True:
        stem = single.stem if revision == 1 else f"{single.stem}-r{revision}"
        names = [f"{stem}-{number:05d}-of-{count:05d}{single.suffix}" for number in range(1, count + 1)]
        if not any((folder / name).exists() for name in names):
            return names
        revision += 1


def _remove_stale(folder: Path, format: Format, current: set[str]) -> None:
    # The index first, so that it never names a shard that is gone. What cannot be removed does no harm: nothing refers
    # to it.
    stem, suffix = re.escape(Path(format.single).stem), re.escape(Path(format.single).suffix)
    shard = re.compile(rf"{stem}(-r\d+)?-\d{{5}}-of-\d{{5}}{suffix}")
    temporary = re.compile(rf"\.{stem}.*{suffix}(\.index\.json)?\..*\.tmp")
    with contextlib.suppress(OSError):
        if format.index and format.single in current:
            (folder / format.index).unlink(missing_ok=True)
        for file in folder.iterdir():
            stale = shard.fullmatch(file.name) and file.name not in current
            abandoned = temporary.fullmatch(file.name) and time.time() - file.stat().st_mtime > _ABANDONED_AFTER
            if stale or abandoned:
                file.unlink(missing_ok=True)
