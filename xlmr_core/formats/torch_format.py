"""The format ``torch``: ``pytorch_model.bin``, a state dict as ``torch.save`` wrote it, under the canonical names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import CANONICAL, Format, Model
from xlmr_core.formats.finding import in_folder
from xlmr_core.formats.pickle_reader import TensorRef
from xlmr_core.formats.prefixes import prefixed_naming, prefixes_of
from xlmr_core.formats.tensors import LazyTensor
from xlmr_core.formats.torch_file import TorchArchive, TorchFile, is_torch_file
from xlmr_core.formats.torch_writer import write_torch

__all__ = ["TORCH"]

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


def is_state_dict(root: Any) -> bool:
    """Whether what was saved is a dictionary of tensors and not of other things."""
    return isinstance(root, dict) and any(isinstance(value, TensorRef) for value in root.values())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _recognises(path: Path) -> bool:
    return is_torch_file(path) and is_state_dict(TorchArchive(path).root)


def _open(path: Path) -> TorchFile:
    archive = TorchArchive(path)
    if not is_state_dict(archive.root):
        held = (
            ", ".join(map(repr, list(archive.root)[:8]))
            if isinstance(archive.root, dict)
            else type(archive.root).__name__
        )
        raise CheckpointError(
            f"{path} holds no state dict: expected tensors by name, found {held}; save model.state_dict()"
        )
    return TorchFile(archive, archive.root, {"parts": prefixes_of(filter(_is_text, archive.root))})


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    write_torch(path, tensors)


TORCH = Format(
    name="torch",
    title="PyTorch pickle",
    single=SINGLE,
    index=INDEX,
    find=in_folder(SINGLE, INDEX),
    recognises=_recognises,
    open=_open,
    naming=lambda container, part: prefixed_naming(container.path, container.tensors, part),
    written=lambda model: CANONICAL,
    write=_write,
)
