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
TOKENS = ("ForMaskedLM", "ForCausalLM", "ForTokenClassification")
ONE_ROW = tuple(head for head in HEADS if head != "ForMultipleChoice")


def refused(case: Case, message: str, **inputs: Any) -> None:
    """The call is refused with this message, and neither a layer ran nor a value changed, in evaluation and in training."""
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


# ---- Every head


@each_case
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 5, VOCABULARY, 2], r"input_ids must lie between 0 and 40, received 41; .*vocab_size"),
        ([0, -1, 5, 2], r"input_ids must lie between 0 and 40, received -1"),
        ([4] * 23, r"sequence has 23 tokens, this checkpoint takes 22 .*max_length=22"),
    ],
)
def test_ids(case: Case, row: list[int], message: str) -> None:
    refused(case, message, input_ids=ids(case, row))


@each_case
@pytest.mark.parametrize("kind", [list, np.ndarray])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_mask_that_is_no_tensor(case: Case, kind: type, labelled: bool) -> None:
    inputs = case.inputs()
    labels = case.labels(inputs) if labelled else {}
    mask = inputs["attention_mask"]
    inputs["attention_mask"] = mask.tolist() if kind is list else mask.numpy()
    refused(case, f"attention_mask must be a torch.Tensor, received {kind.__name__}", **inputs, **labels)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_dtype_of_ids(case: Case, dtype: torch.dtype) -> None:
    refused(
        case,
        r"input_ids must hold integers, received torch\.\w+; .*inputs_embeds",
        input_ids=ids(case, [0, 5, 2]).to(dtype),
    )


@each_case
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2, r"attention_mask must lie between 0 and 1, received 2"),
        (-1, r"attention_mask must lie between 0 and 1, received -1"),
        (0.5, r"attention_mask must hold 0 and 1 only, received 0\.5"),
        (-10000.0, r"attention_mask must lie between 0 and 1, received -10000"),
        (float("nan"), r"attention_mask must hold 0 and 1 only, received nan"),
    ],
)
def test_values_of_the_mask(case: Case, value: float, message: str) -> None:
    mask = torch.tensor([[1, 1, value], [1, 1, 0]])
    refused(case, message, input_ids=ids(case, [0, 5, 2]), attention_mask=case.grouped(mask))


@each_case
@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids", "position_ids"])
@pytest.mark.parametrize("shape", [(2, 4), (4, 3), (2,), (2, 3, 1), (1, 1, 3, 3)])
def test_shapes_beside_the_ids(case: Case, name: str, shape: tuple[int, ...]) -> None:
    if case.head == "ForMultipleChoice":
        shape = (1, *shape)
    refused(
        case,
        rf"{name} must have the shape .*received \(",
        input_ids=ids(case, [0, 5, 2]),
        **{name: torch.ones(shape).long()},
    )


@each_case
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("token_type_ids", 2, r"token_type_ids must lie between 0 and 1, received 2"),
        ("token_type_ids", -1, r"token_type_ids must lie between 0 and 1, received -1"),
        ("position_ids", 24, r"position_ids must lie between 0 and 23, received 24; .*max_position_embeddings"),
        ("position_ids", -1, r"position_ids must lie between 0 and 23, received -1"),
    ],
)
def test_values_beside_the_ids(case: Case, name: str, value: int, message: str) -> None:
    refused(case, message, input_ids=ids(case, [0, 5, 2]), **{name: ids(case, [1, value, 1])})


@each_case
def test_both_or_neither_of_ids_and_embeddings(case: Case) -> None:
    embeds = case.grouped(torch.zeros(2, 3, 16))
    labels = {} if case.head in ("Model", "ForQuestionAnswering") else {"labels": torch.zeros(2, 3).long()}
    for extra in ({}, labels):
        refused(
            case,
            r"exactly one of input_ids and inputs_embeds, received both",
            input_ids=ids(case, [0, 5, 2]),
            inputs_embeds=embeds,
            **extra,
        )
        refused(case, r"exactly one of input_ids and inputs_embeds, received neither", **extra)


@each_case
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(case: Case, shape: tuple[int, int]) -> None:
    if case.head == "ForMultipleChoice":
        shape = (shape[0], 2, shape[1])
    labels = {"labels": torch.zeros(shape).long()} if case.head in TOKENS else {}
    message = r"at least one (sequence|example).*received the shape"
    refused(case, message, input_ids=torch.zeros(shape).long(), **labels)
    refused(case, message, inputs_embeds=torch.zeros(*shape, 16))


@each_case
def test_axes_of_the_ids(case: Case) -> None:
    labels = {"labels": torch.zeros(3).long()} if case.head in TOKENS else {}
    refused(
        case, r"input_ids must have the shape \(batch, .*received \(3,\)", input_ids=torch.tensor([0, 5, 2]), **labels
    )
    too_many = torch.zeros(1, 1, 2, 3).long()
    refused(case, r"input_ids must have the shape \(batch, .*received \(1, 1, 2, 3\)", input_ids=too_many)


@each_case
def test_embeddings(case: Case) -> None:
    refused(case, r"inputs_embeds must have the shape .*hidden_size", inputs_embeds=case.grouped(torch.zeros(2, 3, 15)))
    refused(case, r"inputs_embeds must have the shape .*received \(2, 16\)", inputs_embeds=torch.zeros(2, 16))
    refused(
        case,
        r"inputs_embeds must hold floating point numbers",
        inputs_embeds=case.grouped(torch.zeros(2, 3, 16).long()),
    )
    refused(
        case, r"sequence has 23 tokens, this checkpoint takes 22", inputs_embeds=case.grouped(torch.zeros(2, 23, 16))
    )


@each_case
@pytest.mark.parametrize("shape", [(3,), (1, 2), (3, 2), (1, 2, 1, 1, 1)])
def test_shape_of_the_head_mask(case: Case, shape: tuple[int, ...]) -> None:
    refused(
        case,
        r"head_mask must have the shape \(2,\) or \(2, 2\), received",
        input_ids=ids(case, [0, 5, 2]),
        head_mask=torch.ones(shape),
    )


@each_case
def test_config_of_another_family(case: Case) -> None:
    other = XLMRobertaXLConfig if case.family == "XLMRoberta" else XLMRobertaConfig
    config = other(**{**vars(case.config()), "model_type": None})
    with pytest.raises(ConfigError, match=rf"{case} expects a {case.family}Config, received {other.__name__}"):
        case.model_class(config)
    with pytest.raises(ConfigError, match=r"received dict"):
        case.model_class({"vocab_size": 3})


@each_case
def test_config_made_impossible_after_its_construction(case: Case) -> None:
    config = case.config()
    config.hidden_size = 15
    with pytest.raises(ConfigError, match=r"hidden_size \(15\) must be a multiple of num_attention_heads \(2\)"):
        case.model_class(config)


# ---- Labels


@pytest.mark.parametrize("case", [case for case in CASES if case.head in TOKENS], ids=str)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, -2, 1], [0, 0, 0]], r"labels must lie between 0 and (40|2), received -2; .*-100 to ignore"),
        ([[0, VOCABULARY, 1], [0, 0, 0]], r"labels must lie between 0 and (40|2), received 41"),
        ([[0, 1], [0, 1]], r"labels must have the shape \(2, 3\), received \(2, 2\)"),
        ([0, 1], r"labels must have the shape \(2, 3\), received \(2,\)"),
        ([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], r"labels must hold integers here, received torch\.float32"),
    ],
)
def test_token_labels(case: Case, labels: list[Any], message: str) -> None:
    refused(case, message, input_ids=ids(case, [0, 5, 2]), labels=torch.tensor(labels))


@each_family
@pytest.mark.parametrize(
    ("config", "labels", "message"),
    [
        ({}, [0, CLASSES], r"labels must lie between 0 and 2, received 3"),
        ({}, [0, -1], r"labels must lie between 0 and 2, received -1"),
        ({}, [0, 1, 2], r"labels must have the shape \(2,\) or \(2, 1\), received \(3,\)"),
        ({}, [[0, 1, 1], [1, 0, 0]], r"labels must have the shape \(2,\) or \(2, 1\), received \(2, 3\)"),
        ({"problem_type": "single_label_classification"}, [0.0, 1.0], r"labels must hold integers here"),
        (
            {"problem_type": "multi_label_classification"},
            [0, 1],
            r"labels must have the shape \(2, 3\), received \(2,\)",
        ),
        (
            {"problem_type": "multi_label_classification"},
            [[0, 1, 2], [0, 1, 1]],
            r"labels must lie between 0 and 1, received 2",
        ),
        ({}, [[0.0, 1.0, -100.0], [0.0, 1.0, 1.0]], r"labels must lie between 0 and 1, received -100"),
        ({}, [[0.0, 1.0], [1.0, 0.0]], r"labels must have the shape \(2, 3\), received \(2, 2\)"),
        ({"problem_type": "regression"}, [0.5, 1.5], r"labels must have the shape \(2, 3\), received \(2,\)"),
        ({"num_labels": 1}, [0.5, 1.5, 2.5], r"labels must have the shape \(2,\) or \(2, 1\), received \(3,\)"),
        ({"num_labels": 1}, [0.5 + 1j, 1j], r"labels must hold numbers, received torch\.complex64"),
    ],
)
def test_sequence_labels(family: str, config: dict[str, Any], labels: list[Any], message: str) -> None:
    case = Case(family, "ForSequenceClassification")
    refused(case, message, input_ids=ids(case, [0, 5, 2]), labels=torch.tensor(labels), config=config)


@each_family
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([2], r"labels must lie between 0 and 1, received 2"),
        ([-1], r"labels must lie between 0 and 1, received -1"),
        ([0, 1], r"labels must have the shape \(1,\) or \(1, 1\), received \(2,\)"),
        ([0.0], r"labels must hold integers here"),
    ],
)
def test_choice_labels(family: str, labels: list[Any], message: str) -> None:
    case = Case(family, "ForMultipleChoice")
    refused(case, message, input_ids=ids(case, [0, 5, 2]), labels=torch.tensor(labels))


@each_family
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({"start_positions": [0, 1]}, r"start_positions and end_positions together, received one of them"),
        ({"end_positions": [0, 1]}, r"start_positions and end_positions together, received one of them"),
        (
            {"start_positions": [0], "end_positions": [0, 1]},
            r"start_positions must have the shape \(2,\) or \(2, 1\), received \(1,\)",
        ),
        ({"start_positions": [0, 1], "end_positions": [[0, 1]]}, r"end_positions must have the shape"),
        (
            {"start_positions": [0, 1], "end_positions": [0.0, 1.0]},
            r"end_positions must hold integers, received torch\.float32",
        ),
    ],
)
def test_answer_positions(family: str, positions: dict[str, list[Any]], message: str) -> None:
    case = Case(family, "ForQuestionAnswering")
    refused(case, message, input_ids=ids(case, [0, 5, 2]), **{name: torch.tensor(x) for name, x in positions.items()})


# ---- The arguments of the vocabulary heads


@each_family
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masked_positions": [[0, 3], [1, -1]]}, r"masked_positions must lie between -1 \(none\) and 2 .*received 3"),
        ({"masked_positions": [[0, -2], [1, -1]]}, r"masked_positions must lie between -1 .*received -2"),
        ({"masked_positions": [0, 1]}, r"masked_positions must have the shape \(2, P\) .*received \(2,\)"),
        ({"masked_positions": [[0, 1]]}, r"masked_positions must have the shape \(2, P\) .*received \(1, 2\)"),
        ({"masked_positions": [[], []]}, r"masked_positions must have the shape \(2, P\) with P at least 1"),
        ({"masked_positions": [[0.0], [1.0]]}, r"masked_positions must hold integers, received torch\.float32"),
        ({"sparse_prediction": True}, r"sparse_prediction=True .*needs labels"),
        (
            {"masked_positions": [[0], [1]], "labels": [[1, 2], [3, 4]]},
            r"labels must have the shape \(2, 3\) or \(2, 1\), received \(2, 2\)",
        ),
        ({"masked_positions": [[0], [1]], "labels": [[41], [0]]}, r"labels must lie between 0 and 40, received 41"),
        (
            {"masked_positions": [[0], [1]], "labels": [[1], [2]], "sparse_prediction": True},
            r"sparse_prediction and masked_positions both choose",
        ),
    ],
)
def test_masked_language_modelling(family: str, arguments: dict[str, Any], message: str) -> None:
    case = Case(family, "ForMaskedLM")
    tensors = {name: torch.tensor(x) if isinstance(x, list) else x for name, x in arguments.items()}
    refused(case, message, input_ids=ids(case, [0, 5, 2]), **tensors)


@each_family
@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (-1, r"logits_to_keep must not be negative, received -1"),
        (torch.tensor([3]), r"logits_to_keep must name columns below 3, received \[3\]"),
        (torch.tensor([-4]), r"logits_to_keep must name columns below 3, received \[-4\]"),
        (torch.tensor([0.0]), r"logits_to_keep must be a number or integers \(n,\), received torch\.float32"),
        (torch.tensor([[0]]), r"logits_to_keep must be a number or integers \(n,\), received torch\.int64 of \(1, 1\)"),
    ],
)
def test_logits_to_keep(family: str, keep: int | Tensor, message: str) -> None:
    case = Case(family, "ForCausalLM")
    refused(case, message, input_ids=ids(case, [0, 5, 2]), logits_to_keep=keep)


def test_labels_and_logits_to_keep() -> None:
    case = Case("XLMRoberta", "ForCausalLM")
    rows = ids(case, [0, 5, 2])
    refused(case, r"labels need the logits of every position", input_ids=rows, labels=rows, logits_to_keep=1)


# ---- Decoders

CROSS = {"is_decoder": True, "add_cross_attention": True}


@each_family
@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({}, {"encoder_hidden_states": torch.zeros(2, 3, 16)}, r"needs a decoder with cross-attention"),
        (
            CROSS,
            {"encoder_hidden_states": torch.zeros(2, 3, 15)},
            r"must have the shape \(2, source length, 16\), received \(2, 3, 15\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": torch.zeros(3, 3, 16)},
            r"must have the shape \(2, source length, 16\), received \(3, 3, 16\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": torch.zeros(2, 16)},
            r"must have the shape \(2, source length, 16\), received \(2, 16\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": torch.zeros(2, 0, 16)},
            r"must have the shape \(2, source length, 16\), received \(2, 0, 16\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": torch.zeros(2, 4, 16), "encoder_attention_mask": torch.ones(2, 3)},
            r"encoder_attention_mask must have the shape \(2, 4\), received \(2, 3\)",
        ),
        (
            {"is_decoder": True},
            {"past_key_values": ((torch.zeros(1),),)},
            r"past_key_values is not supported .*expected None",
        ),
    ],
)
def test_decoder_inputs(
    family: str, head: str, config: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    case = Case(family, head)
    refused(case, message, input_ids=ids(case, [0, 5, 2]), config=config, **arguments)


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
    with pytest.raises(TypeError, match="unexpected keyword argument 'atention_mask'"):
        Case(family, "Model").build()(input_ids=torch.tensor([[0, 5, 2]]), atention_mask=torch.ones(1, 3))
