"""The pipeline of every task: inputs in, answers out in the same order, in batches of similar lengths.

A text, a list of texts, or a stream (a generator, a data set or another iterable), which is answered as it is read,
``batch_size`` inputs at a time, or ``WINDOW`` with ``batch_tokens``. The task says what an input is and what happens to
it (``streams.py`` what is a stream); a runner runs the model.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import Served, suggestion, without_published
from xlmr_core.atomic_files import write_atomically
from xlmr_core.backends import BACKENDS, find_backend
from xlmr_core.errors import InputError, LoadWarning, XLMRError, warn_caller
from xlmr_core.heads import HEADS, head_of_class
from xlmr_core.progress import ProgressBar
from xlmr_core.tasks import TASKS, TaskRow, auto_of, find_task
from xlmr_core.tasks.options import WINDOW, TaskOptions, option_fields
from xlmr_core.tasks.runner import Runner
from xlmr_core.tasks.streams import Answers, length_of, one_by_one
from xlmr_core.tasks.task import Arrays, Item, Task
from xlmr_core.wording import counted, shown

if TYPE_CHECKING:
    from xlmr_core.generation.streamers import Ends

__all__ = ["TRUNCATED", "USUAL_TOKENS", "Pipeline", "changed", "check_model", "pipeline_class", "run_together"]

logger = logging.getLogger("xlmr_core.tasks")

# Inputs of a data set that are read ahead, and tokens that run together, where nothing is said.
AHEAD, USUAL_TOKENS = 64, 4096
# Tokens that run together at most where inputs are counted, and one may have any number of rows.
MOST_TOKENS = 16384
# Seconds after which work counts as long, and a bar shows how much of it is done.
LONG_WORK_S = 2.0

# What is said of a text and others that were cut.
TRUNCATED = (
    "%s%s: truncated, as longer than the model takes; on_overflow says what happens to such texts, "
    "pipeline.truncated which they are"
)

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
        task: a name of ``xlmr_core.tasks.TASKS``, or a row.
        runner: runs the model.
        tokenizer: the model's tokenizer.
        beside: what the task read beside the model; by default it is read now, by the name of the model.
        **options: defaults of every call; see the task's ``Options``.

    Attributes:
        truncated: the inputs of the last call that were cut, by their index.
    """

    def __init__(
        self, task: str | TaskRow, runner: Runner, tokenizer: Any, *, beside: Any = None, **options: Any
    ) -> None:
        row = find_task(task)
        self.task = row.name
        self.runner = runner
        self.tokenizer = tokenizer
        self._task = row.load()(tokenizer, runner.config)
        if beside is None:
            beside = self._task.read_beside(getattr(runner.model, "name_or_path", "") or "")
        self._task.set_up(runner, beside)
        self.options = changed(self.task, self._task.Options(), options)
        self.truncated: list[int] = []

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

    @property
    def framework(self) -> str:
        """The published short name of the backend: ``pt``, ``tf`` or ``flax``."""
        return self.runner.framework

    @property
    def dtype(self) -> Any:
        """The model's dtype, as the framework says it."""
        return getattr(self.model, "dtype", None)

    torch_dtype = dtype

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Answer an input, a list of inputs or a stream of them.

        Args:
            *inputs: for most tasks one argument, ``inputs``: a text, a list of texts, or an iterable of them.
            **options: as of the constructor, for this call.

        Returns:
            The task's answer, a list of answers for a list or a NumPy array, an iterator for any other iterable.

        Raises:
            InputError: for an input that cannot be answered, or an option that does not exist or makes no sense.
        """
        ends, said = self._task.waiting(self.options, options)
        if ends is None:
            return self._call(None, *inputs, **said)
        given = inputs[0] if inputs else said.get("text_inputs")
        with ends.of(len(given) if isinstance(given, list | tuple | np.ndarray) else 1):
            return self._call(ends, *inputs, **said)

    def _call(self, ends: Ends | None, *inputs: Any, **options: Any) -> Any:
        """As above; ``ends`` is the streamer of the call, if somebody waits at one."""
        given, changes = self._task.read(*inputs, **options)
        given = given.tolist() if isinstance(given, np.ndarray) else given
        settled = self._task.prepare(changed(self.task, self.options, changes))
        self.truncated = []
        single = isinstance(given, self._task.single)
        if single or isinstance(given, list | tuple):
            with self._bar(settled) as bar:
                all_given = [given] if single else given
                answers = self._answers(all_given, settled, bar, total=len(all_given))
                return self._task.gather(answers, single, settled)
        self._task.one_by_one(settled)
        total = length_of(given)
        stream = self._stream(one_by_one(given, self._task.from_line), settled, total, ends)
        return stream if total is None else Answers(stream, total)

    def check_options(self) -> None:
        """Refuse options with which no input of a stream can be answered, before there is one.

        Raises:
            InputError: for what is missing or makes no sense.
        """
        self._task.one_by_one(self._task.prepare(self.options))

    def save_pretrained(self, save_directory: str | os.PathLike[str], **arguments: Any) -> None:
        """Write the model, its tokenizer and what the task reads beside them: ``pipeline(task, save_directory)`` reads
        all of it.

        Args:
            save_directory: the folder.
            **arguments: of the model's ``save_pretrained``.
        """
        self.model.save_pretrained(save_directory, **arguments)
        self.tokenizer.save_pretrained(save_directory)
        for name, content in self._task.files_beside().items():
            path = Path(save_directory, name)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)

    def _bar(self, options: TaskOptions) -> ProgressBar:
        return ProgressBar(options.progress, " inputs", after=0 if options.progress else LONG_WORK_S)

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

    def streamer(self, given: Any, write: Callable[[str], object]) -> Any:
        """What writes the answer to one input while it comes, passed as ``streamer`` to a call; ``None`` if none can.

        Args:
            given: the input.
            write: takes a piece of the text that :meth:`text` gives at the end.
        """
        return self._task.streamer(given, self.options, write)

    def plain(self, answer: Any) -> Any:
        """An answer of plain Python, as ``xlmr run --format json`` prints it."""
        return self._task.plain(answer)

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """An answer as the rows of a table, which is what ``xlmr run --format csv`` prints."""
        return self._task.rows(answer)

    def _stream(
        self, inputs: Iterator[Any], options: TaskOptions, total: int | None, ends: Ends | None
    ) -> Iterator[Any]:
        done, window = 0, _window(options, total)
        with self._bar(options) as bar:
            while batch := _read(inputs, window, ends):
                try:
                    with nullcontext() if ends is None else ends.of(len(batch)):
                        answers = self._answers(batch, options, bar, done, total)
                except InputError as error:
                    if not done:
                        raise
                    # The task counts from the first that it was given.
                    raise InputError(f"behind {counted(done, 'input')}: {error}") from error
                yield from answers
                done += len(batch)

    def _answers(
        self,
        inputs: Sequence[Any],
        options: TaskOptions,
        bar: ProgressBar,
        before: int = 0,
        total: int | None = None,
    ) -> list[Any]:
        """An answer for each input; an item is decoded as soon as its last row ran, so outputs are not piled up.

        Args:
            inputs: some or all inputs of a call.
            options: of the call.
            bar: shows how much is done.
            before: how many inputs of the call were answered before.
            total: how many inputs the call has, if that is known.
        """
        items = self._task.encode(inputs, options)
        self._tell_truncated(inputs, items, before, chosen=options.on_overflow == "truncate")
        answers = [None if item.rows else self._task.decode(item, [], options) for item in items]
        outputs: list[list[Arrays]] = [[{} for _ in item.rows] for item in items]
        missing = [len(item.rows) for item in items]
        finished = before + missing.count(0)
        for batch in _batches(items, options, self._task):
            rows = [items[index].rows[number] for index, number in batch]
            found = run_together(self._task, self.runner, self.tokenizer, rows, options)
            for (index, number), arrays in zip(batch, found, strict=True):
                outputs[index][number] = arrays
                missing[index] -= 1
                if missing[index] == 0:
                    answers[index] = self._answer(items[index], outputs[index], options)
                    outputs[index] = []
                    finished += 1
            bar(self.task, finished, total)
        return answers

    def _answer(self, item: Item, outputs: Sequence[Arrays], options: TaskOptions) -> Any:
        answer = self._task.decode(item, outputs, options)
        return self._with_tensors(answer) if getattr(options, "return_tensors", False) else answer

    def _with_tensors(self, answer: Any) -> Any:
        """An answer with tensors of the framework in the place of arrays."""
        if isinstance(answer, np.ndarray):
            return self.runner.tensor(answer)
        if isinstance(answer, dict):
            return {name: self._with_tensors(part) for name, part in answer.items()}
        return [self._with_tensors(part) for part in answer] if isinstance(answer, list) else answer

    def _tell_truncated(self, inputs: Sequence[Any], items: Sequence[Item], before: int, chosen: bool) -> None:
        """Keep which inputs were cut; unless that was chosen, warn, once a call."""
        cut = [index for index, item in enumerate(items) if item.truncated]
        if cut and not chosen and not self.truncated:
            which = shown(inputs[cut[0]], 60)
            others = f" and {counted(len(cut) - 1, 'other')}" if len(cut) > 1 else ""
            logger.warning(TRUNCATED, which, others)
        self.truncated += [before + index for index in cut]


def _read(inputs: Iterator[Any], count: int, ends: Ends | None) -> list[Any]:
    """The next inputs of a stream; who waits for the next answer at a streamer hears if it cannot be read."""
    with nullcontext() if ends is None else ends.of(1):
        return list(islice(inputs, count))


def _window(options: TaskOptions, total: int | None) -> int:
    """How many inputs of a stream are read before the first of them is answered."""
    if options.batch_tokens is not None:
        return WINDOW
    # A generator may wait for its answer before it goes on; a data set, which knows its length, does not.
    return options.batch_size or (1 if total is None else AHEAD)


def _batches(items: Sequence[Item], options: TaskOptions, task: Task) -> Iterator[list[tuple[int, int]]]:
    """Rows of similar lengths that run together, each by its item and its number there.

    The longest come first, so that memory is at its peak at once, and the first of a batch says how long it is.
    """
    rows = [
        (task.weight(row, options), row["input_ids"].size, task.beside(row, options), index, number)
        for index, item in enumerate(items)
        for number, row in enumerate(item.rows)
    ]
    rows.sort(key=lambda row: (-row[0], -row[1]))
    most_rows: int = len(rows)
    most_tokens: int | None = options.batch_tokens or USUAL_TOKENS
    if options.batch_tokens is None and options.batch_size is not None:
        most_rows, most_tokens = options.batch_size, None
        if task.together:
            most_rows, most_tokens = most_rows * max((len(item.rows) for item in items), default=0), MOST_TOKENS
    start = 0
    while start < len(rows):
        longest = max(1, rows[start][0])
        count = most_rows if most_tokens is None else max(1, min(most_rows, most_tokens // longest))
        key = rows[start][2]
        batch = [*takewhile(lambda row, key=key: row[2] == key, rows[start : start + count])]  # type: ignore[misc]
        yield [(index, number) for *_, index, number in batch]
        start += len(batch)


def run_together(
    task: Task, runner: Runner, tokenizer: Any, rows: Sequence[Arrays], options: TaskOptions
) -> list[Arrays]:
    """Run rows of different lengths as one batch, padded at one end of each axis; the outputs of each row."""
    fills = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, **task.fills}
    arrays = {name: _stack([row[name] for row in rows], fills[name], task.pads_left) for name in rows[0]}
    found = task.run(runner, arrays, options)
    return [{name: array[line] for name, array in found.items()} for line in range(len(rows))]


def _stack(arrays: Sequence[NDArray[Any]], fill: int, left: bool) -> NDArray[Any]:
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.full((len(arrays), *shape), fill, arrays[0].dtype)
    for index, array in enumerate(arrays):
        sizes = zip(array.shape, shape.tolist(), strict=True)
        place: tuple[Any, ...] = tuple(slice(most - size, most) if left else slice(size) for size, most in sizes)
        stacked[(index, *place)] = array
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
    only = {**PIPELINE_ONLY, **options.only}
    changes = without_published(changes, only, (*PIPELINE_NOT_NEEDED, *options.not_needed))
    changes = options.gathered(changes)
    known = [own.name for own in option_fields(options)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise InputError(
            f"{task} takes the options {', '.join(known)}, received {', '.join(unknown)}; "
            f"{suggestion(unknown[0], [*known, *options.gathers, *others])}"
        )
    takes_none = {own.name for own in option_fields(options) if own.metadata["none"]}
    said = {name: value for name, value in changes.items() if value is not None or name in takes_none}
    return replace(options, **options.renamed(said))


def check_model(row: TaskRow, model: object) -> None:
    """Refuse a model with the head of another task; one with a head of the user's own is taken at its word.

    Warns:
        LoadWarning: of a head that the model's checkpoint did not have.

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
    named = getattr(getattr(model, "config", None), "architectures", None) or ()
    heads = {head_of_class(name).auto for name in named if _is_known(name)}
    if auto_of(model) == row.auto != HEADS["Model"].auto and heads and row.auto not in heads:
        warn_caller(
            f"the model comes from a checkpoint of {', '.join(named)}, which had no head for {row.name}; unless it was "
            "trained since, its answers mean nothing",
            LoadWarning,
        )


def _is_known(name: str) -> bool:
    try:
        head_of_class(name)
    except XLMRError:
        return False
    return True


def check_framework(backend: str, framework: str | None) -> None:
    """Refuse the framework of another backend than the one that is asked, with the package to import.

    Raises:
        InputError: that.
    """
    if framework is None or find_backend(framework) == backend:
        return
    other = find_backend(framework)
    remedy = f"import pipeline from {BACKENDS[other].package}" if other else "leave it out"
    here = BACKENDS[backend].package
    raise InputError(f"in {here} framework must be {backend!r}, received {framework!r}; {remedy}")


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

    def __init__(
        self: Pipeline,
        model: Any,
        tokenizer: Any,
        *,
        task: str | None = None,
        framework: str | None = None,
        device: Any = None,
        **options: Any,
    ) -> None:
        check_model(row, model)
        if task is not None and find_task(task) is not row:
            raise InputError(f"{name} does {row.name}, received task={task!r}; leave it out")
        runs = runner(model)
        check_framework(str(find_backend(runs.framework)), framework)
        if device is not None:
            runs.move(device)
        Pipeline.__init__(self, row.name, runs, tokenizer, **options)

    doc = f"""{row.name}: {row.summary}.

    Args:
        model: a model of ``{row.auto}``; it is used as it is, without dropout.
        tokenizer: its tokenizer.
        task, framework: of the published signature; what they would be anyway.
        device: where the model goes, in PyTorch; in the other backends it stays where it is.
        **options: defaults of every call; see ``Options`` of ``{row.place}``. ``beside`` is what the task reads beside
            a model, by default by the model's name.
    """
    return type(name, (Pipeline,), {"__init__": __init__, "__doc__": doc, "__module__": module, "task": row.name})
