"""What a call of a model may hold: decided once for every backend, so tested once, here. The backends test that they
ask.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xlmr_core.calls import Call
from xlmr_core.checks import (
    Seen,
    check_choice,
    check_encoder_inputs,
    check_head_mask,
    check_memory,
    place_of,
    refuse_cache,
    refuse_layout,
    refuse_type,
    see_array,
    warn_of_attended_padding,
)
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.head_checks import (
    check_class_labels,
    check_kept_columns,
    check_masked_positions,
    check_num_labels_of_answers,
    check_sample_weight,
    check_sequence_labels,
    check_shape_of_choices,
    check_span,
    check_where_logits_are_computed,
    refuse_tied_projection,
)
from xlmr_core.packing import Needs, broken_promise, check_packing_mode, may_pack, refuse_packing

CONFIG = XLMRobertaConfig(
    vocab_size=41,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=24,
    type_vocab_size=2,
    num_labels=3,
)
IDS = [[0, 5, 2], [0, 5, 2]]


def seen(name: str, value: Any) -> Seen:
    """Of a nested list or an array; as a shape alone for a tuple, as a compiler sees it."""
    if isinstance(value, tuple):
        of_zeros = see_array(name, np.zeros(value, np.int64))
        assert of_zeros is not None
        return replace(of_zeros, values=None)
    found = see_array(name, np.asarray(value))
    assert found is not None
    return found


def check(**inputs: Any) -> tuple[int, int]:
    config = CONFIG.copy(**inputs.pop("config", {}))
    given = {"input_ids": IDS, **inputs}
    return check_encoder_inputs(
        config, **{name: None if value is None else seen(name, value) for name, value in given.items()}
    )


# ---- A call of the encoder


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"input_ids": np.array(IDS, np.int8)},
        {"input_ids": np.array(IDS, np.uint8)},
        {"input_ids": [[0, 40]] * 2},
        {"input_ids": [[4] * 22] * 2},
        {"input_ids": (2, 3)},
        {"input_ids": None, "inputs_embeds": np.zeros((2, 3, 16), np.float32)},
        {"input_ids": None, "inputs_embeds": np.full((2, 3, 16), np.nan, np.float16)},
        {"attention_mask": [[1, 1, 0]] * 2},
        {"attention_mask": [[True, True, False]] * 2},
        {"attention_mask": [[1.0, 1.0, 0.0]] * 2},
        {"attention_mask": np.ones((2, 3, 3), np.int64)},
        {"token_type_ids": [[0, 1, 1]]},
        {"position_ids": [[0, 23, 1]]},
        {"input_ids": [[4] * 30] * 2, "position_ids": [[3] * 30]},
    ],
    ids=str,
)
def test_right_inputs(inputs: dict[str, Any]) -> None:
    assert check(**inputs)[0] == 2


EMBEDS = np.zeros((2, 3, 16), np.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[0, 41, 2]]}, r"between 0 and 40, received 41 in row 0, position 1; .*vocab_size.*tokenizer"),
        ({"input_ids": [[0, -1, 2]]}, r"input_ids must lie between 0 and 40, received -1"),
        ({"input_ids": np.array(IDS, float)}, r"input_ids must hold integers, received float64; .*inputs_embeds"),
        ({"input_ids": np.array(IDS, bool)}, r"input_ids must hold integers, received bool"),
        ({"input_ids": [[4] * 23]}, r"sequence has 23 tokens, this checkpoint takes 22 .*max_length=22"),
        (
            {
                "input_ids": [[4] * 25],
                "position_ids": [[3] * 25],
                "config": {"position_embedding_type": "relative_key"},
            },
            r"sequence has 25 tokens, relative positions reach 24; shorten it",
        ),
        ({"input_ids": [0, 5, 2]}, r"input_ids must have the shape \(batch, length\), received \(3,\)"),
        ({"input_ids": (1, 1, 3)}, r"input_ids must have the shape \(batch, length\), received \(1, 1, 3\)"),
        ({"input_ids": (0, 3)}, r"at least one sequence of at least one token, received the shape \(0, 3\)"),
        ({"input_ids": (2, 0)}, r"at least one sequence of at least one token, received the shape \(2, 0\)"),
        ({"inputs_embeds": EMBEDS}, r"exactly one of input_ids and inputs_embeds, received both"),
        ({"input_ids": None}, r"exactly one of input_ids and inputs_embeds, received neither"),
        (
            {"input_ids": None, "inputs_embeds": EMBEDS[..., :15]},
            r"inputs_embeds must have the shape \(batch, length, 16\), received \(2, 3, 15\); .*hidden_size",
        ),
        ({"input_ids": None, "inputs_embeds": EMBEDS[0]}, r"inputs_embeds must have the shape .*received \(3, 16\)"),
        (
            {"input_ids": None, "inputs_embeds": EMBEDS.astype(int)},
            r"inputs_embeds must hold floating point numbers, received int64; pass ids as input_ids",
        ),
        ({"attention_mask": [[1, 2, 1]] * 2}, r"attention_mask must lie between 0 and 1, received 2"),
        ({"attention_mask": [[1, -1, 1]] * 2}, r"attention_mask must lie between 0 and 1, received -1"),
        ({"attention_mask": [[1, 0.5, 1]] * 2}, r"attention_mask must hold 0 and 1 only, received 0\.5"),
        ({"attention_mask": [[1, 1, 1], [1, 0.5, 1]]}, r"received 0\.5 in row 1, position 1; round it"),
        ({"input_ids": np.zeros(0)}, r"at least one sequence of at least one token, received the shape \(0,\)"),
        ({"input_ids": None, "inputs_embeds": EMBEDS[:0]}, r"at least one sequence .*the shape \(0, 3, 16\); skip"),
        ({"input_ids": np.array([["a", "b"]])}, r"must hold integers, received str.*; texts go through the tokenizer"),
        ({"input_ids": np.array([[1], [2, 3]], object)}, r"received object; .*rows of different lengths.*padding=True"),
        ({"attention_mask": [[1, np.nan, 1]] * 2}, r"attention_mask must hold 0 and 1 only, received nan"),
        ({"attention_mask": [[0.0, -10000.0, 0.0]] * 2}, r"attention_mask must lie between 0 and 1, received -10000"),
        ({"attention_mask": [[1j, 1, 1]] * 2}, r"attention_mask must hold 0 and 1, received complex128"),
        *(
            ({name: shape}, rf"{name} must have the shape .*received \({shape[0]},")
            for name in ("attention_mask", "token_type_ids", "position_ids")
            for shape in ((2, 4), (4, 3), (2,), (2, 3, 1), (1, 1, 3, 3))
        ),
        ({"attention_mask": (1, 3)}, r"attention_mask must have the shape \(2, 3\) or \(2, 3, 3\) to fit the input"),
        ({"token_type_ids": [[0, 2, 0]]}, r"token_type_ids must lie between 0 and 1, received 2"),
        ({"token_type_ids": [[0, -1, 0]]}, r"token_type_ids must lie between 0 and 1, received -1"),
        ({"token_type_ids": [[0.0, 1, 0]]}, r"token_type_ids must hold integers, received float64"),
        (
            {"position_ids": [[0, 24, 1]]},
            r"position_ids must lie between 0 and 23, received 24 in row 0, position 1; .*max_po",
        ),
        ({"position_ids": [[0, -1, 1]]}, r"position_ids must lie between 0 and 23, received -1"),
    ],
)
def test_wrong_inputs(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(**inputs)


def test_values_that_nobody_can_read_are_the_callers_contract() -> None:
    """What is seen without values passes with any, and is refused for its shape all the same."""
    assert check(input_ids=(2, 3), attention_mask=(2, 3), token_type_ids=(2, 3), position_ids=(2, 3)) == (2, 3)
    with pytest.raises(InputError, match="attention_mask must have the shape"):
        check(input_ids=(2, 3), attention_mask=(2, 4))


@pytest.mark.parametrize("shape", [(2,), (2, 2)])
def test_right_head_masks(shape: tuple[int, ...]) -> None:
    check_head_mask(CONFIG, seen("head_mask", shape))
    check_head_mask(CONFIG, None)


def test_head_masks_that_hold_no_numbers() -> None:
    for dtype in ("complex64", "<U3", "object"):
        with pytest.raises(InputError, match="head_mask must hold numbers, received"):
            check_head_mask(CONFIG, see_array("head_mask", np.ones(2).astype(dtype)))


@pytest.mark.parametrize("shape", [(3,), (1, 2), (3, 2), (1, 2, 1, 1, 1)])
def test_wrong_head_masks(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"head_mask must have the shape \(2,\) or \(2, 2\), received"):
        check_head_mask(CONFIG, seen("head_mask", shape))


def of_floats(states: Any) -> Seen:
    """Floats of a shape, or an array as it is."""
    return seen("encoder_hidden_states", np.zeros(states, np.float32) if isinstance(states, tuple) else states)


@pytest.mark.parametrize(
    ("states", "mask", "has", "message"),
    [
        ((2, 3, 16), None, False, r"needs a decoder with cross-attention.*build or load it with is_decoder=True"),
        ((2, 3, 15), None, True, r"must have the shape \(2, source length, 16\), received \(2, 3, 15\)"),
        ((3, 3, 16), None, True, r"must have the shape \(2, source length, 16\), received \(3, 3, 16\)"),
        ((2, 16), None, True, r"must have the shape \(2, source length, 16\), received \(2, 16\)"),
        ((2, 0, 16), None, True, r"must have the shape \(2, source length, 16\), received \(2, 0, 16\)"),
        ((2, 4, 16), (2, 3), True, r"encoder_attention_mask must have the shape \(2, 4\), received \(2, 3\)"),
        (np.zeros((2, 2, 16), np.complex64), None, True, r"must hold floating point numbers, received complex64"),
        (np.zeros((2, 2, 16), np.int64), None, True, r"must hold floating point numbers, received int64"),
        ((2, 2, 16), [[1, 3], [1, 1]], True, r"encoder_attention_mask must lie between 0 and 1, received 3"),
    ],
)
def test_wrong_memories(states: Any, mask: Any, has: bool, message: str) -> None:
    given = None if mask is None else seen("encoder_attention_mask", mask)
    with pytest.raises(InputError, match=message):
        check_memory(CONFIG, 2, of_floats(states), given, has_cross_attention=has)


def test_right_memories() -> None:
    check_memory(CONFIG, 2, None, None, has_cross_attention=False)
    mask = seen("encoder_attention_mask", [[1, 0], [1, 1]])
    check_memory(CONFIG, 2, of_floats((2, 2, 16)), mask, has_cross_attention=True)


def test_what_is_refused_by_name() -> None:
    refuse_cache(past_key_values=None, cache_position=None)
    with pytest.raises(InputError, match="cache_position is for a causal language model .* expected None"):
        refuse_cache(past_key_values=None, cache_position=3)
    assert check_choice("way", "a", ("a", "b")) == "a"
    with pytest.raises(InputError, match=r"received 'alwys'; did you mean 'always'\?"):
        check_packing_mode("alwys")
    for wrong in ("c", None, ["a"]):
        with pytest.raises(InputError, match=r"way must be one of 'a', 'b', received"):
            check_choice("way", wrong, ("a", "b"))
    with pytest.raises(InputError, match=r"packing must be one of 'auto', 'always', 'never', received 'sometimes'"):
        check_packing_mode("sometimes")
    with pytest.raises(InputError, match=r"tied to the word embedding; use set_input_embeddings"):
        refuse_tied_projection()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", [1], r"labels must be a tensor, received list; pass to_tensor\(...\)$"),
        ("labels", ["no", "yes"], r"received list; pass numbers \(of labels: config.label2id\), to_tensor"),
        ("input_ids", [[1, 2]], r"received list; pass return_tensors='x' to the tokenizer, or to_tensor\(...\)"),
        ("input_ids", [[1, 2], [3]], r"received list; its rows have different lengths; .*padding=True"),
        ("input_ids", "a text", r"received str; texts go through the tokenizer first, with return_tensors='x'"),
        ("input_ids", ["a text"], r"received list; texts go through the tokenizer first"),
        ("input_ids", {"input_ids": [[1]]}, r"received dict; pass its entries by name, model\(\*\*inputs\)"),
        ("input_ids", 5, r"received int; pass return_tensors"),
    ],
    ids=str,
)
def test_what_is_no_tensor_is_refused_with_what_makes_one(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse_type(name, value, "a tensor", of_tokenizer="return_tensors='x'", conversion="to_tensor(...)")


def test_what_is_no_ordinary_tensor_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"must be an ordinary \(dense\) tensor, received a sparse one; pass x.to_dense"
    ):
        refuse_layout("input_ids", "sparse", "x.to_dense()")


@pytest.mark.parametrize(
    ("shape", "index", "words"),
    [
        ((3,), (2,), " in row 2"),
        ((2, 4), (1, 3), " in row 1, position 3"),
        ((2, 3, 4), (1, 0, 2), " in row 1, index 0, pos"),
    ],
)
def test_where_a_value_stands(shape: tuple[int, ...], index: tuple[int, ...], words: str) -> None:
    found = np.zeros(shape, bool)
    assert place_of(found) == ""
    found[index] = found.flat[-1] = True
    assert place_of(found).startswith(words)


@pytest.mark.parametrize(("row", "warns"), [([0, 5, 1], True), ([1, 5, 2], True), ([0, 1, 2], False)])
def test_attended_padding_is_warned_of(row: list[int], warns: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_attended_padding(CONFIG, seen("input_ids", [row]))
        warn_of_attended_padding(CONFIG, replace(seen("input_ids", [row]), values=None))
    assert [str(one.message)[:32] for one in caught] == ["input_ids holds padding and no a"] * warns


# ---- Labels and other inputs of heads


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, -2, 1]] * 2, r"labels must lie between 0 and 2, received -2 in row 0, position 1; .*-100 to ignore"),
        ([[0, 3, 1]] * 2, r"labels must lie between 0 and 2, received 3"),
        ([[0, 1]] * 2, r"labels must have the shape \(2, 3\), received \(2, 2\)$"),
        ([0, 1], r"labels must have the shape \(2, 3\), received \(2,\); pass one for every token"),
        (
            [[0.0, 1.0, 1.0]] * 2,
            r"labels must hold integers here, received float64; convert them to integers \(int64\)$",
        ),
        (
            [[0.0, np.nan, 1.0]] * 2,
            r"labels must be numbers, received nan in row 0, position 1, as a column with a gap",
        ),
        ([[True, False, True]] * 2, r"labels must hold integers here, received bool; convert them to integers"),
        ([["a", "b", "c"]] * 2, r"labels must hold integers here, received str.*\(int64\) with config.label2id"),
        ([[0, 1, -100], [0, 3, 1]], r"received 3 in row 1, position 1; .*num_labels"),
    ],
)
def test_wrong_class_labels(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_class_labels(seen("labels", labels), 3, (2, 3))


@pytest.mark.parametrize("labels", [[[0, 2, -100]] * 2, [[-100] * 3] * 2, (2, 3)], ids=str)
def test_right_class_labels(labels: Any) -> None:
    check_class_labels(seen("labels", labels), 3, (2, 3))
    check_class_labels(None, 3, (2, 3))


SINGLE = {"problem_type": "single_label_classification"}
MULTI = {"problem_type": "multi_label_classification"}
NUMBERS = {"problem_type": "regression"}


@pytest.mark.parametrize(
    ("config", "labels", "message"),
    [
        ({}, [0, 3], r"labels must lie between 0 and 2, received 3"),
        ({}, [0, -1], r"labels must lie between 0 and 2, received -1"),
        ({}, [0, 1, 2], r"labels must have the shape \(2,\) or \(2, 1\), received \(3,\)"),
        ({}, [[0, 1, 1], [1, 0, 0]], r"shape \(2,\) or \(2, 1\), received \(2, 3\); for several .*'multi_label_class"),
        (SINGLE, [0.0, 1.0], r"labels must hold integers here, received float64; .*\(int64\), or set .*'regression'"),
        (SINGLE, [True, False], r"labels must hold integers here, received bool; convert them to integers"),
        (SINGLE, [0.0, np.nan], r"labels must be numbers, received nan in row 1, as a column with a gap gives it"),
        (
            {},
            [1.0, 2.0],
            r"must have the shape \(2, 3\), received \(2,\); for one class a text pass integers \(int64\)",
        ),
        ({}, [True, False], r"must have the shape \(2, 3\), received \(2,\); for one class a text pass integers"),
        ({}, [[1.0], [2.0]], r"must have the shape \(2, 3\), received \(2, 1\); for one class a text pass integers"),
        (MULTI, [0, 1], r"received \(2,\); .*problem_type 'single_label_classification' or None"),
        (MULTI, [[0, 1, 2], [0, 1, 1]], r"labels must lie between 0 and 1, received 2 in row 0, position 2; each says"),
        (MULTI, [["a", "b", "c"]] * 2, r"labels must hold numbers, received str.*config.label2id"),
        ({}, [[0.0, np.nan, 1.0]] * 2, r"labels must be numbers, received nan in row 0, position 1"),
        ({"num_labels": 1}, [0.5, np.nan], r"labels must be numbers, received nan in row 1"),
        ({"num_labels": 1}, [[0.5], [np.inf]], r"labels must be numbers, received inf in row 1, position 0"),
        (NUMBERS, [[0, 1, 1]], r"labels must have the shape \(2, 3\), received \(1, 3\)$"),
        ({}, [[0.0, 1.0, -100.0], [0.0, 1.0, 1.0]], r"labels must lie between 0 and 1, received -100"),
        ({}, [[0.0, 1.0], [1.0, 0.0]], r"labels must have the shape \(2, 3\), received \(2, 2\)"),
        (NUMBERS, [0.5, 1.5], r"must have the shape \(2, 3\), received \(2,\); for one number a text set num_labels=1"),
        ({"num_labels": 1}, [0.5, 1.5, 2.5], r"labels must have the shape \(2,\) or \(2, 1\), received \(3,\)"),
        ({"num_labels": 1}, [0.5 + 1j, 1j], r"labels must hold numbers, received complex128"),
    ],
)
def test_wrong_sequence_labels(config: dict[str, Any], labels: Any, message: str) -> None:
    config = CONFIG.copy(**config)
    with pytest.raises(InputError, match=message):
        check_sequence_labels(config, seen("labels", labels), 2, config.num_labels)


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({}, [0, 2]),
        ({}, [[0], [-100]]),
        ({}, [[0.0, 0.5, 1.0], [0.0, 1.0, 1.0]]),
        (MULTI, [[True, False, True]] * 2),
        (NUMBERS, [[-3.0, 9.5, 1.0]] * 2),
        ({"num_labels": 1}, [7, 8]),
        ({"num_labels": 1}, [[7.5], [8.5]]),
    ],
    ids=str,
)
def test_right_sequence_labels(config: dict[str, Any], labels: Any) -> None:
    config = CONFIG.copy(**config)
    check_sequence_labels(config, seen("labels", labels), 2, config.num_labels)
    check_sequence_labels(config, None, 2, config.num_labels)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ([0, 1], None, r"start_positions and end_positions together, received one of them"),
        (None, [0, 1], r"start_positions and end_positions together, received one of them"),
        ([0], [0, 1], r"start_positions must have the shape \(2,\) or \(2, 1\), received \(1,\)"),
        ([0, 1], [[0, 1]], r"end_positions must have the shape \(2,\) or \(2, 1\), received \(1, 2\)"),
        ([0, 1], [0.0, 1.0], r"end_positions must hold integers, received float64; convert them to integers"),
    ],
)
def test_wrong_answers(start: Any, end: Any, message: str) -> None:
    given = [None if x is None else seen(name, x) for name, x in (("start_positions", start), ("end_positions", end))]
    with pytest.raises(InputError, match=message):
        check_span(*given, 2)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [[1], [2]], [[1, 2, 3], [4, 5, 6]], [True, False]])
def test_weights_of_labels(weights: Any) -> None:
    check_sample_weight(seen("sample_weight", weights), True, 2, 3)
    check_sample_weight(None, False, 2, 3)


@pytest.mark.parametrize(
    ("weights", "labelled", "message"),
    [
        ([1.0, 2.0], False, "sample_weight weighs the losses of labels, expected labels, received none; pass both"),
        ([1j, 2j], True, "sample_weight must hold numbers, received complex128"),
        (["a", "b"], True, "sample_weight must hold numbers, received"),
        ([1.0], True, r"sample_weight must have the shape \(2,\) or \(2, 1\) or \(2, 3\), received \(1,\)"),
    ],
)
def test_wrong_weights_of_labels(weights: Any, labelled: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_sample_weight(seen("sample_weight", weights), labelled, 2, 3)


def test_answers_need_two_scores() -> None:
    check_num_labels_of_answers(CONFIG.copy(num_labels=2))
    with pytest.raises(ConfigError, match=r"num_labels=2 \(start and end\), received 3"):
        check_num_labels_of_answers(CONFIG)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": (2, 3)}, r"input_ids must have the shape \(batch, choices, length\), received \(2, 3\)"),
        (
            {"input_ids": None, "inputs_embeds": (2, 3, 16)},
            r"inputs_embeds must have the shape \(batch, choices, length, hidden\), received \(2, 3, 16\)",
        ),
        ({"input_ids": (2, 0, 3)}, r"at least one example, choice and token, received the shape \(2, 0, 3\)"),
        ({"input_ids": None}, r"exactly one of input_ids and inputs_embeds, received neither"),
        ({"inputs_embeds": (2, 4, 3, 16)}, r"exactly one of input_ids and inputs_embeds, received both"),
        ({"attention_mask": (2, 3)}, r"attention_mask must have the shape \(2, 4, 3\), received \(2, 3\)"),
        ({"position_ids": (2, 4, 2)}, r"position_ids must have the shape \(2, 4, 3\), received \(2, 4, 2\)"),
    ],
)
def test_wrong_choices(inputs: dict[str, Any], message: str) -> None:
    given = {"input_ids": (2, 4, 3), "inputs_embeds": None, **inputs}
    views = {name: None if shape is None else seen(name, shape) for name, shape in given.items()}
    others = [views.pop(name) for name in list(views) if name not in ("input_ids", "inputs_embeds")]
    with pytest.raises(InputError, match=message):
        check_shape_of_choices(**views, others=others)


def test_right_choices() -> None:
    others = [seen("attention_mask", (2, 4, 3)), seen("attention_mask", (2, 4, 3, 3)), None]
    assert check_shape_of_choices(input_ids=seen("input_ids", (2, 4, 3)), inputs_embeds=None, others=others) == (2, 4)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[0, 3], [1, -1]], r"masked_positions must lie between -1 \(none\) and 2 \(the last token\), received 3"),
        ([[0, -2], [1, -1]], r"masked_positions must lie between -1 .*received -2"),
        ([0, 1], r"masked_positions must have the shape \(2, P\) .*received \(2,\)"),
        ([[0, 1]], r"masked_positions must have the shape \(2, P\) .*received \(1, 2\)"),
        ([[], []], r"masked_positions must have the shape \(2, P\) with P at least 1"),
        ([[0.0], [1.0]], r"masked_positions must hold integers, received float64"),
    ],
)
def test_wrong_masked_positions(positions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_masked_positions(seen("masked_positions", positions), 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labelled": False}, r"sparse_prediction=True .*needs labels"),
        ({"masked_positions": True}, r"sparse_prediction and masked_positions both choose"),
        ({"values_are_known": False}, r"sparse_prediction=True gives logits of a size .*pass masked_positions"),
    ],
)
def test_where_logits_are_computed(arguments: dict[str, bool], message: str) -> None:
    given = {"labelled": True, "masked_positions": False, "values_are_known": True, **arguments}
    check_where_logits_are_computed(**given, sparse_prediction=False)
    with pytest.raises(InputError, match=message):
        check_where_logits_are_computed(**given, sparse_prediction=True)


@pytest.mark.parametrize(
    ("keep", "labelled", "message"),
    [
        (-1, False, r"logits_to_keep must not be negative, received -1"),
        ([3], False, r"logits_to_keep must name columns below 3, received \[3\]"),
        ([-4], False, r"logits_to_keep must name columns below 3, received \[-4\]"),
        ([0.0], False, r"logits_to_keep must be a number or integers \(n,\), received float64 of \(1,\)"),
        ([[0]], False, r"logits_to_keep must be a number or integers \(n,\), received int64 of \(1, 1\)"),
        (1, True, r"labels need the logits of every position; leave logits_to_keep out"),
        ([1], True, r"labels need the logits of every position; leave logits_to_keep out"),
    ],
)
def test_wrong_kept_columns(keep: Any, labelled: bool, message: str) -> None:
    given = keep if isinstance(keep, int) else seen("logits_to_keep", keep)
    with pytest.raises(InputError, match=message):
        check_kept_columns(given, 3, labelled=labelled)


@pytest.mark.parametrize("keep", [0, 1, 9, [0], [-3, 2]], ids=str)
def test_right_kept_columns(keep: Any) -> None:
    check_kept_columns(keep if isinstance(keep, int) else seen("logits_to_keep", keep), 3, labelled=False)
    check_kept_columns(0, 3, labelled=True)


# ---- When a batch may be packed


@pytest.mark.parametrize(
    ("config", "implementation", "call", "needs", "may"),
    [
        ({}, "sdpa", {}, {}, True),
        ({}, "sdpa", {"attention_mask": np.ones((2, 3))}, {"first_token": True}, True),
        ({}, "eager", {}, {}, False),
        ({"position_embedding_type": "relative_key"}, "sdpa", {}, {}, False),
        ({}, "sdpa", {"output_attentions": True}, {}, False),
        ({}, "sdpa", {"output_hidden_states": True}, {}, True),
        ({}, "sdpa", {"head_mask": np.ones(2)}, {}, False),
        ({}, "sdpa", {"memory_BMD": np.ones((2, 3, 16))}, {}, False),
        ({}, "sdpa", {"attention_mask": np.ones((2, 3, 3))}, {}, False),
        ({}, "sdpa", {}, {"every_position": True}, False),
    ],
)
def test_what_may_be_packed(
    config: dict[str, Any], implementation: str, call: dict[str, Any], needs: dict[str, Any], may: bool
) -> None:
    assert may_pack(CONFIG.copy(**config), implementation, Call(**call), Needs(**needs)) is may


@pytest.mark.parametrize(
    ("mask", "needs", "broken"),
    [
        ([[1, 1], [1, 0]], {"first_token": True}, None),
        ([[1, 1], [0, 0]], {}, "tokens"),
        ([[1, 1], [0, 1]], {}, None),
        ([[1, 1], [0, 1]], {"first_token": True}, "first_token"),
        ([[1, 1], [1, 0]], {"positions_BS": [[1, 1], [1, 0]]}, None),
        ([[1, 1], [1, 0]], {"positions_BS": [[0, 0], [0, 1]]}, "positions"),
    ],
)
def test_which_promise_a_mask_breaks(mask: Any, needs: dict[str, Any], broken: str | None) -> None:
    needs = {name: np.array(value, bool) if isinstance(value, list) else value for name, value in needs.items()}
    assert broken_promise(np.array(mask, bool), Needs(**needs)) == broken


def test_a_packing_of_the_callers() -> None:
    refuse_packing((2, 3), (2, 3), allowed=True)
    with pytest.raises(InputError, match=r"packing was made for a batch of shape \(2, 3\), received one of \(2, 4\)"):
        refuse_packing((2, 3), (2, 4), allowed=True)
    with pytest.raises(InputError, match=r"packing cannot serve this call"):
        refuse_packing((2, 3), (2, 3), allowed=False)
