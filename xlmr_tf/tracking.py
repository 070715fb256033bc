"""What TensorFlow's own checkpoints (``tf.train.Checkpoint``, ``CheckpointManager``) find of a model: everything.

TensorFlow follows attributes. Keras 3 keeps layers in lists, and what random generators and optimizers hold too, and
TensorFlow does not look into its lists: without a word they would be left out. So a model names these things itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.own_classes import refuse_lost
from xlmr_tf.values import nodes, nowhere, parts

__all__ = ["FoundByTensorFlow"]

# What has values that a checkpoint can hold.
HOLDERS = (keras.layers.Layer, keras.Variable, tf.Variable, tf.Module)


class FoundByTensorFlow:
    """The part of a model that ``tf.train.Checkpoint`` asks what to save and to restore; a base before ``keras.Model``.

    The optimizer given to ``compile`` belongs to it.
    """

    optimizer: Any
    trainable_variables: list[keras.Variable]

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """What TensorFlow follows from here, by name. A name of ours has a dot, which no attribute has."""
        children: dict[str, Any] = super()._trackable_children(save_type, **kwargs)  # type: ignore[misc]
        if save_type != "checkpoint":
            return children  # a SavedModel has Keras's own way to its variables
        kept = {id(part) for _, node in nodes(self) for _, part in parts(node)}
        refuse_lost(nowhere(self, kept), type(self), "keep layers and variables where TensorFlow can name them")
        return {**children, **dict(_inside(self)), **dict(self._of_optimizer())}

    def _of_optimizer(self) -> Iterator[tuple[str, Any]]:
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None:
            # Its moments exist from its first step on, or here: what is restored needs a place.
            optimizer.build(self.trainable_variables)
            yield from ((f"optimizer.{number}", variable) for number, variable in enumerate(optimizer.variables))


def _inside(model: Any) -> Iterator[tuple[str, Any]]:
    """What is in lists, dictionaries and Keras's models of layers, and the states of random generators, by path."""
    for path, node in nodes(model):
        if not isinstance(node, keras.layers.Layer):
            yield from ((path + name, part) for name, part in parts(node) if isinstance(part, HOLDERS))
            continue
        if isinstance(node, keras.Sequential) or hasattr(node, "operations"):
            yield from ((f"{path}layers.{name}", part) for name, part in parts(node))
        for number, seeds in enumerate(node._seed_generators):
            yield f"{path}seeds.{number}", seeds.state
