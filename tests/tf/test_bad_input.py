"""A user's mistakes get the core's words, before anything runs, eagerly and as far as sizes are known in graphs too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.tf.models import CASES, CLASSES, VOCABULARY, Case, each_case, packed_calls  # noqa: E402
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402

TOKENS = ("ForMaskedLM", "ForCausalLM", "ForTokenClassification")
BASE = "XLMRoberta"


def refused(case: Case, message: str, *, model: Any = None, **inputs: Any) -> None:
    """The call is refused with this message before the encoder runs."""
    model = case.kept() if model is None else model
    with packed_calls(model) as ran, pytest.raises(InputError, match=message):
        model(**inputs)
    assert not ran, "the mistake was noticed only after computing"


def ids(case: Case, *rows: list[int]) -> Any:
    return case.grouped(np.array(rows * 2 if len(rows) == 1 else rows))


# ---- Every head


@each_case
def test_ids(case):
    refused(
        case,
        r"input_ids must lie between 0 and 40, received 41 in row 0, position 1; .*vocab_size",
        input_ids=ids(case, [0, 41, 2]),
    )
    refused(case, r"input_ids must lie between 0 and 40, received -1", input_ids=ids(case, [0, -1, 2]))
    refused(case, r"sequence has 23 tokens, this checkpoint takes 22 .*max_length=22", input_ids=ids(case, [4] * 23))
    for dtype in (np.float32, bool):
        refused(
            case,
            r"input_ids must hold integers, received \w+; .*inputs_embeds",
            input_ids=ids(case, [0, 5, 2]).astype(dtype),
        )
    given = ids(case, [0, 5, 2])
    embeds = case.grouped(np.zeros((2, 3, 16), np.float32))
    refused(case, "exactly one of input_ids and inputs_embeds, received both", input_ids=given, inputs_embeds=embeds)
    refused(case, "exactly one of input_ids and inputs_embeds, received neither")
    refused(case, r"input_ids must have the shape \(batch, .*received \(3,\)", input_ids=np.array([0, 5, 2]))
    refused(case, r"at least one (sequence|example).*received the shape", input_ids=given[:0])
    refused(case, r"inputs_embeds must have the shape .*hidden_size", inputs_embeds=embeds[..., :15])
    refused(case, r"inputs_embeds must hold floating point numbers", inputs_embeds=embeds.astype(int))


@each_case
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2, r"attention_mask must lie between 0 and 1, received 2"),
        (0.5, r"attention_mask must hold 0 and 1 only, received 0\.5"),
        (-10000.0, r"attention_mask must lie between 0 and 1, received -10000"),
        (float("nan"), r"attention_mask must hold 0 and 1 only, received nan"),
    ],
)
def test_values_of_the_mask(case, value, message):
    mask = case.grouped(np.array([[1, 1, value], [1, 1, 0]]))
    refused(case, message, input_ids=ids(case, [0, 5, 2]), attention_mask=mask)


@each_case
@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids", "position_ids"])
def test_beside_the_ids(case, name):
    given = ids(case, [0, 5, 2])
    for shape in ((2, 4), (4, 3), (2,), (2, 3, 1), (1, 1, 3, 3)):
        shape = (1, *shape) if case.head == "ForMultipleChoice" else shape
        message = rf"{name} must have the shape .*received \("
        refused(case, message, input_ids=given, **{name: np.ones(shape, int)})
    if name != "attention_mask":
        highest = 1 if name == "token_type_ids" else 23
        for value in (-1, highest + 1):
            message = rf"{name} must lie between 0 and {highest}, received {value}"
            refused(case, message, input_ids=given, **{name: ids(case, [1, value, 1])})


@each_case
def test_head_masks_and_configs(case):
    message = r"head_mask must have the shape \(2,\) or \(2, 2\), received"
    refused(case, message, input_ids=ids(case, [0, 5, 2]), head_mask=np.ones((3,), np.float32))
    other = XLMRobertaXLConfig if case.family == BASE else XLMRobertaConfig
    config = other(**{**vars(case.config()), "model_type": None})
    with pytest.raises(ConfigError, match=rf"TF{case} expects an {case.family}Config, received {other.__name__}"):
        case.model_class(config)
    with pytest.raises(ConfigError, match=r"received a dict"):
        case.model_class({"vocab_size": 3})
    config = case.config()
    config.hidden_size = 15
    with pytest.raises(ConfigError, match=r"hidden_size \(15\) must be a multiple of num_attention_heads \(2\)"):
        case.model_class(config)


# ---- Labels


@pytest.mark.parametrize("case", [case for case in CASES if case.head in TOKENS], ids=str)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [[0, -2, 1], [0, 0, 0]],
            r"labels must lie between 0 and (40|2), received -2 in row 0, position 1; .*-100 to ignore",
        ),
        ([[0, VOCABULARY, 1], [0, 0, 0]], r"labels must lie between 0 and (40|2), received 41"),
        ([[0, 1], [0, 1]], r"labels must have the shape \(2, 3\), received \(2, 2\)"),
        ([0, 1], r"labels must have the shape \(2, 3\), received \(2,\)"),
        ([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], r"labels must hold integers here, received float64"),
    ],
)
def test_token_labels(case, labels, message):
    refused(case, message, input_ids=ids(case, [0, 5, 2]), labels=np.array(labels))


@pytest.mark.parametrize(
    ("config", "labels", "message"),
    [
        ({}, [0, CLASSES], r"labels must lie between 0 and 2, received 3"),
        ({}, [0, 1, 2], r"labels must have the shape \(2,\) or \(2, 1\), received \(3,\)"),
        ({"problem_type": "single_label_classification"}, [0.0, 1.0], r"labels must hold integers here"),
        ({"problem_type": "multi_label_classification"}, [0, 1], r"labels must have the shape \(2, 3\)"),
        ({"problem_type": "multi_label_classification"}, [[0, 1, 2], [0, 1, 1]], r"between 0 and 1, received 2"),
        ({}, [[0.0, 1.0, -100.0], [0.0, 1.0, 1.0]], r"labels must lie between 0 and 1, received -100"),
        ({"problem_type": "regression"}, [0.5, 1.5], r"labels must have the shape \(2, 3\), received \(2,\)"),
        ({"num_labels": 1}, [0.5, 1.5, 2.5], r"labels must have the shape \(2,\) or \(2, 1\), received \(3,\)"),
        ({"num_labels": 1}, [0.5 + 1j, 1j], r"labels must hold numbers, received complex128"),
    ],
)
def test_sequence_labels(config, labels, message):
    case = Case(BASE, "ForSequenceClassification")
    model = case.build(**config) if config else case.kept()
    refused(case, message, model=model, input_ids=ids(case, [0, 5, 2]), labels=np.array(labels))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([2], r"labels must lie between 0 and 1, received 2"),
        ([0, 1], r"labels must have the shape \(1,\) or \(1, 1\), received \(2,\)"),
        ([0.0], r"labels must hold integers here"),
    ],
)
def test_choice_labels(labels, message):
    case = Case(BASE, "ForMultipleChoice")
    refused(case, message, input_ids=ids(case, [0, 5, 2]), labels=np.array(labels))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({"start_positions": [0, 1]}, r"start_positions and end_positions together, received one of them"),
        ({"start_positions": [0], "end_positions": [0, 1]}, r"start_positions must have the shape \(2,\) or \(2, 1\)"),
        ({"start_positions": [0, 1], "end_positions": [0.0, 1.0]}, r"end_positions must hold integers"),
    ],
)
def test_answer_positions(positions, message):
    case = Case(BASE, "ForQuestionAnswering")
    given = {name: np.array(x) for name, x in positions.items()}
    refused(case, message, input_ids=ids(case, [0, 5, 2]), **given)


# ---- The arguments of the vocabulary heads, and of decoders


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masked_positions": [[0, 3], [1, -1]]}, r"masked_positions must lie between -1 \(none\) and 2 .*received 3"),
        ({"masked_positions": [0, 1]}, r"masked_positions must have the shape \(2, P\) .*received \(2,\)"),
        ({"masked_positions": [[0, 1]]}, r"masked_positions must have the shape \(2, P\) .*received \(1, 2\)"),
        ({"masked_positions": [[0.0], [1.0]]}, r"masked_positions must hold integers, received float64"),
        ({"sparse_prediction": True}, r"sparse_prediction=True .*needs labels"),
        (
            {"masked_positions": [[0], [1]], "labels": [[1, 2], [3, 4]]},
            r"labels must have the shape \(2, 3\) or \(2, 1\)",
        ),
        (
            {"masked_positions": [[0], [1]], "labels": [[1], [2]], "sparse_prediction": True},
            r"sparse_prediction and masked_positions both choose",
        ),
    ],
)
def test_masked_language_modelling(arguments, message):
    case = Case(BASE, "ForMaskedLM")
    given = {name: np.array(x) if isinstance(x, list) else x for name, x in arguments.items()}
    refused(case, message, input_ids=ids(case, [0, 5, 2]), **given)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (-1, r"logits_to_keep must not be negative, received -1"),
        (np.array([3]), r"logits_to_keep must name columns below 3, received \[3\]"),
        (np.array([0.0]), r"logits_to_keep must be a number or integers \(n,\), received float64"),
        (np.array([[0]]), r"logits_to_keep must be a number or integers \(n,\), received int64 of \(1, 1\)"),
    ],
)
def test_logits_to_keep(keep, message):
    case = Case(BASE, "ForCausalLM")
    rows = ids(case, [0, 5, 2])
    refused(case, message, input_ids=rows, logits_to_keep=keep)
    refused(case, r"labels need the logits of every position", input_ids=rows, labels=rows, logits_to_keep=1)


@pytest.mark.parametrize(
    ("states", "mask", "message"),
    [
        ((2, 3, 15), None, r"must have the shape \(2, source length, 16\), received \(2, 3, 15\)"),
        ((3, 3, 16), None, r"must have the shape \(2, source length, 16\), received \(3, 3, 16\)"),
        ((2, 0, 16), None, r"must have the shape \(2, source length, 16\), received \(2, 0, 16\)"),
        ((2, 4, 16), (2, 3), r"encoder_attention_mask must have the shape \(2, 4\), received \(2, 3\)"),
    ],
)
def test_decoder_inputs(states, mask, message):
    case = Case(BASE, "ForCausalLM")
    given = {"encoder_hidden_states": np.zeros(states, np.float32)}
    refused(case, "needs a decoder with cross-attention", input_ids=ids(case, [0, 5, 2]), **given)
    given.update({} if mask is None else {"encoder_attention_mask": np.ones(mask)})
    model = case.build(add_cross_attention=True)
    refused(case, message, model=model, input_ids=ids(case, [0, 5, 2]), **given)


def test_cross_attention_cannot_be_added_afterwards():
    model = Case(BASE, "ForCausalLM").build()
    model.config.is_decoder = model.config.add_cross_attention = True
    with pytest.raises(InputError, match=r"needs a decoder with cross-attention.*build or load it with"):
        model(np.array([[0, 5, 2]]), encoder_hidden_states=np.zeros((1, 3, 16), np.float32))


@each_case
def test_masks_beside_labels(case):
    inputs = case.inputs()
    labels = case.labels(inputs)
    mask = inputs.pop("attention_mask")
    refused(
        case, r"attention_mask must be a tf\.Tensor, received list", attention_mask=mask.tolist(), **inputs, **labels
    )
    short = mask[..., :-1]
    refused(case, r"attention_mask must have the shape", attention_mask=short, **inputs, **labels)


def test_a_configuration_says_how_to_attend():
    case = Case(BASE, "Model")
    assert case.build(attn_implementation="eager").attn_implementation == "eager"
    assert case.build().attn_implementation == "sdpa"
    with pytest.raises(InputError, match="attn_implementation must be one of"):
        case.build(attn_implementation="flash")


# ---- Graphs, lists, and what is said instead of refused


def test_a_graph_refuses_what_its_sizes_show():
    model = Case(BASE, "ForTokenClassification").kept()
    for shapes, message in (
        (([None, 23], None), r"sequence has 23 tokens, this checkpoint takes 22"),
        (([None], None), r"input_ids must have the shape \(batch, length\), received \(any,\)"),
        (([None, 5], [None, 4]), r"labels must have the shape \(any, 5\), received \(any, 4\)"),
    ):
        names = ("input_ids", "labels")
        signature = [{n: tf.TensorSpec(s, tf.int32) for n, s in zip(names, shapes, strict=True) if s is not None}]
        with pytest.raises(InputError, match=message):
            tf.function(model, input_signature=signature).get_concrete_function()


# By head and input: shapes for which a graph that knows no size would give numbers, or an error of TensorFlow.
IN_GRAPHS = {
    "Model": {
        "attention_mask": ((4, 7), (4, 9), (3, 8), (4, 1), (1, 8)),
        "position_ids": ((1, 7), (2, 8), (4, 1)),
        "head_mask": ((1, 2), (3, 2), (2, 1)),
        "inputs_embeds": ((4, 8, 1), (4, 0, 16), (0, 8, 16), (4, 23, 16)),
    },
    "ForSequenceClassification": {"labels": ((3,), (5,), (1,)), "sample_weight": ((1,), (8,))},
    "ForTokenClassification": {"labels": ((4, 7), (3, 8), (8, 4), (1, 8)), "sample_weight": ((4, 2), (2, 2))},
    "ForMaskedLM": {"labels": ((4, 7), (1, 8)), "masked_positions": ((3, 2), (1, 2))},
    "ForCausalLM": {"labels": ((4, 7), (4, 9))},
    "ForQuestionAnswering": {"start_positions": ((3,), (1,)), "end_positions": ((5,),)},
    "ForMultipleChoice": {"labels": ((1,), (3,)), "attention_mask": ((3, 2, 8), (2, 3, 7), (1, 6, 8))},
}
OF_GRAPHS = {
    "attention_mask": (4, 8),
    "position_ids": (4, 8),
    "head_mask": (2, 2),
    "inputs_embeds": (4, 8, 16),
    "labels": (4, 8),
    "start_positions": (4,),
    "end_positions": (4,),
    "masked_positions": (4, 2),
    "sample_weight": (4,),
}


@pytest.mark.parametrize("head", IN_GRAPHS)
def test_a_graph_of_unknown_sizes_looks_at_them_when_it_runs(head):
    model = Case(BASE, head).kept()
    choices = head == "ForMultipleChoice"
    rows = {"ForSequenceClassification": {"labels": (4,)}, "ForMultipleChoice": {"labels": (2,)}}.get(head, {})
    right = {name: rows.get(name, OF_GRAPHS[name]) for name in IN_GRAPHS[head] if name != "sample_weight"}
    if choices:
        right["attention_mask"] = (2, 2, 8)
    floats = ("inputs_embeds", "head_mask", "sample_weight")
    given = {name: tf.ones(shape, tf.float32 if name in floats else tf.int32) for name, shape in right.items()}
    if "inputs_embeds" not in right:
        given["input_ids"] = tf.fill((2, 2, 8) if choices else (4, 8), 5)
    if "sample_weight" in IN_GRAPHS[head]:
        given["sample_weight"] = tf.ones(4 if head == "ForSequenceClassification" else (4, 8))
    signature = [{name: tf.TensorSpec([None] * x.shape.rank, x.dtype) for name, x in given.items()}]
    graph = tf.function(lambda given: model(**given), input_signature=signature)
    graph(given)
    for name, shapes in IN_GRAPHS[head].items():
        for shape in shapes:
            # Of several that do not fit each other then, any may be told of.
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"must have the shape|expected at least one"):
                graph({**given, name: tf.ones(shape, given[name].dtype)})


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.float16])
def test_masks_of_any_dtype(dtype):
    model = Case(BASE, "Model").kept()
    given = np.array([[0, 5, 2], [0, 2, 1]])
    expected = model(given, attention_mask=(given != 1).astype(int)).last_hidden_state
    found = model(given, attention_mask=(given != 1).astype(dtype)).last_hidden_state
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint64", "str", "complex64", "object"])
def test_masks_that_hold_no_numbers(dtype):
    given = np.array([[0, 5, 2], [0, 2, 1]])
    with pytest.raises(InputError, match="attention_mask must hold .*received"):
        Case(BASE, "Model").kept()(given, attention_mask=(given != 1).astype(int).astype(dtype))


def test_lists_are_no_tensors():
    model = Case(BASE, "Model").kept()
    with pytest.raises(InputError, match=r"input_ids must be a tf\.Tensor, received list; .*return_tensors='tf'"):
        model(input_ids=[[0, 5, 2]])
    with pytest.raises(InputError, match=r"input_ids must be a tf\.Tensor, received list"):
        model([[0, 5, 2]])


@pytest.mark.parametrize("row", [[0, 5, 1], [1, 5, 2]])
def test_padding_without_a_mask_is_warned_of(row):
    with pytest.warns(UserWarning, match="input_ids holds padding and no attention_mask was passed"):
        Case(BASE, "Model").kept()(input_ids=np.array([row]))


def test_unknown_argument_of_a_call():
    with pytest.raises(
        TypeError, match=r"Model\(\) does not know the argument 'atention_mask'; did you mean 'attention_mask'"
    ):
        Case(BASE, "Model").kept()(input_ids=np.array([[0, 5, 2]]), atention_mask=np.ones((1, 3)))
