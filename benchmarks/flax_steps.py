"""A step of masked language modelling in JAX, the same for every contestant: forward, backward, AdamW, with the state
given away.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import texts

# Places for labelled positions a text of so many tokens; the most that are drawn here are fewer.
PLACES = 0.25

Batch = dict[str, np.ndarray[Any, Any]]
Loss = Callable[[Any, Mapping[str, Any], Any], Any]
TX = optax.adamw(1e-5)


def batch(vocab_size: int, rows: int, length: int) -> Batch:
    """Texts without padding, with labels at some tokens, and the positions of these, padded with -1."""
    arrays = texts.labelled(vocab_size, rows, length)
    positions = texts.labelled_positions(arrays["labels"], int(PLACES * length))
    return {name: x.astype(np.int32) for name, x in {**arrays, "masked_positions": positions}.items()}


def step_of(loss: Loss) -> Any:
    """The compiled step, from (params, moments, batch, key) to (params, moments, loss)."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, moments: Any, batch: Any, key: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, batch, key)
        updates, moments = TX.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, value

    return step


def worker(loss: Loss, params: Any, batch: Batch) -> Callable[[Any], Any]:
    """Does one step when called; returns the seconds, and the loss without dropout before the first one."""
    first = float(jax.jit(lambda params, batch: loss(params, batch, None))(params, batch))
    state = [params, TX.init(params)]
    step = step_of(loss)

    def work(request: Any) -> Any:
        start = time.perf_counter()
        *state[:], value = step(*state, batch, jax.random.PRNGKey(0))
        value.block_until_ready()
        return {"seconds": time.perf_counter() - start}, first

    return work


def compiler(loss: Loss, shapes: Any, batch: Batch) -> Callable[[Any], Any]:
    """Traces and compiles the step when called, of shapes alone; no array of a model is made."""
    moments = jax.eval_shape(TX.init, shapes)

    def work(request: Any) -> Any:
        jax.clear_caches()
        start = time.perf_counter()
        step_of(loss).lower(shapes, moments, batch, jax.random.PRNGKey(0)).compile()
        return {"seconds": time.perf_counter() - start}, 0.0

    return work
