"""How a pipeline runs a model of Flax: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from xlmr_core.tasks.runner import unmovable
from xlmr_flax.pooling import POOLED

__all__ = ["Runner"]


class Runner:
    """A model for :class:`xlmr_core.tasks.pipeline.Pipeline`; see :class:`xlmr_core.tasks.runner.Runner`.

    Args:
        model: a model with any head; it is called without dropout, whatever its mode.
    """

    framework = "flax"

    def __init__(self, model: Any) -> None:
        self.model = model
        self.projections: dict[str, tuple[jax.Array, jax.Array]] = {}

    def add_projection(self, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Let a projection of the token states be an output too."""
        self.projections[name] = (jnp.asarray(weight), jnp.asarray(bias))

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> jax.Device:
        """Where the model is."""
        return next(iter(jax.tree.leaves(self.model.get_input_embeddings())[0].devices()))

    def move(self, device: object) -> None:
        """Refuse it: a model stays where it is."""
        raise unmovable(device)

    def run(self, arrays: dict[str, NDArray[Any]], wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The wanted outputs of a batch, float32; see :meth:`xlmr_core.tasks.runner.Runner.run`."""
        tensors = dict(arrays)
        weights_BPS = tensors.pop("pooling", None)
        outputs = self.model(**tensors, train=False, return_dict=True)

        def found(name: str) -> Any:
            if name in outputs:
                return outputs[name]
            states_BSD = outputs["last_hidden_state"].astype(jnp.float32)
            if name in self.projections:
                weight, bias = self.projections[name]
                return jnp.matmul(states_BSD, weight.T, precision="highest") + bias
            return POOLED[name](states_BSD, weights_BPS)

        return {name: np.asarray(found(name), dtype=np.float32) for name in wanted}

    def attentions(self, arrays: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """How tokens attend to each other; see :meth:`xlmr_core.tasks.runner.Runner.attentions`."""
        outputs = self.model(**arrays, train=False, output_attentions=True, return_dict=True)
        return [np.asarray(layer_BNSS, dtype=np.float32) for layer_BNSS in outputs["attentions"]]

    def generate(
        self, arrays: dict[str, NDArray[Any]], options: Mapping[str, Any], streamer: Any = None
    ) -> NDArray[np.int64]:
        """What the model writes (R, L); see :meth:`xlmr_core.tasks.runner.Runner.generate`."""
        said = {**options, "return_dict_in_generate": True}  # whose rows end with their last token
        # As in the other backends, a call without a seed draws anew each time.
        key = jax.random.key(said.pop("seed", np.random.randint(2**31)))
        found = self.model.generate(**arrays, **said, prng_key=key, streamer=streamer)
        return np.asarray(found.sequences, dtype=np.int64)

    def tensor(self, array: NDArray[Any]) -> Any:
        """An array as an array of JAX."""
        return jnp.asarray(array)
