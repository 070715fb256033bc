"""Learning rate schedules: those of ``xlmr_core.training.schedules``, as optax takes them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from xlmr_core.training.schedules import schedule

__all__ = ["learning_rate_schedule"]


def learning_rate_schedule(name: str, peak: float, warmup_steps: int, steps: int, **options: Any) -> optax.Schedule:
    """The rate by the step, for an optimizer of optax: looked up in a table, so that it is that of the other backends
    to the last bit.

    Args:
        name: of ``xlmr_core.training.schedules.SCHEDULES``.
        peak: the rate at its highest.
        warmup_steps: over which it rises.
        steps: of the whole run; after them the rate is that of the last.
        **options: of the schedule, such as ``num_cycles``.

    Raises:
        InputError: for a name that is none, with the nearest.
    """
    factor = schedule(name, warmup_steps, steps, **options)
    rates = np.array([peak * factor(step) for step in range(steps + 1)], np.float32)

    def rate(step: Any) -> Any:
        return jnp.asarray(rates)[jnp.clip(step, 0, steps)]

    return rate
