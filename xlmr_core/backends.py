"""The only door from the core to a backend: by name, through importlib, with a clear word where it is absent."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from xlmr_core.errors import MissingBackendError, XLMRError

__all__ = [
    "BACKENDS",
    "Backend",
    "find_backend",
    "first_installed",
    "installed",
    "load_backend",
    "load_training",
    "to_tensor",
]


@dataclass(frozen=True)
class Backend:
    """A backend package.

    Attributes:
        package: its name.
        framework: what it needs.
        also: what else it is called.
        prefix: what stands before its class names.
        optimize: its function that makes a model answer faster, if it has one.
        model: its one class of all models, where it has no Auto classes.
    """

    package: str
    framework: str
    also: tuple[str, ...] = ()
    prefix: str = ""
    optimize: str = ""
    model: str = ""


# By the one name of each: in messages, on the command line, and as the extra that installs it. The published short
# names of ``return_tensors`` and ``framework`` are among the others that are understood.
BACKENDS: dict[str, Backend] = {
    "torch": Backend("xlmr_torch", "torch", ("pt", "pytorch"), optimize="optimize_for_inference"),
    "tf": Backend("xlmr_tf", "tensorflow", ("tensorflow",), "TF"),
    "flax": Backend("xlmr_flax", "jax", ("jax",), "Flax"),
    "onnx": Backend("xlmr_core.onnx", "onnxruntime", ("ort", "onnxruntime"), model="OnnxModel"),
}


def find_backend(name: object) -> str | None:
    """The one name of a backend that is called by any of its names: ``torch`` for ``pt``."""
    return next((key for key, backend in BACKENDS.items() if name in (key, *backend.also)), None)


def _backend(name: str) -> tuple[str, Backend]:
    key = find_backend(name)
    if key is None:
        raise XLMRError(f"expected a backend of {', '.join(BACKENDS)}, received {name!r}; choose one of them")
    return key, BACKENDS[key]


def installed(name: str) -> bool:
    """Whether the framework of a backend can be imported; imports nothing."""
    return importlib.util.find_spec(_backend(name)[1].framework) is not None


def first_installed(what: str = "a model", among: Iterable[str] = BACKENDS) -> str:
    """The name of the first backend whose framework is installed.

    Args:
        what: needs it, in words.
        among: the backends that would do.

    Raises:
        MissingBackendError: if none is.
    """
    names = list(among)
    name = next(filter(installed, names), None)
    if name is None:
        extras = ", ".join(f"'xlmr[{name}]'" for name in names)
        raise MissingBackendError(f"{what} needs a framework and none is installed; pip install one of {extras}")
    return name


def load_backend(name: str) -> ModuleType:
    """Import a backend package.

    Raises:
        MissingBackendError: if its framework is not installed, with the command that installs it.
    """
    key, backend = _backend(name)
    if not installed(name):
        raise MissingBackendError(
            f"{backend.framework} is needed for {name!r} and is not installed; "
            f"install it with: pip install 'xlmr[{key}]'"
        )
    return importlib.import_module(backend.package)


def load_training(name: str) -> ModuleType:
    """Import the training loop of a backend.

    Raises:
        MissingBackendError: if its framework is not installed, or it has no loop.
    """
    key, backend = _backend(name)
    module = f"{load_backend(name).__name__}.training"
    if importlib.util.find_spec(module) is None:
        raise MissingBackendError(
            f"{backend.framework} has no training loop here; train with another backend than {key!r}"
        )
    return importlib.import_module(module)


def to_tensor(name: str, array: np.ndarray[Any, Any]) -> Any:
    """Hand a NumPy array to a framework, by any name of its backend, such as ``pt``, ``tf`` or ``jax``."""
    return load_backend(name).to_tensor(array)
