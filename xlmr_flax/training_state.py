"""What a run needs to go on, in the folder of a checkpoint: weights that are trained, moments, the scale of the loss.

Orbax keeps it. No random key outlives a step, so none is kept. What is written on one mesh is read onto any other. It
holds no weight that stands still, which comes from where the run began.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from xlmr_core.bounded_files import read_json
from xlmr_core.errors import CheckpointError
from xlmr_core.training.refusals import check_same_weights
from xlmr_flax.functional import flatten

__all__ = ["read_state", "write_state"]

STATE, SHAPES = "state", "shapes.json"
TRAINED = "trained"
# How the library that writes says what the system said.
SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state; all processes take part.

    Args:
        folder: of the checkpoint.
        state: a tree; what is trained stands under ``trained``.

    Raises:
        OSError: if there is no room.
    """
    from orbax.checkpoint import StandardCheckpointer

    if jax.process_index() == 0:
        (folder / SHAPES).write_text(json.dumps(_shapes(state)), encoding="utf-8")
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)  # of a write that fails it tells at length, in each of its threads
    try:
        with StandardCheckpointer() as checkpointer:
            checkpointer.save(folder.absolute() / STATE, dict(state))
            checkpointer.wait_until_finished()
    except OSError:
        raise
    except Exception as error:
        found = SYSTEM_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
    finally:
        log.setLevel(level)


def read_state(folder: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Args:
        folder: of the checkpoint.
        state: made in the same way; the new one lies where this one does.

    Raises:
        CheckpointError: if it was not.
    """
    from orbax.checkpoint import StandardCheckpointer

    if not (folder / SHAPES).exists():
        raise CheckpointError(f"expected a checkpoint of Flax, received {folder}; go on with the backend that wrote it")
    shapes, stored = _shapes(state), read_json(folder / SHAPES)
    check_same_weights(folder, shapes, stored)
    places = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), dict(state))
    with StandardCheckpointer() as checkpointer:
        try:
            found: dict[str, Any] = checkpointer.restore(folder.absolute() / STATE, places)
        except ValueError as error:
            raise CheckpointError(
                f"the checkpoint {folder} has moments of another optimizer; make it as when the run began"
            ) from error
    return found


def _shapes(state: Mapping[str, Any]) -> dict[str, list[int]]:
    return {"/".join(path): list(value.shape) for path, value in flatten(state[TRAINED]).items()}
