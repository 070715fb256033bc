"""The format ``safetensors``: the container of that name with the canonical names, or those of TensorFlow or Flax."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from xlmr_core.formats.base import CANONICAL, Format, Model, Naming
from xlmr_core.formats.finding import first_bytes, in_folder
from xlmr_core.formats.naming import flax_naming, tensorflow_naming
from xlmr_core.formats.safetensors_file import SafetensorsFile, write_safetensors
from xlmr_core.formats.tensors import Described, LazyTensor

__all__ = ["OWN_NAMES", "SAFETENSORS"]

# What stands in the metadata of a file with names of a user's own, which may look like those of another framework.
OWN_NAMES = {"names": "canonical"}

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def _recognises(path: Path) -> bool:
    return path.suffix == ".safetensors" or first_bytes(path)[8:9] == b"{"


def _naming(container: Described, head: str | None) -> Naming:
    """By what betrays the names of TensorFlow and of Flax: the texts that writers leave are not always theirs, but
    ``OWN_NAMES`` is ours.

    A weight under its published name is no work of either, whatever a user's class has beside it.
    """
    last = {re.split(r"[./]", name)[-1] for name in container.tensors}
    published = OWN_NAMES.items() <= container.metadata.items()
    if not published and any(name.endswith(":0") for name in last):
        return tensorflow_naming(bare=False)
    if not published and "weight" not in last and last & {"kernel", "embedding", "scale"}:
        return flax_naming(".")
    return CANONICAL


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    # Loaders of the original library ask for this text.
    write_safetensors(path, tensors, {"format": "pt"} if model.metadata is None else model.metadata)


SAFETENSORS = Format(
    name="safetensors",
    title="safetensors",
    single=SINGLE,
    index=INDEX,
    find=in_folder(SINGLE, INDEX),
    recognises=_recognises,
    open=SafetensorsFile,
    naming=_naming,
    written=lambda model: CANONICAL,
    write=_write,
)
