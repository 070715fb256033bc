"""What importing and building brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_importing_brings_no_other_framework_and_no_tokenizer():
    foreign = ("torch", "jax", "flax", "transformers", "tokenizers", "sentencepiece", "huggingface_hub")
    foreign += ("xlmr_torch", "xlmr_flax", "tensorflow_text")
    code = f"""
import sys, keras, tensorflow
brought = set(sys.modules)  # by Keras itself, where it finds them installed
import xlmr_tf
xlmr_tf.TFXLMRobertaModel
print([name for name in {foreign} if name in set(sys.modules) - brought])
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["", "import keras; "])
def test_keras_on_another_backend(first):
    done = run(f"{first}import xlmr_tf", KERAS_BACKEND="numpy")
    assert done.returncode != 0
    assert "xlmr_tf needs Keras on TensorFlow, in this process Keras is on 'numpy'" in done.stderr
    assert "KERAS_BACKEND=tensorflow" in done.stderr


def test_building_for_a_file_draws_nothing_and_touches_no_memory():
    """XL's seven gigabytes fit into a process that may use two."""
    code = """
import tensorflow as tf, keras, xlmr_tf
from xlmr_tf.linear import loading
state = keras.random.SeedGenerator(1)
with loading():
    model = xlmr_tf.TFXLMRobertaXLForMaskedLM(xlmr_tf.XLMRobertaXLConfig(num_hidden_layers=12))
print(model.num_parameters())
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
assert used < 2_000_000, used
"""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 1_500_000_000
