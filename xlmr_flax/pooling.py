"""From the states of many tokens to few vectors, where the states are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["POOLED", "largest", "weighted"]


def weighted(states_BSD: jax.Array, weights_BPS: Any) -> jax.Array:
    """(B, P, D): sums of the states, each times its weight."""
    return jnp.matmul(weights_BPS, states_BSD, precision="highest")


def largest(states_BSD: jax.Array, weights_BPS: Any) -> jax.Array:
    """(B, P, D): the largest numbers of the states whose weight is not zero."""
    lowest = jnp.finfo(states_BSD.dtype).min
    # One after the other: all at once would be as many copies of the states.
    found = [
        jnp.where(weights_BPS[:, part, :, None] == 0, lowest, states_BSD).max(1) for part in range(weights_BPS.shape[1])
    ]
    return jnp.stack(found, 1)


POOLED: Mapping[str, Callable[[jax.Array, Any], jax.Array]] = {"pooled": weighted, "largest": largest}
