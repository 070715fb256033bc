"""From the file that decides to an open checkpoint: one file, or several and their index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_core.config import read_config_json
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import Checkpoint, Format
from xlmr_core.formats.base import Entry, Naming, damaged, entries_of
from xlmr_core.formats.parts import DICTIONARIES, holds_encoder, model_naming
from xlmr_core.formats.tensors import MOST_TENSORS, Container, Described, TensorInfo
from xlmr_core.wording import shown

__all__ = ["holds_model", "open_file"]

# XXL in pieces of 50 MB has 900.
MOST_SHARDS = 4096


def open_file(path: Path, format: Format, part: str | None = None) -> Checkpoint:
    """Open a file of weights, or the index of several.

    Args:
        path: the file that decides.
        format: its format.
        part: of a file that holds several models or heads, the one to read.

    Raises:
        CheckpointError: if a file is missing, truncated, or tampered with.
    """
    with damaged(path, format):
        if format.index and path.name.endswith(".json"):
            return _open_shards(path, format, part)
        file = _opened(path, format)
        said = {key: value for key, value in file.metadata.items() if key != DICTIONARIES}
        return Checkpoint(path, format.name, entries_of(file, file.tensors, _naming(file, format, part)), said)


def _opened(path: Path, format: Format) -> Container:
    file = format.open(path)
    if len(file.tensors) > MOST_TENSORS:
        raise CheckpointError(
            f"{path} has {len(file.tensors)} tensors, more than {MOST_TENSORS}; save the state dict of the model alone"
        )
    return file


def holds_model(path: Path, format: Format) -> bool:
    """Whether there is an encoder in a file of weights.

    Raises:
        CheckpointError: if the file is damaged.
    """
    with damaged(path, format):
        file = _opened(path, format)
        naming = format.naming(file, None)
        return holds_encoder(name for stored in file.tensors for name, _ in naming.decode(stored))


def _naming(file: Described, format: Format, part: str | None) -> Naming:
    """The names of a format, of a model wherever it is in the file."""
    if format.is_part:
        return format.naming(file, part)
    heads = file.metadata.get("heads", ())
    if part is not None and heads and part not in heads:
        raise CheckpointError(f"{file.path} has no part {part!r}; it has {', '.join(heads)}")
    return model_naming(file, format.naming(file, part), None if heads else part)


@dataclass(frozen=True)
class _Shards:
    """Several files seen as one, as far as names go."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, Any]


def _open_shards(index: Path, format: Format, part: str | None) -> Checkpoint:
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
    names = dict.fromkeys(weight_map.values())
    if len(names) > MOST_SHARDS or len(weight_map) > MOST_TENSORS:
        raise CheckpointError(
            f"{index} names {len(weight_map)} tensors in {len(names)} files, expected at most {MOST_TENSORS} in "
            f"{MOST_SHARDS}; save the checkpoint again in fewer files"
        )
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(suffix):
            raise CheckpointError(
                f"{index} names the shard {shown(name)}; expected the name of a {suffix} file in the same folder"
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index} names the shard {name}, which is not in {index.parent}; fetch or save the checkpoint again"
            )
        shards[name] = _opened(index.parent / name, format)
    whole = _Shards(index, {name: info for shard in shards.values() for name, info in shard.tensors.items()}, {})
    for shard in shards.values():
        whole.metadata.update(shard.metadata)
    naming = _naming(whole, format, part)
    # The index decides: a tensor that it does not name is not part of the checkpoint.
    entries: dict[str, Entry] = {}
    for tensor, file in weight_map.items():
        stored = format.name_in_index(tensor)
        if stored not in shards[file].tensors:
            raise CheckpointError(
                f"{index} says that {file} holds {shown(tensor, quoted=False)}, it does not; "
                "fetch or save the checkpoint again"
            )
        for name, entry in entries_of(shards[file], (stored,), naming).items():
            if name in entries:
                raise CheckpointError(f"{index} names {name} twice; fetch or save the checkpoint again")
            entries[name] = entry
    said = content.get("metadata")
    return Checkpoint(index, format.name, entries, {**whole.metadata, **(said if isinstance(said, dict) else {})})
