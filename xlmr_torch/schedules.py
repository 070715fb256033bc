"""The published learning rate schedules: ``LambdaLR`` over the factors of ``xlmr_core.training.schedules``."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from xlmr_core.errors import InputError
from xlmr_core.training.schedules import SCHEDULES, schedule

__all__ = [
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "get_polynomial_decay_schedule_with_warmup",
    "get_scheduler",
]

PLATEAU = "reduce_lr_on_plateau"


def get_constant_schedule(optimizer: Optimizer, last_epoch: int = -1) -> LambdaLR:
    """The rate as it is.

    Args:
        optimizer: whose rates are set.
        last_epoch: of a run that goes on, the last step.
    """
    return LambdaLR(optimizer, schedule("constant"), last_epoch)


def get_constant_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """From 0 to the rate in a straight line, then the rate.

    Args:
        optimizer: whose rates are set.
        num_warmup_steps: over which they rise.
        last_epoch: of a run that goes on, the last step.
    """
    return LambdaLR(optimizer, schedule("constant_with_warmup", num_warmup_steps), last_epoch)


def get_linear_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """From 0 to the rate in a straight line, and to 0 in another.

    Args:
        optimizer: whose rates are set.
        num_warmup_steps: over which they rise.
        num_training_steps: of the whole run.
        last_epoch: of a run that goes on, the last step.
    """
    return LambdaLR(optimizer, schedule("linear", num_warmup_steps, num_training_steps), last_epoch)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """From 0 to the rate in a straight line, and to 0 as a wave.

    Args:
        optimizer: whose rates are set.
        num_warmup_steps: over which they rise.
        num_training_steps: of the whole run.
        num_cycles: waves; half a wave goes to 0 once.
        last_epoch: of a run that goes on, the last step.
    """
    factor = schedule("cosine", num_warmup_steps, num_training_steps, num_cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1, last_epoch: int = -1
) -> LambdaLR:
    """From 0 to the rate in a straight line, and several times from there to 0 as half a wave.

    Args:
        optimizer: whose rates are set.
        num_warmup_steps: over which they rise.
        num_training_steps: of the whole run.
        num_cycles: how many times.
        last_epoch: of a run that goes on, the last step.
    """
    factor = schedule("cosine_with_restarts", num_warmup_steps, num_training_steps, num_cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """From 0 to the rate in a straight line, and to ``lr_end`` by a power.

    Args:
        optimizer: whose rates are set; its default rate is the one that ``lr_end`` is a share of.
        num_warmup_steps: over which they rise.
        num_training_steps: of the whole run.
        lr_end: the last rate.
        power: 1.0 is a straight line.
        last_epoch: of a run that goes on, the last step.

    Raises:
        InputError: if ``lr_end`` is not below the optimizer's rate.
    """
    lr_init = optimizer.defaults["lr"]
    if not lr_init > lr_end:
        raise InputError(f"expected lr_end below the rate of the optimizer, {lr_init}, received {lr_end}")
    options = {"lr_init": lr_init, "lr_end": lr_end, "power": power}
    return LambdaLR(optimizer, schedule("polynomial", num_warmup_steps, num_training_steps, **options), last_epoch)


def get_inverse_sqrt_schedule(
    optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> LambdaLR:
    """From 0 to the rate in a straight line, then one over the root of the step.

    Args:
        optimizer: whose rates are set.
        num_warmup_steps: over which they rise.
        timescale: by default ``num_warmup_steps``, or 10 000 if there are none.
        last_epoch: of a run that goes on, the last step.
    """
    return LambdaLR(optimizer, schedule("inverse_sqrt", num_warmup_steps, timescale=timescale), last_epoch)


def get_scheduler(
    name: Any,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> LambdaLR | ReduceLROnPlateau:
    """A schedule by its published name.

    Args:
        name: one of ``xlmr_core.training.schedules``, or ``reduce_lr_on_plateau``; the original library's
            ``SchedulerType`` will do too.
        optimizer: whose rates are set.
        num_warmup_steps: over which they rise.
        num_training_steps: of the whole run.
        scheduler_specific_kwargs: options of the schedule, such as ``num_cycles``.

    Raises:
        InputError: for a name that is none, and for a number of steps that the schedule needs.
    """
    name = str(getattr(name, "value", name))
    options = dict(scheduler_specific_kwargs or {})
    if name == PLATEAU:
        return ReduceLROnPlateau(optimizer, **options)
    if name in SCHEDULES and name != "constant":
        needed = {"num_warmup_steps": num_warmup_steps}
        if name not in ("constant_with_warmup", "inverse_sqrt"):
            needed["num_training_steps"] = num_training_steps
        for argument, value in needed.items():
            if value is None:
                raise InputError(f"expected {argument}, which the schedule {name!r} needs, received None")
    if name == "polynomial":
        return get_polynomial_decay_schedule_with_warmup(
            optimizer, num_warmup_steps or 0, num_training_steps or 0, **options
        )
    if "min_lr" in options:
        options["min_lr_rate"] = options.pop("min_lr") / optimizer.defaults["lr"]
    return LambdaLR(optimizer, schedule(name, num_warmup_steps or 0, num_training_steps or 0, **options))
