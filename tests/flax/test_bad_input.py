"""A user's mistakes: each gets an error that says what was expected and what came, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

import xlmr_flax  # noqa: E402
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402
from xlmr_core.heads import FAMILIES, HEADS  # noqa: E402

VOCABULARY, CLASSES = 41, 3
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "num_labels": CLASSES,
}
CASES = [(family, head) for family in FAMILIES for head in HEADS]
TOKENS = ("ForMaskedLM", "ForCausalLM", "ForTokenClassification")
each_case = pytest.mark.parametrize(("family", "head"), CASES)
each_family = pytest.mark.parametrize("family", FAMILIES)


def config_of(family: str, head: str, **changes: Any) -> Any:
    labels = {"num_labels": 2} if head == "ForQuestionAnswering" else {}
    return FAMILIES[family](**{**SIZES, **labels, **changes})


def build(family: str, head: str, **changes: Any) -> Any:
    return getattr(xlmr_flax, f"Flax{family}{head}")(config_of(family, head, **changes))


@pytest.fixture
def refused(monkeypatch):
    """The call is refused with this message, and nothing was computed, in evaluation and in training, for NumPy's arrays and JAX's."""

    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("the mistake was noticed only after computing")

    for module in ("encoder", "heads", "lm_heads"):
        monkeypatch.setattr(f"xlmr_flax.{module}.compiled", never)

    def check(family: str, head: str, message: str, config: dict[str, Any] | None = None, **inputs: Any) -> None:
        model = build(family, head, **(config or {}))
        before = model.config.to_dict()
        as_jax = {name: jnp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        for arguments in (inputs, as_jax, {**inputs, "train": True, "dropout_rng": jax.random.key(0)}):
            with pytest.raises(InputError, match=message):
                model(**arguments)
        assert model.config.to_dict() == before

    return check


def grouped(head: str, x: Any) -> np.ndarray:
    """Rows, in multiple choice as the two choices of one question."""
    x = np.asarray(x)
    return x[None] if head == "ForMultipleChoice" else x


def ids(head: str, *rows: list[int]) -> np.ndarray:
    return grouped(head, np.array(rows * 2 if len(rows) == 1 else rows))


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
def test_ids(refused, family: str, head: str, row: list[int], message: str) -> None:
    refused(family, head, message, input_ids=ids(head, row))


@each_case
@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_dtype_of_ids(refused, family: str, head: str, dtype: Any) -> None:
    refused(
        family,
        head,
        r"input_ids must hold integers, received \w+; .*inputs_embeds",
        input_ids=ids(head, [0, 5, 2]).astype(dtype),
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
def test_values_of_the_mask(refused, family: str, head: str, value: float, message: str) -> None:
    mask = np.array([[1, 1, value], [1, 1, 0]])
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), attention_mask=grouped(head, mask))


@each_case
@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids", "position_ids"])
@pytest.mark.parametrize("shape", [(2, 4), (4, 3), (2,), (2, 3, 1), (1, 1, 3, 3)])
def test_shapes_beside_the_ids(refused, family: str, head: str, name: str, shape: tuple[int, ...]) -> None:
    if head == "ForMultipleChoice":
        shape = (1, *shape)
    refused(
        family,
        head,
        rf"{name} must have the shape .*received \(",
        input_ids=ids(head, [0, 5, 2]),
        **{name: np.ones(shape).astype(int)},
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
def test_values_beside_the_ids(refused, family: str, head: str, name: str, value: int, message: str) -> None:
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), **{name: ids(head, [1, value, 1])})


@each_case
def test_both_or_neither_of_ids_and_embeddings(refused, family: str, head: str) -> None:
    embeds = grouped(head, np.zeros((2, 3, 16)))
    labels = {} if head in ("Model", "ForQuestionAnswering") else {"labels": np.zeros((2, 3)).astype(int)}
    for extra in ({}, labels):
        refused(
            family,
            head,
            r"exactly one of input_ids and inputs_embeds, received both",
            input_ids=ids(head, [0, 5, 2]),
            inputs_embeds=embeds,
            **extra,
        )
        refused(family, head, r"exactly one of input_ids and inputs_embeds, received neither", **extra)


@each_case
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(refused, family: str, head: str, shape: tuple[int, int]) -> None:
    if head == "ForMultipleChoice":
        shape = (shape[0], 2, shape[1])
    labels = {"labels": np.zeros(shape).astype(int)} if head in TOKENS else {}
    message = r"at least one (sequence|example).*received the shape"
    refused(family, head, message, input_ids=np.zeros(shape).astype(int), **labels)
    refused(family, head, message, inputs_embeds=np.zeros((*shape, 16)))


@each_case
def test_axes_of_the_ids(refused, family: str, head: str) -> None:
    labels = {"labels": np.zeros(3, int)} if head in TOKENS else {}
    refused(
        family,
        head,
        r"input_ids must have the shape \(batch, .*received \(3,\)",
        input_ids=np.array([0, 5, 2]),
        **labels,
    )
    too_many = np.zeros((1, 1, 2, 3), int)
    refused(family, head, r"input_ids must have the shape \(batch, .*received \(1, 1, 2, 3\)", input_ids=too_many)


@each_case
def test_embeddings(refused, family: str, head: str) -> None:
    refused(
        family,
        head,
        r"inputs_embeds must have the shape .*hidden_size",
        inputs_embeds=grouped(head, np.zeros((2, 3, 15))),
    )
    refused(family, head, r"inputs_embeds must have the shape .*received \(2, 16\)", inputs_embeds=np.zeros((2, 16)))
    refused(
        family,
        head,
        r"inputs_embeds must hold floating point numbers",
        inputs_embeds=grouped(head, np.zeros((2, 3, 16)).astype(int)),
    )
    refused(
        family,
        head,
        r"sequence has 23 tokens, this checkpoint takes 22",
        inputs_embeds=grouped(head, np.zeros((2, 23, 16))),
    )


@each_case
@pytest.mark.parametrize("shape", [(3,), (1, 2), (3, 2), (1, 2, 1, 1, 1)])
def test_shape_of_the_head_mask(refused, family: str, head: str, shape: tuple[int, ...]) -> None:
    refused(
        family,
        head,
        r"head_mask must have the shape \(2,\) or \(2, 2\), received",
        input_ids=ids(head, [0, 5, 2]),
        head_mask=np.ones(shape),
    )


@each_case
def test_config_of_another_family(family: str, head: str) -> None:
    other = XLMRobertaXLConfig if family == "XLMRoberta" else XLMRobertaConfig
    config = other(**{**vars(config_of(family, head)), "model_type": None})
    model_class = getattr(xlmr_flax, f"Flax{family}{head}")
    with pytest.raises(ConfigError, match=rf"{family}{head} expects a {family}Config, received {other.__name__}"):
        model_class(config)
    with pytest.raises(ConfigError, match=r"received dict"):
        model_class({"vocab_size": 3})


@each_case
def test_config_made_impossible_after_its_construction(family: str, head: str) -> None:
    config = config_of(family, head)
    config.hidden_size = 15
    with pytest.raises(ConfigError, match=r"hidden_size \(15\) must be a multiple of num_attention_heads \(2\)"):
        getattr(xlmr_flax, f"Flax{family}{head}")(config)


# ---- Labels


@pytest.mark.parametrize(("family", "head"), [(family, head) for family, head in CASES if head in TOKENS])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, -2, 1], [0, 0, 0]], r"labels must lie between 0 and (40|2), received -2; .*-100 to ignore"),
        ([[0, VOCABULARY, 1], [0, 0, 0]], r"labels must lie between 0 and (40|2), received 41"),
        ([[0, 1], [0, 1]], r"labels must have the shape \(2, 3\), received \(2, 2\)"),
        ([0, 1], r"labels must have the shape \(2, 3\), received \(2,\)"),
        ([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], r"labels must hold integers here, received float\d+"),
    ],
)
def test_token_labels(refused, family: str, head: str, labels: list[Any], message: str) -> None:
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), labels=np.array(labels))


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
        ({"num_labels": 1}, [0.5 + 1j, 1j], r"labels must hold numbers, received complex\d+"),
    ],
)
def test_sequence_labels(refused, family: str, config: dict[str, Any], labels: list[Any], message: str) -> None:
    head = "ForSequenceClassification"
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), labels=np.array(labels), config=config)


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
def test_choice_labels(refused, family: str, labels: list[Any], message: str) -> None:
    head = "ForMultipleChoice"
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), labels=np.array(labels))


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
            r"end_positions must hold integers, received float\d+",
        ),
    ],
)
def test_answer_positions(refused, family: str, positions: dict[str, list[Any]], message: str) -> None:
    head = "ForQuestionAnswering"
    refused(
        family, head, message, input_ids=ids(head, [0, 5, 2]), **{name: np.array(x) for name, x in positions.items()}
    )


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
        ({"masked_positions": [[0.0], [1.0]]}, r"masked_positions must hold integers, received float\d+"),
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
def test_masked_language_modelling(refused, family: str, arguments: dict[str, Any], message: str) -> None:
    head = "ForMaskedLM"
    tensors = {name: np.array(x) if isinstance(x, list) else x for name, x in arguments.items()}
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), **tensors)


@each_family
@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (-1, r"logits_to_keep must not be negative, received -1"),
        (np.array([3]), r"logits_to_keep must name columns below 3, received \[3\]"),
        (np.array([-4]), r"logits_to_keep must name columns below 3, received \[-4\]"),
        (np.array([0.0]), r"logits_to_keep must be a number or integers \(n,\), received float\d+"),
        (np.array([[0]]), r"logits_to_keep must be a number or integers \(n,\), received int\d+ of \(1, 1\)"),
    ],
)
def test_logits_to_keep(refused, family: str, keep: int | np.ndarray, message: str) -> None:
    head = "ForCausalLM"
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), logits_to_keep=keep)


def test_labels_and_logits_to_keep(refused) -> None:
    family, head = "XLMRoberta", "ForCausalLM"
    rows = ids(head, [0, 5, 2])
    refused(family, head, r"labels need the logits of every position", input_ids=rows, labels=rows, logits_to_keep=1)


# ---- Decoders

CROSS = {"is_decoder": True, "add_cross_attention": True}


@each_family
@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({}, {"encoder_hidden_states": np.zeros((2, 3, 16))}, r"needs a decoder with cross-attention"),
        (
            CROSS,
            {"encoder_hidden_states": np.zeros((2, 3, 15))},
            r"must have the shape \(2, source length, 16\), received \(2, 3, 15\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": np.zeros((3, 3, 16))},
            r"must have the shape \(2, source length, 16\), received \(3, 3, 16\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": np.zeros((2, 16))},
            r"must have the shape \(2, source length, 16\), received \(2, 16\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": np.zeros((2, 0, 16))},
            r"must have the shape \(2, source length, 16\), received \(2, 0, 16\)",
        ),
        (
            CROSS,
            {"encoder_hidden_states": np.zeros((2, 4, 16)), "encoder_attention_mask": np.ones((2, 3))},
            r"encoder_attention_mask must have the shape \(2, 4\), received \(2, 3\)",
        ),
        (
            {"is_decoder": True},
            {"past_key_values": ((np.zeros(1),),)},
            r"past_key_values is not supported .*expected None",
        ),
    ],
)
def test_decoder_inputs(
    refused, family: str, head: str, config: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    refused(family, head, message, input_ids=ids(head, [0, 5, 2]), config=config, **arguments)


@each_family
def test_cross_attention_cannot_be_added_afterwards(family: str) -> None:
    model = build(family, "ForCausalLM")
    model.config.is_decoder = model.config.add_cross_attention = True
    with pytest.raises(InputError, match=r"needs a decoder with cross-attention.*build or load it with"):
        model(np.array([[0, 5, 2]]), encoder_hidden_states=np.zeros((1, 3, 16)))


@each_family
def test_masks_beside_labels(refused, family: str) -> None:
    head = "ForTokenClassification"
    given = {"input_ids": np.array([[0, 5, 2]]), "labels": np.array([[0, 1, 2]])}
    refused(family, head, "attention_mask must be .*, received list", attention_mask=[[1, 1, 0]], **given)
    refused(family, head, "attention_mask must have the shape", attention_mask=np.array([[1, 1]]), **given)


def test_a_configuration_says_how_to_attend() -> None:
    assert build("XLMRoberta", "Model", attn_implementation="eager").attn_implementation == "eager"
    assert build("XLMRoberta", "Model").attn_implementation == "sdpa"
    with pytest.raises(InputError, match="attn_implementation must be one of"):
        build("XLMRoberta", "Model", attn_implementation="flash")


# ---- What is said instead of refused


@each_family
@pytest.mark.parametrize("row", [[0, 5, 1], [1, 5, 2]])
def test_padding_without_a_mask_is_warned_of(family: str, row: list[int]) -> None:
    model = build(family, "Model")
    with pytest.warns(UserWarning, match="input_ids holds padding and no attention_mask was passed"):
        model(input_ids=np.array([row]))


@each_family
def test_unknown_argument_of_a_call(family: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'atention_mask'"):
        build(family, "Model")(input_ids=np.array([[0, 5, 2]]), atention_mask=np.ones((1, 3)))
