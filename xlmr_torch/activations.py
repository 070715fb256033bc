"""The activations a config can name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.config import XLMRobertaConfig

__all__ = ["ACTIVATIONS", "activation"]

# gelu is the exact one, with erf (Hendrycks & Gimpel 2016); the others named gelu_* are its tanh approximation.
_gelu_tanh = partial(F.gelu, approximate="tanh")
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


def activation(config: XLMRobertaConfig) -> Callable[[Tensor], Tensor]:
    """The config's activation as a function."""
    return config.hidden_act if callable(config.hidden_act) else ACTIVATIONS[config.hidden_act]
