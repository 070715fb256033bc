"""Heads that read the first token: outside training the last layer answers there alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.tf.models import MASKS, Case, assert_close, each_family

HEADS = ("ForSequenceClassification", "ForMultipleChoice")
FIRST = Case("XLMRoberta", "ForSequenceClassification")


def rows_of_layers(model: Any, inputs: Any, **arguments: Any) -> tuple[Any, list[Any]]:
    """The logits, and how many tokens the first and the last feed-forward block were given."""
    seen: list[Any] = []
    layers = model.base_model.encoder.layer
    blocks = [layers[0].output_, layers[-1].output_]
    originals = [block.call for block in blocks]
    for block, original in zip(blocks, originals, strict=True):

        def watched(x: tf.Tensor, residual: tf.Tensor, original: Any = original) -> tf.Tensor:
            seen.append(tf.size(residual) // residual.shape[-1])
            return original(x, residual)

        object.__setattr__(block, "call", watched)
    try:
        logits = model(inputs, **arguments).logits
    finally:
        for block in blocks:
            object.__delattr__(block, "call")
    return logits, [int(count) for count in seen]


@each_family
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("packing", ["auto", "never"])
def test_the_answer_is_that_of_all_tokens(family: str, head: str, mask: str, packing: str) -> None:
    case = Case(family, head)
    model, inputs = case.kept().set_packing(packing), case.inputs(mask)
    found, rows = rows_of_layers(model, inputs)
    assert_close(found, model(inputs, output_hidden_states=True).logits, tolerance=1e-6)
    assert rows[1] == 4 < rows[0]


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("mask", ["right", "left", "empty"])
def test_in_graphs(xla: bool, mask: str) -> None:
    """Also where a graph packs a batch with its padding."""
    model, inputs = FIRST.kept().set_packing("auto"), FIRST.inputs(mask)
    graph = tf.function(lambda given: model(given).logits, jit_compile=xla)
    found = graph({name: tf.constant(x) for name, x in inputs.items()})
    assert_close(found, model(inputs, output_hidden_states=True).logits, tolerance=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"training": True}, {"output_attentions": True}, {"head_mask": np.ones(2)}], ids=str
)
def test_where_somebody_could_tell_all_tokens_are_answered(arguments: dict[str, Any]) -> None:
    model = FIRST.kept().set_packing("auto")
    given = {name: tf.constant(x, tf.float32) if name == "head_mask" else x for name, x in arguments.items()}
    _, rows = rows_of_layers(model, FIRST.inputs(), **given)
    assert rows[0] == rows[1] > 4
