"""The pipeline of every task: inputs in, answers out in the same order, in batches of similar lengths.

A text, a list of texts, or a stream (a generator, a data set or another iterable), which is answered as it is read,
``batch_size`` inputs at a time. The task says what an input is and what happens to it; a runner runs the model.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import Served, suggestion, without_published
from xlmr_core.errors import InputError
from xlmr_core.tasks import TASKS, TaskRow, auto_of, find_task
from xlmr_core.tasks.options import TaskOptions, option_fields
from xlmr_core.tasks.runner import Runner
from xlmr_core.tasks.task import Arrays, Item

__all__ = ["Pipeline", "changed", "check_model", "pipeline_class"]

# Published arguments of a pipeline and its calls that ask for nothing here: any value will do, or only these.
PIPELINE_NOT_NEEDED = ("num_workers",)
_TEXT = "a text model has none"
PIPELINE_ONLY: Served = {
    **dict.fromkeys(("feature_extractor", "image_processor", "processor", "modelcard"), ((None,), _TEXT)),
    "pipeline_class": ((None,), "the task chooses the class"),
    "binary_output": ((False,), "answers are plain Python objects"),
    "use_auth_token": ((None, False), "it was renamed; pass token="),
}


class Pipeline:
    """A task on a model.

    Args:
        task: a name of ``xlmr_core.tasks.TASKS``.
        runner: runs the model.
        tokenizer: the model's tokenizer.
        **options: defaults of every call; see the task's ``Options``.
    """

    def __init__(self, task: str, runner: Runner, tokenizer: Any, **options: Any) -> None:
        row = find_task(task)
        self.task = row.name
        self.runner = runner
        self.tokenizer = tokenizer
        self._task = row.load()(tokenizer, runner.config)
        self.options = changed(self.task, self._task.Options(), options)

    @property
    def model(self) -> Any:
        """The model."""
        return self.runner.model

    @model.setter
    def model(self, model: Any) -> None:
        self.runner.model = model

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.runner.device

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Answer an input, a list of inputs or a stream of them.

        Args:
            *inputs: for most tasks one argument, ``inputs``: a text, a list of texts, or an iterable of them.
            **options: as of the constructor, for this call.

        Returns:
            The task's answer, a list of answers for a list, an iterator for any other iterable.

        Raises:
            InputError: for an input that cannot be answered, or an option that does not exist or makes no sense.
        """
        given, changes = self._task.read(*inputs, **options)
        settled = self._task.prepare(changed(self.task, self.options, changes))
        if isinstance(given, self._task.single):
            return self._task.gather(self._answers([given], settled), single=True)
        if isinstance(given, list | tuple):
            return self._task.gather(self._answers(given, settled), single=False)
        return self._stream(_one_by_one(given), settled)

    def __repr__(self) -> str:
        """Its class, its task, the model and where that is, and the options that were chosen."""
        kind = type(self.model).__name__
        name = str(getattr(self.model, "name_or_path", "") or "")
        usual = self._task.Options()
        chosen = {
            own.name: getattr(self.options, own.name)
            for own in option_fields(self.options)
            if getattr(self.options, own.name) != getattr(usual, own.name)
        }
        parts = {
            "task": repr(self.task),
            "model": f"{kind}({name!r})" if name else kind,
            "device": repr(str(self.device)),
            **{name: repr(value) for name, value in chosen.items()},
        }
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in parts.items())})"

    def text(self, answer: Any) -> str:
        """An answer as ``xlmr run`` prints it for people."""
        return self._task.text(answer)

    def _stream(self, inputs: Iterator[Any], options: TaskOptions) -> Iterator[Any]:
        while batch := list(islice(inputs, options.batch_size)):
            yield from self._answers(batch, options)

    def _answers(self, inputs: Sequence[Any], options: TaskOptions) -> list[Any]:
        """An answer for each input; an item is decoded as soon as its last row ran, so outputs are not piled up."""
        items = self._task.encode(inputs, options)
        answers = [None if item.rows else self._task.decode(item, [], options) for item in items]
        outputs: list[list[Arrays]] = [[{} for _ in item.rows] for item in items]
        missing = [len(item.rows) for item in items]
        for batch in _batches(items, options.batch_size):
            arrays = self._collate([items[index].rows[number] for index, number in batch])
            found = self.runner.run(arrays, self._task.wanted)
            for line, (index, number) in enumerate(batch):
                outputs[index][number] = {name: array[line] for name, array in found.items()}
                missing[index] -= 1
                if missing[index] == 0:
                    answers[index] = self._task.decode(items[index], outputs[index], options)
                    outputs[index] = []
        return answers

    def _collate(self, rows: Sequence[Arrays]) -> Arrays:
        """Rows of different lengths as one batch, padded at the end of each axis."""
        fills = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0, **self._task.fills}
        return {name: _stack([row[name] for row in rows], fills[name]) for name in rows[0]}


def _one_by_one(inputs: Any) -> Iterator[Any]:
    if isinstance(inputs, Mapping | bytes) or not (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")):
        raise InputError(
            f"expected a text, a list of texts or an iterable of them, received {type(inputs).__name__}; pass the texts"
        )
    # A data set may have numbered items and a length, and no __iter__.
    by_number = not hasattr(inputs, "__iter__") and hasattr(inputs, "__len__")
    return (inputs[number] for number in range(len(inputs))) if by_number else iter(inputs)


def _batches(items: Sequence[Item], size: int) -> Iterator[list[tuple[int, int]]]:
    """Rows of similar lengths that run together, each by its item and its number there.

    The longest come first, so that memory is at its peak at once.
    """
    rows = [(index, number) for index, item in enumerate(items) for number in range(len(item.rows))]
    rows.sort(key=lambda row: -items[row[0]].rows[row[1]]["input_ids"].size)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _stack(arrays: Sequence[NDArray[Any]], fill: int) -> NDArray[np.int64]:
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.full((len(arrays), *shape), fill, np.int64)
    for index, array in enumerate(arrays):
        place: tuple[Any, ...] = (index, *map(slice, array.shape))
        stacked[place] = array
    return stacked


def changed(task: str, options: TaskOptions, changes: Mapping[str, Any], others: Sequence[str] = ()) -> TaskOptions:
    """Options of a task with some of them replaced; ``None`` leaves an option as it is.

    Args:
        task: its name.
        options: as they are.
        changes: by name.
        others: names of what else the call takes, which may have been meant.

    Raises:
        InputError: for an option that the task does not have, or a value that makes no sense.
    """
    changes = without_published(changes, PIPELINE_ONLY, PIPELINE_NOT_NEEDED)
    known = [own.name for own in option_fields(options)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise InputError(
            f"{task} takes the options {', '.join(known)}, received {', '.join(unknown)}; "
            f"{suggestion(unknown[0], [*known, *others])}"
        )
    return replace(options, **{name: value for name, value in changes.items() if value is not None})


def check_model(row: TaskRow, model: object) -> None:
    """Refuse a model with the head of another task; one with a head of the user's own is taken at its word.

    Raises:
        InputError: naming the class that the task needs.
    """
    if isinstance(model, str | os.PathLike):
        raise InputError(
            f"{row.pipeline} expects a model, received the name {str(model)!r}; pipeline({row.name!r}, "
            f"{str(model)!r}) loads it"
        )
    if auto_of(model) not in ("", row.auto):
        received = type(model).__name__
        raise InputError(f"{row.name} needs a model of {row.auto}, received {received}; load the checkpoint with that")


@functools.cache
def pipeline_class(module: str, runner: type[Any], name: str) -> type[Pipeline]:
    """The published class of a task in a backend, such as ``FillMaskPipeline(model, tokenizer, **options)``.

    Args:
        module: where the class is said to be.
        runner: the backend's runner, made of a model.
        name: the class's name; see ``TaskRow.pipeline``.

    Raises:
        AttributeError: for a name that belongs to no task, as of a module without such a name.
    """
    row = next((row for row in TASKS.values() if row.pipeline == name), None)
    if row is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def __init__(self: Pipeline, model: Any, tokenizer: Any, **options: Any) -> None:
        check_model(row, model)
        Pipeline.__init__(self, row.name, runner(model), tokenizer, **options)

    doc = f"""{row.name}: {row.summary}.

    Args:
        model: a model of ``{row.auto}``; it is used as it is, without dropout.
        tokenizer: its tokenizer.
        **options: defaults of every call; see ``Options`` of ``{row.place}``.
    """
    return type(name, (Pipeline,), {"__init__": __init__, "__doc__": doc, "__module__": module, "task": row.name})
