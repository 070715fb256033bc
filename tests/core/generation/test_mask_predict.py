"""The rule of mask-predict, and what its calls mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import InputError
from xlmr_core.generation import least_certain, plan_mask_predict
from xlmr_core.generation.mask_predict import mask_token, masked_before_each_pass

CONFIG = XLMRobertaConfig(vocab_size=60, max_position_embeddings=22, type_vocab_size=2)  # takes 20 tokens
IDS = np.array([[0, 5, 6, 2], [0, 7, 2, 1]])


def planned(ids: Any = IDS, hooks: Any = None, rounded: bool = False, **kwargs: Any) -> Any:
    return plan_mask_predict(
        CONFIG, caller="Model.generate()", ids=np.asarray(ids), kwargs=kwargs, hooks=hooks or {}, rounded=rounded
    )


@pytest.mark.parametrize(
    ("new_tokens", "passes", "masked"),
    [(10, 4, (10, 7, 5, 2)), (10, 1, (10,)), (3, 10, (3, 2, 2, 2, 1, 1, 1)), (1, 5, (1,)), (4, 4, (4, 3, 2, 1))],
)
def test_how_many_are_masked(new_tokens: int, passes: int, masked: tuple[int, ...]) -> None:
    assert masked_before_each_pass(new_tokens, passes) == masked


def test_the_least_certain_are_masked_again() -> None:
    probabilities = np.array([[0.5, 0.1, 0.9, 0.3], [0.2, 0.2, 0.2, 0.2]])
    assert least_certain(probabilities, 2).tolist() == [[False, True, False, True], [True, True, False, False]]
    assert least_certain(probabilities, 4).all()


def test_new_tokens_stand_before_the_end_token() -> None:
    plan, given = planned(max_new_tokens=2)
    assert given.ids.tolist() == [[0, 5, 6, 59, 59, 2], [1, 0, 7, 59, 59, 2]]
    assert given.mask.tolist() == [[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
    assert given.came.tolist() == IDS.tolist()
    assert (plan.first, plan.new_tokens, plan.mask_token_id, plan.forbidden) == (3, 2, 59, (0, 1, 2, 59))
    assert hash(plan) == hash(planned(max_new_tokens=2)[0])


def test_a_prompt_without_an_end_gets_none() -> None:
    _, given = planned([[0, 5, 6], [0, 7, 2]], max_new_tokens=1)
    assert given.ids.tolist() == [[0, 5, 6, 59, 1], [1, 0, 7, 59, 2]]
    assert given.mask.tolist() == [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    # An end token alone is a prompt.
    assert planned([[2]], max_new_tokens=1)[1].ids.tolist() == [[2, 59, 1]]


def test_padding_on_the_left_and_types() -> None:
    plan, given = plan_mask_predict(
        CONFIG,
        caller="g()",
        ids=np.array([[1, 1, 0, 5, 2]]),
        mask=np.array([[0, 0, 1, 1, 1]]),
        token_type_ids=np.array([[0, 0, 1, 1, 1]]),
        kwargs={"max_new_tokens": 1, "mask_token_id": 9, "suppress_tokens": [30]},
        hooks={},
    )
    assert given.ids.tolist() == [[0, 5, 9, 2]]
    assert given.token_type_ids is not None and given.token_type_ids.tolist() == [[1, 1, 1, 1]]
    assert plan.forbidden == (0, 1, 2, 9, 30)


def test_widths_are_rounded_for_programs() -> None:
    plan, given = planned(max_new_tokens=2, rounded=True)
    assert (plan.first, given.ids.shape) == (8, (2, 11))


def test_how_many_tokens() -> None:
    assert planned(max_length=10)[0].new_tokens == 6  # the prompt as it came counts
    assert planned()[0].new_tokens == 16  # 20, or what there is room for
    assert planned(max_new_tokens=16)[0].new_tokens == 16
    with pytest.raises(InputError, match="this model takes 20; ask for at most 16"):
        planned(max_new_tokens=17)
    with pytest.raises(InputError, match="room for at least one new token"):
        planned(max_length=4)
    with pytest.raises(InputError, match="passes must be a positive integer, received 0"):
        planned(passes=0)


@pytest.mark.parametrize("name", ["num_beams", "top_k", "temperature", "eos_token_id", "use_cache"])
def test_options_of_decoders_are_refused_by_name(name: str) -> None:
    value = False if name == "use_cache" else 3
    with pytest.raises(InputError, match=rf"mask-predict\) and has no {name}, which is an option of decoders"):
        planned(**{name: value})


def test_hooks_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="has no streamer"):
        planned(hooks={"streamer": object(), "logits_processor": None})


def test_what_asks_for_nothing_is_let_through() -> None:
    assert planned(do_sample=False, num_beams=1, temperature=None, max_new_tokens=2)[0].new_tokens == 2


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(TypeError, match="does not know the argument 'pases'; did you mean 'passes'"):
        planned(pases=3)


@pytest.mark.parametrize(
    ("config", "mask"),
    [
        (XLMRobertaConfig.base(), 250_001),
        (XLMRobertaXLConfig.xl(), 250_001),  # whose vocabulary goes on after it
        (XLMRobertaConfig(vocab_size=50_265, model_type="roberta"), 50_264),
        (XLMRobertaConfig(vocab_size=60), 59),
        (XLMRobertaConfig(vocab_size=60, mask_token_id=7), 7),
    ],
)
def test_where_the_mask_stands(config: XLMRobertaConfig, mask: int) -> None:
    assert mask_token(config) == mask
