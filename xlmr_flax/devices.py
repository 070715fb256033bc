"""Where a run's weights, moments and batches lie: on one device, or on several that compute each step together, of one
process or of several.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.objectives import fitted
from xlmr_flax.sharding import Rules, param_shardings

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Arrays
    from xlmr_core.training.task import TrainingTask
    from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["Devices"]

# The axis of a mesh along which rows are divided.
DATA = "data"


class Devices:
    """The devices of a run.

    Args:
        model: with its parameters.
        mesh: by default the one device on which these are, or of several processes all devices. Explicit axes are taken
            for automatic ones: along these the compiler passes shardings on, and the work is divided in the same way.
        rules: how parameters are divided, see ``sharding.py``.

    Attributes:
        whole: the sharding of what every device has.

    Raises:
        InputError: for rules that do not fit.
    """

    def __init__(self, model: PreTrainedModel, mesh: Mesh | None, rules: Rules) -> None:
        (self._first, *_) = jax.tree.leaves(model.params)[0].devices()
        if mesh is None:
            mesh = Mesh([self._first] if jax.process_count() == 1 else jax.devices(), (DATA,))
        mesh = Mesh(mesh.devices, mesh.axis_names)
        self._mesh, self._across = mesh, mesh.shape.get(DATA, 1)
        self.whole = NamedSharding(mesh, PartitionSpec())
        self._by_rows = NamedSharding(mesh, PartitionSpec(DATA)) if DATA in mesh.shape else self.whole
        self._of_params = param_shardings(model, mesh, rules)
        self._known: list[int] = []

    def take(self, params: dict[str, Any]) -> Any:
        """The parameters, divided by the rules."""
        return jax.tree.map(_put, params, self._of_params)

    def spread(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state whose moments lie as their parameters do, and everything else on every device."""
        return jax.tree.map(lambda x: x if isinstance(x.sharding, NamedSharding) else _put(x, self.whole), state)

    def gather(self, tree: Any) -> Any:
        """Arrays as this process can read them; all processes ask together."""
        if self.whole.is_fully_addressable:
            return tree
        everywhere = jax.jit(lambda x: x, out_shardings=self.whole)(tree)
        return jax.tree.map(lambda x: x.addressable_data(0), everywhere)

    def give_back(self, params: dict[str, Any]) -> Any:
        """Parameters where they were, if there is one device, or else as they lie."""
        return jax.device_put(params, self._first) if self._mesh.size == 1 else params

    def place(self, batch: Arrays, task: TrainingTask, rows: int) -> dict[str, jax.Array]:
        """A batch, or a part of one, in one of few shapes; each device has some of its rows, if these can be divided.

        Args:
            batch: see ``xlmr_core/training/task.py``.
            task: whose batch it is.
            rows: that it is to have at least.
        """
        found = fitted(batch, task, -(-rows // self._across) * self._across)
        places = {
            name: self._by_rows if array.ndim and len(array) % self._across == 0 else self.whole
            for name, array in found.items()
        }
        return {name: _put(array, places[name]) for name, array in found.items()}

    def known_rows(self, rows: int) -> int:
        """The least number of rows, at least so many, that an evaluation has had before; else this one, from now on. So
        the last batches of an evaluation, which have fewer rows, need no programs of their own.
        """
        if rows > max(self._known, default=0):
            self._known.append(rows)
        return self._known[bisect_left(self._known, rows)]


def _put(array: Any, sharding: NamedSharding) -> jax.Array:
    """An array where it is to lie; of several processes each has all of it, and puts what its own devices hold."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])
