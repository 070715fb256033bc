"""How a pipeline runs a model of Keras: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.tasks.runner import unmovable
from xlmr_tf.pooling import POOLED

__all__ = ["Runner"]


class Runner:
    """A model for :class:`xlmr_core.tasks.pipeline.Pipeline`; see :class:`xlmr_core.tasks.runner.Runner`.

    Args:
        model: a model with any head; called without ``training`` it has no dropout.
    """

    framework = "tf"

    def __init__(self, model: Any) -> None:
        self.model = model
        self.projections: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}

    def add_projection(self, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Let a projection of the token states be an output too."""
        self.projections[name] = (tf.convert_to_tensor(weight), tf.convert_to_tensor(bias))

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> str:
        """Where the model's values are, such as ``/device:CPU:0``."""
        found = tf.DeviceSpec.from_string(self.model.weights[0].value.device)
        return f"/device:{found.device_type}:{found.device_index}"

    def move(self, device: object) -> None:
        """Refuse it: a model stays where it is."""
        raise unmovable(device)

    def run(self, arrays: dict[str, NDArray[Any]], wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The wanted outputs of a batch, float32; see :meth:`xlmr_core.tasks.runner.Runner.run`."""
        tensors = {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
        weights_BPS = tensors.pop("pooling", None)
        outputs = self.model(**tensors, return_dict=True)

        def found(name: str) -> tf.Tensor:
            if name in outputs:
                return outputs[name]
            states_BSD = tf.cast(outputs["last_hidden_state"], tf.float32)
            if name in self.projections:
                weight, bias = self.projections[name]
                return tf.linalg.matmul(states_BSD, weight, transpose_b=True) + bias
            return POOLED[name](states_BSD, weights_BPS)

        return {name: tf.cast(found(name), tf.float32).numpy() for name in wanted}

    def attentions(self, arrays: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """How tokens attend to each other; see :meth:`xlmr_core.tasks.runner.Runner.attentions`."""
        tensors = {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
        outputs = self.model(**tensors, output_attentions=True, return_dict=True)
        return [tf.cast(layer_BNSS, tf.float32).numpy() for layer_BNSS in outputs["attentions"]]

    def generate(
        self, arrays: dict[str, NDArray[Any]], options: Mapping[str, Any], streamer: Any = None
    ) -> NDArray[np.int64]:
        """What the model writes (R, L); see :meth:`xlmr_core.tasks.runner.Runner.generate`."""
        tensors = {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
        found = self.model.generate(**tensors, **options, streamer=streamer)
        return getattr(found, "sequences", found).numpy().astype(np.int64)

    def tensor(self, array: NDArray[Any]) -> Any:
        """An array as a tensor."""
        return tf.convert_to_tensor(array)
