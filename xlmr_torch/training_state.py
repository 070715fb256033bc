"""What a run needs to go on, in the folder of a checkpoint: weights that are trained, moments, the scale of the loss.

No generator outlives a step, so none is kept. The file is the same whether a model was sharded or not, and is read as
either. It holds no weight that stands still, which comes from where the run began.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from xlmr_core.training.refusals import check_same_weights

__all__ = ["gathered", "read_state", "whole", "write_state"]

STATE = "state.pt"


def whole(value: Any) -> Any:
    """A tensor with all its values, whichever process has them; all processes ask together."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def gathered(value: Tensor, keeps: bool) -> Tensor:
    """A tensor with all its values; a divided one is gathered by all processes for a moment, and then lies in the
    memory of the machine, where a process keeps it, and else nowhere.
    """
    if not hasattr(value, "full_tensor"):
        return value
    found: Tensor = value.full_tensor()
    return found.cpu() if keeps else torch.empty(0)


class _Kept(io.FileIO):
    """A file to write, which keeps what the system said when it would not take more."""

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")

    def write(self, data: Any) -> int:
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.error = error
            raise
        return done


def write_state(folder: Path, model: nn.Module, optimizer: Any, scaler: Any, writes: bool) -> None:
    """Write the state.

    Args:
        folder: of the checkpoint.
        model: whose parameters are named in it.
        optimizer, scaler: of the training.
        writes: whether this process writes; all take part.

    Raises:
        OSError: if there is no room.
    """
    held = {"model": _trained(model), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
    state = tree_map(lambda value: gathered(value.detach(), writes) if isinstance(value, Tensor) else value, held)
    if not writes:
        return
    with _Kept(folder / STATE) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # what the writer makes of a disk that is full
            raise file.error or error from error


def read_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any) -> None:
    """Read what :func:`write_state` wrote, into a model and an optimizer that were made in the same way.

    Raises:
        CheckpointError: if they were not.
    """
    # What the model has no room for yet stays on the disk.
    state = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=True)
    places = _trained(model)
    shapes = {name: tuple(place.shape) for name, place in places.items()}
    stored = {name: tuple(value.shape) for name, value in state["model"].items()}
    check_same_weights(folder, shapes, stored)
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(_like(state["model"][name], place))
    # Moments lie as the parameters do, which the optimizer numbers in the order of its groups.
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = state["optimizer"]["state"]
    for number, own in moments.items():
        for name, value in own.items():
            # A number of its own, as the file may go.
            own[name] = _like(value, order[number]) if value.shape == order[number].shape else value.clone()
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name."""
    for part in model.modules():
        if hasattr(part, "reshard"):  # what a sharded model gathered for its last call is a copy
            part.reshard()
    found: dict[str, Tensor] = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {**found, **dict(model.named_buffers())}


def _like(value: Tensor, place: Tensor) -> Tensor:
    """A whole tensor, divided as another one is."""
    if not hasattr(place, "full_tensor"):
        return value.to(place.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(place.device), place.device_mesh, place.placements)
