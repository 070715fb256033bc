"""Around a training step: memory given back, gradients collected, half precision, recomputed layers, a run that goes on
where it stopped.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

from tests.flax import models  # noqa: E402

HEAD = "ForSequenceClassification"
ONE_LAYER = {"num_hidden_layers": 1}  # which is compiled in half the time


def make_step(model, tx, **options):
    def step(params, state, batch, key):
        def loss_of(params):
            return model(**batch, params=params, dropout_rng=key, train=True).loss

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    return jax.jit(step, **options)


def given(seed=0):
    return models.labelled(HEAD, models.batch((10, 6, 3, 9), seed), seed)


def same(one, other, atol=0.0):
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=0), one, other)


def test_a_step_that_is_given_its_state_needs_no_second_one():
    model, tx = models.model(HEAD, _do_init=False, **ONE_LAYER), optax.adamw(1e-3)
    params = model.init_weights(jax.random.key(0))
    state = tx.init(params)
    size = sum(x.nbytes for x in jax.tree.leaves((params, state)))
    step = make_step(model, tx, donate_argnums=(0, 1))
    memory = step.lower(params, state, given(), jax.random.key(0)).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= 0.999 * size
    again, _, _ = step(params, state, given(), jax.random.key(0))
    assert all(x.is_deleted() for x in jax.tree.leaves((params, state)))
    assert not any(x.is_deleted() for x in jax.tree.leaves(again))


def test_collected_gradients_are_those_of_the_whole_batch():
    model = models.model(HEAD, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **ONE_LAYER)
    key, batch = jax.random.key(0), given()
    whole, collecting = optax.sgd(0.1), optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    wanted, _, _ = make_step(model, whole)(model.params, whole.init(model.params), batch, key)
    step, params, state = make_step(model, collecting), model.params, collecting.init(model.params)
    for half in (slice(0, 2), slice(2, 4)):
        same(params, model.params)  # nothing moves before the last part
        params, state, _ = step(params, state, {name: x[half] for name, x in batch.items()}, key)
    same(params, wanted, atol=1e-6)
    assert np.abs(params["classifier"]["dense"]["kernel"] - model.params["classifier"]["dense"]["kernel"]).max() > 1e-4


def test_bfloat16_learns_as_float32_does_and_keeps_float32_parameters():
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model, tx = models.model(HEAD, dtype=dtype, **ONE_LAYER), optax.adamw(1e-2)
        step, params, losses[dtype] = make_step(model, tx), model.params, []
        state = tx.init(params)
        for number in range(15):
            params, state, loss = step(params, state, given(), jax.random.key(number))
            losses[dtype].append(float(loss))
        assert {x.dtype for x in jax.tree.leaves((params, state[0].mu))} == {jnp.dtype("float32")}
        assert losses[dtype][-1] < 0.5 * losses[dtype][0]
    np.testing.assert_allclose(losses["bfloat16"][:3], losses["float32"][:3], rtol=0.05)
    assert losses["bfloat16"] != losses["float32"]


def test_recomputed_layers_hold_less():
    """Temporary memory as the compiler plans it, at sizes where activations are what counts. Layers are scanned: with
    all layers in one graph the CPU's compiler recomputes early and saves nothing."""
    sizes = {}
    for recompute in (False, True):
        model = models.model(
            HEAD, gradient_checkpointing=recompute, num_hidden_layers=6, _do_init=False
        ).set_scan_layers(True)
        batch = models.labelled(HEAD, models.batch((64,) * 8))

        def gradients(params, model=model, batch=batch):
            return jax.grad(lambda params: model(**batch, params=params).loss)(params)

        compiled = jax.jit(gradients).lower(model.params_shape_tree).compile()
        sizes[recompute] = compiled.memory_analysis().temp_size_in_bytes
    assert sizes[True] < 0.4 * sizes[False], sizes


def test_a_run_goes_on_from_an_orbax_checkpoint_bit_for_bit(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    tx = optax.adamw(optax.linear_schedule(1e-2, 0.0, 8))
    model = models.model(HEAD, _do_init=False, **ONE_LAYER)
    step = make_step(model, tx)

    def run(state, steps):
        losses = []
        for number in steps:
            key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), number)
            state["params"], state["moments"], loss = step(state["params"], state["moments"], given(number), key)
            losses.append(float(loss))
        return losses

    def start():
        params = model.init_weights(jax.random.key(0))
        return {"params": params, "moments": tx.init(params), "key": jax.random.key_data(jax.random.key(7)), "step": 0}

    wanted_state = start()
    wanted = run(wanted_state, range(6))

    state = start()
    losses = run(state, range(3))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "3", {**state, "step": 3})
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "3", jax.eval_shape(start))
    assert restored["step"] == 3
    losses += run(restored, range(int(restored["step"]), 6))
    assert losses == wanted
    assert len(set(losses)) == 6
    same(restored["params"], wanted_state["params"])
