"""The original TensorFlow classes, ``python -m benchmarks.keras_original WORK FOLDER ARGUMENT``, run by ``guests.py``.

They are run on the padded batch, in one graph; in training with their own loss, over the logits of all positions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # they know no Keras 3
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import safetensors.torch
import tensorflow as tf
import tf_keras
import transformers
from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

from benchmarks import texts
from benchmarks.guests import serve


def load(name: str, folder: str) -> Any:
    """A model by its class, with the weights of a safetensors file: its own reader does not know today's
    safetensors.
    """
    model = getattr(transformers, name)(transformers.XLMRobertaConfig.from_pretrained(folder))
    weights = safetensors.torch.load_file(os.path.join(folder, "model.safetensors"))
    return load_pytorch_state_dict_in_tf2_model(model, weights, allow_missing_keys=True)


def encoder(folder: str, mode: str) -> Callable[[Any], Any]:
    model = load("TFXLMRobertaModel", folder)

    @tf.function(jit_compile=mode == "XLA" or None)
    def forward(ids: Any, mask: Any) -> Any:
        return model(input_ids=ids, attention_mask=mask, training=False).last_hidden_state

    return lambda request: forward(*(tf.constant(x, tf.int32) for x in request)).numpy()


def training(folder: str, size: str) -> Callable[[Any], Any]:
    model = load("TFXLMRobertaForMaskedLM", folder)
    batch = texts.labelled(model.config.vocab_size, *map(int, size.split("x")))
    inputs = {name: tf.constant(x, tf.int32) for name, x in batch.items()}
    optimizer = tf_keras.optimizers.AdamW(1e-5, jit_compile=False)
    first = float(tf.reduce_mean(model(inputs, training=False).loss))

    @tf.function
    def step(inputs: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(inputs, training=True).loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        # A pooler or a bias without part in the loss has no gradient.
        pairs = zip(gradients, model.trainable_variables, strict=True)
        optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])
        return loss

    def work(request: Any) -> Any:
        start = time.perf_counter()
        float(step(inputs))
        return {"seconds": time.perf_counter() - start}, np.float64(first)

    return work


if __name__ == "__main__":
    kind, folder, argument = sys.argv[1:]
    serve({"encoder": encoder, "training": training}[kind](folder, argument))
