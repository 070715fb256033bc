"""What Keras's ``fit`` is given for a run: a model with a step of its own, and the batches from a step on.

A batch comes in parts, each with the share of the batch's loss that its loss is: one, or as many as are computed one
after the other, on each of the devices. So the loss and the gradients are those of the whole batch on one device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from xlmr_core.errors import InputError
from xlmr_core.training.parts import parts
from xlmr_tf.objectives import given, loss_of

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Arrays
    from xlmr_core.training.run import Run

__all__ = ["Data", "Trained", "draw_from", "spec_of"]

SUM = tf.distribute.ReduceOp.SUM


class Trained(keras.Model):
    """What ``fit`` trains: a model, by a step that knows what a run means.

    Args:
        model: of the run's task.
        run: its recipe and its task.
    """

    def __init__(self, model: Any, run: Run) -> None:
        super().__init__(dtype="float32")
        self.model, self.task, self.clip_norm = model, run.task, run.recipe.clip_norm
        self.built = True

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step: its loss, and the norm of the gradients before they are cut.

        Args:
            data: parts of a batch, and the share of its loss that each has, (parts,).
        """
        held, shares = data
        devices, variables = tf.distribute.get_replica_context(), self.model.trainable_variables
        count = devices.num_replicas_in_sync
        if count > 1:  # each drops what it draws itself
            for seeds in _drawing(self.model):
                seeds.state.assign_add([devices.replica_id_in_sync_group, 0])
        scale = self.optimizer.scale_loss(tf.ones(()))
        loss, gradients = tf.zeros(()), []
        for number, part in enumerate(held):
            with tf.control_dependencies(gradients), tf.GradientTape() as tape:  # one after the other
                own = tf.math.multiply_no_nan(loss_of(self.model, self.task, part), shares[number])
                scaled = own * scale
            found = tape.gradient(scaled, [variable.value for variable in variables])
            variables = [variable for variable, slope in zip(variables, found, strict=True) if slope is not None]
            found = [_dense(slope) for slope in found if slope is not None]
            gradients = [one + other for one, other in zip(gradients, found, strict=True)] if gradients else found
            loss += own
        if count > 1:
            loss, *gradients = devices.all_reduce(SUM, [loss, *gradients])
        norm = tf.linalg.global_norm(gradients) / scale
        factor = tf.minimum(1.0, self.clip_norm / (norm + 1e-6)) if self.clip_norm else tf.ones(())
        # The optimizer adds up what the devices give it.
        self.optimizer.apply([slope * (factor / count) for slope in gradients], variables)
        return {"loss": loss, "norm": norm}

    def _maybe_symbolic_build(self, **given: Any) -> None:
        """Nothing, as all is built: Keras would take the mean of the devices' parts, which have several shapes."""


class Data:
    """The batches of a run from a step on, but for those without labels, which teach nothing: neither weights nor
    moments change.

    Args:
        run: whose batches are read.
        step: the first, counted from 0.
        accumulate: parts of a device.
        strategy: which has the devices.

    Attributes:
        dataset: for ``fit``: for each batch, and each device in turn, its parts and their shares.
        error: why it ended before the run did. TensorFlow would tell it in words of its own.
    """

    def __init__(self, run: Run, step: int, accumulate: int, strategy: tf.distribute.Strategy) -> None:
        self._run, self._accumulate, self._devices = run, accumulate, strategy.num_replicas_in_sync
        self.error: Exception | None = None
        self._held: dict[int, list[tuple[Arrays, float]]] = {}
        self._making = threading.Lock()  # TensorFlow asks in a thread of its own
        self._specs = {name: spec_of(array) for name, array in given(run.task, run.batches[step]).items()}
        signature = ((self._specs,) * accumulate, tf.TensorSpec((accumulate,), tf.float32))
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # the run gives a batch when it is that step's turn
        options.autotune.enabled = False  # nothing is to be tuned, and its thread is waited for, at times for minutes
        elements = tf.data.Dataset.from_generator(lambda: self._elements(step), output_signature=signature)
        elements = elements.with_options(options)
        self.dataset: Any = elements
        if self._devices > 1:
            self.dataset = strategy.distribute_datasets_from_function(lambda context: elements)

    def teaches(self, step: int) -> bool:
        """Whether the batch of a step has labels; to be asked of one step after the other."""
        with self._making:
            for done in [number for number in self._held if number < step]:
                del self._held[done]
        return bool(self._parts(step))

    def _parts(self, step: int) -> list[tuple[Arrays, float]]:
        """All parts of the batch of a step, made for whoever asks first."""
        count = self._accumulate * self._devices
        with self._making:
            if step not in self._held:
                self._held[step] = [*parts(self._run.batch(step), self._run.task, 0, count, count)]
            return self._held[step]

    def _elements(self, first: int) -> Iterator[Any]:
        task = self._run.task
        try:
            for step in range(first, self._run.steps):
                held = self._parts(step)
                for begin in range(0, len(held), self._accumulate):
                    own = held[begin : begin + self._accumulate]
                    inputs = tuple(given(task, part) for part, _ in own)
                    if inputs[0].keys() != self._specs.keys():
                        raise InputError(
                            "expected rows of one kind, such as pairs that all have scores, or none that has one, "
                            f"received {', '.join(inputs[0])} after {', '.join(self._specs)}; train on one kind"
                        )
                    yield inputs, np.array([share for _, share in own], np.float32)
        except Exception as error:
            self.error = error


def spec_of(array: Any) -> tf.TensorSpec:
    """What a graph knows of an array of a batch: no size but, where labels are decimal, that of a row."""
    dtype = tf.as_dtype(array.dtype)
    sizes = array.shape[1:] if dtype.is_floating else [None] * (len(array.shape) - 1)
    return tf.TensorSpec([None, *sizes], dtype)


def draw_from(model: Any, *numbers: int) -> None:
    """Let the dropout of a model be drawn from some numbers."""
    drawing = _drawing(model)
    states = np.random.SeedSequence(numbers).generate_state(2 * len(drawing), np.uint32).reshape(-1, 2)
    for seeds, state in zip(drawing, states, strict=True):
        seeds.state.assign(state)


def _drawing(model: Any) -> list[keras.random.SeedGenerator]:
    """What the layers of a model draw from."""
    return [seeds for layer in model._flatten_layers() for seeds in layer._seed_generators]


def _dense(gradient: Any) -> tf.Tensor:
    """A gradient with each row once, so that it has a norm; that of a table of embeddings has one for each look-up."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, gradient.dense_shape[0])
