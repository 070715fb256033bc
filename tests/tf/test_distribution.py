"""Two devices, and two processes, train as one device does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.tf import distributed, tiny  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_tf.distribution import training_step  # noqa: E402

# Keras about its own default of shuffle=True.
pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")

ROOT = Path(__file__).resolve().parents[2]


def start(kind, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tf.distributed", kind],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(*processes):
    """What each process says; none outlives the test."""
    try:
        finished = [process.communicate(timeout=500) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = []
    for process, (output, errors) in zip(processes, finished, strict=True):
        assert process.returncode == 0, errors
        found.append(json.loads(next(line for line in output.splitlines() if line.startswith("ANSWER "))[7:]))
    return found


@pytest.fixture(scope="module")
def one_device():
    found = {}
    for name in (distributed.CLASSIFIER, distributed.TAGGER):
        model, losses = distributed.fitted(name)
        assert losses[-1] < losses[0]
        found[name] = losses, distributed.total(model)
    return found


def same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_two_mirrored_devices(one_device):
    (found,) = answers(start("mirrored"))
    same(found["fit"], one_device[distributed.CLASSIFIER])
    for name, expected in one_device.items():
        same(found[name], expected)
    assert np.isfinite(found["dropout"][0]).all()
    losses, total = distributed.of_a_run(tf.distribute.get_strategy())
    np.testing.assert_allclose(found["run"][0], losses, rtol=2e-4)
    np.testing.assert_allclose(found["run"][1], total, rtol=1e-4)


def test_two_workers(one_device):
    """Loopback only; by default with labels of tokens, of which each process has another number."""
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
    for found in answers(*(start("workers", TF_CONFIG=json.dumps(task)) for task in tasks)):
        assert distributed.TAGGER in found
        for name, answer in found.items():
            same(answer, one_device[name])


def test_one_device_is_a_strategy_too(one_device):
    model = tiny.build(distributed.TAGGER)
    step = training_step(model, keras.optimizers.SGD(distributed.RATE))
    losses = [float(step(distributed.batch_of(distributed.TAGGER))) for _ in range(distributed.EPOCHS)]
    same((losses, distributed.total(model)), one_device[distributed.TAGGER])


def test_what_cannot_be_trained_is_said():
    with pytest.raises(InputError, match="TFXLMRobertaModel has no loss to train"):
        training_step(tiny.build("XLMRobertaModel"), keras.optimizers.SGD())
    step = training_step(tiny.build(distributed.CLASSIFIER), keras.optimizers.SGD())
    with pytest.raises(InputError, match="expected labels in the batch, received input_ids, attention_mask"):
        step(tiny.inputs())
