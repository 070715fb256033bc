"""What a run needs to go on, in the folder of a checkpoint: weights that are trained, moments, the scale of the loss.

No generator outlives a step, so none is kept. The file is safetensors. It holds no weight that stands still, which
comes from where the run began.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from xlmr_core.formats.safetensors_file import SafetensorsFile, write_safetensors
from xlmr_core.formats.tensors import RawTensor, as_lazy
from xlmr_core.training.refusals import check_same_weights
from xlmr_tf.optimizers import trained_in

__all__ = ["read_state", "write_state"]

STATE = "state.safetensors"


def write_state(folder: Path, model: Any, optimizer: keras.optimizers.Optimizer) -> None:
    """Write the state.

    Args:
        folder: of the checkpoint.
        model: whose trained variables are named in it by their places.
        optimizer: of the training, built.

    Raises:
        OSError: if there is no room.
    """
    kept = _kept(model, optimizer)
    write_safetensors(folder / STATE, {name: as_lazy(lambda x=x: _values(x)) for name, x in kept.items()}, {})


def read_state(folder: Path, model: Any, optimizer: keras.optimizers.Optimizer) -> None:
    """Read what :func:`write_state` wrote, into a model and an optimizer that were made in the same way.

    Raises:
        CheckpointError: if they were not.
    """
    file, places = SafetensorsFile(folder / STATE), _kept(model, optimizer)
    shapes = {name: tuple(variable.shape) for name, variable in places.items()}
    stored = {name: info.shape for name, info in file.tensors.items()}
    check_same_weights(folder, shapes, stored)
    for name, variable in places.items():
        variable.assign(file.tensor(name).to_numpy().copy())  # TensorFlow may keep an array that it is given


def _kept(model: Any, optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """What is kept, by name; the optimizer numbers its own."""
    own = {f"optimizer.{number}": variable for number, variable in enumerate(optimizer.variables)}
    return {**{f"model.{name}": variable for name, variable in trained_in(model).items()}, **own}


def _values(variable: keras.Variable) -> RawTensor:
    return RawTensor.from_numpy(np.asarray(variable.numpy()))
