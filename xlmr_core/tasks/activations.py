"""What makes scores of numbers: functions by their names, by the class names of PyTorch's modules, or a user's own."""

from __future__ import annotations

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


ACTIVATIONS: Mapping[str, Function] = {
    "identity": lambda numbers: numbers,
    "sigmoid": sigmoid,
    "softmax": _softmax,
    "tanh": np.tanh,
    "relu": lambda numbers: np.maximum(numbers, 0),
    "logsigmoid": lambda numbers: -np.logaddexp(0, -np.asarray(numbers, np.float64)),
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
    found = ACTIVATIONS.get(named.rpartition(".")[2].lower())
    if found is not None:
        return found
    if callable(wanted) and not isinstance(wanted, type) and not hasattr(wanted, "parameters"):
        return lambda numbers: np.asarray(wanted(numbers))
    raise InputError(
        f"expected an activation of {', '.join(ACTIVATIONS)}, or a function of a NumPy array, received {wanted!r}; "
        "pass one of them"
    )
