"""A process of the distributed trainings of ``test_distribution.py``: ``python -m tests.tf.distributed KIND``, answers
as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
import tensorflow as tf

from tests.choice import chosen
from tests.small_runs import losses, small_run
from tests.tf import tiny
from xlmr_tf.distribution import training_step
from xlmr_tf.training import model_for, train

EPOCHS, RATE = 3, 0.05
CLASSIFIER, TAGGER = "XLMRobertaForSequenceClassification", "XLMRobertaForTokenClassification"


def batch_of(name):
    given = tiny.inputs(name)
    return {**given, **tiny.labels(name, given)}


def dataset_of(name):
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices(batch_of(name)).batch(tiny.ROWS).with_options(options)


def fitted(name):
    model = tiny.build(name)
    model.compile(keras.optimizers.SGD(RATE))
    return model, model.fit(dataset_of(name), epochs=EPOCHS, verbose=0).history["loss"]


def stepped(name, strategy, **changes):
    with strategy.scope():
        model = tiny.build(name, **changes)
        step = training_step(model, keras.optimizers.SGD(RATE))
    batches = strategy.experimental_distribute_dataset(dataset_of(name))
    return model, [float(step(batch)) for _ in range(EPOCHS) for batch in batches]


def of_a_run(strategy, **how):
    """The losses and the weights of a run whose rows, and their labels, do not divide."""
    values = {"layers": 1, "steps": 3, "dropout": 0.0, "clip_norm": 0.5, "learning_rate": 0.003}
    with tempfile.TemporaryDirectory() as folder, patch("xlmr_core.training.run.publish"):
        run = small_run(Path(folder), "masked-language-modeling", **values)
        with strategy.scope(), run:
            model = model_for(run)
            train(model, run, **how)
        return losses(run), total(model)


def total(model):
    """A number that changes with every value of the model."""
    return float(sum(np.abs(variable.numpy()).sum() for variable in model.trainable_variables))


def main(kind):
    answers = {}
    names = [CLASSIFIER, TAGGER]
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model, losses = fitted(CLASSIFIER)
        answers["fit"] = losses, total(model)
        dropped = stepped(CLASSIFIER, strategy, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)[1]
        answers["dropout"] = dropped, 0.0
        answers["run"] = of_a_run(strategy, accumulate=2)
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        names = chosen(names, [TAGGER])
    assert strategy.num_replicas_in_sync == 2
    for name in names:
        model, losses = stepped(name, strategy)
        answers[name] = losses, total(model)
    print("ANSWER " + json.dumps(answers), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
