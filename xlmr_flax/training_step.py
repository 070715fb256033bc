"""A step of training inside its compiled program: gradients of a batch in parts, and what becomes of the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from xlmr_flax.optimizers import rescaled

__all__ = ["gradients_of", "stepped"]


def gradients_of(
    loss_of: Callable[[Any, Any, Array], Array],
    trained: Any,
    held: Sequence[Any],
    shares: Array,
    seeds: Array,
    scale: Mapping[str, Array],
) -> tuple[Any, Array]:
    """The gradients of a batch, and its loss.

    Args:
        loss_of: of the parameters, a part of the batch, and the key of its dropout.
        trained: the parameters.
        held: the parts, of one shape, which are computed one after the other.
        shares: (P,), of the batch's loss that the loss of each is.
        seeds: (P,), of its dropout.
        scale: by whose ``value`` the loss is multiplied on the way; empty: by nothing.
    """

    def of_part(part: Any, share: Array, seed: Array) -> tuple[Any, Array]:
        def scaled(trained: Any) -> tuple[Array, Array]:
            loss = share * loss_of(trained, part, jax.random.key(seed))
            return loss * scale.get("value", 1.0), loss

        gradients, loss = jax.grad(scaled, has_aux=True)(trained)
        return gradients, loss

    if len(held) == 1:
        gradients, loss = of_part(held[0], shares[0], seeds[0])
    else:
        nothing = jax.tree.map(jnp.zeros_like, (trained, jnp.float32(0)))
        together = jax.tree.map(lambda *arrays: jnp.stack(arrays), *held), shares, seeds
        (gradients, loss), _ = jax.lax.scan(
            lambda so_far, part: (jax.tree.map(jnp.add, so_far, of_part(*part)), None), nothing, together
        )
    return (jax.tree.map(lambda x: x / scale["value"], gradients) if scale else gradients), loss


def stepped(
    state: Mapping[str, Any], gradients: Any, optimizer: optax.GradientTransformation, clip_norm: float
) -> tuple[dict[str, Any], Array]:
    """The state after a step, and the norm of its gradients before they were cut.

    Args:
        state: ``trained`` parameters, ``moments`` of the optimizer, and in float16 the ``scale`` of the loss, which is
            else empty.
        gradients: of the parameters.
        optimizer: at the rate of the step.
        clip_norm: that gradients are cut to; 0: they are not.
    """
    norm = optax.tree.norm(gradients)
    if clip_norm:
        factor = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
        gradients = jax.tree.map(lambda x: x * factor, gradients)
    before = {name: state[name] for name in ("trained", "moments")}
    updates, moments = optimizer.update(gradients, before["moments"], before["trained"])
    after = {"trained": optax.apply_updates(before["trained"], updates), "moments": moments}
    if not state["scale"]:
        return {**after, "scale": {}}, norm
    is_finite = jnp.isfinite(norm)  # gradients that overflowed teach nothing
    after = jax.tree.map(partial(jnp.where, is_finite), after, before)
    return {**after, "scale": rescaled(state["scale"], is_finite)}, norm
