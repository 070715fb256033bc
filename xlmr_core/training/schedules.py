"""How the learning rate goes over the steps: factors of the peak rate, by the published formulas.

====================  ================================================================================================
schedule              after the warm-up, over which the factor rises from 0 to 1 in a straight line
====================  ================================================================================================
constant              1, also during the warm-up
constant_with_warmup  1
linear                to 0 in a straight line (Devlin et al. 2019)
cosine                to 0 as half a wave, or ``num_cycles`` waves (Loshchilov and Hutter 2017)
cosine_with_restarts  ``num_cycles`` times from 1 to 0 as half a wave
cosine_with_min_lr    as cosine, to ``min_lr_rate``
polynomial            to ``lr_end / lr_init`` with a ``power`` (Devlin et al. 2019 with 1.0)
inverse_sqrt          one over the root of the step (Vaswani et al. 2017), with a ``timescale``, by default the warm-up
====================  ================================================================================================

:func:`schedule` gives the factor by the step, and backends wrap it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from xlmr_core.arguments import suggestion
from xlmr_core.errors import InputError

__all__ = ["SCHEDULES", "Factor", "factor", "schedule"]

Factor: TypeAlias = Callable[[int], float]
"""The factor of the rate by the step, counted from 0."""


def schedule(name: str, warmup_steps: int = 0, steps: int = 0, **options: Any) -> Factor:
    """The factor of the peak rate by the step.

    Args:
        name: of ``SCHEDULES``.
        warmup_steps: over which it rises.
        steps: of the whole run.
        **options: of the schedule, see the table above.

    Raises:
        InputError: for a name that is none, with the nearest, and for steps that a schedule needs and does not have.
        TypeError: for options that the schedule does not have.
    """
    if name not in SCHEDULES:
        near = suggestion(str(name), SCHEDULES, otherwise="choose one of them")
        raise InputError(f"expected a schedule of {', '.join(SCHEDULES)}, received {name!r}; {near}")
    if warmup_steps < 0 or steps < 0:
        raise InputError(f"expected steps of at least 0, received {warmup_steps} to warm up and {steps} in all")
    return SCHEDULES[name](warmup_steps, steps, **options)


def factor(name: str, step: int, warmup_steps: int, steps: int) -> float:
    """The factor at one step; arguments as of :func:`schedule`."""
    return schedule(name, warmup_steps, steps)(step)


def _warmed_up(warmup: int, after: Factor) -> Factor:
    return lambda step: step / max(1, warmup) if step < warmup else after(step)


def _share(step: int, warmup: int, steps: int) -> float:
    """How much of what comes after the warm-up is done, 0 to 1 and, past the end, more."""
    return (step - warmup) / max(1, steps - warmup)


def _constant(warmup: int, steps: int) -> Factor:
    return lambda step: 1.0


def _constant_with_warmup(warmup: int, steps: int) -> Factor:
    return _warmed_up(warmup, lambda step: 1.0)


def _linear(warmup: int, steps: int) -> Factor:
    return _warmed_up(warmup, lambda step: max(0.0, (steps - step) / max(1, steps - warmup)))


def _cosine(warmup: int, steps: int, num_cycles: float = 0.5) -> Factor:
    return _cosine_with_min_lr(warmup, steps, num_cycles=num_cycles, min_lr_rate=0.0)


def _cosine_with_min_lr(warmup: int, steps: int, num_cycles: float = 0.5, min_lr_rate: float = 0.0) -> Factor:
    def after(step: int) -> float:
        wave = 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * _share(step, warmup, steps)))
        return max(0.0, wave * (1 - min_lr_rate) + min_lr_rate)

    return _warmed_up(warmup, after)


def _cosine_with_restarts(warmup: int, steps: int, num_cycles: int = 1) -> Factor:
    def after(step: int) -> float:
        share = _share(step, warmup, steps)
        return 0.0 if share >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * share) % 1.0))))

    return _warmed_up(warmup, after)


def _polynomial(
    warmup: int, steps: int, lr_init: float = 1.0, lr_end: float = 0.0, power: float = 1.0
) -> Factor:
    if not lr_init > lr_end:
        raise InputError(f"expected lr_end below the rate at the beginning, {lr_init}, received {lr_end}")

    def after(step: int) -> float:
        if step > steps:
            return lr_end / lr_init
        left = 1 - _share(step, warmup, steps)
        return ((lr_init - lr_end) * left**power + lr_end) / lr_init

    return _warmed_up(warmup, after)


def _inverse_sqrt(warmup: int, steps: int, timescale: int | None = None) -> Factor:
    scale = timescale or warmup or 10_000
    return _warmed_up(warmup, lambda step: 1.0 / math.sqrt((step + scale - warmup) / scale))


SCHEDULES: dict[str, Callable[..., Factor]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
}
