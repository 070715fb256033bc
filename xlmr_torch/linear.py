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
    layer = nn.Linear(1, 1, device="cpu")
    layer.in_features, layer.out_features = in_features, out_features
    layer.weight = nn.Parameter(torch.empty(out_features, in_features))
    layer.bias = nn.Parameter(torch.empty(out_features))
    return layer


def _with_values(weight: Tensor, bias: Tensor, like: nn.Linear) -> nn.Linear:
    layer = nn.Linear(1, 1, device="cpu")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=like.weight.requires_grad)
    layer.bias = nn.Parameter(bias.clone(), requires_grad=like.bias.requires_grad)
    return layer.train(like.training)


def select_rows(layer: nn.Linear, rows: Tensor) -> nn.Linear:
    """A copy with some of the outputs."""
    rows = rows.to(layer.weight.device)
    return _with_values(layer.weight.detach()[rows], layer.bias.detach()[rows], layer)


def select_columns(layer: nn.Linear, columns: Tensor) -> nn.Linear:
    """A copy with some of the inputs."""
    columns = columns.to(layer.weight.device)
    return _with_values(layer.weight.detach()[:, columns], layer.bias.detach(), layer)
