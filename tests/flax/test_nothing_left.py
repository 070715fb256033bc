"""``generate`` in Flax where no token is left that may follow: an error, and not a token that nobody chose."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

from tests.flax import models  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402

IDS = np.random.default_rng(0).integers(4, 61, (2, 5))
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
}


@cache
def writer(head: str = "ForCausalLM") -> Any:
    return models.model(head, is_decoder=head == "ForCausalLM", num_hidden_layers=1, eos_token_id=None)


def broken(head: str = "ForCausalLM") -> Any:
    """Parameters with which scores are no numbers."""
    found = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, jnp.nan) if x.shape == (61,) else x, writer(head).params
    )
    assert any(bool(jnp.isnan(x).any()) for x in jax.tree.leaves(found))
    return found


def generated(*processors: Any, **options: Any) -> Any:
    asked = {"max_new_tokens": 4, "suppress_tokens": [1], "logits_processor": [*processors] or None, **options}
    return np.asarray(writer().generate(IDS, **asked).sequences)


@pytest.mark.parametrize("way", WAYS)
def test_processors_that_leave_nothing(way: str) -> None:
    def nothing(input_ids: Any, scores: Any) -> Any:
        """Of the third new token."""
        return jnp.full_like(scores, -jnp.inf) if input_ids.shape[1] == 7 else scores

    with pytest.raises(InputError, match="expected a token that may follow, received scores that are all"):
        generated(nothing, **WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_a_program_says_it_behind_its_end(way: str) -> None:
    with pytest.raises(InputError, match="or one that is no number.*check the weights of the model"):
        generated(params=broken(), **WAYS[way])


def test_a_program_of_the_user_ends_such_a_row() -> None:
    found = jax.jit(lambda params: writer().generate(IDS, params=params, max_new_tokens=3).sequences)(broken())
    assert np.asarray(found)[:, 5:].tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("way", ["greedy", "drawn"])
def test_rows_that_ended_do_not_count(way: str) -> None:
    def of_one(input_ids: Any, scores: Any) -> Any:
        """The first prompt ends with its first new token, and has none left."""
        rows = len(scores) // 2
        scores = scores.at[:rows].set(-jnp.inf)
        return scores.at[:rows, 2].set(0.0) if input_ids.shape[1] == 5 else scores

    found = generated(of_one, eos_token_id=2, **WAYS[way])
    rows = len(found) // 2
    assert found[:rows, 5:].tolist() == [[2, 1, 1, 1]] * rows
    assert (found[rows:, 5:] != 1).any()


def test_a_bias_of_infinity_is_taken_and_cannot_be_drawn() -> None:
    asked = {"sequence_bias": [[[9], float("inf")]]}
    assert (generated(**asked)[:, 5:] == 9).all()
    with pytest.raises(InputError, match="or one that is no number"):
        generated(do_sample=True, **asked)


def test_masked_models_without_numbers() -> None:
    model = writer("ForMaskedLM")
    assert model.generate(IDS, max_new_tokens=2).sequences.shape == (2, 7)
    with pytest.raises(InputError, match="expected scores of the new tokens, the model gave some that are no numbers"):
        model.generate(IDS, max_new_tokens=2, params=broken("ForMaskedLM"))
