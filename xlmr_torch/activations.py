"""The activations a config can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.config import XLMRobertaConfig

__all__ = ["ACTIVATIONS", "ONEDNN", "activation", "kernel_of"]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


# gelu is the exact one, with erf (Hendrycks & Gimpel 2016); the others named gelu_* are its tanh approximation.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}

# Names of the config to oneDNN's kernel and its algorithm; "none" is the projection alone.
ONEDNN = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}


def activation(config: XLMRobertaConfig) -> Callable[[Tensor], Tensor]:
    """The config's activation as a function."""
    return config.hidden_act if callable(config.hidden_act) else ACTIVATIONS[config.hidden_act]


def kernel_of(function: Callable[[Tensor], Tensor]) -> tuple[str, str] | None:
    """oneDNN's kernel and algorithm for an activation, if it has it."""
    return next((kernel for name, kernel in ONEDNN.items() if ACTIVATIONS.get(name) is function), None)
