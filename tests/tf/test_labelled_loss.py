"""A graph that trains by the model's own loss: logits where labels are, and the numbers of the whole."""

from __future__ import annotations

from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.choice import chosen
from tests.tf.models import VOCABULARY, Case, assert_close
from xlmr_tf.losses import cross_entropy, next_tokens

HEADS = ("ForMaskedLM", "ForCausalLM")
# Head, share of the labels, packing, whether labels are weighed; by default each two of these choices meet.
WAYS = [*product(HEADS, (0.2, 1.0), ("auto", "never"), (False, True))]
PAIRWISE = [
    ("ForMaskedLM", 0.2, "auto", False),
    ("ForMaskedLM", 1.0, "never", True),
    ("ForMaskedLM", 0.2, "never", False),
    ("ForCausalLM", 0.2, "never", True),
    ("ForCausalLM", 1.0, "auto", False),
    ("ForCausalLM", 0.2, "auto", True),
]


def case_of(head: str, share: float = 0.2, mask: str = "right") -> tuple[Any, dict[str, Any]]:
    case = Case("XLMRoberta", head)
    given = {**case.inputs(mask), **case.labels(case.inputs(mask))}
    counted = np.random.default_rng(0).random(given["labels"].shape) < share
    given["labels"] = np.where(counted, given["labels"], -100)
    assert (given["labels"] != -100).any()
    return case.build(num_hidden_layers=1), {name: tf.constant(x, tf.int32) for name, x in given.items()}


def step_of(model: Any) -> Any:
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function
    def step(given: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model(given, training=True).loss
        return loss, [tf.convert_to_tensor(x) for x in tape.gradient(loss, variables, unconnected_gradients="zero")]

    return step


@pytest.mark.parametrize(("head", "share", "packing", "weighs"), chosen(WAYS, PAIRWISE))
def test_loss_and_gradients_are_those_of_all_logits(head: str, share: float, packing: str, weighs: bool) -> None:
    model, given = case_of(head, share)
    model.set_packing(packing)
    labels, weights_n = given["labels"], None
    weights = tf.constant(np.random.default_rng(1).random(labels.shape).astype(np.float32)) if weighs else None
    if weights is not None:
        given["sample_weight"] = weights
    loss, found = step_of(model)(given)
    inputs = {name: x for name, x in given.items() if name in ("input_ids", "attention_mask")}
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True).logits
        if head == "ForCausalLM":
            labels = next_tokens(labels, -100)
            weights = None if weights is None else next_tokens(weights, 0)
        weights_n = None if weights is None else tf.reshape(weights, (-1,))
        expected = cross_entropy(tf.reshape(logits, (-1, VOCABULARY)), tf.reshape(labels, (-1,)), weights_n=weights_n)
    assert_close(loss, expected)
    variables = [variable.value for variable in model.trainable_variables]
    for one, other in zip(found, tape.gradient(expected, variables, unconnected_gradients="zero"), strict=True):
        assert_close(one, tf.convert_to_tensor(other), tolerance=1e-5)


def needed(function: Any) -> set[tuple[int | None, ...]]:
    """The shapes of all tensors that a graph computes: those that its outputs and its side effects need. The others
    TensorFlow leaves out.
    """
    graph = function.graph
    waiting = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    seen: dict[str, Any] = {}
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen[operation.name] = operation
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return {
        tuple(tensor.shape.as_list())
        for operation in seen.values()
        for tensor in operation.outputs
        if tensor.shape.rank is not None
    }


@pytest.mark.parametrize("head", HEADS)
def test_full_logits_are_not_computed_by_a_graph_that_does_not_return_them(head: str) -> None:
    model, given = case_of(head, mask="full")
    rows, length = given["input_ids"].shape
    full = {(rows * length, VOCABULARY), (rows, length, VOCABULARY)}
    assert not full & needed(step_of(model).get_concrete_function(given))
    both = tf.function(lambda given: tuple(model(given, training=True).to_tuple()))
    assert full & needed(both.get_concrete_function(given))


@pytest.mark.parametrize("metrics", [None, ["accuracy"]], ids=["no metrics", "a metric"])
def test_fit_trains_as_it_did(metrics: Any) -> None:
    """Step by step as a loop over eager calls does; a metric gets all logits."""
    losses = []
    for eagerly in (True, False):
        model, given = case_of("ForMaskedLM")
        data = tf.data.Dataset.from_tensors(given)
        model.compile(keras.optimizers.SGD(0.1), metrics=metrics, run_eagerly=eagerly)
        history = model.fit(data.repeat(3), verbose=0, shuffle=False).history
        losses.append([history["loss"][0], *model.evaluate(data, verbose=0, return_dict=True).values()])
    assert_close(losses[0], losses[1])


def test_eager_calls_and_xla_give_the_same_loss() -> None:
    model, given = case_of("ForMaskedLM")
    eager = model(given)
    assert eager.logits.shape[-1] == VOCABULARY
    xla = tf.function(lambda given: model(given).loss, jit_compile=True)(given)
    assert_close(tf.function(lambda given: model(given).loss)(given), eager.loss)
    assert_close(xla, eager.loss)
