"""The training loop: open, read in one sitting, used by ``xlmr train`` and the recipes in ``examples/`` alike.

What is to be done in which step (batches, rates, when to evaluate, to save and to stop) the run knows; here it is done,
by one compiled program. A step depends on the weights and moments before it, on the recipe, and on its number: dropout
too is drawn from (seed, step), so that a run that was killed ends in the same weights as an undisturbed one, bit for
bit on a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from xlmr_core.config import AutoConfig
from xlmr_core.errors import LoadWarning, MismatchError
from xlmr_core.training.depths import depth_of
from xlmr_core.training.parts import parts
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.refusals import check_parts
from xlmr_flax import auto
from xlmr_flax.devices import Devices
from xlmr_flax.functional import write_params
from xlmr_flax.objectives import answers, trimmed
from xlmr_flax.optimizers import FIRST_SCALE, freeze, optimizer_of, united
from xlmr_flax.placement import find_dtype
from xlmr_flax.pretrained import PreTrainedModel
from xlmr_flax.processes import Led
from xlmr_flax.sharding import DATA_PARALLEL, Rules
from xlmr_flax.training_state import read_state, write_state
from xlmr_flax.training_step import gradients_of, stepped

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Arrays
    from xlmr_core.training.reports import Outcome
    from xlmr_core.training.run import Run

__all__ = ["model_for", "train"]


def train(
    model: PreTrainedModel,
    run: Run,
    *,
    accumulate: int = 1,
    mesh: Mesh | None = None,
    rules: Rules = DATA_PARALLEL,
    make_optimizer: Callable[[Any, Recipe, int, Any], optax.GradientTransformation] = optimizer_of,
) -> Outcome | None:
    """Train a model to the end of a run, or from where it was interrupted.

    Several processes (``jax.distributed``) call it alike, with a folder that all of them see.

    Args:
        model: of the run's task, in float32. It gives its parameters away, and has the trained ones at the end.
        run: what is to be done, and its folder.
        accumulate: parts in which a batch is computed, one after the other, where it is too large for the memory.
        mesh: devices to compute on together: rows are divided along its axis ``data``. By default the device of the
            parameters, or of several processes all devices.
        rules: how parameters and moments are divided, see ``sharding.py``; by default each device has all.
        make_optimizer: makes an optimizer of the parameters, the recipe, the number of layers and the rate of a step,
            which has no value yet.

    Returns:
        What came of it; ``None`` if the run was stopped.

    Raises:
        InputError: for a recipe that this model or these arguments cannot serve.
        TrainingError: as the run says.
    """
    recipe, task, layers = run.recipe, run.task, model.config.num_hidden_layers
    check_parts(accumulate, recipe)
    devices, dtype = Devices(model, mesh, rules), model.dtype
    trained, frozen = freeze(devices.take(model.params), model, recipe)
    moments = make_optimizer(trained, recipe, layers, 0.0).init(trained)
    scale = {"value": jnp.float32(FIRST_SCALE), "steps": jnp.int32(0)} if recipe.precision == "float16" else {}
    state = devices.spread({"trained": trained, "moments": moments, "scale": scale})
    places = jax.tree.map(lambda x: x.sharding, state)

    @partial(jax.jit, donate_argnums=0, out_shardings=(places, devices.whole, devices.whole))
    def take_step(state: Any, frozen: Any, held: Any, shares: Any, seeds: Any, rate: Any) -> Any:
        def loss_of(trained: Any, part: Any, key: Any) -> Any:
            return answers(model, task, united(trained, frozen, recipe), part, key)["loss"]

        gradients, loss = gradients_of(loss_of, state["trained"], held, shares, seeds, state["scale"])
        optimizer = make_optimizer(state["trained"], recipe, layers, rate)
        state, norm = stepped(state, gradients, optimizer, recipe.clip_norm)
        return state, loss, norm

    @partial(jax.jit, out_shardings=devices.whole)
    def evaluate(trained: Any, frozen: Any, batch: Any) -> Any:
        return answers(model, task, united(trained, frozen, recipe), batch)

    def predict(batch: Arrays) -> Arrays:
        there = devices.place(batch, task, devices.known_rows(len(batch["input_ids"])))
        found = trimmed(evaluate(state["trained"], frozen, there), batch)
        # The mean over no label is no number; as nothing is counted, it is 0.
        return found if task.counted(batch) else {**found, "loss": np.zeros((), np.float32)}

    def load(folder: Path) -> None:
        nonlocal state
        state = read_state(folder, state)

    def params_here() -> dict[str, Any]:
        return united(*devices.gather((state["trained"], frozen)), recipe)

    def save_pretrained(folder: Path) -> None:
        params = params_here()
        if jax.process_index() == 0:
            model.save_pretrained(folder, params=params)

    lead = Led(
        load=load, save=lambda folder: write_state(folder, state), predict=predict, save_pretrained=save_pretrained
    )
    model._set_dtype(find_dtype(recipe.precision))
    write_params(model, model.params_shape_tree)
    try:
        step = lead(run.restore, lead.load)
        while lead(run.goes_on, step):
            batch, loss, norm = run.batch(step), 0.0, 0.0
            held = [*parts(batch, task, 0, accumulate, accumulate)]
            if held:  # a batch without labels teaches nothing
                rows = -(-len(batch["input_ids"]) // accumulate)
                there = [devices.place(part, task, rows) for part, _ in held]
                shares = np.array([share for _, share in held], np.float32)
                seeds = np.array([seed_of(recipe.seed, step, number) for number in range(accumulate)], np.uint32)
                state, loss, norm = take_step(state, frozen, there, shares, seeds, np.float32(run.rate(step)))
            step += 1
            lead(run.after, step, loss, norm, save=lead.save, predict=lead.predict)
        return lead(run.finish, lead.save_pretrained, predict=lead.predict)
    finally:
        model._set_dtype(dtype)
        model.params = devices.give_back(params_here())


def model_for(run: Run) -> PreTrainedModel:
    """The model that a run starts from; what is new in it, such as its head, is drawn from the recipe's seed. A head
    for another number of labels than the run's is left, and a fresh one takes its place; one for as many goes on.
    """
    recipe, kind = run.recipe, getattr(auto, f"Flax{run.task.auto}")
    values: dict[str, Any] = {"dtype": "float32", "seed": seed_of(recipe.seed)}
    if kind is auto.FlaxAutoModel:  # a sentence is the mean of its tokens, or the first of them: no pooler
        values["add_pooling_layer"] = False
    if recipe.config:
        return kind.from_config(AutoConfig.from_pretrained(recipe.config, **run.settings), **values)
    values = {**values, "param_dtype": "float32", **run.settings}
    with warnings.catch_warnings(action="ignore", category=LoadWarning):  # that the head is to be trained
        try:
            return kind.from_pretrained(recipe.model, **values)
        except MismatchError as error:
            fresh = {"ignore_mismatched_sizes": True, "output_loading_info": True}
            model, info = kind.from_pretrained(recipe.model, **fresh, **values)
            names = [name for name, *_ in info["mismatched_keys"]]
            layers = model.config.num_hidden_layers
            if any(depth_of(name, layers) <= layers for name in names):
                raise error from None
    run.tell("", f"{recipe.model} was trained for another number of labels; {', '.join(names)} start fresh")
    return model


def seed_of(*numbers: int) -> int:
    """A seed that tells all of these apart."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
