"""What of a model is trained, and at which rate: by the places of its variables and the recipe alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.training.depths import depth_of, lowest_trained, nothing_left, share_of
from xlmr_core.training.recipe import Recipe
from xlmr_tf.values import nodes, parts

__all__ = ["AdamW", "freeze", "optimizer_of", "trained_in"]


def freeze(model: Any, recipe: Recipe, layers: int) -> None:
    """Take from the training what the recipe leaves as it is; what is frozen already stays so.

    Args:
        model: with its adapters, if it gets any.
        recipe: which says what.
        layers: of the encoder.

    Raises:
        InputError: if nothing is left to train, or there are not so many layers.
    """
    lowest = lowest_trained(recipe, layers)
    for name, variable in trained_in(model).items():
        if depth_of(name, layers) < lowest:
            variable.trainable = False
    if not model.trainable_variables:
        raise nothing_left(type(model).__name__)


def optimizer_of(model: Any, recipe: Recipe, layers: int) -> AdamW:
    """AdamW over what is trained: no decay of biases and norms, and each depth at its own rate.

    Args:
        model: whose variables will be trained.
        recipe: complete.
        layers: of the encoder.

    Returns:
        An optimizer, built. The share of a variable is what its rate is of the rate of the step; see ``share_of``.
    """
    variables = trained_in(model)
    optimizer = AdamW(
        recipe.learning_rate,
        recipe.beta1,
        recipe.beta2,
        recipe.epsilon,
        shares=[share_of(name, recipe, layers) for name in variables],
        # Biases and norms are vectors.
        decays=[recipe.weight_decay if len(variable.shape) > 1 else 0.0 for variable in variables.values()],
    )
    optimizer.build([*variables.values()])
    return optimizer


def trained_in(model: Any) -> dict[str, keras.Variable]:
    """The variables of a model that are trained, each by its first place in the model, such as
    ``roberta.encoder.layer.0.attention.self.query._kernel``.
    """
    places: dict[int, str] = {}
    for path, node in nodes(model):
        for name, part in parts(node):
            if isinstance(part, keras.Variable):
                places.setdefault(id(part), path + name)
    return {places.get(id(variable), variable.path): variable for variable in model.trainable_variables}


class AdamW(keras.optimizers.Optimizer):
    """AdamW (Loshchilov and Hutter 2019) with a share of the rate and a decay of its own for each variable.

    ``epsilon`` is added where the paper and PyTorch add it; Keras's own adds it before the bias of the second moment
    is corrected, so that it counts several times as much in the first steps.

    Args:
        learning_rate: of the next step.
        beta1, beta2: how much of the moments is kept.
        epsilon: added to the root of the second moment.
        shares: of the rate, in the order of the variables.
        decays: factors of the rate and of the values, in the same order.
    """

    def __init__(
        self,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        *,
        shares: Sequence[float],
        decays: Sequence[float],
    ) -> None:
        super().__init__(learning_rate)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.shares, self.decays = tuple(shares), tuple(decays)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the moments."""
        if not self.built:
            super().build(variables)
            self.first, self.second = self.add_optimizer_variables(variables, ["first", "second"])

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Change a variable and its moments."""
        number = self._get_variable_index(variable)
        first, second = self.first[number], self.second[number]
        step = tf.cast(self.iterations, variable.dtype) + 1
        self.assign_add(first, (gradient - first) * (1 - self.beta1))
        self.assign_add(second, (tf.square(gradient) - second) * (1 - self.beta2))
        slope = first / (1 - self.beta1**step)
        spread = tf.sqrt(second / (1 - self.beta2**step)) + self.epsilon
        rate = tf.cast(learning_rate, variable.dtype) * self.shares[number]
        self.assign_sub(variable, rate * (slope / spread + self.decays[number] * variable))
