"""``generate`` in Keras where no token is left that may follow: an error, and not a token that nobody chose."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.tf.models import VOCABULARY, Case  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402

IDS = np.random.default_rng(1).integers(4, VOCABULARY, (2, 5))
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "num_return_sequences": 2, "seed": 1},
    "of all": {"do_sample": True, "top_k": 0, "seed": 1},
    "beams": {"num_beams": 3},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
}


@pytest.fixture
def uncompiled():
    """The functions that XLA gets, by themselves: the same arithmetic."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@cache
def writer(head: str = "ForCausalLM") -> Any:
    return made(head)


def made(head: str) -> Any:
    return Case("XLMRoberta", head).build(use_cache=True, eos_token_id=None, num_hidden_layers=1)


@cache
def broken(head: str = "ForCausalLM") -> Any:
    """Whose scores are no numbers."""
    model = made(head)
    (bias,) = (x for x in model.weights if x.shape == (VOCABULARY,))
    bias.assign(np.full(VOCABULARY, np.nan))
    return model


def generated(model: Any, *processors: Any, **options: Any) -> Any:
    return model.generate(
        tf.constant(IDS), max_new_tokens=4, suppress_tokens=[1], logits_processor=[*processors], **options
    )


@pytest.mark.parametrize("way", WAYS)
def test_processors_that_leave_nothing(uncompiled, way: str) -> None:
    def nothing(input_ids: Any, scores: Any) -> Any:
        """Of the third new token."""
        return tf.fill(scores.shape, -np.inf) if input_ids.shape[1] == 7 else scores

    with pytest.raises(InputError, match="expected a token that may follow, received scores that are all"):
        generated(writer(), nothing, **WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_weights_that_are_no_numbers(uncompiled, way: str) -> None:
    with pytest.raises(InputError, match="or one that is no number.*check the weights of the model"):
        generated(broken(), **WAYS[way])


def test_a_program_says_it_behind_its_end() -> None:
    with pytest.raises(InputError, match="or one that is no number.*check the weights of the model"):
        generated(broken(), **WAYS["drawn"])


def test_a_program_of_the_user_ends_such_a_row() -> None:
    model = broken()
    found = tf.function(lambda ids: model.generate(ids, max_new_tokens=3))(tf.constant(IDS))
    assert found.numpy()[:, 5:].tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("way", ["greedy", "drawn"])
def test_rows_that_ended_do_not_count(uncompiled, way: str) -> None:
    def of_one(input_ids: Any, scores: Any) -> Any:
        """The first prompt ends with its first new token, and has none left."""
        scores = scores.numpy()
        rows = len(scores) // 2
        scores[:rows] = -np.inf
        if input_ids.shape[1] == 5:
            scores[:rows, 2] = 0.0
        return tf.constant(scores)

    found = generated(writer(), of_one, eos_token_id=2, **WAYS[way]).numpy()
    rows = len(found) // 2
    assert found[:rows, 5:].tolist() == [[2, 1, 1, 1]] * rows
    assert (found[rows:, 5:] != 1).any()


def test_a_bias_of_infinity_is_taken_and_cannot_be_drawn(uncompiled) -> None:
    asked = {"sequence_bias": [[[9], float("inf")]]}
    assert (generated(writer(), **asked).numpy()[:, 5:] == 9).all()
    with pytest.raises(InputError, match="or one that is no number"):
        generated(writer(), do_sample=True, **asked)


def test_masked_models_without_numbers(uncompiled) -> None:
    assert writer("ForMaskedLM").generate(tf.constant(IDS), max_new_tokens=2).shape == (2, 7)
    with pytest.raises(InputError, match="expected scores of the new tokens, the model gave some that are no numbers"):
        broken("ForMaskedLM").generate(tf.constant(IDS), max_new_tokens=2)
