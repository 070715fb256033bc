"""A user's mistakes reach the core's checks (tests/core/test_checks.py) from every argument, before anything runs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

import xlmr_flax  # noqa: E402
from xlmr_core.checks import Kind  # noqa: E402
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402
from xlmr_core.heads import FAMILIES  # noqa: E402
from xlmr_flax.inputs import see  # noqa: E402

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
CROSS = {"is_decoder": True, "add_cross_attention": True}
each_family = pytest.mark.parametrize("family", FAMILIES)


def config_of(family: str, head: str, **changes: Any) -> Any:
    labels = {"num_labels": 2} if head == "ForQuestionAnswering" else {}
    return FAMILIES[family](**{**SIZES, **labels, **changes})


def build(family: str, head: str, **changes: Any) -> Any:
    return getattr(xlmr_flax, f"Flax{family}{head}")(config_of(family, head, **changes))


@cache
def built(head: str, *changes: tuple[str, Any]) -> Any:
    return build("XLMRoberta", head, **dict(changes))


@pytest.fixture
def refused(monkeypatch):
    """The call is refused with this message before computing; in evaluation, in training, for NumPy's arrays
    and JAX's.
    """

    def never(*arguments: Any) -> None:
        raise AssertionError("the mistake was noticed only after computing")

    for module in ("encoder", "heads", "lm_heads"):
        monkeypatch.setattr(f"xlmr_flax.{module}.compiled", never)

    def check(head: str, message: str, config: dict[str, Any] | None = None, **inputs: Any) -> None:
        model = built(head, *(config or {}).items())
        before = model.config.to_dict()
        as_jax = {name: jnp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        for arguments in (inputs, as_jax, {**inputs, "train": True, "dropout_rng": jax.random.key(0)}):
            with pytest.raises(InputError, match=message):
                model(**arguments)
        assert model.config.to_dict() == before

    return check


IDS = np.array([[0, 5, 2], [0, 5, 2]])
VALID: dict[str, Any] = {"input_ids": IDS}
EMBEDS = np.zeros((2, 3, 16), np.float32)
MEMORY = np.zeros((2, 4, 16), np.float32)


# ---- What every model takes


@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"input_ids": IDS + 39},
            r"input_ids must lie between 0 and 40, received 44 in row 0, position 1; .*vocab_size",
        ),
        ({"input_ids": IDS.tolist()}, r"input_ids must be an array of JAX or NumPy, received list; .*'jax' or 'np'"),
        ({"input_ids": IDS[0]}, r"input_ids must have the shape \(batch, length\), received \(3,\)"),
        ({"input_ids": IDS[:0]}, r"at least one sequence .*received the shape \(0, 3\)"),
        ({"input_ids": np.full((1, 23), 4)}, r"sequence has 23 tokens, this checkpoint takes 22 .*max_length=22"),
        ({"input_ids": None}, r"exactly one of input_ids and inputs_embeds, received neither"),
        ({"inputs_embeds": EMBEDS}, r"exactly one of input_ids and inputs_embeds, received both"),
        ({"input_ids": None, "inputs_embeds": EMBEDS[..., 1:]}, r"inputs_embeds must have the shape .*hidden_size"),
        ({"input_ids": None, "inputs_embeds": IDS}, r"inputs_embeds must hold floating point numbers, received int"),
        ({"attention_mask": IDS}, r"attention_mask must lie between 0 and 1, received 5"),
        ({"attention_mask": IDS / 10}, r"attention_mask must hold 0 and 1 only, received 0\.5"),
        ({"attention_mask": jnp.full((2, 3), 0.5, jnp.bfloat16)}, r"attention_mask must hold 0 and 1 only, .* 0\.5"),
        ({"token_type_ids": IDS}, r"token_type_ids must lie between 0 and 1, received 5"),
        ({"position_ids": IDS[:, 1:]}, r"position_ids must have the shape \(2, 3\) or \(1, 3\), received \(2, 2\)"),
        ({"head_mask": np.ones((1, 2))}, r"head_mask must have the shape \(2,\) or \(2, 2\), received \(1, 2\)"),
        ({"encoder_hidden_states": MEMORY[0]}, r"must have the shape \(2, source length, 16\), received \(4, 16\)"),
        (
            {"encoder_hidden_states": MEMORY, "encoder_attention_mask": np.ones((2, 3))},
            r"encoder_attention_mask must have the shape \(2, 4\), received \(2, 3\)",
        ),
        ({"past_key_values": ((np.zeros(1),),)}, r"past_key_values must be what model.init_cache.* received tuple"),
    ],
)
def test_inputs_of_the_encoder(refused, head: str, inputs: dict[str, Any], message: str) -> None:
    refused(head, message, config=CROSS, **{**VALID, **inputs})


def test_under_a_trace_shapes_are_refused_and_values_are_not_read() -> None:
    model = built("Model")
    with pytest.raises(InputError, match="attention_mask must have the shape"):
        jax.eval_shape(lambda ids: model(ids, attention_mask=ids[:1]), IDS)
    assert jax.eval_shape(model, IDS + VOCABULARY, IDS).last_hidden_state.shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("int8", Kind.INTEGER),
        ("uint32", Kind.INTEGER),
        ("float16", Kind.FLOATING),
        ("bfloat16", Kind.FLOATING),
        ("complex64", Kind.COMPLEX),
        ("bool", Kind.BOOLEAN),
    ],
)
def test_what_is_seen_of_an_array(dtype: str, kind: Kind) -> None:
    array = jnp.array([0, 1]).astype(dtype)
    for x in (array, np.asarray(array)):
        seen = see("labels", x)
        assert seen is not None and seen.values is not None
        assert (seen.name, seen.shape, seen.kind, seen.dtype_name) == ("labels", (2,), kind, dtype)
        assert seen.values().max().item() == 1
    traced: list[Any] = []
    jax.eval_shape(lambda x: traced.append(see("labels", x)), array)
    assert traced[0].kind is kind and traced[0].values is None
    assert see("labels", None) is None


@each_family
def test_config_of_another_family(family: str) -> None:
    other = XLMRobertaXLConfig if family == "XLMRoberta" else XLMRobertaConfig
    config = other(**{**vars(config_of(family, "ForMaskedLM")), "model_type": None})
    model_class = getattr(xlmr_flax, f"Flax{family}ForMaskedLM")
    with pytest.raises(ConfigError, match=rf"{family}ForMaskedLM expects an {family}Config, received {other.__name__}"):
        model_class(config)
    with pytest.raises(ConfigError, match=r"received a dict"):
        model_class({"vocab_size": 3})


@each_family
def test_config_made_impossible_after_its_construction(family: str) -> None:
    config = config_of(family, "ForMaskedLM")
    config.hidden_size = 15
    with pytest.raises(ConfigError, match=r"hidden_size \(15\) must be a multiple of num_attention_heads \(2\)"):
        getattr(xlmr_flax, f"Flax{family}ForMaskedLM")(config)


def test_question_answering_has_two_labels() -> None:
    with pytest.raises(ConfigError, match=r"num_labels=2 \(start and end\), received 3"):
        build("XLMRoberta", "ForQuestionAnswering", num_labels=3)


# ---- What heads take


@pytest.mark.parametrize(
    ("head", "inputs", "message"),
    [
        ("ForSequenceClassification", {"labels": np.array([0, 3])}, r"labels must lie between 0 and 2, received 3"),
        ("ForSequenceClassification", {"labels": [0, 1]}, r"labels must be an array of JAX or NumPy, received list"),
        (
            "ForTokenClassification",
            {"labels": IDS},
            r"labels must lie between 0 and 2, received 5 in row 0, position 1; .*-100 to ignore",
        ),
        ("ForTokenClassification", {"labels": IDS[0]}, r"labels must have the shape \(2, 3\), received \(3,\)"),
        ("ForTokenClassification", {"labels": IDS / 10}, r"labels must hold integers here, received float\d+"),
        ("ForMaskedLM", {"labels": IDS + 39}, r"labels must lie between 0 and 40, received 44"),
        ("ForMaskedLM", {"sparse_prediction": True}, r"sparse_prediction=True .*needs labels"),
        ("ForMaskedLM", {"masked_positions": IDS}, r"masked_positions must lie between -1 .* and 2 .*received 5"),
        ("ForMaskedLM", {"masked_positions": [[0], [1]]}, r"masked_positions must be an array .*received list"),
        (
            "ForMaskedLM",
            {"masked_positions": IDS[:, :1], "labels": IDS[:, :2]},
            r"labels must have the shape \(2, 3\) or \(2, 1\), received \(2, 2\)",
        ),
        (
            "ForMaskedLM",
            {"masked_positions": IDS[:, :1], "labels": IDS, "sparse_prediction": True},
            r"sparse_prediction and masked_positions both choose",
        ),
        ("ForCausalLM", {"labels": IDS + 39}, r"labels must lie between 0 and 40, received 44"),
        ("ForCausalLM", {"labels": IDS, "logits_to_keep": 1}, r"labels need the logits of every position"),
        ("ForCausalLM", {"logits_to_keep": -1}, r"logits_to_keep must not be negative, received -1"),
        ("ForCausalLM", {"logits_to_keep": np.array([3])}, r"logits_to_keep must name columns below 3, received \[3\]"),
        ("ForQuestionAnswering", {"start_positions": IDS[:, 0]}, r"start_positions and end_positions together"),
        ("ForQuestionAnswering", {"end_positions": IDS[:, 0]}, r"start_positions and end_positions together"),
        (
            "ForQuestionAnswering",
            {"start_positions": IDS[:, 0], "end_positions": IDS},
            r"end_positions must have the shape \(2,\) or \(2, 1\), received \(2, 3\)",
        ),
    ],
)
def test_inputs_of_a_head(refused, head: str, inputs: dict[str, Any], message: str) -> None:
    refused(head, message, **VALID, **inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": IDS}, r"input_ids must have the shape \(batch, choices, length\), received \(2, 3\)"),
        ({"input_ids": IDS[None] + 39}, r"input_ids must lie between 0 and 40, received 44"),
        (
            {"input_ids": None, "inputs_embeds": EMBEDS},
            r"inputs_embeds must have the shape \(batch, choices, length, hid",
        ),
        ({"input_ids": None, "inputs_embeds": EMBEDS[None, ..., 1:]}, r"inputs_embeds must have the shape"),
        ({"attention_mask": IDS}, r"attention_mask must have the shape \(1, 2, 3\), received \(2, 3\)"),
        ({"attention_mask": IDS[None]}, r"attention_mask must lie between 0 and 1, received 5"),
        ({"token_type_ids": IDS}, r"token_type_ids must have the shape \(1, 2, 3\), received \(2, 3\)"),
        ({"token_type_ids": IDS[None]}, r"token_type_ids must lie between 0 and 1, received 5"),
        ({"position_ids": IDS}, r"position_ids must have the shape \(1, 2, 3\), received \(2, 3\)"),
        ({"position_ids": IDS[None] * 5}, r"position_ids must lie between 0 and 23, received 25"),
        ({"head_mask": np.ones(3)}, r"head_mask must have the shape"),
        ({"labels": np.array([2])}, r"labels must lie between 0 and 1, received 2"),
        ({"labels": np.array([0, 1])}, r"labels must have the shape \(1,\) or \(1, 1\), received \(2,\)"),
    ],
)
def test_inputs_of_multiple_choice(refused, inputs: dict[str, Any], message: str) -> None:
    refused("ForMultipleChoice", message, **{"input_ids": IDS[None], **inputs})


def test_labels_whose_values_are_not_known_decide_no_number_of_logits() -> None:
    model = built("ForMaskedLM")
    with pytest.raises(InputError, match=r"labels whose values cannot be read here .*pass masked_positions"):
        jax.eval_shape(lambda labels: model(IDS, labels=labels, sparse_prediction=True).loss, IDS)


def test_a_tied_projection_is_not_replaced() -> None:
    model = built("ForMaskedLM")
    with pytest.raises(InputError, match="tied to the word embedding; use set_input_embeddings"):
        model.set_output_embeddings(None)


@each_family
def test_cross_attention_cannot_be_added_afterwards(family: str) -> None:
    model = build(family, "ForCausalLM")
    model.config.is_decoder = model.config.add_cross_attention = True
    with pytest.raises(InputError, match=r"needs a decoder with cross-attention.*build or load it with"):
        model(np.array([[0, 5, 2]]), encoder_hidden_states=np.zeros((1, 3, 16)))


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
    with pytest.raises(
        TypeError, match=r"Model\(\) does not know the argument 'atention_mask'; did you mean 'attention_mask'"
    ):
        build(family, "Model")(input_ids=np.array([[0, 5, 2]]), atention_mask=np.ones((1, 3)))
