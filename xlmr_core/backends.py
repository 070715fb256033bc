"""The only door from the core to a backend: by name, through importlib, with a clear word where it is absent."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from xlmr_core.errors import MissingBackendError, XLMRError

__all__ = ["BACKENDS", "Backend", "find_backend", "installed", "load_backend", "to_tensor"]


@dataclass(frozen=True)
class Backend:
    """A backend package, the framework it needs, the extra that installs it, and what stands before its class names."""

    package: str
    framework: str
    extra: str
    prefix: str = ""


# By the published short names of ``return_tensors`` and ``framework``.
BACKENDS: dict[str, Backend] = {
    "pt": Backend("xlmr_torch", "torch", "torch"),
    "tf": Backend("xlmr_tf", "tensorflow", "tf", "TF"),
    "jax": Backend("xlmr_flax", "jax", "flax", "Flax"),
}


def find_backend(name: object) -> str | None:
    """The key of a backend that is called by it or by its extra: ``pt`` or ``torch``, ``tf``, ``jax`` or ``flax``."""
    return next((key for key, backend in BACKENDS.items() if name in (key, backend.extra)), None)


def _backend(name: str) -> Backend:
    if name not in BACKENDS:
        raise XLMRError(f"expected a framework of {', '.join(map(repr, BACKENDS))}, received {name!r}")
    return BACKENDS[name]


def installed(name: str) -> bool:
    """Whether the framework of a backend can be imported; imports nothing."""
    return importlib.util.find_spec(_backend(name).framework) is not None


def load_backend(name: str) -> ModuleType:
    """Import a backend package.

    Raises:
        MissingBackendError: if its framework is not installed, with the command that installs it.
    """
    backend = _backend(name)
    if not installed(name):
        raise MissingBackendError(
            f"{backend.framework} is needed for {name!r} and is not installed; "
            f"install it with: pip install 'xlmr[{backend.extra}]'"
        )
    return importlib.import_module(backend.package)


def to_tensor(name: str, array: np.ndarray[Any, Any]) -> Any:
    """Hand a NumPy array to a framework (``pt``, ``tf`` or ``jax``)."""
    return load_backend(name).to_tensor(array)
