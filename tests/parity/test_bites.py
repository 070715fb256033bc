"""The comparison bites: a model with one small mistake fails it, in the reference and in every backend.

A mistake is made by changing config, parameters or inputs so that a right implementation computes what a wrong one
would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.choice import chosen
from tests.parity.adapters import Mode, adapter, modes
from tests.parity.cases import CASES, FAMILIES
from tests.parity.compare import assert_close, flatten
from tests.parity.inputs import Made, make
from tests.parity.tolerances import FLOAT32
from xlmr_core import reference

pytestmark = pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning")

Array = NDArray[Any]


def config(**changes: Any) -> Callable[[Made], Made]:
    """The model of another config."""
    return lambda made: replace(made, config=made.config.copy(**changes))


def params(change: Callable[[str, Array], Array]) -> Callable[[Made], Made]:
    """Every parameter changed by its name."""
    return lambda made: replace(made, params={name: change(name, x) for name, x in made.params.items()})


def only(end: str, change: Callable[[Array], Array]) -> Callable[[Made], Made]:
    """The parameters of one kind changed."""
    return params(lambda name, x: change(x) if name.endswith(end) else x)


def swapped(one: str, other: str) -> Callable[[Made], Made]:
    """Two parameters in each other's place, wherever both are."""

    def swap(made: Made) -> Made:
        partners = {name.replace(one, other): name for name in made.params if one in name}
        partners = {name: partner for name, partner in partners.items() if name in made.params}
        assert partners
        exchanged = {**partners, **{partner: name for name, partner in partners.items()}}
        return replace(made, params={name: made.params[exchanged.get(name, name)] for name in made.params})

    return swap


def inputs(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Made], Made]:
    """Inputs replaced or added; ``None`` leaves one out."""

    def changed(made: Made) -> Made:
        merged = {**made.inputs, **change(made.inputs)}
        return replace(made, inputs={name: x for name, x in merged.items() if x is not None})

    return changed


def zero(x: Array) -> Array:
    return np.zeros_like(x)


def interleave_heads(x: Array) -> Array:
    """Columns (N, H) read as (H, N)."""
    return x.reshape(len(x), 3, 8).swapaxes(1, 2).reshape(len(x), 24)


def zero_row(row: int) -> Callable[[Array], Array]:
    return lambda x: np.where(np.arange(len(x))[:, None] == row, np.float32(0), x)


def positions_from_mask(given: dict[str, Any]) -> dict[str, Any]:
    mask_BS = given["attention_mask"]
    return {"position_ids": np.cumsum(mask_BS, axis=1) * mask_BS + 1}


def positions_by_index(given: dict[str, Any]) -> dict[str, Any]:
    batch, length = given["input_ids"].shape
    return {"position_ids": np.tile(np.arange(length) + 2, (batch, 1))}


# Mistake -> how to make it, and a case that must notice. The family is put before the name.
MISTAKES: dict[str, tuple[Callable[[Made], Made], str]] = {
    "tanh gelu": (config(hidden_act="gelu_new"), "Model-right"),
    "epsilon of 1e-12": (config(layer_norm_eps=1e-12), "Model-right"),
    "positions off by one": (only("position_embeddings.weight", lambda x: np.roll(x, 1, axis=0)), "Model-right"),
    "positions by index": (inputs(positions_by_index), "MaskedLM-left-and-inside"),
    "positions from the mask": (inputs(positions_from_mask), "MaskedLM-left-and-inside"),
    "token types forgotten": (only("token_type_embeddings.weight", zero), "Model-right"),
    "token types of the last row": (
        only("token_type_embeddings.weight", lambda x: x[::-1].copy()),
        "token-types-left-out",
    ),
    "query and key swapped": (swapped(".query.", ".key."), "Model-right"),
    "key and value swapped": (swapped(".key.", ".value."), "Model-right"),
    "scale forgotten": (params(lambda name, x: x * np.float32(8**0.5) if ".query." in name else x), "Model-right"),
    "query bias forgotten": (only("query.bias", zero), "Model-right"),
    "heads merged crosswise": (only("attention.output.dense.weight", interleave_heads), "Model-right"),
    "projection transposed": (only("attention.output.dense.weight", lambda x: x.T.copy()), "Model-right"),
    "mask forgotten": (inputs(lambda given: {"attention_mask": None}), "MaskedLM-right"),
    "mask forgotten inside": (
        inputs(lambda given: {"attention_mask": np.maximum(given["attention_mask"], given["input_ids"] != 1)}),
        "MaskedLM-left-and-inside",
    ),
    "padding rows zeroed": (only("embeddings.word_embeddings.weight", zero_row(1)), "Model-left-and-inside"),
    "padding position zeroed": (only("embeddings.position_embeddings.weight", zero_row(1)), "Model-left-and-inside"),
    "causality forgotten": (config(is_decoder=False), "CausalLM-right"),
    "causality invented": (config(is_decoder=True), "CausalLM-not-a-decoder"),
    "labels not shifted": (inputs(lambda given: {"labels": np.roll(given["labels"], 1, axis=1)}), "CausalLM-right"),
    "ignored labels counted": (
        inputs(lambda given: {"labels": np.where(given["labels"] == -100, 0, given["labels"])}),
        "TokenClassification-right",
    ),
    "start and end swapped": (only("qa_outputs.weight", lambda x: x[::-1].copy()), "QuestionAnswering-outside"),
    "decoder bias forgotten": (
        params(lambda name, x: zero(x) if name in ("lm_head.bias", "lm_head.decoder.bias") else x),
        "MaskedLM-right",
    ),
    "decoder tied": (config(tie_word_embeddings=True), "MaskedLM-untied"),
    "head mask forgotten": (inputs(lambda given: {"head_mask": None}), "head-mask"),
    "head mask of the first layer": (inputs(lambda given: {"head_mask": given["head_mask"][0]}), "head-mask-by-layer"),
    "cross-attention mask forgotten": (inputs(lambda given: {"encoder_attention_mask": None}), "cross-masked"),
    "cross-attention forgotten": (
        inputs(lambda given: {"encoder_hidden_states": None, "encoder_attention_mask": None}),
        "cross-masked",
    ),
    "relative positions mirrored": (only("distance_embedding.weight", lambda x: x[::-1].copy()), "relative-key"),
    "relative positions off by one": (
        only("distance_embedding.weight", lambda x: np.roll(x, 1, axis=0)),
        "relative-key",
    ),
    "relative to the key only": (config(position_embedding_type="relative_key"), "relative-key-query"),
    "multi-label as regression": (config(problem_type="regression"), "multi-label"),
    "wrong choice first": (inputs(lambda given: {"labels": (given["labels"] + 1) % 3}), "MultipleChoice-right"),
    "masked position off by one": (
        inputs(lambda given: {"masked_positions": np.maximum(given["masked_positions"] - 1, -1)}),
        "masked-positions",
    ),
}

FAMILY_MISTAKES: dict[str, tuple[Callable[[Made], Made], str]] = {
    "norms swapped": (swapped(".attention.output.LayerNorm.", ".output.LayerNorm."), "XLMRoberta-Model-right"),
    "embedding norm forgotten": (only("embeddings.LayerNorm.weight", np.ones_like), "XLMRoberta-Model-right"),
    "XL norms swapped": (swapped(".attention.self_attn_layer_norm.", ".LayerNorm."), "XLMRobertaXL-Model-right"),
    "XL last norm forgotten": (only("encoder.LayerNorm.weight", np.ones_like), "XLMRobertaXL-Model-right"),
}

ALL = [
    pytest.param(make_it, f"{family}-{name}", id=f"{family}-{mistake}")
    for family in FAMILIES
    for mistake, (make_it, name) in MISTAKES.items()
]
ALL += [pytest.param(make_it, name, id=mistake) for mistake, (make_it, name) in FAMILY_MISTAKES.items()]


def outputs_without_weights(made: Made, head: str) -> dict[str, Array]:
    outputs = flatten(reference.forward(made.config, head, made.params, **made.inputs))
    return {name: x for name, x in outputs.items() if "attentions" not in name}


@pytest.mark.parametrize(("make_it", "name"), ALL)
def test_the_reference_with_a_mistake_fails(make_it: Callable[[Made], Made], name: str) -> None:
    case = CASES[name]
    made = make(case)
    expected = outputs_without_weights(made, case.head)
    with pytest.raises(AssertionError, match=r"over 2e-05|expected"):
        assert_close(case.head, outputs_without_weights(make_it(made), case.head), expected, FLOAT32, made.mask_BS == 1)


# A backend is given a mistake as the reference is, so a few say that it takes config, parameters and inputs as they are
# given.
A_DOZEN = ALL[:: len(ALL) // 12]


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize(("make_it", "name"), chosen(ALL, A_DOZEN))
def test_a_backend_with_a_mistake_fails(make_it: Callable[[Made], Made], name: str, mode: Mode) -> None:
    case = CASES[name]
    made = make(case)
    expected = outputs_without_weights(made, case.head)
    wrong = make_it(made)
    actual = adapter(mode).build(wrong.config, case.head, wrong.params, mode, "float32").forward(wrong.inputs)
    with pytest.raises(AssertionError, match=r"over 2e-05|expected"):
        assert_close(case.head, actual, expected, FLOAT32, made.mask_BS == 1)
