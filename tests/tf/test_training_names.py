"""The published names around training: collators with tensors, schedules for Keras, and what is not here."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import xlmr_tf
from xlmr_core.errors import InputError
from xlmr_core.training.schedules import schedule

COLLATORS = [name for name in xlmr_tf.__all__ if name.startswith("DataCollator")]


@pytest.fixture(scope="module")
def tokenizer():
    return xlmr_tf.AutoTokenizer.from_pretrained("xlmr-mini")


@pytest.mark.parametrize("name", COLLATORS)
def test_a_collator_gives_tensors(tokenizer, name: str) -> None:
    rows = [dict(tokenizer(text)) for text in ("eins", "zwei und drei")]
    if name == "DataCollatorForMultipleChoice":
        rows = [{key: [value, value] for key, value in row.items()} for row in rows]
    batch = getattr(xlmr_tf, name)(tokenizer)(rows)
    assert all(isinstance(value, tf.Tensor) for value in batch.values())
    assert xlmr_tf.default_data_collator([{"x": 1, "label": 0}])["labels"].shape == (1,)


def test_a_schedule_is_that_of_the_core_in_a_graph_too() -> None:
    found = xlmr_tf.learning_rate_schedule("cosine", 3e-4, 3, 10)
    expected = [np.float32(3e-4 * schedule("cosine", 3, 10)(step)) for step in range(11)]
    assert [float(found(step)) for step in range(11)] == expected
    compiled = tf.function(found)
    assert float(compiled(tf.constant(4, tf.int64))) == expected[4] and float(compiled(tf.constant(99))) == expected[10]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(found))
    assert float(again(5)) == expected[5]
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        xlmr_tf.learning_rate_schedule("cosin", 1.0, 1, 2)


@pytest.mark.parametrize("warmup", [0, 4])
def test_the_published_optimizer_warms_up_and_decays(warmup: int) -> None:
    optimizer, found = xlmr_tf.create_optimizer(0.1, 10, warmup, weight_decay_rate=0.01)
    expected = [0.1 * schedule("linear", warmup, 10)(step) for step in range(10)]
    assert [float(found(step)) for step in range(10)] == pytest.approx(expected, rel=1e-5)
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    optimizer.build(layer.trainable_variables)
    decays = {variable.name: optimizer._use_weight_decay(variable) for variable in layer.trainable_variables}
    assert decays == {"kernel": True, "bias": False}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(found))
    assert float(again(6)) == pytest.approx(expected[6])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("TFTrainer", "compile"),
        ("get_linear_schedule_with_warmup", "learning_rate_schedule"),
        ("TFAutoModelForMaskLM", "did you mean 'TFAutoModelForMaskedLM'"),
        ("FlaxXLMRobertaModel", "from xlmr_flax import FlaxXLMRobertaModel"),
    ],
)
def test_a_name_that_is_not_here_says_where_to_go(name: str, told: str) -> None:
    with pytest.raises(ImportError, match=told):
        exec(f"from xlmr_tf import {name}", {})
    assert not hasattr(xlmr_tf, name)
