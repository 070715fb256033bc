"""The activations a config can name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from xlmr_core.config import XLMRobertaConfig

__all__ = ["ACTIVATIONS", "activation"]

# gelu is the exact one, with erf (Hendrycks & Gimpel 2016); the others named gelu_* are its tanh approximation.
_gelu = partial(jax.nn.gelu, approximate=False)
_gelu_tanh = partial(jax.nn.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(config: XLMRobertaConfig) -> Callable[[jax.Array], jax.Array]:
    """The config's activation as a function."""
    return config.hidden_act if callable(config.hidden_act) else ACTIVATIONS[config.hidden_act]
