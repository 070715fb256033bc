"""The Flax backend in a breath: every head, a pipeline, a file, a step of training."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jax")
import jax
import numpy as np
import optax

from tests.smoke.common import NAMES, answers_survive_a_save, head_equals_the_reference
from xlmr_flax import FlaxXLMRobertaForSequenceClassification, pipeline


@pytest.mark.parametrize("name", NAMES)
def test_a_head_equals_the_reference(name: str) -> None:
    head_equals_the_reference("flax", name)


def test_answers_survive_a_save(tmp_path: Path) -> None:
    answers_survive_a_save(pipeline, tmp_path)


@pytest.mark.filterwarnings("ignore:.*start with fresh values")
def test_a_step_of_training_lowers_the_loss() -> None:
    model = FlaxXLMRobertaForSequenceClassification.from_pretrained("xlmr-mini", num_labels=2)
    ids, labels = np.array([[0, 5, 6, 2], [0, 7, 8, 2]]), np.array([0, 1])

    def loss(params: object) -> jax.Array:
        return model(ids, params=params, labels=labels).loss

    optimizer = optax.adamw(1e-4)
    before, gradients = jax.value_and_grad(loss)(model.params)
    updates, _ = optimizer.update(gradients, optimizer.init(model.params), model.params)
    assert loss(optax.apply_updates(model.params, updates)) < before
