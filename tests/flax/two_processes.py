"""One of two processes that train together: ``python -m tests.flax.two_processes ADDRESS NUMBER FOLDER``. Its last line
is its answer as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.choice import chosen
from tests.flax import models
from tests.small_runs import ROWS as EXAMPLES
from tests.small_runs import small_run, written
from xlmr_core.training import run
from xlmr_flax import training
from xlmr_flax.functional import flatten
from xlmr_flax.sharding import DATA_PARALLEL, FSDP, param_shardings

RULES = {"data parallel": DATA_PARALLEL, "FSDP": FSDP}
LAYOUTS = {name: RULES[name] for name in chosen(list(RULES), ["FSDP"])}
ROWS = 4


def own_rows():
    """The rows of the batch that this process reads."""
    batch = models.labelled("ForMaskedLM", models.batch((10, 6, 3, 9)))
    share = ROWS // jax.process_count()
    start = jax.process_index() * share
    return {name: x[start : start + share] for name, x in batch.items()}


def train(layouts, held=None):
    """Losses of three steps by layout, on all devices of all processes."""
    mesh = Mesh(np.array(jax.devices()[: jax.process_count()]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    model = models.model("ForMaskedLM", _do_init=False, num_hidden_layers=1)
    rng = np.random.default_rng(0)
    start = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(x.dtype), model.params_shape_tree)

    def placed(x, sharding):
        """Each process puts what its own devices hold."""
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    batch = {name: jax.make_array_from_process_local_data(rows, x) for name, x in own_rows().items()}

    @jax.jit
    def step(params, batch):
        loss, gradients = jax.value_and_grad(lambda params: model(**batch, params=params).loss)(params)
        return optax.apply_updates(params, jax.tree.map(lambda x: -0.1 * x, gradients)), loss

    losses = {}
    for layout, rules in layouts.items():
        params = jax.tree.map(placed, start, param_shardings(model, mesh, rules))
        if held is not None:
            own = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(params))
            held[layout] = own / sum(x.size for x in jax.tree.leaves(params))
        losses[layout] = []
        for _ in range(3):
            params, loss = step(params, batch)
            losses[layout].append(float(loss))
    return losses


def run_in(folder, name, rules):
    """The sum of each parameter after a small run, which is in a folder, like its data."""
    file = written(folder, "eval.jsonl", EXAMPLES["text-classification"](7))
    values = {"layers": 1, "steps": 4, "dropout": 0.0, "checkpoint_every": 2, "eval": str(file), "evaluate_every": 2}
    with small_run(folder, at=folder / name, **values) as small:
        model = training.model_for(small)
        training.train(model, small, rules=rules)
    return {"/".join(path): float(abs(value).sum()) for path, value in flatten(model.params).items()}


if __name__ == "__main__":
    # Patient, as a process of a busy machine may not be heard of for a while.
    jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]), heartbeat_timeout_seconds=600)
    held: dict[str, float] = {}
    losses = train(LAYOUTS, held)
    run.publish = lambda *arguments, **named: None  # the card and its pictures
    sums = run_in(Path(sys.argv[3]), "together", FSDP)
    print(json.dumps({"processes": jax.process_count(), "losses": losses, "held": held, "sums": sums}))
