"""``nn.Linear`` layers whose values are left unset: a model fills them by the parameter table, or loads them.

PyTorch's own constructor would draw every weight once more, which costs seconds at base size and, on the meta device, imports hundreds of
modules.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["linear", "select_columns", "select_rows"]


def linear(in_features: int, out_features: int) -> nn.Linear:
    """An ``nn.Linear`` with unset weight (out, in) and bias (out,), on the default device and dtype."""
    return _of(nn.Parameter(torch.empty(out_features, in_features)), nn.Parameter(torch.empty(out_features)))


def select_rows(layer: nn.Linear, rows: Tensor) -> nn.Linear:
    """A copy with some of the outputs."""
    rows = rows.to(layer.weight.device)
    return _like(layer, layer.weight.detach()[rows], layer.bias.detach()[rows])


def select_columns(layer: nn.Linear, columns: Tensor) -> nn.Linear:
    """A copy with some of the inputs."""
    columns = columns.to(layer.weight.device)
    return _like(layer, layer.weight.detach()[:, columns], layer.bias.detach())


def _of(weight: nn.Parameter, bias: nn.Parameter) -> nn.Linear:
    layer = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(layer)
    layer.out_features, layer.in_features = weight.shape
    layer.weight, layer.bias = weight, bias
    return layer


def _like(layer: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    weight = nn.Parameter(weight.contiguous(), requires_grad=layer.weight.requires_grad)
    return _of(weight, nn.Parameter(bias.clone(), requires_grad=layer.bias.requires_grad)).train(layer.training)
