"""How fast is a Keras step of masked language modelling, beside the original TensorFlow class, and what does ``fit``
cost?

A step is forward, backward and AdamW in one graph, with the dropout of the config, on 8 x 128 tokens of which 15 % are
labelled. "xlmr_tf" projects to the vocabulary only at ``masked_positions``; the published call gets labels and nothing
else, in a graph of one's own and in ``fit`` with the model's own loss, whose graph leaves out what nobody reads. The
error is the difference of the losses without dropout, before the first step. ``fit`` and the bare loop over a
``tf.function`` train a classifier of the same size for four steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, texts
from benchmarks.guests import Guest, GuestJob
from benchmarks.harness import Case, Options, Timed
from benchmarks.models import checkpoint
from xlmr_core.config import AutoConfig

STEPS = 4
BASELINES = ("original", "xlmr_tf")

Arrays = dict[str, NDArray[Any]]


def cases(options: Options) -> Iterator[Case]:
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    rows, length = (2, 16) if options.tiny else (8, 128)
    batch = {name: x.astype(np.int32) for name, x in texts.labelled(vocabulary, rows, length).items()}
    masked = functools.partial(masked_job, options, batch)
    several: dict[str, dict[str, Callable[[], harness.Job]]] = {
        "8 x 128, AdamW": {
            "original": functools.partial(original, options, f"{rows}x{length}"),
            "xlmr_tf": masked,
            "xlmr_tf published call": functools.partial(masked, places=False),
        },
        # Of its own, because weights, gradients and moments of a model take 4.4 GB.
        "8 x 128, other ways": {
            "xlmr_tf": masked,
            "xlmr_tf mixed_bfloat16": functools.partial(masked, dtype="mixed_bfloat16"),
            "xlmr_tf published call, fit": functools.partial(fitted_job, options, batch),
        },
    }
    for name, contestants in several.items():
        yield Case(
            name,
            contestants,
            BASELINES,
            facts={"rows": rows, "length": length, "labelled": texts.LABELLED},
            compare=lambda expected, found: {"error of the loss": abs(float(found) - float(expected))},
        )
    trainers: dict[str, Callable[[Any, Arrays], Callable[[], Any]]] = {"bare loop": bare_loop, "fit": fit}
    yield Case(
        f"{STEPS} steps of a classifier",
        {name: functools.partial(classifier_job, options, batch, make) for name, make in trainers.items()},
        ("bare loop",),
        facts={"rows": rows, "length": length, "steps": STEPS},
    )


def original(options: Options, size: str) -> GuestJob:
    return GuestJob(Guest(options, "benchmarks.keras_original", "training", str(checkpoint(options)), size), None)


def masked_job(options: Options, batch: Arrays, places: bool = True, dtype: str = "float32") -> Timed:
    import keras
    import tensorflow as tf

    from xlmr_tf import TFXLMRobertaForMaskedLM

    model = TFXLMRobertaForMaskedLM.from_pretrained(checkpoint(options), dtype=dtype)
    given = {**batch, "masked_positions": positions_of(batch)} if places else batch
    inputs = {name: tf.constant(x) for name, x in given.items()}
    step = stepper(model, keras.optimizers.AdamW(1e-5))
    return Timed(lambda: float(step(inputs)), answer=first_loss(model, batch))


def fitted_job(options: Options, batch: Arrays) -> Timed:
    import keras
    import tensorflow as tf

    from xlmr_tf import TFXLMRobertaForMaskedLM

    model = TFXLMRobertaForMaskedLM.from_pretrained(checkpoint(options))
    loss = first_loss(model, batch)
    model.compile(keras.optimizers.AdamW(1e-5))
    dataset = tf.data.Dataset.from_tensors(batch)
    return Timed(lambda: model.fit(dataset, verbose=0), answer=loss)


def first_loss(model: Any, batch: Arrays) -> float:
    """The loss before the first step, without dropout."""
    import tensorflow as tf

    inputs = {name: tf.constant(x) for name, x in {**batch, "masked_positions": positions_of(batch)}.items()}
    return float(model(**inputs, training=False).loss)


def positions_of(batch: Arrays) -> NDArray[np.int32]:
    places = int((batch["labels"] != texts.IGNORED).sum(1).max())
    return texts.labelled_positions(batch["labels"], places).astype(np.int32)


def stepper(model: Any, optimizer: Any) -> Callable[[Any], Any]:
    """A graph of one step."""
    import tensorflow as tf

    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(inputs: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model(inputs, training=True)["loss"]
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


def classifier_job(options: Options, batch: Arrays, make: Callable[[Any, Arrays], Callable[[], Any]]) -> Timed:
    import warnings

    from xlmr_core.checkpoints.load_plan import LoadWarning
    from xlmr_tf import TFXLMRobertaForSequenceClassification

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)  # the head is new, and its answer is not looked at
        model = TFXLMRobertaForSequenceClassification.from_pretrained(checkpoint(options), num_labels=2)
    rows = len(batch["labels"])
    arrays = {**batch, "labels": (np.arange(rows) % 2).astype(np.int32)}
    return Timed(make(model, arrays))


def dataset_of(arrays: Arrays) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(arrays).repeat(STEPS)


def bare_loop(model: Any, arrays: Arrays) -> Callable[[], Any]:
    import keras

    dataset, step = dataset_of(arrays), stepper(model, keras.optimizers.AdamW(1e-5))

    def turn() -> float:
        for batch in dataset:
            loss = step(batch)
        return float(loss)

    return turn


def fit(model: Any, arrays: Arrays) -> Callable[[], Any]:
    import keras

    model.compile(keras.optimizers.AdamW(1e-5))
    dataset = dataset_of(arrays)
    return lambda: model.fit(dataset, verbose=0)


if __name__ == "__main__":
    harness.main("keras_training", __doc__, cases)
