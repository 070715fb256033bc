"""Saving a checkpoint of any format: a file of weights, or several and an index.

Where a folder holds both, the single file is the checkpoint, as for the original library. Saving relies on that:
whatever is killed when, the folder holds the old checkpoint or the new one, and of several that save at once the last
to finish leaves its own, whole. All files are complete before the first takes its place; names are chosen and files
renamed by one process at a time (``atomic_files.py``); the file that decides is replaced or removed after what it
needs, and only then those that the old index named are removed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from xlmr_core.atomic_files import (
    Temporaries,
    locked,
    named_by,
    put_in_place,
    remove_abandoned,
    saving_to,
    settle,
)
from xlmr_core.checkpoints.found import format_of
from xlmr_core.config import ModelConfig, XLMRobertaConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import FORMATS, Format, Model
from xlmr_core.formats.tensors import LazyTensor, TensorSource, as_lazy

__all__ = ["save_checkpoint", "save_tensors"]


def save_checkpoint(
    folder: str | os.PathLike[str],
    format: str,
    tensors: Mapping[str, TensorSource],
    config: ModelConfig,
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
    with saving_to(folder, f"{total} bytes"):
        folder.mkdir(parents=True, exist_ok=True)
        with Temporaries(folder) as shards, Temporaries(folder) as files:
            for number, group in enumerate(groups, 1):
                name = format.single if len(groups) == 1 else _shard_name(format, number, len(groups))
                whole = model if len(groups) == 1 else model._replace(sharded=True)
                write(shards.new(name), {tensor: stored[tensor] for tensor in group}, whole)
                settle(shards.paths[name])
            for name, content in together.items():
                files.write(name, content)
            with locked(folder):
                if len(groups) <= 1:
                    return [_put_single(files, shards, format)]
                return _put_shards(files, shards, format, groups, stored)


def _put_single(files: Temporaries, weights: Temporaries, format: Format) -> Path:
    """A single file counts as soon as it is there; then the index goes, and what it named."""
    stale = _indexed(files.folder, format)
    files.paths[format.single] = weights.paths.pop(format.single)
    put_in_place(files, stale=stale)
    remove_abandoned(files)
    return files.folder / format.single


def _put_shards(
    files: Temporaries,
    shards: Temporaries,
    format: Format,
    groups: list[list[str]],
    stored: Mapping[str, LazyTensor],
) -> list[Path]:
    """Shards under names that are free, and an index that names them. While a single file is there it is the
    checkpoint: its removal makes the index count.
    """
    assert format.index
    folder = files.folder
    stale = [name for name in _indexed(folder, format) if name != format.index]
    names = _free_shard_names(folder, format, len(groups))
    index = {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.shape) for tensor in stored.values()),
            "total_size": sum(tensor.nbytes for tensor in stored.values()),
        },
        "weight_map": {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group},
    }
    small, files.paths = files.paths, {}
    files.write(format.index, (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
    in_order = dict(zip(names, shards.paths.values(), strict=True))
    shards.paths = {}
    files.paths = {**in_order, **small, **files.paths}
    put_in_place(files, remove=[format.single], stale=stale)
    remove_abandoned(files, keep=names)
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


def _shard_name(format: Format, number: int, count: int, revision: int = 1) -> str:
    single = Path(format.single)
    stem = single.stem if revision == 1 else f"{single.stem}-r{revision}"
    return f"{stem}-{number:05d}-of-{count:05d}{single.suffix}"


def _free_shard_names(folder: Path, format: Format, count: int) -> list[str]:
    """Names for shards of which none is taken: to overwrite a shard of the old checkpoint would make a mixture."""
    revision = 1
    while True:
        names = [_shard_name(format, number, count, revision) for number in range(1, count + 1)]
        if not any(os.path.lexists(folder / name) for name in names):
            return names
        revision += 1


def _indexed(folder: Path, format: Format) -> list[str]:
    """The index of the checkpoint in a folder, and the shards that it names: the index first, so that it never names
    one that is gone. A file that no index names is not ours to remove.
    """
    if not format.index or not (folder / format.index).is_file():
        return []
    single = Path(format.single)
    shard = re.compile(rf"{re.escape(single.stem)}(-r\d+)?-\d{{5}}-of-\d{{5}}{re.escape(single.suffix)}")
    return [format.index, *sorted(filter(shard.fullmatch, named_by(folder / format.index)))]
