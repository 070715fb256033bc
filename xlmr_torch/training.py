"""The training loop: open, read in one sitting, used by ``xlmr train`` and the recipes in ``examples/`` alike.

What is to be done in which step (batches, rates, when to evaluate, to save and to stop) the run knows; here it is done.
A step depends on the weights and moments before it, on the recipe, and on its number: dropout too is drawn from (seed,
step), so that a run that was killed ends in the same weights as an undisturbed one, bit for bit on a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from xlmr_core.config import AutoConfig
from xlmr_core.errors import InputError, LoadWarning, MismatchError
from xlmr_core.training.depths import depth_of
from xlmr_core.training.parts import parts
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.refusals import check_parts
from xlmr_torch import auto
from xlmr_torch.adapters import adapted, merged
from xlmr_torch.objectives import answers, loss_of
from xlmr_torch.optimizers import freeze, optimizer_of
from xlmr_torch.pretrained import PreTrainedModel
from xlmr_torch.processes import Led, Processes
from xlmr_torch.training_state import gathered, read_state, whole, write_state
from xlmr_torch.used_rows import used_rows

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Arrays
    from xlmr_core.training.reports import Outcome
    from xlmr_core.training.run import Run

__all__ = ["model_for", "train"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def train(
    model: PreTrainedModel,
    run: Run,
    *,
    accumulate: int = 1,
    shard: bool = False,
    device: str | torch.device | None = None,
    make_optimizer: Callable[[nn.Module, Recipe, int], torch.optim.Optimizer] = optimizer_of,
) -> Outcome | None:
    """Train a model to the end of a run, or from where it was interrupted.

    Under ``torchrun`` each process computes its rows of the same batch, and the result is that of one device.

    Args:
        model: of the run's task, in float32; its weights are changed in place.
        run: what is to be done, and its folder.
        accumulate: parts in which a batch is computed, one after the other, where it is too large for the memory.
        shard: under ``torchrun``, divide the model among the processes (FSDP2) in place of a copy in each (DDP).
        device: to compute on; by default an accelerator if there is one, else the CPU.
        make_optimizer: makes an optimizer of the model, the recipe and the number of layers; a group's ``share`` is
            what its rate is of that of the step.

    Returns:
        What came of it; ``None`` if the run was stopped.

    Raises:
        InputError: for a recipe that this model or these arguments cannot serve.
        MissingBackendError: for adapters without PEFT.
        TrainingError: as the run says.
    """
    recipe, task = run.recipe, run.task
    check(recipe, accumulate, shard)
    together = Processes.join(device)
    device, first = together.device, together.rank == 0
    layers = model.config.num_hidden_layers
    torch.manual_seed(recipe.seed)
    trained: Any = adapted(model, recipe) if recipe.lora_rank else model
    freeze(trained.to(device), recipe, layers)
    # What other optimizers, and steps that are left out, make of rows without gradients is not known here.
    known = make_optimizer is optimizer_of and recipe.precision != "float16" and not (shard or recipe.lora_rank)
    with used_rows(trained, run.batches.features if known else None) as rows:
        called = together.wrap(trained, shard)
        optimizer = make_optimizer(trained, recipe, layers)
        if rows is not None:
            rows.follow(optimizer)
        scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        autocast = torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "float32")

        def predict(batch: Arrays) -> Arrays:
            trained.eval()
            with torch.no_grad(), autocast:
                found = answers(trained, task, batch, device)
            trained.train()
            return {name: value.float().cpu().numpy() for name, value in found.items()}

        def save_pretrained(folder: Path) -> None:
            values = {name: gathered(value, first) for name, value in trained.state_dict().items()}
            if not recipe.lora_rank:
                trained.save_pretrained(folder, is_main_process=first, state_dict=values)
            elif first:
                merged(trained).save_pretrained(folder)
                trained.save_pretrained(folder / "adapter", save_embedding_layers=False)

        lead = Led(
            together,
            load=lambda folder: read_state(folder, trained, optimizer, scaler, rows),
            save=lambda folder: write_state(folder, trained, optimizer, scaler, first, rows),
            predict=predict,
            save_pretrained=save_pretrained,
        )
        step = lead(run.restore, lead.load)
        trained.train()
        while lead(run.goes_on, step):
            torch.manual_seed(seed_of(recipe.seed, step, together.rank))
            batch, loss = run.batch(step), torch.zeros((), device=device)
            held = [*parts(batch, task, together.rank * accumulate, accumulate, together.world * accumulate)]
            for number, (part, share) in enumerate(held):
                with together.alone(called, number < len(held) - 1):
                    with autocast:
                        own = share * loss_of(called, task, part, batch, together)
                    # Of several processes the mean of the gradients is taken, and the sum is meant.
                    scaler.scale(own * together.world).backward()
                loss += own.detach()
            norm = torch.zeros_like(loss)
            if held:  # a batch without labels teaches nothing
                scaler.unscale_(optimizer)
                norm = whole(nn.utils.clip_grad_norm_(trained.parameters(), recipe.clip_norm or float("inf")))
                for group in optimizer.param_groups:
                    group["lr"] = run.rate(step) * group["share"]
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            step += 1
            lead(run.after, step, together.sum(loss), norm, save=lead.save, predict=lead.predict)
        outcome = lead(run.finish, lead.save_pretrained, predict=lead.predict)
    trained.eval()
    return outcome


def model_for(run: Run) -> PreTrainedModel:
    """The model that a run starts from; what is new in it, such as its head, is drawn from the recipe's seed. A head
    for another number of labels than the run's is left, and a fresh one takes its place; one for as many goes on.
    """
    recipe, kind = run.recipe, getattr(auto, run.task.auto)
    # A sentence is the mean of its tokens, or the first of them: no pooler.
    bare = {"add_pooling_layer": False} if kind is auto.AutoModel else {}
    torch.manual_seed(recipe.seed)
    if recipe.config:
        config = AutoConfig.from_pretrained(recipe.config, **run.settings)
        return kind.from_config(config, dtype="float32", **bare)
    values = {"dtype": "float32", **run.settings, **bare}
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


def check(recipe: Recipe, accumulate: int, shard: bool) -> None:
    """Refuse what cannot be served, before anything starts."""
    check_parts(accumulate, recipe)
    if shard and recipe.lora_rank:
        raise InputError("expected shard or lora_rank, received both; adapters train without sharding")
    if shard and recipe.precision == "float16":
        raise InputError("a model that is sharded trains in float32 or bfloat16, received float16; use bfloat16")


def seed_of(*numbers: int) -> int:
    """A seed that tells all of these apart."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
