"""How a pipeline runs a graph: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.onnx.model import STATES, OnnxModel
from xlmr_core.tasks.runner import unmovable

__all__ = ["Runner"]

Array = NDArray[Any]


def weighted(states_BSD: Array, weights_BPS: Array) -> Array:
    """(B, P, D): sums of the states, each times its weight."""
    return np.asarray(weights_BPS @ states_BSD)


def largest(states_BSD: Array, weights_BPS: Array) -> Array:
    """(B, P, D): the largest numbers of the states whose weight is not zero."""
    lowest = np.finfo(states_BSD.dtype).min
    found = [np.where(weights_BPS[:, place, :, None] == 0, lowest, states_BSD) for place in range(weights_BPS.shape[1])]
    return np.stack([one.max(axis=1) for one in found], 1)


POOLED: Mapping[str, Callable[[Array, Array], Array]] = {"pooled": weighted, "largest": largest}


class Runner:
    """A model for :class:`xlmr_core.tasks.pipeline.Pipeline`; see :class:`xlmr_core.tasks.runner.Runner`.

    Args:
        model: a graph.
    """

    framework = "onnx"

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.projections: dict[str, tuple[Array, Array]] = {}

    def add_projection(self, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Let a projection of the token states be an output too."""
        self.projections[name] = (weight, bias)

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> str:
        """Where the session runs."""
        return self.model.device

    def move(self, device: Any) -> NoReturn:
        """Refuse: a session stays where it is."""
        raise unmovable(device)

    def run(self, arrays: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The wanted outputs of a batch, float32; see :meth:`xlmr_core.tasks.runner.Runner.run`."""
        given = dict(arrays)
        weights_BPS = given.pop("pooling", None)
        made = [name for name in wanted if name in self.projections or name in POOLED]
        asked = [name for name in wanted if name not in made]
        found = self.model.run(given, [*asked, *([STATES] if made and STATES not in asked else [])])
        for name in made:
            if name in self.projections:
                weight, bias = self.projections[name]
                found[name] = found[STATES] @ weight.T + bias
            else:
                assert weights_BPS is not None, "the task weighs what it wants pooled"
                found[name] = POOLED[name](found[STATES], weights_BPS)
        return {name: found[name] for name in wanted}

    def attentions(self, arrays: dict[str, Array]) -> NoReturn:
        """Refuse: graphs give what the tasks need."""
        raise InputError("graphs give no attention; run the model with another backend")

    def generate(self, arrays: dict[str, Array], options: Mapping[str, Any], streamer: Any = None) -> NoReturn:
        """Refuse: graphs are of encoders."""
        raise InputError("graphs are of encoders, which write no texts; run the model with another backend")

    def tensor(self, array: Array) -> Any:
        """An array as it is."""
        return array
