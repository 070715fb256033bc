"""The graph of a checkpoint without a file: its values stay apart, of which there may be more than a message holds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from numpy.typing import NDArray

from xlmr_core.checkpoints.model_files import ModelFiles
from xlmr_core.onnx.writing import model_to_write, write_model

__all__ = ["MadeNow", "made_now"]


class MadeNow(NamedTuple):
    """A graph in memory.

    Attributes:
        content: a ``ModelProto`` whose parameters are said to be elsewhere.
        values: these, by name.
    """

    content: bytes
    values: Mapping[str, NDArray[Any]]


def made_now(files: ModelFiles) -> MadeNow:
    """The graph of an open checkpoint.

    Raises:
        CheckpointError: if it is no encoder, or lacks a head.
    """
    model = model_to_write(files)
    used = {name: model.tensors[name] for name in model.graph.parameters}  # the runtime drops others, and misses them
    nothing = {name: replace(tensor, pieces=lambda: iter(())) for name, tensor in used.items()}
    memory = io.BytesIO()
    write_model(replace(model, tensors=nothing), memory, ("values", io.BytesIO()))
    return MadeNow(memory.getvalue(), {name: tensor.read().to_numpy() for name, tensor in used.items()})
