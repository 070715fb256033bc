"""Hooks of others. Who looks into a model expects the batch on the first axis of whatever a layer is given: opacus
counts examples by it, captum attributes to them. So a call that somebody looks on is not packed.

Hooks of ``HANDLERS`` move, gather or freeze what a layer has and read no axis, so that they leave packing alone. Of
those that the original library's ecosystem registers, the ones in ``READERS`` do read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_every_module
from torch.utils.hooks import RemovableHandle

from xlmr_core.calls import Call
from xlmr_core.packing import Needs

__all__ = ["Onlookers", "is_hooked"]

# Packages, PyTorch's own (FSDP, DDP, checkpointing, pruning, ...) included.
HANDLERS = ("torch", "accelerate", "peft", "deepspeed", "xlmr_torch")
# peft: an adapter for each text of a batch, an offset for each text.
READERS = ("_adapter_names_pre_forward_hook", "_alora_offsets_pre_forward_hook")


class Onlookers:
    """Whether somebody looks into a model. Made with it, and of no state: copies and pickles of it are new.

    A look at every module would cost as much as a small layer. A registered hook is known by the number that PyTorch
    gives the next one, another module by the children of those seen; both are compared in some microseconds.
    """

    def __init__(self) -> None:
        self._clear: tuple[int, list[Any], list[Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Onlookers, ()

    def needs(self, model: nn.Module, call: Call[Tensor], needs: Needs[Tensor]) -> Needs[Tensor]:
        """What a call needs of the states, those who look on included: the states at every position.

        Args:
            model: the model that was called; what is given to it and what it returns is as published anyway.
            call: the checked call.
            needs: what the model itself needs.
        """
        # A compiler sees through hooks, and its graph has no other path.
        leaves_out = call.attention_mask is not None or model.packing == "always" or needs.nothing_else
        if leaves_out and not torch.compiler.is_compiling() and self.are_there(model):
            return replace(needs, every_position=True)
        return needs

    def are_there(self, model: nn.Module) -> bool:
        """Whether a module below a model has a hook of somebody else."""
        number, clear = RemovableHandle.next_id, self._clear
        if clear is not None and clear[0] == number and [*chain.from_iterable(clear[1])] == clear[2]:
            return False
        inside = [part for part in model.modules() if part is not model]
        if any(map(_reads, _hooks(inside))):
            self._clear = None
            return True
        children = [part._modules.values() for part in (model, *inside) if part._modules]
        self._clear = (number, children, [*chain.from_iterable(children)])
        return False


def is_hooked(*modules: nn.Module) -> bool:
    """Whether anything is called around the calls of these very modules, or around their gradients."""
    return next(_hooks(modules), None) is not None


def _hooks(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """What is called around the calls of modules, or around their gradients."""
    for kind in ("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks"):
        yield from getattr(of_every_module, f"_global_{kind}").values()
        for part in modules:
            yield from getattr(part, f"_{kind}").values()


def _reads(hook: Any) -> bool:
    """Whether a hook may read the axes of what it is given."""
    while isinstance(hook, partial):
        hook = hook.func
    package = (getattr(hook, "__module__", None) or "").partition(".")[0]
    return package not in HANDLERS or getattr(hook, "__name__", "") in READERS
