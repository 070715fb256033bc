"""A compiled step that returns the loss alone: logits where labels are, and the numbers of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

from tests.flax import models  # noqa: E402
from xlmr_flax.losses import PARTS, cross_entropy, labelled_cross_entropy  # noqa: E402
from xlmr_flax.packing import Packing  # noqa: E402


def case_of(share: float, lengths: tuple[int, ...] = (30, 17, 9), seed: int = 0) -> dict[str, np.ndarray]:
    """A batch with labels at a share of the tokens."""
    given = models.labelled("ForMaskedLM", models.batch(lengths, seed), seed)
    chosen = np.random.default_rng(seed).random(given["labels"].shape) < share
    return {**given, "labels": np.where(chosen, given["labels"], -100)}


def whole(model: Any, given: dict[str, np.ndarray], params: Any) -> Any:
    """The loss from all logits, as a user would write it."""
    inputs = {name: x for name, x in given.items() if name != "labels"}
    return cross_entropy(model(**inputs, params=params).logits, jnp.asarray(given["labels"]))


@pytest.mark.parametrize(
    ("share", "tied", "packs"), [(0.15, True, False), (0.4, False, True), (1.0, True, True), (1.0, False, False)]
)
def test_loss_and_gradients_are_those_of_all_logits(share: float, tied: bool, packs: bool) -> None:
    """Also where a row has more labels than a quarter of its positions."""
    model, given = models.model("ForMaskedLM", tie_word_embeddings=tied, num_hidden_layers=1), case_of(share)
    packing = Packing.from_mask(given["attention_mask"]) if packs else None

    @jax.jit
    def step(params: Any, given: Any) -> Any:
        return jax.value_and_grad(lambda params: model(**given, params=params, packing=packing).loss)(params)

    loss, found = step(model.params, given)
    expected_loss, expected = jax.value_and_grad(lambda params: whole(model, given, params))(model.params)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    assert all(
        np.abs(x).max() > 0 for path, x in jax.tree_util.tree_leaves_with_path(found) if "key" not in str(path[:-1])
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=3e-6), found, expected)


def test_outside_a_compiled_function_too() -> None:
    model, given = models.model("ForMaskedLM", num_hidden_layers=1), case_of(0.15)
    found = jax.grad(lambda params: model(**given, params=params).loss)(model.params)
    expected = jax.grad(lambda params: whole(model, given, params))(model.params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=3e-6), found, expected)
    output = model(**given)
    np.testing.assert_allclose(output.loss, whole(model, given, model.params), rtol=1e-6)
    assert output.logits.shape == (3, 30, 61)


@pytest.mark.parametrize("width", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("labels", [0, 1, 2, 8])
def test_any_width_and_any_number_of_labels(width: int, labels: int) -> None:
    rng = np.random.default_rng(width)
    states, table = rng.normal(size=(2, width, 6)).astype(np.float32), rng.normal(size=(6, 11)).astype(np.float32)
    labels_RW = np.full((2, width), -100, np.int32)
    labels_RW[0, rng.permutation(width)[:labels]] = 3
    expected = cross_entropy(jnp.asarray(states @ table), labels_RW)
    found = [
        labelled_cross_entropy(product, table, jnp.asarray(states), labels_RW),
        by_labels(table, states, labels_RW),
    ]
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-6)


def product(table: Any, x: Any) -> Any:
    return x @ table


by_labels = jax.jit(lambda table, states, labels: labelled_cross_entropy(product, table, states, labels))


def test_forward_mode_where_the_labels_have_their_values() -> None:
    """Inside a compiled function that does not know them there is a loop, which has reverse mode only."""
    model, given = models.model("ForMaskedLM", num_hidden_layers=1), case_of(0.15)
    bias = model.params["lm_head"]["bias"]

    def loss_of(bias: Any) -> Any:
        params = {**model.params, "lm_head": {**model.params["lm_head"], "bias": bias}}
        return model(**given, params=params).loss

    direction = jnp.linspace(-1, 1, len(bias))
    gradient, curved = jax.jvp(jax.jit(jax.grad(loss_of)), (bias,), (direction,))
    _, slope = jax.jvp(loss_of, (bias,), (direction,))
    np.testing.assert_allclose(slope, gradient @ direction, rtol=1e-4, atol=1e-6)
    assert np.abs(curved).max() > 0


VOCABULARY, WIDTH = 4096, 64


def compiled_step(returns_logits: bool) -> Any:
    """The program of a step at sizes where logits are what counts."""
    model = models.model(
        "ForMaskedLM", vocab_size=VOCABULARY, num_hidden_layers=1, max_position_embeddings=80, _do_init=False
    )
    given = case_of(0.15, (WIDTH,) * 8)

    def loss_of(params: Any, given: Any) -> Any:
        output = model(**given, params=params)
        return output.loss, output.logits if returns_logits else None

    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    return step.lower(model.params_shape_tree, given).compile()


def test_full_logits_are_not_in_the_program_that_does_not_return_them() -> None:
    alone, both = compiled_step(False), compiled_step(True)
    shapes = [f"[8,{WIDTH},{VOCABULARY}]", f"[{8 * WIDTH},{VOCABULARY}]"]
    assert any(shape in both.as_text() for shape in shapes)
    assert not any(shape in alone.as_text() for shape in shapes)
    logits = 8 * WIDTH * VOCABULARY * 4
    memory = [program.memory_analysis() for program in (alone, both)]
    assert (
        memory[0].temp_size_in_bytes
        < 4 / PARTS * logits
        < memory[1].temp_size_in_bytes + memory[1].output_size_in_bytes
    )
