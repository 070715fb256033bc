"""The format ``peft``: an adapter as PEFT saves it, ``adapter_model.safetensors`` beside its settings, read only.

Beside the matrices of low rank it has the modules that were trained whole (``modules_to_save``, biases, embeddings),
under the names of the model with ``base_model.model.`` in front. What a model is with them is told by
:mod:`xlmr_core.checkpoints.adapted`.
"""

from __future__ import annotations

from pathlib import Path

from xlmr_core.adapters import ADAPTER_CONFIG
from xlmr_core.formats.base import Format, Naming
from xlmr_core.formats.finding import in_folder
from xlmr_core.formats.layouts import KEPT
from xlmr_core.formats.safetensors_file import SafetensorsFile
from xlmr_core.formats.tensors import Container
from xlmr_core.formats.torch_file import is_torch_file
from xlmr_core.formats.torch_format import open_torch

__all__ = ["PEFT"]

SINGLE, OLDER = "adapter_model.safetensors", "adapter_model.bin"
WRAPPER = "base_model.model."
# Steps that the modules around a layer put into its name, and the name that an adapter has there by default.
STEPS = ("base_layer", "modules_to_save", "default")


def _find(folder: Path) -> Path | None:
    return in_folder(SINGLE, OLDER)(folder) if (folder / ADAPTER_CONFIG).is_file() else None


def _open(path: Path) -> Container:
    return open_torch(path) if is_torch_file(path) else SafetensorsFile(path)


def _name(stored: str) -> str:
    steps = stored.removeprefix(WRAPPER).split(".")
    return ".".join(step for step in steps if step not in STEPS)


PEFT = Format(
    name="peft",
    title="adapter of PEFT",
    single=SINGLE,
    index="",
    find=_find,
    recognises=lambda path: path.name in (SINGLE, OLDER) and (path.parent / ADAPTER_CONFIG).is_file(),
    open=_open,
    naming=lambda container, head: Naming(lambda stored: ((_name(stored), KEPT),)),
    is_part=True,
)
