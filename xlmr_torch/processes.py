"""Training in several processes, as ``torchrun`` starts them; one alone is a group of one.

Every process has the whole batch of a step, because that is a function of the seed and the step, and computes its rows
of it. Each row's loss counts as it does on a single device, so that the sum over all processes is the loss there.

What is decided (is there another step, is a checkpoint due) is decided by the first process, which alone has the folder
of the run; the others are told, and take part in what it calls: a sharded model is whole in no process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xlmr_core.errors import InputError

__all__ = ["Led", "Processes"]

AnswerT = TypeVar("AnswerT")
# What no function is called.
_ANSWER = "the answer"


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: the number of this one.
        world: how many there are.
        device: that this one computes on.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, device: str | torch.device | None = None) -> Processes:
        """The group that ``torchrun`` made, or this process alone.

        Args:
            device: to compute on; by default the accelerator that PyTorch finds, of several the one of this process,
                else the CPU.
        """
        if device is None:
            found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
            local = os.environ.get("LOCAL_RANK")
            device = found if local is None or found.type == "cpu" else torch.device(found.type, int(local))
        device = torch.device(device)
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return cls(0, 1, device)
            if device.type != "cpu":
                torch.accelerator.set_device_index(device.index or 0)
            dist.init_process_group(dist.get_default_backend_for_device(device))
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def wrap(self, model: nn.Module, shard: bool) -> Any:
        """The model to call in training.

        Args:
            model: on the device. A sharded one is changed in place.
            shard: divide parameters, gradients and moments among the processes (FSDP2); else each has all (DDP).

        Raises:
            InputError: for sharding in one process.
        """
        if shard and self.world == 1:
            raise InputError(
                "expected several processes to share a model (shard), received one; start the script with: torchrun "
                "--nproc-per-node 2 SCRIPT"
            )
        if shard:
            return self._sharded(model)
        if self.world == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model, device_ids=None if self.device.type == "cpu" else [self.device])

    def _sharded(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for layer in model.base_model.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        if dist.get_backend() == "gloo":  # which adds and cannot average
            for part in model.modules():
                if isinstance(part, FSDPModule):
                    part.set_force_sum_reduction_for_comms(True)
        return model

    def alone(self, called: Any, is_alone: bool) -> AbstractContextManager[Any]:
        """While the block runs a process keeps the gradients of its copy for itself: of the parts of a batch the last
        alone brings those of all together. Shards are brought together at once, as they have no room for whole ones.

        Args:
            called: of :meth:`wrap`.
            is_alone: whether it does.
        """
        return called.no_sync() if is_alone and hasattr(called, "no_sync") else nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """The rows of all processes in the order of the batch; gradients flow to those of this process.

        Each process computes the same of all rows, and its share of that is one of as many as there are. As the
        gradients of its rows are in no other share, they count as often as there are processes.

        Args:
            rows: (n, ...), every ``world``-th row of the batch from the ``rank``-th on.
            count: rows of the batch, of which a process has one less than others where they do not divide.

        Returns:
            (count, ...).
        """
        if self.world == 1:
            return rows
        most = -(-count // self.world)
        here = rows.new_zeros((most, *rows.shape[1:]))
        here[: len(rows)] = rows.detach()
        found = [torch.empty_like(here) for _ in range(self.world)]
        dist.all_gather(found, here)
        if rows.requires_grad:
            rows.register_hook(lambda gradient: gradient * self.world)
        here[: len(rows)] = 0
        found[self.rank] = torch.cat([rows, here[len(rows) :]])
        return torch.stack(found, 1).flatten(0, 1)[:count]


class Led:
    """Several processes, of which the first asks and all of which do what is then called.

    Args:
        processes: which.
        **calls: functions by name; ``led.name(...)``, called in the first process, calls that of every process with
            the same arguments.
    """

    def __init__(self, processes: Processes, **calls: Callable[..., Any]) -> None:
        self._processes, self._calls = processes, calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._everywhere, name) if self._processes.world > 1 else self._calls[name]

    def __call__(self, ask: Callable[..., AnswerT], *arguments: Any, **named: Any) -> AnswerT:
        """What the first process is answered, in every process.

        Args:
            ask: called in the first process alone; it may call what this object has.
            *arguments, **named: of it.
        """
        if self._processes.rank == 0:
            answer = ask(*arguments, **named)
            self._tell((_ANSWER, answer))
            return answer
        while True:
            name, what = self._tell(None)
            if name == _ANSWER:
                return what
            self._calls[name](*what)

    def _everywhere(self, name: str, *arguments: Any) -> Any:
        self._tell((name, arguments))
        return self._calls[name](*arguments)

    def _tell(self, what: Any) -> Any:
        """What the first process says; the others pass nothing."""
        if self._processes.world == 1:
            return what
        box = [what]
        dist.broadcast_object_list(box, src=0)
        return box[0]
