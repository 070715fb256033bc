"""What the reference promises beside its numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.parity.cases import CASES
from tests.parity.compare import flatten
from tests.parity.inputs import make
from xlmr_core import XLMRobertaConfig, reference
from xlmr_core.config import ACTIVATIONS
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS

CASE = CASES["XLMRoberta-MaskedLM-right"]
IDS = [[0, 5, 6, 2], [0, 7, 2, 1]]


def test_positions_count_what_is_not_padding() -> None:
    config = XLMRobertaConfig(vocab_size=10)
    ids = np.array([[0, 5, 6, 2], [0, 5, 2, 1], [1, 1, 0, 2], [0, 1, 5, 2], [1, 1, 1, 1]])
    assert reference.make_position_ids(config, ids).tolist() == [
        [2, 3, 4, 5],
        [2, 3, 4, 1],
        [1, 1, 2, 3],
        [2, 1, 3, 4],
        [1, 1, 1, 1],
    ]


def test_every_activation_and_head_is_there() -> None:
    assert set(reference.ACTIVATION_FUNCTIONS) == set(ACTIVATIONS)
    assert {case.head for case in CASES.values()} == set(HEADS)


@pytest.mark.parametrize(
    ("name", "at_one"),
    [
        ("gelu", 0.5 * (1 + math.erf(1 / math.sqrt(2)))),
        ("gelu_new", 0.8411919906082768),
        ("relu", 1.0),
        ("silu", 1 / (1 + math.exp(-1))),
        ("tanh", math.tanh(1)),
    ],
)
def test_activation_values(name: str, at_one: float) -> None:
    far = np.array([1.0, -800.0, 0.0])
    values = reference.ACTIVATION_FUNCTIONS[name](far)
    assert values == pytest.approx([at_one, -1.0 if name == "tanh" else 0.0, 0.0], rel=1e-14, abs=0)


def test_a_callable_activation() -> None:
    made = make(CASE)
    by_name = reference.forward(make(CASE, hidden_act="relu").config, CASE.head, made.params, **made.inputs)
    by_function = reference.forward(
        make(CASE, hidden_act=lambda x: np.maximum(x, 0)).config, CASE.head, made.params, **made.inputs
    )
    assert np.array_equal(by_name.logits, by_function.logits)


def test_outputs_are_float64_and_nothing_is_changed() -> None:
    made = make(CASE)
    before = {name: x.copy() for name, x in {**made.params, **made.inputs}.items()}
    written = made.config.to_json_string()
    output = reference.forward(made.config, CASE.head, made.params, **made.inputs)
    assert {x.dtype for x in flatten(output).values()} == {np.dtype(np.float64)}
    assert isinstance(output, HEADS[CASE.head].output)
    assert all(np.array_equal(before[name], x) for name, x in {**made.params, **made.inputs}.items())
    assert made.config.to_json_string() == written


def test_tied_parameters_may_be_absent_and_the_pooler_too() -> None:
    made = make(CASE)
    fewer = {name: x for name, x in made.params.items() if not name.startswith("lm_head.decoder")}
    lists = {name: x.tolist() for name, x in made.inputs.items()}
    full = reference.forward(made.config, CASE.head, made.params, **made.inputs)
    assert np.array_equal(full.logits, reference.forward(made.config, CASE.head, fewer, **lists).logits)
    bare = make(CASES["XLMRoberta-Model-right"])
    unpooled = {name: x for name, x in bare.params.items() if not name.startswith("pooler")}
    assert reference.forward(bare.config, "Model", unpooled, **bare.inputs).pooler_output is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "neither"),
        ({"input_ids": [[0, 61]]}, "input_ids must lie between 0 and 60, received 61"),
        ({"input_ids": [[0, -1]]}, "received -1"),
        ({"input_ids": [[5] * 39]}, "39 tokens, this checkpoint takes 38"),
        ({"input_ids": IDS, "attention_mask": [[1, 1]]}, "attention_mask must have the shape"),
        ({"input_ids": IDS, "token_type_ids": [[0, 1, 0, 0]]}, "token_type_ids must lie between 0 and 0"),
        ({"input_ids": IDS, "position_ids": [[0, 1, 2, 40]]}, "position_ids must lie between 0 and 39"),
        ({"input_ids": IDS, "labels": [[1, 2, 3]]}, "labels must have the shape"),
        ({"input_ids": IDS, "labels": [[1, 2, 3, 61], [1, 2, 3, 4]]}, "labels must lie between 0 and 60, received 61"),
        ({"input_ids": IDS, "masked_positions": [[0, 4], [0, 0]]}, r"masked_positions must lie between -1 .* and 3"),
        ({"input_ids": IDS, "masked_positions": [[0, -2], [0, 0]]}, "masked_positions"),
        ({"input_ids": IDS, "sparse_prediction": True}, "needs labels"),
    ],
)
def test_bad_inputs_are_refused(inputs: dict[str, object], message: str) -> None:
    made = make(CASE)
    with pytest.raises(InputError, match=message):
        reference.forward(made.config, CASE.head, made.params, **inputs)


def test_a_decoder_without_cross_attention_refuses_an_encoder() -> None:
    case = CASES["XLMRoberta-CausalLM-right"]
    made = make(case)
    states = np.zeros((3, 4, 24))
    with pytest.raises(InputError, match="add_cross_attention"):
        reference.forward(made.config, case.head, made.params, **made.inputs, encoder_hidden_states=states)


def test_an_unknown_argument_is_an_error() -> None:
    made = make(CASE)
    with pytest.raises(TypeError, match="past_key_values"):
        reference.forward(made.config, CASE.head, made.params, **made.inputs, past_key_values=None)
