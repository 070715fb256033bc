"""A user's mistakes: each gets an error that says what was expected and what came, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.torch.models import CASES, CLASSES, VOCABULARY, Case, each_case, each_family, outputs_of
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import ConfigError, InputError

HEADS = tuple(case.head for case in CASES[:7])
CROSS = {"is_decoder": True, "add_cross_attention": True}
TOKENS = ("ForMaskedLM", "ForCausalLM", "ForTokenClassification")
ONE_ROW = tuple(head for head in HEADS if head != "ForMultipleChoice")


def refused(case: Case, message: str, **inputs: Any) -> None:
    """The call is refused with this message, and neither a layer ran nor a value changed, in evaluation and in
    training.
    """
    model = case.build(**inputs.pop("config", {}))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    config = model.config.to_dict()
    for training in (False, True):
        with (
            outputs_of(model.train(training).base_model.embeddings.word_embeddings) as ran,
            outputs_of(model.base_model.embeddings) as embedded,
        ):
            with pytest.raises(InputError, match=message):
                model(**inputs)
            assert not ran and not embedded, "the mistake was noticed only after computing"
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.config.to_dict() == config


def ids(case: Case, *rows: list[int]) -> Tensor:
    return case.grouped(torch.tensor(rows * 2 if len(rows) == 1 else rows))


# ---- Every head asks about every input. What the answers are is tested in tests/core/test_checks.py.


def wrong_inputs(case: Case) -> dict[str, dict[str, Any]]:
    """A mistake in each input, by what is said of it."""
    right = ids(case, [0, 5, 2])
    fractions = torch.full(right.shape, 0.5)
    embeds = torch.zeros(*right.shape, 16)
    return {
        r"input_ids must lie between 0 and 40, received 41": {"input_ids": ids(case, [0, VOCABULARY, 2])},
        r"input_ids must hold integers, received torch\.float32": {"input_ids": right.float()},
        r"input_ids must hold integers, received torch\.bool": {"input_ids": right.bool()},
        r"input_ids must have the shape \(batch, .*received \(3,\)": {"input_ids": right.flatten()[:3]},
        r"at least one (sequence|example).*received the shape": {"input_ids": right[:0]},
        r"received both": {"input_ids": right, "inputs_embeds": embeds},
        r"received neither": {"attention_mask": torch.ones_like(right)},
        r"inputs_embeds must hold floating point numbers": {"inputs_embeds": embeds.long()},
        r"attention_mask must hold 0 and 1 only, received 0\.5": {"input_ids": right, "attention_mask": fractions},
        r"attention_mask must hold 0 and 1 only, received 0\.50*": {
            "input_ids": right,
            "attention_mask": fractions.bfloat16(),
        },
        r"token_type_ids must lie between 0 and 1": {"input_ids": right, "token_type_ids": right},
        r"position_ids must lie between 0 and 23": {"input_ids": right, "position_ids": right + 30},
        r"head_mask must have the shape \(2,\) or \(2, 2\)": {"input_ids": right, "head_mask": torch.ones(3)},
    }


@each_case
def test_every_input_is_looked_at(case: Case) -> None:
    for message, inputs in wrong_inputs(case).items():
        refused(case, message, **inputs)


@each_case
@pytest.mark.parametrize("kind", [list, np.ndarray])
def test_what_is_no_tensor(case: Case, kind: type) -> None:
    inputs = case.inputs()
    for name, value in {**inputs, **case.labels(inputs), "head_mask": torch.ones(2)}.items():
        foreign = {name: value.tolist() if kind is list else value.numpy()}
        refused(case, f"{name} must be a torch.Tensor, received {kind.__name__}; ", **{**inputs, **foreign})


@each_case
def test_config_of_another_family(case: Case) -> None:
    other = XLMRobertaXLConfig if case.family == "XLMRoberta" else XLMRobertaConfig
    config = other(**{**vars(case.config()), "model_type": None})
    with pytest.raises(ConfigError, match=rf"{case} expects an {case.family}Config, received {other.__name__}"):
        case.model_class(config)
    with pytest.raises(ConfigError, match=r"received a dict"):
        case.model_class({"vocab_size": 3})


@each_case
def test_config_made_impossible_after_its_construction(case: Case) -> None:
    config = case.config()
    config.hidden_size = 15
    with pytest.raises(ConfigError, match=r"hidden_size \(15\) must be a multiple of num_attention_heads \(2\)"):
        case.model_class(config)


# ---- Every head asks about its own inputs

OWN = [
    *((head, {}, {"labels": [[0, -2, 1]] * 2}, r"labels must lie between 0 and \d+, received -2") for head in TOKENS),
    *(
        (head, {}, {"labels": [[0.0, 1.0, 1.0]] * 2}, r"labels must hold integers here, received torch")
        for head in TOKENS
    ),
    ("ForSequenceClassification", {}, {"labels": [0, CLASSES]}, r"labels must lie between 0 and 2, received 3"),
    ("ForMultipleChoice", {}, {"labels": [2]}, r"labels must lie between 0 and 1, received 2"),
    ("ForMultipleChoice", {}, {"attention_mask": [[1, 1, 1]]}, r"attention_mask must have the shape \(1, 2, 3\)"),
    ("ForQuestionAnswering", {}, {"start_positions": [0, 1]}, r"end_positions together, received one of them"),
    ("ForQuestionAnswering", {}, {"end_positions": [0.0], "start_positions": [0, 1]}, r"end_positions must have"),
    ("ForMaskedLM", {}, {"masked_positions": [[0, 3], [1, -1]]}, r"masked_positions must lie between -1 .*received 3"),
    (
        "ForMaskedLM",
        {},
        {"masked_positions": [[0], [1]], "labels": [[1, 2]] * 2},
        r"labels must have the shape \(2, 3\) or",
    ),
    ("ForMaskedLM", {}, {"sparse_prediction": True}, r"sparse_prediction=True .*needs labels"),
    ("ForCausalLM", {}, {"logits_to_keep": -1}, r"logits_to_keep must not be negative, received -1"),
    ("ForCausalLM", {}, {"logits_to_keep": [3]}, r"logits_to_keep must name columns below 3, received \[3\]"),
    ("ForCausalLM", {}, {"logits_to_keep": 1, "labels": [[1, 2, 3]] * 2}, r"labels need the logits of every position"),
    *(
        (head, config, arguments, message)
        for head in ("Model", "ForCausalLM")
        for config, arguments, message in (
            ({}, {"encoder_hidden_states": [[[0.0] * 16]] * 2}, r"needs a decoder with cross-attention"),
            (CROSS, {"encoder_hidden_states": [[[0.0] * 15]] * 2}, r"must have the shape \(2, source length, 16\)"),
            (
                CROSS,
                {"encoder_hidden_states": [[[0.0] * 16]] * 2, "encoder_attention_mask": [[2], [1]]},
                r"encoder_attention_mask must lie between 0 and 1",
            ),
            ({"is_decoder": True}, {"past_key_values": ((),)}, "past_key_values has 1 layer, expected"),
            ({"is_decoder": True}, {"cache_position": [1]}, r"cache_position must be the places 0 to"),
        )
    ),
]


@each_family
@pytest.mark.parametrize(("head", "config", "arguments", "message"), OWN)
def test_inputs_of_a_head(
    family: str, head: str, config: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    case = Case(family, head)
    tensors = {name: torch.tensor(x) if isinstance(x, list) else x for name, x in arguments.items()}
    refused(case, message, input_ids=ids(case, [0, 5, 2]), config=config, **tensors)


@each_family
def test_cross_attention_cannot_be_added_afterwards(family: str) -> None:
    model = Case(family, "ForCausalLM").build()
    model.config.is_decoder = model.config.add_cross_attention = True
    with pytest.raises(InputError, match=r"needs a decoder with cross-attention.*build or load it with"):
        model(torch.tensor([[0, 5, 2]]), encoder_hidden_states=torch.zeros(1, 3, 16))


# ---- What is said instead of refused


@each_family
@pytest.mark.parametrize("row", [[0, 5, 1], [1, 5, 2]])
def test_padding_without_a_mask_is_warned_of(family: str, row: list[int]) -> None:
    model = Case(family, "Model").build()
    with pytest.warns(UserWarning, match="input_ids holds padding and no attention_mask was passed"):
        model(input_ids=torch.tensor([row]))


@each_family
def test_unknown_argument_of_a_call(family: str) -> None:
    with pytest.raises(
        TypeError, match=r"Model\(\) does not know the argument 'atention_mask'; did you mean 'attention_mask'"
    ):
        Case(family, "Model").build()(input_ids=torch.tensor([[0, 5, 2]]), atention_mask=torch.ones(1, 3))
