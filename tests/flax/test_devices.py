"""Data parallel training as scripts have it: ``pmap`` on two devices, and two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import optax  # noqa: E402
from flax import jax_utils  # noqa: E402
from flax.training import common_utils, train_state  # noqa: E402

from tests.flax import models, two_processes  # noqa: E402
from xlmr_flax.sharding import DATA_PARALLEL  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("family", models.FAMILIES)
def test_pmap_with_averaged_gradients_equals_one_device_on_the_whole_batch(family):
    """Every text has one label, so that the mean of the halves' means is the mean."""
    changes = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = models.model("ForSequenceClassification", family, **changes)
    batch = models.labelled("ForSequenceClassification", models.batch((10, 6, 3, 9)))
    state = train_state.TrainState.create(apply_fn=model.__call__, params=model.params, tx=optax.sgd(0.1))

    def train_step(state, batch, dropout_rng, axis=None):
        def loss_fn(params):
            return state.apply_fn(**batch, params=params, dropout_rng=dropout_rng, train=True).loss

        loss, gradients = jax.value_and_grad(loss_fn)(state.params)
        if axis is not None:
            loss, gradients = jax.lax.pmean((loss, gradients), axis)
        return state.apply_gradients(grads=gradients), loss

    key = jax.random.key(0)
    one, one_loss = jax.jit(train_step)(state, batch, key)

    devices = jax.devices()[:2]
    p_train_step = jax.pmap(partial(train_step, axis="batch"), "batch", devices=devices, donate_argnums=0)
    many = jax_utils.replicate(state, devices)
    sharded = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
    many, many_loss = p_train_step(many, sharded, jax.random.split(key, 2))
    np.testing.assert_allclose(many_loss, [one_loss, one_loss], rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), jax_utils.unreplicate(many).params, one.params)
    assert common_utils.get_metrics([{"loss": many_loss}])["loss"].shape == (1,)


def test_two_processes_train_as_one(tmp_path, monkeypatch):
    """``jax.distributed`` over the loopback device: each process has half of the batch and, with FSDP, half of the
    parameters; in a loop of one's own, and in that of a recipe.
    """
    monkeypatch.setattr("xlmr_core.training.run.publish", lambda *arguments, **named: None)
    wanted = two_processes.train(two_processes.LAYOUTS)
    sums = two_processes.run_in(tmp_path, "alone", DATA_PARALLEL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.flax.two_processes", address]
    how = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "env": environment}
    processes = [subprocess.Popen([*command, str(number), str(tmp_path)], **how) for number in range(2)]
    answers = [process.communicate(timeout=480)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for answer in answers:
        found = json.loads(answer.splitlines()[-1])
        assert found["processes"] == 2
        assert found["sums"] == pytest.approx(sums, rel=1e-3, abs=1e-3)
        shares = {"data parallel": 1, "FSDP": 0.5}
        assert found["held"] == pytest.approx({layout: shares[layout] for layout in wanted}, abs=0.02)
        for layout, losses in wanted.items():
            np.testing.assert_allclose(found["losses"][layout], losses, rtol=1e-5)
