"""Checkpoints on disk, of any format: a folder with a file of weights, or with several and an index.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_core.config import XLMRobertaConfig, config_class_of, read_config_json
from xlmr_core.errors import CheckpointError, InputError, ModelNotFoundError
from xlmr_core.files import atomic_path, replaced, write_atomically
from xlmr_core.formats import FORMATS, Checkpoint, Format, Model
from xlmr_core.formats.base import Entry, entries_of
from xlmr_core.formats.finding import transformer_folder
from xlmr_core.formats.tensors import Container, LazyTensor, RawTensor, TensorInfo, TensorSource, as_lazy
from xlmr_core.hub import BUILT_IN, resolve
from xlmr_core.load_plan import LoadPlan, LoadReport, LoadWarning, plan_load

__all__ = [
    "Checkpoint",
    "LazyTensor",
    "LoadPlan",
    "LoadReport",
    "LoadWarning",
    "RawTensor",
    "fetch_checkpoint",
    "find_format",
    "format_asked_for",
    "open_checkpoint",
    "plan_load",
    "read_config",
    "read_config_values",
    "save_checkpoint",
    "save_tensors",
]

# Of a model on the hub, beside its weights; sentence-transformers keep them one folder down.
CONFIG_FILES = ("config.json", "modules.json", "0_Transformer/config.json")
FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".ckpt", ".h5", ".msgpack", ".json")
_ABANDONED_AFTER = 3600.0  # seconds without a write, after which a temporary file belongs to a save that was killed

# Weights that no format here reads, by file name, and what they are.
OTHER_FORMATS = (
    ("*.keras", "a Keras model"),
    ("*.onnx", "an ONNX graph"),
    ("*.gguf", "GGUF weights"),
    ("*.npz", "NumPy arrays"),
    ("*.ckpt.*", "a TensorFlow checkpoint"),
)


# Reading


def find_format(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path, Format]:
    """The file or index that decides, and its format.

    Args:
        path: a folder, a file of weights, or an index.
        format: the word for the only format to look for; by default the first of ``FORMATS`` that is there.

    Raises:
        CheckpointError: if there are no such weights.
    """
    path = Path(path)
    formats = tuple(FORMATS.values()) if format is None else (_format_of(format),)
    if path.is_dir():
        path = transformer_folder(path)
        for row in formats:
            found = row.find(path)
            if found is not None:
                return found, row
        raise CheckpointError(_nothing_in(path, formats))
    for row in formats:
        if row.index and path.name.endswith(row.index):
            return path, row
    for row in formats:
        if row.recognises(path):
            return path, row
    if format is not None:
        return path, formats[0]  # which says what is wrong with it
    kinds = ", ".join(row.title for row in formats)
    raise CheckpointError(f"{path} is none of: {kinds}; it was cut short or altered, fetch or save it again")


def open_checkpoint(path: str | os.PathLike[str], format: str | None = None, *, part: str | None = None) -> Checkpoint:
    """Open a checkpoint: a folder, a file of weights, or the index of several.

    Args:
        path: what to open.
        format: the word for the only format to look for; by default the first of ``FORMATS`` that is there.
        part: of a file that holds several models or heads, the one to read: the name of a classification head of a fairseq archive, or
            the beginning of the names in a training checkpoint, such as ``student.``.

    Raises:
        CheckpointError: if there is none, or if a file is missing, truncated, or tampered with.
    """
    path, row = find_format(path, format)
    if row.index and path.name.endswith(".json"):
        return _open_shards(path, row)
    file = row.open(path)
    parts = file.metadata.get("parts", ())
    if part is not None and part not in parts:
        there = f"it has {', '.join(parts)}" if parts else "it has only one"
        raise CheckpointError(f"{path} has no part {part!r}; {there}")
    return Checkpoint(path, row.name, entries_of(file, file.tensors, row.naming(file, part)), file.metadata)


def format_asked_for(
    *, from_pt: bool = False, from_tf: bool = False, from_flax: bool = False, use_safetensors: bool | None = None
) -> str | None:
    """The format that the published arguments of ``from_pretrained`` ask for; ``None`` if the first that is there will do.

    Raises:
        InputError: if they ask for several.
    """
    if from_pt + from_tf + from_flax > 1:
        raise InputError(f"from_pt={from_pt}, from_tf={from_tf} and from_flax={from_flax} exclude each other; pass one")
    if use_safetensors:
        return "safetensors"  # whose names tell by themselves which framework wrote them
    if from_tf or from_flax:
        return "tf" if from_tf else "flax"
    return None if use_safetensors is None else "torch"


def fetch_checkpoint(
    name_or_path: str | os.PathLike[str],
    format: str | None = None,
    *,
    patterns: tuple[str, ...] | None = None,
    **where: Any,
) -> Path:
    """The folder or file of weights that a name means, with its configuration; of a repository on the hub, only one format is fetched.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        format: the only one to fetch; by default the first of ``FORMATS`` that the repository has.
        patterns: what to fetch first, the first format's weights among it; by default these and the configuration.
        **where: as for :func:`xlmr_core.hub.resolve`.

    Raises:
        ModelNotFoundError: if there is no such model.
    """
    local = Path(name_or_path).expanduser()
    if local.is_file() and local.suffix in FILE_SUFFIXES:
        return local
    rows = [row for row in FORMATS.values() if row.single] if format is None else [_format_of(format)]
    folder = resolve(name_or_path, patterns=patterns or (*CONFIG_FILES, *rows[0].files), **where)
    if local.is_dir() or os.fspath(name_or_path) in BUILT_IN or rows[0].find(folder) is not None:
        return folder
    for row in rows[1:]:
        found = row.find(folder)
        if found is not None and found.name != row.index:
            break
        # An index alone says nothing of its shards: it may have come with small files of the same repository.
        with contextlib.suppress(ModelNotFoundError):  # it has no such files
            resolve(name_or_path, patterns=row.files, **where)
            break
    return folder


def read_config(
    path: str | os.PathLike[str], format: str | None = None, *, part: str | None = None
) -> XLMRobertaConfig:
    """The configuration of a checkpoint: its ``config.json``, or what its weights say where there is none.

    Args:
        path: a folder, or a file of weights, beside which ``config.json`` is looked for.
        format, part: as for :func:`open_checkpoint`.

    Raises:
        CheckpointError: if there is no checkpoint, or nothing says what the configuration is.
        ConfigError: for another architecture, or for values that no model can be built from.
    """
    values = read_config_values(path, format, part=part)
    return config_class_of(values).from_dict(values)


def read_config_values(
    path: str | os.PathLike[str], format: str | None = None, *, part: str | None = None
) -> dict[str, Any]:
    """What :func:`read_config` makes a configuration of: the content of a ``config.json``; arguments and errors as there."""
    path = Path(path)
    folder = transformer_folder(path) if path.is_dir() else path.parent
    there = (folder / "config.json").is_file()
    values = read_config_json(folder / "config.json") if there else {}
    if not {"model_type", "architectures"} & set(values):
        row = next((row for row in _formats_in(path, format) if row.config is not None), None)
        if row is not None and row.config is not None:
            file, _ = find_format(path, row.name)
            with open_checkpoint(file, row.name, part=part) as checkpoint:
                return row.config(file, checkpoint).to_dict()
    # If it is missing, reading it says so.
    return values if there else read_config_json(folder / "config.json")


def _formats_in(path: Path, format: str | None) -> list[Format]:
    """The format of a checkpoint, if there is one."""
    try:
        return [find_format(path, format)[1]]
    except CheckpointError:
        return []


def _format_of(name: str) -> Format:
    if name not in FORMATS:
        raise CheckpointError(f"format must be one of {', '.join(FORMATS)}, received {name!r}")
    return FORMATS[name]


def _nothing_in(folder: Path, formats: tuple[Format, ...]) -> str:
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    singles = list(dict.fromkeys(row.single for row in formats if row.single))
    expected = (
        f"expected {' or '.join(singles)} in {folder}" if singles else f"expected one {formats[0].title} in {folder}"
    )
    elsewhere = [found.name for row in FORMATS.values() if (found := row.find(folder)) is not None]
    if elsewhere:
        return f"{expected}, found {', '.join(elsewhere)}; ask for that format, or for none"
    named_otherwise = [name for name in files if name.endswith(FILE_SUFFIXES) and not name.endswith(".json")]
    if named_otherwise:
        return f"{expected}, found {', '.join(named_otherwise[:3])}; pass the path of the file itself"
    other = [
        f"{', '.join(held[:3])} ({what})" for pattern, what in OTHER_FORMATS if (held := fnmatch.filter(files, pattern))
    ]
    if other:
        return f"{expected}; this folder holds {'; '.join(other)}: convert it in the library that wrote it"
    return f"{expected}, found no weights; check the folder"


@dataclass(frozen=True)
class _Shards:
    """Several files seen as one, as far as names go."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, Any]


def _open_shards(index: Path, format: Format) -> Checkpoint:
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
    suffix = Path(format.single).suffix
    shards: dict[str, Container] = {}
    for name in dict.fromkeys(weight_map.values()):
        if Path(name).name != name or "\\" in name or not name.endswith(suffix):
            raise CheckpointError(
                f"{index} names the shard {name!r}; expected the name of a {suffix} file in the same folder"
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index} names the shard {name}, which is not in {index.parent}; fetch or save the checkpoint again"
            )
        shards[name] = format.open(index.parent / name)
    whole = _Shards(index, {name: info for shard in shards.values() for name, info in shard.tensors.items()}, {})
    for shard in shards.values():
        whole.metadata.update(shard.metadata)
    naming = format.naming(whole, None)
    # The index decides: a tensor that it does not name is not part of the checkpoint.
    entries: dict[str, Entry] = {}
    for tensor, file in weight_map.items():
        stored = format.name_in_index(tensor)
        if stored not in shards[file].tensors:
            raise CheckpointError(
                f"{index} says that {file} holds {tensor}, it does not; fetch or save the checkpoint again"
            )
        for name, entry in entries_of(shards[file], (stored,), naming).items():
            if name in entries:
                raise CheckpointError(f"{index} names {name} twice; fetch or save the checkpoint again")
            entries[name] = entry
    return Checkpoint(index, format.name, entries, content.get("metadata") or {})


# Saving


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
        max_shard_size: bytes, or a text such as ``5GB`` or ``200MiB``. A larger checkpoint is split into files of at most this size
            (a tensor is never split) with an index, named as the original library names them, where the format has one.
        metadata: texts to store, where the format has a place for them.
        together: small files of the same folder, by name, that belong to these weights (``config.json``). They take their place in the
            same step as the weights, and a failure puts the old ones back.

    Returns:
        The weight files, in order.

    Raises:
        CheckpointError: if the format is only read or cannot hold the model, or if the files cannot be written; the old checkpoint is then
            intact.
    """
    row = _format_of(format)
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
            f"cannot save {total} bytes to {folder}: {why}; make room or choose another folder (what was there before is intact)"
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
    # The index first, so that it never names a shard that is gone. What cannot be removed does no harm: nothing refers to it.
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
