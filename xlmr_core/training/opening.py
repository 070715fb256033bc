"""Taking the folder of a run: it is empty, or has this very run in it, and nobody else is at it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core import __version__
from xlmr_core.atomic_files import write_atomically
from xlmr_core.errors import TrainingError
from xlmr_core.training.card import CARD, CONFUSIONS, CURVES, FIGURES
from xlmr_core.training.checkpoints import Checkpoints
from xlmr_core.training.log import Log
from xlmr_core.training.recipe import FILES, Recipe

__all__ = ["check_place", "opened"]

LOG, RECIPE = "log.jsonl", "recipe.toml"
# Fields of a recipe that a run that goes on may have changed: they decide what stays on the disk.
FREE = ("keep", "checkpoint_every")
# What a run that is over leaves: its card and pictures, the model, its tokenizer, and adapters.
PUBLISHED: tuple[str, ...] = (CARD, FIGURES, CURVES, CONFUSIONS)
PUBLISHED += ("config.json", "generation_config.json", "model.safetensors*", "model-*-of-*.safetensors", "adapter/*")
PUBLISHED += ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "sentencepiece.bpe.model")
PUBLISHED += ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "[0-9]_*/*.json")


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something else than a run.

    Raises:
        TrainingError: saying what it holds.
    """
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"expected a folder to train in, received the file {str(folder)!r}; name another")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LOG).exists():
        raise TrainingError(
            f"expected an empty folder, or one with a run in it, received {str(folder)!r} with other files; name a new "
            "folder"
        )


def opened(folder: Path, recipe: Recipe, data: Mapping[str, Any], checkpoints: Checkpoints, restart: bool) -> Log:
    """The log of a run that is begun in a folder, or that is there.

    Args:
        folder: of the run; it is made.
        recipe: of the run, completed.
        data: what tells the training data from other data, in plain Python.
        checkpoints: of the run.
        restart: forget what is there.

    Raises:
        TrainingError: if there is a run of another recipe or other data, or another process has the folder.
    """
    check_place(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the folder {folder}: {error.strerror or error}; name another") from error
    run = json.loads(json.dumps({"xlmr": __version__, "recipe": recipe.values(), "data": data}))
    log = Log(folder / LOG)
    try:
        if log.run is None or restart or (log.last is None and not checkpoints.steps()):
            checkpoints.clear()
            _forget(folder)
            log.begin(run)
            write_atomically(folder / RECIPE, recipe.to_toml().encode())
        else:
            _check_same(folder, log.run, run)
    except BaseException:
        log.close()
        raise
    return log


def _forget(folder: Path) -> None:
    """Remove the model of a run that was there, and what was written beside it; other files stay."""
    for path in (path for pattern in PUBLISHED for path in folder.glob(pattern)):
        path.unlink()
        if path.parent != folder and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of something else."""
    for part in ("recipe", "data"):
        old, new = before.get(part, {}), now[part]
        for name in {**old, **new}:
            # The order of files is that of the rows, and so of the batches.
            same = (
                json.dumps(old.get(name)) == json.dumps(new.get(name))
                if part == "data"
                else old.get(name) == new.get(name)
            )
            # What is in the files is compared, among the data, and not where they lie.
            if name not in (*FREE, *(FILES if part == "recipe" else ())) and not same:
                raise TrainingError(
                    f"the run in {folder} was begun with another {name}, {old.get(name)!r}, received "
                    f"{new.get(name)!r}; go on with that, give another folder, or pass restart=True to begin anew"
                )
