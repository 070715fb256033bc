"""What a backend brings to a pipeline: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xlmr_core.tasks.task import Arrays

__all__ = ["Runner"]


class Runner(Protocol):
    """Runs a model. The ``runner.py`` of the backends are translations of each other."""

    model: Any
    """The framework's own object."""
    framework: str
    """The published short name of the framework."""

    @property
    def config(self) -> Any:
        """The model's configuration."""

    @property
    def device(self) -> Any:
        """Where the model is, as the framework says it."""

    def move(self, device: Any) -> None:
        """Put the model somewhere else, where the framework can.

        Raises:
            InputError: where it cannot.
        """

    def run(self, arrays: Arrays, wanted: Sequence[str]) -> Arrays:
        """A batch through the model, without dropout and without gradients.

        Args:
            arrays: the model's arguments by name, int64 with a batch axis: ``input_ids`` (B, S), ``attention_mask``
                (B, S) and what the task adds.
            wanted: names of outputs.

        Returns:
            The wanted outputs by name, float32.
        """

    def tensor(self, array: NDArray[np.float32]) -> Any:
        """An array as the framework's own."""
