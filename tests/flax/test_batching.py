"""Batches of few shapes."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

from tests.flax import models  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_flax.batching import pad_batch  # noqa: E402


def test_every_input_is_filled_with_what_means_nothing():
    batch = {
        "input_ids": np.array([[0, 5, 2], [0, 2, 1]]),
        "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
        "labels": np.array([[7, 8, 9], [7, 8, -100]]),
        "masked_positions": np.array([[1], [-1]]),
    }
    found = {name: x.tolist() for name, x in pad_batch(batch, lengths=(2, 5), rows=3).items()}
    assert found == {
        "input_ids": [[0, 5, 2, 1, 1], [0, 2, 1, 1, 1], [1, 1, 1, 1, 1]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]],
        "labels": [[7, 8, 9, -100, -100], [7, 8, -100, -100, -100], [-100] * 5],
        "masked_positions": [[1], [-1], [-1]],
    }
    assert pad_batch({**batch, "labels": np.array([1, 0])}, rows=3)["labels"].tolist() == [1, 0, -100]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"lengths": (2,)}, "3 tokens a row, expected at most 2"),
        ({}, {"rows": 1}, "2 rows, expected at most 1"),
        ({"labels": np.zeros((2, 3))}, {}, "labels float64"),
        ({"labels": np.zeros((2, 2), int)}, {}, r"labels int64 \(2, 2\)"),
        ({"inputs_embeds": np.zeros((2, 3, 4))}, {}, "cannot pad"),
        ({"attention_mask": None}, {}, "attention_mask"),
    ],
)
def test_what_cannot_be_padded_is_refused(change, options, message):
    batch = {"input_ids": np.zeros((2, 3), int), "attention_mask": np.ones((2, 3), int), **change}
    with pytest.raises(InputError, match=message):
        pad_batch({name: x for name, x in batch.items() if x is not None}, **options)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification"])
def test_a_compiled_step_meets_a_handful_of_shapes_and_computes_the_same(head):
    """Forty batches of natural lengths, the last one of fewer rows; padding changes no loss."""
    model = models.model(head).set_packing("never")
    loss_of = jax.jit(lambda params, batch: model(**batch, params=params).loss)
    rng, shapes, losses = np.random.default_rng(0), set(), []
    for number in range(40):
        rows = 6 if number < 39 else 2
        lengths = np.exp(rng.normal(np.log(14), 0.8, rows)).clip(2, 72).astype(int)
        batch = models.labelled(head, models.batch(tuple(lengths), number), number)
        shapes.add(batch["input_ids"].shape)
        loss = loss_of(model.params, pad_batch(batch, lengths=(16, 32, 48, 72), rows=6))
        losses.append((number, batch, float(loss)))
    assert len(shapes) > 20
    assert loss_of._cache_size() <= 4
    for number, batch, loss in losses[::13]:
        np.testing.assert_allclose(loss, model(**batch).loss, rtol=1e-5, err_msg=str(number))
