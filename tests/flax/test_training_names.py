"""The published names around training: collators with arrays, schedules for optax, and what is not here."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

import xlmr_flax
from xlmr_core.errors import InputError
from xlmr_core.training.schedules import schedule

COLLATORS = [name for name in xlmr_flax.__all__ if name.startswith("DataCollator")]


@pytest.fixture(scope="module")
def tokenizer():
    return xlmr_flax.AutoTokenizer.from_pretrained("xlmr-mini")


@pytest.mark.parametrize("name", COLLATORS)
def test_a_collator_gives_arrays(tokenizer, name: str) -> None:
    rows = [dict(tokenizer(text)) for text in ("eins", "zwei und drei")]
    if name == "DataCollatorForMultipleChoice":
        rows = [{key: [value, value] for key, value in row.items()} for row in rows]
    batch = getattr(xlmr_flax, name)(tokenizer)(rows)
    assert all(isinstance(value, jax.Array) for value in batch.values())
    assert xlmr_flax.default_data_collator([{"x": 1, "label": 0}])["labels"].shape == (1,)


def test_a_schedule_is_that_of_the_core_when_compiled_too() -> None:
    found = xlmr_flax.learning_rate_schedule("cosine", 3e-4, 3, 10)
    expected = [np.float32(3e-4 * schedule("cosine", 3, 10)(step)) for step in range(11)]
    assert [np.float32(found(step)) for step in range(11)] == expected
    compiled = jax.jit(found)
    assert compiled(4) == expected[4] and compiled(99) == expected[10]
    state = optax.sgd(found).init({"w": np.ones(2, np.float32)})
    assert state is not None
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        xlmr_flax.learning_rate_schedule("cosin", 1.0, 1, 2)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Trainer", "optax"),
        ("get_scheduler", "learning_rate_schedule"),
        ("FlaxAutoModelForMaskLM", "did you mean 'FlaxAutoModelForMaskedLM'"),
        ("TFXLMRobertaModel", "from xlmr_tf import TFXLMRobertaModel"),
    ],
)
def test_a_name_that_is_not_here_says_where_to_go(name: str, told: str) -> None:
    with pytest.raises(ImportError, match=told):
        exec(f"from xlmr_flax import {name}", {})
    assert not hasattr(xlmr_flax, name)
