"""Heads that read the first token: the last layer answers there alone, and where nobody could tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.torch.models import MASKS, SIZES, Case, assert_close, each_family, outputs_of
from xlmr_torch import optimize_for_inference

HEADS = ("ForSequenceClassification", "ForMultipleChoice")
FIRST = Case("XLMRoberta", "ForSequenceClassification")
each_head = pytest.mark.parametrize("head", HEADS)


def rows_of_last_layer(model: Any, **inputs: Any) -> tuple[torch.Tensor, list[int]]:
    """The logits, and how many tokens each layer gave."""
    layers = model.base_model.encoder.layer
    with outputs_of(layers[0]) as first, outputs_of(layers[-1]) as last:
        logits = model(**inputs).logits
    return logits, [x.shape[:-1].numel() for x in (*first, *last)]


@each_family
@each_head
@pytest.mark.parametrize("mask", [*MASKS, "full"])
@pytest.mark.parametrize("packing", ["auto", "never", "always"])
def test_the_answer_is_that_of_all_tokens(family: str, head: str, mask: str, packing: str) -> None:
    """Whatever is masked, the first token among it."""
    case = Case(family, head)
    model = case.build().set_packing(packing)
    inputs = case.inputs(torch.ones(4, 6, dtype=torch.int64) if mask == "full" else mask)
    with torch.no_grad():
        found, rows = rows_of_last_layer(model, **inputs)
        expected = model(**inputs, output_hidden_states=True).logits
    assert_close(found, expected, tolerance=1e-6)
    assert rows[1] == 4 < rows[0]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_with_either_kernel_and_a_mask_of_three_axes(implementation: str) -> None:
    model, inputs = FIRST.build(attn_implementation=implementation), FIRST.inputs()
    mask_BSS = inputs["attention_mask"][:, None] * torch.ones(6, 1, dtype=torch.int64)
    mask_BSS[:, 1:, 0] = 0  # rows differ, and the first one counts
    for mask in (inputs["attention_mask"], mask_BSS):
        given = {**inputs, "attention_mask": mask}
        with torch.no_grad():
            found, rows = rows_of_last_layer(model, **given)
            assert_close(found, model(**given, output_attentions=True).logits, tolerance=1e-6)
        assert rows[1] == 4


def of_gradients(model: Any) -> dict[str, Any]:
    torch.set_grad_enabled(True)
    return {}


def of_training(model: Any) -> dict[str, Any]:
    model.train()
    return {}


def of_hook(model: Any) -> dict[str, Any]:
    model.base_model.encoder.layer[0].register_forward_hook(lambda *given: None)
    return {}


OFF: dict[str, Callable[[Any], dict[str, Any]]] = {
    "gradients": of_gradients,
    "training": of_training,
    "a hook": of_hook,
    "hidden states": lambda model: {"output_hidden_states": True},
    "attentions": lambda model: {"output_attentions": True},
    "a head mask": lambda model: {"head_mask": torch.ones(SIZES["num_attention_heads"])},
}


@pytest.mark.parametrize("reason", OFF)
@pytest.mark.parametrize("packing", ["auto", "never"])
def test_where_somebody_could_tell_all_tokens_are_answered(reason: str, packing: str) -> None:
    model, inputs = FIRST.build().set_packing(packing), FIRST.inputs()
    with torch.no_grad():
        _, rows = rows_of_last_layer(model, **inputs, **OFF[reason](model))
    assert rows[0] == rows[1] > 4


def test_who_looks_on_sees_every_token_of_the_last_layer() -> None:
    model, inputs, seen = FIRST.build(), FIRST.inputs(torch.ones(4, 6, dtype=torch.int64)), []
    del inputs["attention_mask"]  # nothing to pack
    model.base_model.encoder.layer[-1].register_forward_hook(lambda layer, given, found: seen.append(found[0].shape))
    with torch.no_grad():
        model(**inputs)
    assert seen == [torch.Size([4, 6, SIZES["hidden_size"]])]


@pytest.mark.parametrize("family_and_change", [("XLMRoberta", "decoder"), ("XLMRoberta", "relative")], ids=str)
def test_other_attention_stays_as_it_was(family_and_change: tuple[str, str]) -> None:
    family, change = family_and_change
    changes = {"decoder": {"is_decoder": True}, "relative": {"position_embedding_type": "relative_key"}}[change]
    model, inputs = Case(family, "ForSequenceClassification").build(**changes), FIRST.inputs()
    with torch.no_grad():
        _, rows = rows_of_last_layer(model, **inputs)
    assert rows[0] == rows[1] > 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_optimized_and_compiled(dtype: str) -> None:
    """One graph for all numbers of texts and tokens."""
    graphs: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(1)
        return graph.forward

    model = optimize_for_inference(FIRST.build(), dtype=dtype, compile=True, backend=counting)
    plain = FIRST.build()
    lengths = [[6, 3, 1, 5], [2, 4], [7, 7, 3], [1, 2, 3, 4, 5], [3, 9, 4]]
    for rows in lengths:
        mask = (torch.arange(max(rows)) < torch.tensor(rows)[:, None]).long()
        inputs = FIRST.inputs(mask)
        with torch.no_grad():
            tolerance = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1}[dtype]
            assert_close(model(**inputs).logits, plain(**inputs).logits, tolerance=tolerance)
    assert len(graphs) <= 2
