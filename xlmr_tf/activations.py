"""The activations a config can name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from xlmr_core.config import XLMRobertaConfig

__all__ = ["ACTIVATIONS", "activation"]

# gelu is the exact one, with erf (Hendrycks & Gimpel 2016); the others named gelu_* are its tanh approximation.
_gelu = partial(keras.activations.gelu, approximate=False)
_gelu_tanh = partial(keras.activations.gelu, approximate=True)
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
