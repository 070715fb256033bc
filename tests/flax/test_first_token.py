"""Heads that read the first token: outside training the last layer answers there alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

from tests.flax import models  # noqa: E402
from xlmr_flax import layers  # noqa: E402

HEADS = ("ForSequenceClassification", "ForMultipleChoice")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the feed-forward block of each layer was given, where it was traced."""
    seen: list[int] = []
    original = layers.FeedForwardOutput.__call__

    def watched(self: Any, x: Any, residual: Any, key: Any = None) -> Any:
        seen.append(int(np.prod(residual.shape[:-1])))
        return original(self, x, residual, key)

    monkeypatch.setattr(layers.FeedForwardOutput, "__call__", watched)
    return seen


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("packing", ["auto", "never"])
def test_the_answer_is_that_of_all_tokens(family: str, head: str, packing: str, rows: list[int]) -> None:
    model = models.model(head, family).set_packing(packing)
    given = models.labelled(head, models.batch((10, 6, 3, 9, 1)))
    found = model(**given)
    texts = 10 if head == "ForMultipleChoice" else 5
    assert len(rows) == 2 and texts <= rows[1] <= 16 < rows[0]
    expected = model(**given, output_hidden_states=True)
    assert rows[-1] == rows[-2] > 16
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)


def test_gradients_are_those_of_all_tokens() -> None:
    model = models.model("ForSequenceClassification", num_hidden_layers=1)
    given = models.labelled("ForSequenceClassification", models.batch((10, 6, 3)))

    def loss_of(params: Any, **asked: Any) -> Any:
        return model(**given, params=params, **asked).loss

    found, expected = (
        jax.grad(loss_of)(model.params),
        jax.grad(lambda params: loss_of(params, output_hidden_states=True))(model.params),
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=2e-6), found, expected)


@pytest.mark.parametrize(
    "asked", [{"train": True, "dropout_rng": 0}, {"output_attentions": True}, {"head_mask": np.ones(3)}], ids=str
)
def test_where_somebody_could_tell_all_tokens_are_answered(asked: dict[str, Any], rows: list[int]) -> None:
    asked = {name: jax.random.key(value) if name == "dropout_rng" else value for name, value in asked.items()}
    models.model("ForSequenceClassification")(**models.batch((10, 6, 3)), **asked)
    assert len(set(rows)) == 1
