"""``generate`` in PyTorch where no token is left that may follow: an error, and not a token that nobody chose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.torch.models import VOCABULARY, Case
from xlmr_core.errors import InputError

IDS = torch.randint(4, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(1))
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "num_return_sequences": 2},
    "of all": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 3},
    "beams that are drawn": {"num_beams": 2, "do_sample": True},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
}


def writer(head: str = "ForCausalLM", **changes: Any) -> Any:
    return Case("XLMRoberta", head).build(**{"use_cache": True, "eos_token_id": None, **changes})


def generated(model: Any, *processors: Any, **options: Any) -> Any:
    return model.generate(IDS, max_new_tokens=4, suppress_tokens=[1], logits_processor=[*processors], **options)


def nothing(input_ids: Tensor, scores: Tensor) -> Tensor:
    """Of the third new token."""
    return torch.full_like(scores, -torch.inf) if input_ids.shape[1] == 7 else scores


@pytest.mark.parametrize("way", WAYS)
def test_processors_that_leave_nothing(way: str) -> None:
    with pytest.raises(InputError, match="expected a token that may follow, received scores that are all"):
        generated(writer(), nothing, **WAYS[way])


def test_a_beam_may_come_to_nothing() -> None:
    def of_one_beam(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(0, torch.tensor([0, 3]), -torch.inf) if input_ids.shape[1] == 7 else scores

    found = generated(writer(), of_one_beam, num_beams=3, return_dict_in_generate=True)
    assert found.sequences_scores.isfinite().all() and (found.sequences_scores > -1e6).all()


@pytest.mark.parametrize("way", WAYS)
def test_weights_that_are_no_numbers(way: str) -> None:
    model = writer()
    model.lm_head.bias.data[:] = torch.nan
    with pytest.raises(InputError, match="or one that is no number.*check the weights of the model"):
        generated(model, **WAYS[way])


@pytest.mark.parametrize("way", ["greedy", "drawn"])
def test_rows_that_ended_do_not_count(way: str) -> None:
    def of_one(input_ids: Tensor, scores: Tensor) -> Tensor:
        """The first prompt ends with its first new token, and has none left."""
        rows, scores = len(scores) // 2, scores.clone()
        scores[:rows] = -torch.inf
        if input_ids.shape[1] == 5:
            scores[:rows, 2] = 0.0
        return scores

    found = generated(writer(), of_one, eos_token_id=2, **WAYS[way])
    rows = len(found) // 2
    assert found[:rows, 5:].tolist() == [[2, 1, 1, 1]] * rows
    assert (found[rows:, 5:] != 1).any()


def test_a_bias_of_infinity_is_taken_and_cannot_be_drawn() -> None:
    asked = {"sequence_bias": [[[9], float("inf")]]}
    assert (generated(writer(), **asked)[:, 5:] == 9).all()
    with pytest.raises(InputError, match="or one that is no number"):
        generated(writer(), do_sample=True, **asked)


def test_masked_models_without_numbers() -> None:
    model = writer("ForMaskedLM")
    assert model.generate(IDS, max_new_tokens=2).shape == (2, 7)
    model.lm_head.bias.data[:] = torch.nan
    with pytest.raises(InputError, match="expected scores of the new tokens, the model gave some that are no numbers"):
        model.generate(IDS, max_new_tokens=2)
