"""What a backend brings to a pipeline: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.task import Arrays

__all__ = ["Runner", "unmovable"]


class Runner(Protocol):
    """Runs a model. The ``runner.py`` of the backends are translations of each other."""

    model: Any
    """The framework's own object."""
    framework: str
    """The published short name of the framework."""

    def add_projection(self, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Let a projection of the token states be an output too.

        Args:
            name: of the output (B, S, K).
            weight, bias: (K, D) and (K,).
        """

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
            arrays: the model's arguments by name, with a batch axis: ``input_ids`` (B, S), ``attention_mask``
                (B, S) and what the task adds. ``pooling``, float32 (B, P, S), is no argument of the model: it weighs
                the token states for what is pooled.
            wanted: names of outputs: of the model's, of projections, ``pooled`` (B, P, D), the sums of states times
                weights, and ``largest`` (B, P, D), the largest numbers of the states whose weight is not zero.

        Returns:
            The wanted outputs by name, float32.
        """

    def attentions(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """How the tokens of a batch attend to each other.

        Args:
            arrays: ``input_ids`` and ``attention_mask`` (B, S).

        Returns:
            The probabilities of each layer (B, N, S, S), from each token (row) to each (column).

        Raises:
            InputError: where the backend gives none.
        """

    def generate(self, arrays: Arrays, options: Mapping[str, Any], streamer: Any = None) -> NDArray[np.int64]:
        """What the model writes, without dropout and without gradients.

        Args:
            arrays: ``input_ids`` and ``attention_mask`` (B, S).
            options: arguments of the model's ``generate``; ``seed`` is what its drawing begins with.
            streamer: takes ids as they come.

        Returns:
            ``sequences`` (R, L) as the model's ``generate`` gives them.
        """

    def tensor(self, array: NDArray[Any]) -> Any:
        """An array as the framework's own."""


def unmovable(device: object) -> InputError:
    """The error of a backend whose models stay where they are."""
    return InputError(
        f"a model that is given stays where it is, received device={device!r}; pass device to its from_pretrained"
    )
