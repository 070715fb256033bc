"""The Keras backend in a breath: every head, a pipeline, a file, a step of training."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
import keras
import tensorflow as tf

from tests.smoke.common import NAMES, answers_survive_a_save, head_equals_the_reference
from xlmr_tf import TFXLMRobertaForSequenceClassification, pipeline


@pytest.mark.parametrize("name", NAMES)
def test_a_head_equals_the_reference(name: str) -> None:
    head_equals_the_reference("tf", name)


def test_answers_survive_a_save(tmp_path: Path) -> None:
    answers_survive_a_save(pipeline, tmp_path)


@pytest.mark.filterwarnings("ignore:.*start with fresh values")
def test_a_step_of_training_lowers_the_loss() -> None:
    model = TFXLMRobertaForSequenceClassification.from_pretrained("xlmr-mini", num_labels=2)
    inputs = {"input_ids": tf.constant([[0, 5, 6, 2], [0, 7, 8, 2]]), "labels": tf.constant([0, 1])}
    before = model(inputs).loss
    model.compile(keras.optimizers.AdamW(1e-4))
    model.fit(inputs, epochs=1, batch_size=2, verbose=0)
    assert model(inputs).loss < before
