"""Mathematics of the reference: activations, norms and losses on float64 arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.checks import IGNORE_INDEX, see_array
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.head_checks import check_sequence_labels
from xlmr_core.losses import Problem, sequence_problem

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.integer[Any]]
Params: TypeAlias = Mapping[str, NDArray[Any]]

# Activations

_erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Array) -> Array:
    """Exact GELU (Hendrycks and Gimpel 2016): x times the normal distribution function."""
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: Array) -> Array:
    """Logistic function; tanh keeps it from overflowing."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def silu(x: Array) -> Array:
    """x times its sigmoid."""
    return x * sigmoid(x)


def relu(x: Array) -> Array:
    """The positive part."""
    return np.maximum(x, 0.0)


# By the published names of ``hidden_act``; several names mean the same function.
ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "tanh": np.tanh,
}


def activation(config: XLMRobertaConfig) -> Callable[[Array], Array]:
    """The function that ``hidden_act`` means; a callable must take and return NumPy arrays here."""
    return config.hidden_act if callable(config.hidden_act) else ACTIVATION_FUNCTIONS[config.hidden_act]


# Layers without structure


def weight(params: Params, name: str) -> Array:
    """A parameter in float64, converted where it is used so that a large model is never held twice."""
    return np.asarray(params[name], dtype=np.float64)


def linear(params: Params, name: str, x: Array) -> Array:
    """x W' + b, with W of the canonical layout (out, in)."""
    return np.asarray(x @ weight(params, f"{name}.weight").T + weight(params, f"{name}.bias"))


def rows(params: Params, name: str, indices: Integers) -> Array:
    """Rows of an embedding table."""
    return np.asarray(params[f"{name}.weight"][indices], dtype=np.float64)


def layer_norm(params: Params, name: str, x: Array, eps: float) -> Array:
    """Layer normalization over the last axis, with the biased variance (Ba et al. 2016)."""
    centered = x - x.mean(-1, keepdims=True)
    normed: Array = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps)
    return normed * weight(params, f"{name}.weight") + weight(params, f"{name}.bias")


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax over the last axis."""
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


# Losses (which one a call means is said in losses.py)


def cross_entropy(logits: Array, labels: Integers, ignore_index: int = IGNORE_INDEX) -> Array:
    """Mean negative log-probability of the labels that are not ``ignore_index``; NaN if there is none.

    Args:
        logits: (..., K).
        labels: integers of the leading shape of ``logits``.
    """
    counted = labels != ignore_index
    chosen = np.where(counted, labels, 0)
    log_probabilities = np.take_along_axis(log_softmax(logits), chosen[..., None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore"):
        return np.asarray(-(log_probabilities * counted).sum() / np.float64(counted.sum()))


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean negative log-likelihood of independent yes-or-no targets."""
    return np.asarray((relu(logits) - logits * targets + np.log1p(np.exp(-np.abs(logits)))).mean())


def mean_squared_error(logits: Array, targets: Array) -> Array:
    """Mean of the squared differences."""
    return np.asarray(((logits - targets) ** 2).mean())


def sequence_loss(config: XLMRobertaConfig, logits_BK: Array, labels: NDArray[Any]) -> Array:
    """The loss of a sequence classifier."""
    batch, classes = logits_BK.shape
    check_sequence_labels(config, see_array("labels", labels), batch, classes)
    problem = sequence_problem(config, labels_are_integers=np.issubdtype(labels.dtype, np.integer))
    if problem is Problem.SINGLE_LABEL:
        return cross_entropy(logits_BK, labels.reshape(batch))
    targets_BK = labels.astype(np.float64).reshape(batch, classes)
    loss = binary_cross_entropy if problem is Problem.MULTI_LABEL else mean_squared_error
    return loss(logits_BK, targets_BK)
