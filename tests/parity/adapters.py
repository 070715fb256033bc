"""One adapter a backend: the whole of what parity asks of it.

To add a backend: its modes in the table below, and ``adapter_<backend>.py`` with ``build`` and ``load``. A process tests one
backend, the one that the environment variable ``XLMR_PARITY`` names (``torch``, ``tf``, ``flax``; by default ``torch``), so that no two
frameworks share a process.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from numpy.typing import NDArray

from xlmr_core.backends import installed
from xlmr_core.config import XLMRobertaConfig

__all__ = ["MODES", "Adapter", "Mode", "Model", "adapter", "modes"]

Array = NDArray[Any]


class Model(Protocol):
    """A model of a backend, spoken to in NumPy. Outputs are flat (see ``compare.flatten``) and float64 or float32."""

    def forward(self, inputs: Mapping[str, Any], *, dropout_seed: int | None = None) -> dict[str, Array]:
        """Run a call by published argument names, with all hidden states, and attentions where the mode gives them.

        With a seed in training mode, in which dropout acts; without one in evaluation mode.
        """
        ...

    def gradients(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Gradient of the loss by canonical name, in evaluation mode; tied parameters once, under the name of the first."""
        ...


class Adapter(Protocol):
    """An adapter module."""

    def build(
        self, config: XLMRobertaConfig, head: str, params: Mapping[str, Array], mode: Mode, dtype: str
    ) -> Model: ...

    def load(self, folder: Path, class_name: str, mode: Mode, dtype: str) -> Model: ...


@dataclass(frozen=True)
class Mode:
    """A way through a backend that must give the same numbers.

    Attributes:
        backend: short name, as in ``adapter_<backend>.py``.
        kernel: ``attn_implementation``.
        packed: whether batches are packed wherever that promises the answer, or never.
        graph: how the framework compiles a call, by the backend's own word for it; empty if it does not.
    """

    backend: str
    kernel: str
    packed: bool
    graph: str = ""

    def __str__(self) -> str:
        return f"{self.backend}-{'packed' if self.packed else self.kernel}" + (f"-{self.graph}" if self.graph else "")


MODES = (
    Mode("torch", "eager", packed=False),
    Mode("torch", "sdpa", packed=False),
    Mode("torch", "sdpa", packed=True),
    Mode("tf", "eager", packed=False),
    Mode("tf", "sdpa", packed=True),
    Mode("tf", "sdpa", packed=True, graph="function"),
    Mode("tf", "sdpa", packed=False, graph="xla"),
)

# The name under which xlmr_core.backends knows each.
SHORT_NAMES = {"torch": "pt", "tf": "tf", "flax": "jax"}
TESTED = os.environ.get("XLMR_PARITY", "torch")
assert TESTED in SHORT_NAMES, f"XLMR_PARITY must be one of {', '.join(SHORT_NAMES)}, received {TESTED!r}"


def adapter(mode: Mode) -> Adapter:
    """The adapter of a mode's backend, imported only now."""
    module: Any = importlib.import_module(f"tests.parity.adapter_{mode.backend}")
    return module


def modes(*, padded: bool = True, packed: bool = True) -> list[Any]:
    """Test parameters: the tested backend's modes, skipped with a word where the framework is not installed."""
    chosen = [mode for mode in MODES if mode.backend == TESTED and (packed if mode.packed else padded)]
    absent = {mode.backend for mode in chosen if not installed(SHORT_NAMES[mode.backend])}
    return [
        pytest.param(
            mode,
            id=str(mode),
            marks=pytest.mark.skipif(mode.backend in absent, reason=f"{mode.backend} is not installed"),
        )
        for mode in chosen
    ]
