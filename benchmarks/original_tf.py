"""The original TensorFlow classes, measured in a process of their own, because they need another Keras than we do.

They ended with transformers 4.57 and run on tf-keras. ``XLMR_ORIGINAL_PYTHON`` names the Python of an environment that has both
(``pip install transformers==4.57.6 tf-keras tensorflow torch``). The child imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PYTHON = "XLMR_ORIGINAL_PYTHON"
READY = "READY"


class Original:
    """A job: a turn of the child. Its answer is what the child computed before the first turn.

    Args:
        work: ``encode`` or ``train``.
        folder: the checkpoint.
        arrays: the inputs by name.
        compiled: whether XLA compiles the graph.
    """

    def __init__(self, work: str, folder: Path, arrays: dict[str, NDArray[Any]], compiled: bool = False) -> None:
        from benchmarks.harness import Absent

        python = os.environ.get(PYTHON)
        if python is None:
            raise Absent(f"set {PYTHON} to a Python with transformers 4.57.6 and tf-keras")
        self._files = tempfile.TemporaryDirectory(prefix="xlmr-benchmarks-")
        inputs, answer = Path(self._files.name, "inputs.npz"), Path(self._files.name, "answer.npy")
        np.savez(inputs, **arrays)
        command = [python, __file__, work, str(folder), str(inputs), str(answer), str(int(compiled))]
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        environment.pop("PYTHONPATH", None)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )
        self._line(READY)
        self.answer = np.load(answer)

    def __call__(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._line("{"))
        return found

    def _line(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        self._errors.seek(0)
        raise RuntimeError(f"the process of a contestant failed:\n{self._errors.read()}")

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()


# ---- In the child


def load(name: str, folder: str) -> Any:
    """A model by its class, with the weights of a safetensors file: its own reader does not know today's safetensors."""
    import safetensors.torch
    import transformers
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    model = getattr(transformers, name)(transformers.XLMRobertaConfig.from_pretrained(folder))
    weights = safetensors.torch.load_file(os.path.join(folder, "model.safetensors"))
    return load_pytorch_state_dict_in_tf2_model(model, weights, allow_missing_keys=True)


def encoder(folder: str, arrays: dict[str, Any], compiled: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A turn, and the answer to keep."""
    import tensorflow as tf

    model = load("TFXLMRobertaModel", folder)
    inputs = {name: tf.constant(x, tf.int32) for name, x in arrays.items()}

    @tf.function(jit_compile=compiled or None)
    def forward(inputs: dict[str, Any]) -> Any:
        return model(inputs, training=False).last_hidden_state

    def turn() -> Any:
        return forward(inputs).numpy()

    return turn, turn


def trainer(folder: str, arrays: dict[str, Any], compiled: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import tensorflow as tf
    import tf_keras

    model = load("TFXLMRobertaForMaskedLM", folder)
    inputs = {name: tf.constant(x, tf.int32) for name, x in arrays.items()}
    optimizer = tf_keras.optimizers.AdamW(1e-5, jit_compile=False)

    @tf.function(jit_compile=compiled or None)
    def step(inputs: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(inputs, training=True).loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        # A pooler or a bias without part in the loss has no gradient.
        optimizer.apply_gradients([(g, v) for g, v in zip(gradients, model.trainable_variables) if g is not None])  # noqa: B905
        return loss

    return lambda: float(step(inputs)), lambda: float(tf.reduce_mean(model(inputs, training=False).loss))


def main(work: str, folder: str, inputs: str, answer: str, compiled: str) -> None:
    arrays = dict(np.load(inputs))
    turn, kept = {"encode": encoder, "train": trainer}[work](folder, arrays, compiled == "1")
    np.save(answer, kept())
    print(READY, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
