"""What of a model is trained, and at which rate: by the paths of its parameters and the recipe alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from xlmr_core.training.depths import depth_of, lowest_trained, nothing_left, share_of
from xlmr_core.training.recipe import Recipe
from xlmr_flax.adapters import adapted, merged
from xlmr_flax.functional import flatten, unflatten

if TYPE_CHECKING:
    from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["FIRST_SCALE", "freeze", "optimizer_of", "rescaled", "united"]

Params = Mapping[str, Any]
# Of the loss in float16: where it begins, and after how many steps without an overflow it is doubled.
FIRST_SCALE, STEPS_TO_GROW = 65536.0, 2000


def freeze(params: Params, model: PreTrainedModel, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that are trained, adapters among them, and those that the recipe leaves as they are.

    Args:
        params: a tree.
        model: whose parameters they are.
        recipe: which says what.

    Raises:
        InputError: if nothing is left to train, or there are not so many layers.
    """
    layers, leaves = model.config.num_hidden_layers, flatten(params)
    lowest, offered = lowest_trained(recipe, layers), leaves
    if recipe.lora_rank:
        offered = adapted(leaves, model, recipe)
    trained = {path: value for path, value in offered.items() if depth_of(".".join(path), layers) >= lowest}
    if not trained:
        raise nothing_left(type(model).__name__)
    return unflatten(trained), unflatten({path: value for path, value in leaves.items() if path not in trained})


def united(trained: Params, frozen: Params, recipe: Recipe) -> dict[str, Any]:
    """The whole tree of the model again."""
    return unflatten(merged({**flatten(frozen), **flatten(trained)}, recipe))


def optimizer_of(params: Params, recipe: Recipe, layers: int, rate: Any) -> optax.GradientTransformation:
    """AdamW over what is trained: no decay of biases and norms, and each depth at its own rate.

    Args:
        params: the tree that is trained.
        recipe: complete.
        layers: of the encoder.
        rate: of the step; inside a program it has no value yet.
    """
    shares = unflatten({path: share_of(".".join(path), recipe, layers) for path in flatten(params)})
    adam = {"b1": recipe.beta1, "b2": recipe.beta2, "eps": recipe.epsilon}
    return optax.chain(
        optax.adamw(rate, **adam, weight_decay=recipe.weight_decay, mask=_decays),
        optax.stateless(lambda updates, _: jax.tree.map(lambda update, share: share * update, updates, shares)),
    )


def _decays(params: Params) -> Any:
    """What decays: biases and norms, which do not, are vectors."""
    return jax.tree.map(lambda parameter: parameter.ndim > 1, params)


def rescaled(scale: Mapping[str, Array], is_finite: Array) -> dict[str, Array]:
    """By what the next loss in float16 is multiplied, so that small gradients are no zeros: half as much after a step
    whose gradients overflowed, twice as much after many that did not (Micikevicius et al. 2018, section 3.2).

    Args:
        scale: ``value``, and ``steps`` since it changed.
        is_finite: whether the gradients of this step are.
    """
    steps = jnp.where(is_finite, scale["steps"] + 1, 0)
    grows = steps == STEPS_TO_GROW
    factor = jnp.where(is_finite, jnp.where(grows, 2.0, 1.0), 0.5)
    return {"value": scale["value"] * factor, "steps": jnp.where(grows, 0, steps)}
