"""The original Flax classes, in the environment of a guest:
``python -m benchmarks.flax_original WORK FOLDER ARGUMENT``, run by ``guests.py``.

They are run as their documentation has it: jitted, on the padded batch; in training with the loss of the published
masked language modelling script, over the logits of all positions.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import transformers

from benchmarks import flax_steps, texts
from benchmarks.guests import serve


def encoder(folder: str, dtype: str) -> Callable[[Any], Any]:
    # Loaded by the class of the checkpoint: the original loses the encoder's weights between a head and the bare model.
    whole = transformers.FlaxXLMRobertaForMaskedLM.from_pretrained(folder, from_pt=True)
    params = jax.device_put(whole.params["roberta"])
    config = whole.config
    del whole
    model = transformers.FlaxXLMRobertaModel(config, dtype=jnp.dtype(dtype), add_pooling_layer=False, _do_init=False)
    forward = jax.jit(
        lambda params, ids, mask: model(input_ids=ids, attention_mask=mask, params=params).last_hidden_state
    )

    def work(request: Any) -> Any:
        batch = texts.Batch(*(np.array(x, np.int32) for x in request))
        return np.asarray(forward(params, batch.ids_BS, batch.mask_BS), np.float32)

    return work


def loss(model: Any, params: Any, batch: Any, key: Any) -> Any:
    """Mean over the labelled positions, as the published script has it."""
    labels = batch["labels"]
    logits = model(batch["input_ids"], batch["attention_mask"], params=params, dropout_rng=key, train=key is not None)[
        0
    ]
    counted = labels != texts.IGNORED
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counted, labels, 0))
    return (losses * counted).sum() / counted.sum()


def training(folder: str, argument: str) -> Callable[[Any], Any]:
    model = transformers.FlaxXLMRobertaForMaskedLM.from_pretrained(folder, from_pt=True)
    params = jax.device_put(model.params)
    model._params = None  # the state holds them, and gives them away at each step
    rows, length = map(int, argument.split("x"))
    return flax_steps.worker(
        functools.partial(loss, model), params, flax_steps.batch(model.config.vocab_size, rows, length)
    )


def compiling(folder: str, argument: str) -> Callable[[Any], Any]:
    layers, rows, length = map(int, argument.split("x"))
    config = transformers.AutoConfig.from_pretrained(folder, num_hidden_layers=layers)
    model = transformers.FlaxXLMRobertaForMaskedLM(config, _do_init=False)
    batch = flax_steps.batch(config.vocab_size, rows, length)
    return flax_steps.compiler(functools.partial(loss, model), model.params_shape_tree, batch)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind, folder, argument = sys.argv[1:]
    serve({"encoder": encoder, "training": training, "compiling": compiling}[kind](folder, argument))
