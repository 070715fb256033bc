"""How the learning rate goes over the steps: factors of the peak rate, by the published formulas.

====================  ================================================================================================
schedule              after the warm-up, over which the factor rises from 0 to 1 in a straight line
====================  ================================================================================================
linear                to 0 in a straight line (Devlin et al. 2019)
cosine                to 0 as half a wave, or ``num_cycles`` waves (Loshchilov and Hutter 2017)
cosine_with_restarts  ``num_cycles`` times from 1 to 0 as half a wave
cosine_with_min_lr    as cosine, to ``min_lr_rate``
polynomial            to ``lr_end / lr_init`` with a ``power`` (Devlin et al. 2019 with 1.0)
inverse_sqrt          one over the root of the step (Vaswani et al. 2017), with a ``timescale``, by default the warm-up
constant              1, also during the warm-up
constant_with_warmup  1
====================  ================================================================================================

:func:`schedule` gives the factor by the step; backends wrap it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from xlmr_core.arguments import refuse_unknown, suggestion
from xlmr_core.errors import InputError

__all__ = ["SCHEDULES", "Factor", "factor", "schedule"]

Factor: TypeAlias = Callable[[int], float]
"""The factor of the rate by the step, counted from 0. It can be pickled."""


def schedule(name: str, warmup_steps: int = 0, steps: int = 0, **options: Any) -> Factor:
    """The factor of the peak rate by the step.

    Args:
        name: of ``SCHEDULES``.
        warmup_steps: over which it rises.
        steps: of the whole run.
        **options: of the schedule, see the table above.

    Raises:
        InputError: for a name that is none, with the nearest, and for numbers of steps below 0.
        TypeError: for options that the schedule does not have.
    """
    if name not in SCHEDULES:
        near = suggestion(str(name), SCHEDULES, otherwise="choose one of them")
        raise InputError(f"expected a schedule of {', '.join(SCHEDULES)}, received {name!r}; {near}")
    if warmup_steps < 0 or steps < 0:
        raise InputError(f"expected steps of at least 0, received {warmup_steps} to warm up and {steps} in all")
    known = list(inspect.signature(SCHEDULES[name]).parameters)[3:]
    refuse_unknown(options, known, f"the schedule {name!r}")
    warmed_up = partial(_warmed_up, SCHEDULES[name], warmup_steps, steps, options)
    return partial(_constant, warmup_steps, steps) if name == "constant" else warmed_up


def factor(name: str, step: int, warmup_steps: int, steps: int) -> float:
    """The factor at one step; arguments as of :func:`schedule`."""
    return schedule(name, warmup_steps, steps)(step)


def _warmed_up(after: Callable[..., float], warmup: int, steps: int, options: dict[str, Any], step: int) -> float:
    return step / max(1, warmup) if step < warmup else after(warmup, steps, step, **options)


def _share(warmup: int, steps: int, step: int) -> float:
    """How much of what comes after the warm-up is done, 0 to 1 and, past the end, more."""
    return (step - warmup) / max(1, steps - warmup)


def _constant(warmup: int, steps: int, step: int) -> float:
    return 1.0


def _linear(warmup: int, steps: int, step: int) -> float:
    return max(0.0, (steps - step) / max(1, steps - warmup))


def _cosine(warmup: int, steps: int, step: int, num_cycles: float = 0.5) -> float:
    return _cosine_with_min_lr(warmup, steps, step, num_cycles)


def _cosine_with_min_lr(warmup: int, steps: int, step: int, num_cycles: float = 0.5, min_lr_rate: float = 0.0) -> float:
    wave = 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * _share(warmup, steps, step)))
    return max(0.0, wave * (1 - min_lr_rate) + min_lr_rate)


def _cosine_with_restarts(warmup: int, steps: int, step: int, num_cycles: int = 1) -> float:
    share = _share(warmup, steps, step)
    return 0.0 if share >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * share) % 1.0))))


def _polynomial(
    warmup: int, steps: int, step: int, lr_init: float = 1.0, lr_end: float = 0.0, power: float = 1.0
) -> float:
    if step > steps:
        return lr_end / lr_init
    left: float = (1 - _share(warmup, steps, step)) ** power
    return ((lr_init - lr_end) * left + lr_end) / lr_init


def _inverse_sqrt(warmup: int, steps: int, step: int, timescale: int | None = None) -> float:
    scale = timescale or warmup or 10_000
    return 1.0 / math.sqrt((step + scale - warmup) / scale)


SCHEDULES: dict[str, Callable[..., float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "constant": _constant,
    "constant_with_warmup": _constant,
}
