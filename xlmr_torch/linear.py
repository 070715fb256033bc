"""Linear layers: fast without gradients, and in a model their values are left unset, because it fills them by the
parameter table or loads them.

PyTorch's own constructor would draw every weight once more, which costs seconds at base size and, on the meta device,
imports hundreds of modules. A part of a model that is made by itself starts as PyTorch's own layers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from platform import processor
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_torch.inputs import is_traced
from xlmr_torch.onednn import project

__all__ = [
    "Linear",
    "begun",
    "is_plain",
    "linear",
    "loading",
    "select_columns",
    "select_rows",
    "unset",
    "values_follow",
]


def _is_of_intel() -> bool:
    """Whether the processor is Intel's, as Linux says it, or where there is no such file, Python."""
    try:
        with Path("/proc/cpuinfo").open("rb") as file:
            return b"GenuineIntel" in file.read(256)
    except OSError:
        return "GenuineIntel" in processor()


# The least rows that oneDNN multiplies; see Linear.
FEWEST = 2 if _is_of_intel() else 1

LayerT = TypeVar("LayerT", nn.Linear, nn.Embedding)


def unset(*shape: int) -> Tensor:
    """Memory that nobody has touched; while a model is loaded not even that, but a tensor on the meta device."""
    return torch.empty(shape, device="meta" if _loading.get() else None)


class Linear(nn.Linear):
    """``nn.Linear``, which multiplies by oneDNN where no gradient is wanted.

    The time of few rows is that of reading the weight. PyTorch multiplies float32 matrices with MKL, which reads that
    of some tens of rows more slowly than oneDNN, half as fast on AMD processors. A single row it reads in one thread
    there; on Intel's in all of them, and a quarter faster than oneDNN. Many rows take it a sixth longer on AMD's.
    ``torch.backends.mkldnn.enabled = False`` turns it off.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        product = None if torch.is_grad_enabled() else self.by_onednn(input)
        return F.linear(input, self.weight, self.bias) if product is None else product

    def by_onednn(self, input: Tensor, kernel: str = "none", algorithm: str = "") -> Tensor | None:
        """(..., in) to (..., out), without a gradient; ``None`` where that is for PyTorch.

        Args:
            input: (..., in).
            kernel, algorithm: what is done to the product, as in :func:`~xlmr_torch.onednn.project`.
        """
        if is_traced() or self.is_for_pytorch(input):
            return None
        weight, bias = self.weight, self.bias
        if not _is_alone(input, weight, bias):
            return None
        return project(input, weight, bias, kernel, algorithm)

    def is_for_pytorch(self, input: Tensor) -> bool:
        """Whether these are fewer rows than oneDNN multiplies: what is known first, because a step of a generation has
        time for little else.
        """
        return input.numel() < FEWEST * self.in_features


def _is_alone(input: Tensor, *values: Tensor) -> bool:
    """Whether a product is in surroundings that nobody but PyTorch has to know of.

    Autocast and all that looks on or steps in get PyTorch's own operator.
    """
    return (
        all(type(x) in (Tensor, nn.Parameter) for x in (input, *values))
        and input.dtype is torch.float32
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
        and torch._C._len_torch_dispatch_stack() == 0
    )


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is an ordinary projection, nothing wrapped around it or put in its place."""
    return type(layer) in (Linear, nn.Linear)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A projection with weight (out, in) and bias (out,), on the default device and dtype."""
    return begun(_of(nn.Parameter(unset(out_features, in_features)), nn.Parameter(unset(out_features))))


def begun(layer: LayerT) -> LayerT:
    """A layer of unset values as it starts: unset where a model gives them, else drawn as PyTorch does."""
    if not (_following.get() or _loading.get()):
        layer.reset_parameters()
    return layer


def select_rows(layer: nn.Linear, rows: Tensor) -> nn.Linear:
    """A copy with some of the outputs."""
    rows = rows.to(layer.weight.device)
    return _like(layer, layer.weight.detach()[rows], layer.bias.detach()[rows])


def select_columns(layer: nn.Linear, columns: Tensor) -> nn.Linear:
    """A copy with some of the inputs."""
    columns = columns.to(layer.weight.device)
    return _like(layer, layer.weight.detach()[:, columns], layer.bias.detach())


def _of(weight: nn.Parameter, bias: nn.Parameter) -> nn.Linear:
    layer = Linear.__new__(Linear)
    nn.Module.__init__(layer)
    layer.out_features, layer.in_features = weight.shape
    layer.weight, layer.bias = weight, bias
    return layer


def _like(layer: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    weight = nn.Parameter(weight.contiguous(), requires_grad=layer.weight.requires_grad)
    return _of(weight, nn.Parameter(bias.clone(), requires_grad=layer.bias.requires_grad)).train(layer.training)


# ---- Values that come from a model or from a file

_following = ContextVar("following", default=False)
_loading = ContextVar("loading", default=False)


@contextmanager
def values_follow() -> Iterator[None]:
    """Parts made inside have no values yet, because the model that they belong to is about to give them."""
    token = _following.set(True)
    try:
        yield
    finally:
        _following.reset(token)


@contextmanager
def loading() -> Iterator[None]:
    """Models made inside have no values, because all of them are about to be loaded.

    A user's own layers are as PyTorch makes them.
    """
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)
