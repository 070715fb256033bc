"""Learning rate schedules for Keras: those of ``xlmr_core.training.schedules``, and the published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from xlmr_core.training.schedules import schedule

__all__ = ["Schedule", "WarmUp", "create_optimizer", "learning_rate_schedule"]

# Parts of the names of weights that do not decay: biases and norms.
WITHOUT_DECAY = ("bias", "beta", "gamma", "LayerNorm", "layer_norm")


@keras.saving.register_keras_serializable(package="xlmr_tf")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each step, looked up in a table, so that it is that of the other backends to the last bit.

    Args:
        name: of ``xlmr_core.training.schedules.SCHEDULES``.
        peak: the rate at its highest.
        warmup_steps: over which it rises.
        steps: of the whole run; after them the rate is that of the last.
        options: of the schedule, such as ``num_cycles``.
    """

    def __init__(
        self, name: str, peak: float, warmup_steps: int, steps: int, options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.name, self.peak, self.warmup_steps, self.steps = name, peak, warmup_steps, steps
        self.options = dict(options or {})
        factor = schedule(name, warmup_steps, steps, **self.options)
        self._rates = np.array([peak * factor(step) for step in range(steps + 1)], np.float32)

    def __call__(self, step: Any) -> tf.Tensor:
        place = tf.clip_by_value(tf.cast(step, tf.int64), 0, self.steps)
        return tf.gather(tf.constant(self._rates), place)

    def get_config(self) -> dict[str, Any]:
        """What makes it again."""
        return {
            "name": self.name,
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "steps": self.steps,
            "options": self.options,
        }


def learning_rate_schedule(name: str, peak: float, warmup_steps: int, steps: int, **options: Any) -> Schedule:
    """The rate by the step, for an optimizer of Keras.

    Args:
        name: of ``xlmr_core.training.schedules.SCHEDULES``.
        peak: the rate at its highest.
        warmup_steps: over which it rises.
        steps: of the whole run.
        **options: of the schedule, such as ``num_cycles``.

    Raises:
        InputError: for a name that is none, with the nearest.
    """
    return Schedule(name, peak, warmup_steps, steps, options)


@keras.saving.register_keras_serializable(package="xlmr_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule behind a warm-up.

    Args:
        initial_learning_rate: at the end of the warm-up.
        decay_schedule_fn: gives the rate by the step after it.
        warmup_steps: over which it rises.
        power: 1.0 is a straight line.
        name: of the operations.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_schedule_fn: Callable[[Any], Any],
        warmup_steps: int,
        power: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.initial_learning_rate, self.decay_schedule_fn = initial_learning_rate, decay_schedule_fn
        self.warmup_steps, self.power, self.name = warmup_steps, power, name

    def __call__(self, step: Any) -> tf.Tensor:
        done, all_steps = tf.cast(step, tf.float32), float(self.warmup_steps)
        rising = self.initial_learning_rate * tf.pow(done / max(all_steps, 1.0), self.power)
        after = tf.cast(self.decay_schedule_fn(step - self.warmup_steps), tf.float32)
        return tf.where(done < all_steps, rising, after)

    def get_config(self) -> dict[str, Any]:
        """What makes it again."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_schedule_fn": keras.saving.serialize_keras_object(self.decay_schedule_fn),
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The schedule again, and the one in it."""
        after = keras.saving.deserialize_keras_object(config["decay_schedule_fn"])
        return cls(**{**config, "decay_schedule_fn": after})


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
    include_in_weight_decay: Sequence[str] | None = None,
) -> tuple[keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule]:
    """AdamW with a warm-up and a polynomial decay, and its schedule.

    Args:
        init_lr: the rate at its highest.
        num_train_steps: of the whole run.
        num_warmup_steps: over which it rises.
        min_lr_ratio: the last rate is ``init_lr`` times this.
        adam_beta1, adam_beta2, adam_epsilon: of Adam.
        adam_clipnorm, adam_global_clipnorm: the norm that each gradient, or all together, are cut to.
        weight_decay_rate: of all but biases and norms.
        power: 1.0 is a straight line.
        include_in_weight_decay: parts of names of weights that decay all the same.
    """
    schedule_of_rates: keras.optimizers.schedules.LearningRateSchedule
    schedule_of_rates = keras.optimizers.schedules.PolynomialDecay(
        initial_learning_rate=init_lr,
        decay_steps=max(1, num_train_steps - num_warmup_steps),
        end_learning_rate=init_lr * min_lr_ratio,
        power=power,
    )
    if num_warmup_steps:
        schedule_of_rates = WarmUp(init_lr, schedule_of_rates, num_warmup_steps)
    optimizer = keras.optimizers.AdamW(
        learning_rate=schedule_of_rates,
        weight_decay=weight_decay_rate,
        beta_1=adam_beta1,
        beta_2=adam_beta2,
        epsilon=adam_epsilon,
        clipnorm=adam_clipnorm,
        global_clipnorm=adam_global_clipnorm,
    )
    if weight_decay_rate:
        spared = [part for part in WITHOUT_DECAY if part not in (include_in_weight_decay or ())]
        optimizer.exclude_from_weight_decay(var_names=spared)
    return optimizer, schedule_of_rates
