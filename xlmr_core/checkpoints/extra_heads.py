"""The further heads of bge-m3: projections of the token states, each in a file of its own beside the weights.

``sparse_linear`` gives a token its weight as a word, ``colbert_linear`` its vector among many. They are published as
state dicts of PyTorch (``.pt``), which are read without unpickling; written are ``.pt``, for the programs that know
these names, and ``.safetensors``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from xlmr_core.bounded_files import is_there
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.safetensors_file import SafetensorsFile, write_safetensors
from xlmr_core.formats.tensors import FLOAT_TAGS, Container, LazyTensor
from xlmr_core.formats.torch_format import open_torch
from xlmr_core.formats.torch_writer import write_torch
from xlmr_core.wording import shown

__all__ = ["EXTRA_HEADS", "EXTRA_HEAD_FILES", "extra_head_contents", "read_extra_heads"]

EXTRA_HEADS = ("sparse_linear", "colbert_linear")
# The first that is there is read.
_OPENED: Mapping[str, Callable[[Path], Container]] = {".safetensors": SafetensorsFile, ".pt": open_torch}
EXTRA_HEAD_FILES = tuple(f"{name}{suffix}" for name in EXTRA_HEADS for suffix in _OPENED)
WEIGHT, BIAS = "weight", "bias"


def read_extra_heads(folder: Path) -> dict[str, dict[str, LazyTensor]]:
    """The further heads in a folder, by their names in ``EXTRA_HEADS``, each a weight (out, in) and perhaps a bias.

    Raises:
        CheckpointError: if a file is damaged, or holds anything else.
    """
    found = {}
    for name in EXTRA_HEADS:
        path = next((folder / f"{name}{suffix}" for suffix in _OPENED if is_there(folder / f"{name}{suffix}")), None)
        if path is not None:
            found[name] = _read(path)
    return found


def _read(path: Path) -> dict[str, LazyTensor]:
    file = _OPENED[path.suffix](path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    weight = shapes.get(WEIGHT, ())
    if (
        not {WEIGHT} <= set(shapes) <= {WEIGHT, BIAS}
        or len(weight) != 2
        or shapes.get(BIAS, weight[:1]) != weight[:1]
        or any(info.dtype not in FLOAT_TAGS for info in file.tensors.values())
    ):
        received = ", ".join(f"{shown(name, 40)} {shape}" for name, shape in list(shapes.items())[:4])
        raise CheckpointError(
            f"expected the weight (out, in) and the bias (out,) of a linear layer in {path}, received {received}; "
            "fetch it again"
        )
    return {name: file.stream(name) for name in (WEIGHT, BIAS) if name in shapes}


def extra_head_contents(heads: Mapping[str, Mapping[str, LazyTensor]]) -> dict[str, bytes]:
    """The files of further heads by their names, each head as ``.pt`` and as ``.safetensors``."""
    contents = {}
    with tempfile.TemporaryDirectory() as made:
        for name, tensors in heads.items():
            pickled, safe = Path(made, f"{name}.pt"), Path(made, f"{name}.safetensors")
            write_torch(pickled, tensors)
            write_safetensors(safe, tensors, {"format": "pt"})
            contents.update({path.name: path.read_bytes() for path in (safe, pickled)})
    return contents
