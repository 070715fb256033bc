"""The format ``torch``: ``pytorch_model.bin``, a state dict as ``torch.save`` wrote it, under the canonical names.

A training checkpoint under that name is read too: the state dict is then under a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlmr_core.formats.base import CANONICAL, Format, Model
from xlmr_core.formats.finding import in_folder
from xlmr_core.formats.parts import holds_encoder
from xlmr_core.formats.tensors import LazyTensor
from xlmr_core.formats.torch_file import TorchArchive, TorchFile, is_torch_file, tensors_in
from xlmr_core.formats.torch_writer import write_torch

__all__ = ["TORCH", "is_nested", "open_torch"]

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


def open_torch(path: Path) -> TorchFile:
    """Open what ``torch.save`` wrote: a state dict, or one somewhere in dictionaries."""
    archive = TorchArchive(path)
    return TorchFile(archive, archive.root)


def is_nested(path: Path) -> bool:
    """Whether a file of ``torch.save`` holds tensors in dictionaries below its top, and a model nowhere else."""
    tensors = tensors_in(TorchArchive(path).root, path)
    at_the_top = [name for name, (_, place) in tensors.items() if not place]
    return len(at_the_top) < len(tensors) and not holds_encoder(at_the_top)


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    write_torch(path, tensors)


TORCH = Format(
    name="torch",
    title="PyTorch pickle",
    single=SINGLE,
    index=INDEX,
    find=in_folder(SINGLE, INDEX),
    recognises=lambda path: is_torch_file(path) and not is_nested(path),
    open=open_torch,
    naming=lambda container, head: CANONICAL,
    written=lambda model: CANONICAL,
    write=_write,
)
