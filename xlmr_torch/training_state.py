"""What a run needs to go on, in the folder of a checkpoint: weights that are trained, moments, the scale of the loss.

No generator outlives a step, so none is kept. The file is the same whether a model was sharded or not, and whether all
word embeddings were trained or the rows that a run has, and is read as any of these. It holds no weight that stands
still, which comes from where the run began.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from xlmr_core.training.refusals import check_same_weights
from xlmr_torch.used_rows import UsedRows

__all__ = ["gathered", "read_state", "whole", "write_state"]

STATE = "state.pt"
OTHERS = "other rows"  # of the word embeddings: what they were multiplied by, where they were not trained


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


def write_state(
    folder: Path, model: nn.Module, optimizer: Any, scaler: Any, writes: bool, rows: UsedRows | None = None
) -> None:
    """Write the state.

    Args:
        folder: of the checkpoint.
        model: whose parameters are named in it.
        optimizer, scaler: of the training.
        writes: whether this process writes; all take part.
        rows: those of the word embeddings that are trained in place of all.

    Raises:
        OSError: if there is no room.
    """
    held = {"model": _trained(model), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
    if rows is not None and writes:  # they are whole in each process
        held = _with_whole_table(held, model, optimizer, rows)
    state = tree_map(lambda value: gathered(value.detach(), writes) if isinstance(value, Tensor) else value, held)
    if not writes:
        return
    with _Kept(folder / STATE) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # what the writer makes of a disk that is full
            raise file.error or error from error


def _with_whole_table(held: dict[str, Any], model: nn.Module, optimizer: Any, rows: UsedRows) -> dict[str, Any]:
    """The state of a run that trains some rows, as that of one that trains all of them."""
    order, moments = _order(optimizer), dict(held["optimizer"]["state"])
    for number, own in moments.items():
        if order[number] is rows.weight:
            moments[number] = {name: rows.spread(value) if value.ndim else value for name, value in own.items()}
    return {
        **held,
        "model": {**held["model"], _name_of(model, rows): rows.whole()},
        "optimizer": {**held["optimizer"], "state": moments},
        OTHERS: rows.others,
    }


def read_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, rows: UsedRows | None = None
) -> None:
    """Read what :func:`write_state` wrote, into a model and an optimizer that were made in the same way.

    Raises:
        CheckpointError: if they were not.
    """
    # What the model has no room for yet stays on the disk.
    state = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=True)
    places = _trained(model)
    shapes = {name: tuple(place.shape) for name, place in places.items()}
    if rows is not None:
        table = _name_of(model, rows)
        shapes[table] = (rows.num_embeddings, rows.embedding_dim)
    stored = {name: tuple(value.shape) for name, value in state["model"].items()}
    check_same_weights(folder, shapes, stored)
    if rows is not None:
        rows.read(state["model"][table], state.get(OTHERS))
        del places[table]
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(_like(state["model"][name], place))
    # Moments lie as the parameters do, which the optimizer numbers in the order of its groups.
    order = _order(optimizer)
    moments = state["optimizer"]["state"]
    for number, own in moments.items():
        for name, value in own.items():
            if rows is not None and order[number] is rows.weight and value.ndim:
                value = rows.rows_of(value)
            # A number of its own, as the file may go.
            own[name] = _like(value, order[number]) if value.shape == order[number].shape else value.clone()
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])


def _order(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _name_of(model: nn.Module, rows: UsedRows) -> str:
    return next(name for name, own in model.named_parameters() if own is rows.weight)


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
