"""Models for a server: which of their heads is loaded, and all tasks that it can do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from xlmr_core.backends import load_backend
from xlmr_core.config import AutoConfig, EncoderDecoderConfig
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.heads import HEADS, head_of_class
from xlmr_core.serving.models import Model
from xlmr_core.tasks import TASKS, TaskRow, find_task
from xlmr_core.tasks.sentence_folder import read_sentence_folder
from xlmr_core.tasks.task import Task

__all__ = ["load_model", "name_of", "tasks_of", "usual_task"]

# Of a model that says nothing else, in this order.
_VECTORS, _WRITES = "sentence-embedding", "text2text-generation"


def load_model(
    source: str | os.PathLike[str],
    task: str | None = None,
    *,
    name: str | None = None,
    backend: str = "torch",
    device: Any = None,
    dtype: Any = None,
) -> Model:
    """Load a model, once, for all tasks that its head can do.

    Args:
        source: a folder, a built-in model or a name on the hub.
        task: a name of ``TASKS``, which says the head; by default what the checkpoint says.
        name: by which clients ask for it; by default the last part of a folder, or the name on the hub.
        backend: a name of ``BACKENDS``.
        device, dtype: as of the backend's ``pipeline``.

    Raises:
        XLMRError: if it cannot be loaded, or does not say what it is for.
    """
    row = find_task(usual_task(source) if task is None else task)
    name = name or name_of(source)
    # The frameworks' threads belong to the one that first sets them to work. Where a second one does, there are more
    # than cores, and they go to sleep between any two operations: a tenth to a fifth of the time.
    running = ThreadPoolExecutor(1, f"xlmr-run-{name}")
    load = partial(load_backend(backend).pipeline, row.name, model=source, device=device, dtype=dtype)
    try:
        pipeline = running.submit(load).result()
    except BaseException:
        running.shutdown(wait=False)
        raise
    runner, tokenizer = pipeline.runner, pipeline.tokenizer
    # Parts of it are made when they pay, which would be while clients wait.
    getattr(tokenizer, "backend_tokenizer", None)
    tasks: dict[str, Task] = {}
    for other in tasks_of(row, runner.config):
        made = other.load()(tokenizer, runner.config)
        made.set_up(runner, made.read_beside(source))
        tasks[other.name] = made
    return Model(name, os.fspath(source), runner, tokenizer, tasks, running)


def name_of(source: str | os.PathLike[str]) -> str:
    """What a model is called where nobody says it."""
    local = Path(source).expanduser()
    return local.resolve().name if local.exists() else os.fspath(source)


def usual_task(source: str | os.PathLike[str]) -> str:
    """What a checkpoint is for, where nobody says it: vectors, if files beside it say how they are made; else the task
    of its head.

    Raises:
        InputError: if it does not say its head.
    """
    config: Any = AutoConfig.from_pretrained(source)
    if type(config) is EncoderDecoderConfig:
        return _WRITES
    autos = [auto for auto in map(_auto_of_class, config.architectures or ()) if auto]
    general = (HEADS["Model"].auto, HEADS["ForMaskedLM"].auto)
    if (not autos or autos[0] in general) and read_sentence_folder(source).pooling:
        return _VECTORS
    if not autos:
        raise InputError(f"{os.fspath(source)!r} does not say what it is for; pass task=, such as {_VECTORS}")
    return _VECTORS if autos[0] == general[0] else next(row.name for row in TASKS.values() if row.auto == autos[0])


def _auto_of_class(name: str) -> str:
    try:
        return head_of_class(name).auto
    except XLMRError:
        return ""


def tasks_of(row: TaskRow, config: Any) -> list[TaskRow]:
    """The tasks that a model with the head of a task can do, that one first."""
    found = [other for other in TASKS.values() if other.auto == row.auto and other.name != row.name]
    return [row, *(other for other in found if _FITS.get(other.name, _always)(config))]


def _always(config: Any) -> bool:
    return True


def _has_one_label(config: Any) -> bool:
    return bool(config.num_labels == 1)


def _entails(config: Any) -> bool:
    return any(str(label).lower().startswith("entail") for label in config.id2label.values())


# Tasks that not every model with their head can do.
_FITS: Mapping[str, Any] = {"rerank": _has_one_label, "zero-shot-classification": _entails}
