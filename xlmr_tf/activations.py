"""The activations a config can name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from xlmr_core.config import XLMRobertaConfig

__all__ = ["ACTIVATIONS", "activation"]


def _gelu(x: Any) -> Any:
    """The exact one, with erf (Hendrycks & Gimpel 2016). TensorFlow's own rounds its constants to float32 whatever the
    dtype.
    """
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


def _gelu_tanh(x: Any) -> Any:
    """Its tanh approximation, to which the names gelu_* refer."""
    return 0.5 * x * (1.0 + ops.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "swish": keras.activations.silu,
    "tanh": keras.activations.tanh,
}


def activation(config: XLMRobertaConfig) -> Callable[[Any], Any]:
    """The config's activation as a function."""
    return config.hidden_act if callable(config.hidden_act) else ACTIVATIONS[config.hidden_act]
