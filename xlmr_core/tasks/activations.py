"""What makes scores of numbers: functions by their names, by the class names of PyTorch's modules, or a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError

__all__ = ["ACTIVATIONS", "activation_called", "sigmoid"]

Function: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]


def sigmoid(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Between 0 and 1, for large numbers too."""
    values: NDArray[np.float64] = np.exp(-np.logaddexp(0, -np.asarray(numbers, np.float64)))
    return values


def _softmax(numbers: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(numbers, np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    chances: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return chances


def _gelu(numbers: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(numbers, np.float64)
    below: NDArray[np.float64] = wide * np.vectorize(math.erfc, otypes=[np.float64])(-wide / math.sqrt(2)) / 2
    return below


ACTIVATIONS: Mapping[str, Function] = {
    "identity": lambda numbers: numbers,
    "sigmoid": sigmoid,
    "softmax": _softmax,
    "tanh": np.tanh,
    "relu": lambda numbers: np.maximum(numbers, 0),
    "logsigmoid": lambda numbers: -np.logaddexp(0, -np.asarray(numbers, np.float64)),
    "gelu": _gelu,
    "silu": lambda numbers: numbers * sigmoid(numbers),
    "softplus": lambda numbers: np.logaddexp(0, np.asarray(numbers, np.float64)),
}
# What modules of these names can be told, and what is served of it.
_SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "softmax": {"dim": (None, 1, -1)},
    "gelu": {"approximate": ("none",)},
    "softplus": {"beta": (1,)},
}


def activation_called(wanted: Any) -> Function:
    """The function that is meant.

    Args:
        wanted: a name such as ``"sigmoid"`` or ``"torch.nn.modules.activation.Sigmoid"``; an object or a class that is
            known by the name of its class, such as ``torch.nn.Sigmoid()``; or a function of an array.

    Raises:
        InputError: for anything else.
    """
    named = wanted if isinstance(wanted, str) else (wanted if isinstance(wanted, type) else type(wanted)).__name__
    name = named.rpartition(".")[2].lower()
    if name in ACTIVATIONS:
        for setting, served in _SETTINGS.get(name, {}).items():
            value = getattr(wanted, setting, served[0])
            if value not in served:
                raise InputError(
                    f"{named} is served with {setting}={served[-1]!r}, received {value!r}; pass a function"
                )
        return ACTIVATIONS[name]
    if callable(wanted) and not isinstance(wanted, type) and not hasattr(wanted, "parameters"):
        return lambda numbers: _called(wanted, numbers)
    raise InputError(
        f"expected an activation of {', '.join(ACTIVATIONS)}, or a function of a NumPy array, received {wanted!r}; "
        "pass one of them"
    )


def _called(function: Callable[[Any], Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """What a user's function makes of the numbers.

    Raises:
        InputError: if it is not made for an array, as those of PyTorch's tensors.
    """
    try:
        return np.asarray(function(numbers))
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"expected an activation that takes a NumPy array, received {function!r:.80}, which raises {error}; pass a "
            f"name of {', '.join(ACTIVATIONS)}"
        ) from error
