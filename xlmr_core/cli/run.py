"""``xlmr run``: answer texts with a model."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xlmr_core.backends import BACKENDS, first_installed, load_backend
from xlmr_core.cli import job, lines
from xlmr_core.cli.kernels import keep_few_kernels
from xlmr_core.cli.lines import Line
from xlmr_core.cli.options import add_options, read_options
from xlmr_core.cli.parser import OneOf, UsageError, add_backend, add_format, add_progress, backend
from xlmr_core.cli.terminal import quietly, say
from xlmr_core.cli.text import PRINTERS, show_as_it_comes
from xlmr_core.errors import XLMRError
from xlmr_core.jobs.answering import answer_each
from xlmr_core.jobs.rows import READERS
from xlmr_core.placement import FLOAT_DTYPES
from xlmr_core.progress import ProgressBar, stepping_aside
from xlmr_core.tasks import ALIASES, TASKS, TaskRow, default_model, find_task
from xlmr_core.tasks.options import WINDOW, TaskOptions
from xlmr_core.tasks.pipeline import USUAL_TOKENS, changed
from xlmr_core.tasks.task import Task

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "answer texts with a model"
USAGE = "xlmr run --task TASK [options] [TEXT ...]"
DESCRIPTION = """\
Answer texts with a model. Texts are the arguments, or else the lines of standard input (UTF-8;
blank lines are skipped). Where a task takes pairs, they stand in a line with a tab between them,
or as an object of JSON. Answers are printed as they come. A line that cannot be answered is
reported with its number on standard error, the others are answered all the same, and the exit
status is 2.

With --input and --output it is a job over a file, which goes on where it was if it is interrupted.

  echo "Plants create <mask> through a process known as photosynthesis." \\
    | xlmr run --task fill-mask
  xlmr run --task fill-mask --input texts.csv --output answers.jsonl
"""
# Lines come many at a time, texts of a program often one.
BATCH_SIZE = 8
BATCHES = ("batch_size", "batch_tokens")
DTYPES = (*FLOAT_DTYPES, "auto")


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the arguments that all tasks have, and those of the task that ``words`` name."""
    name = _task_in(words)
    row = find_task(name) if name else None
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="text to answer; without any, lines of standard input")
    parser.add_argument("--task", required=True, metavar="TASK", help="what to do; the tasks stand below")
    model = "a folder, a built-in model or a name on the Hugging Face hub"
    default = default_model(name) or None if name else None
    parser.add_argument("--model", default=default, help=model + (" (default: %(default)s)" if default else ""))
    parser.add_argument("--device", help="cpu or -1, a GPU's number such as 0, or a name such as cuda:1 (default: cpu)")
    parser.add_argument(
        "--dtype",
        type=OneOf(DTYPES, lambda value: value.removeprefix("torch.")),
        metavar="DTYPE",
        help=f"{', '.join(DTYPES)}, which is the checkpoint's own (default: float32)",
    )
    add_backend(
        parser,
        type=backend(tuple(BACKENDS)),
        metavar="BACKEND",
        help=f"what runs the model: {', '.join(BACKENDS)} (default: the first of them that is installed)",
    )
    add_format(parser, json="an object a line", csv="a table")
    add_progress(parser, "standard error is a terminal and the answers go elsewhere")
    title = f"options of {row.name}" if row else "options of the task, more with --task TASK --help"
    usual = f"{BATCH_SIZE}; of a job as many as make {USUAL_TOKENS} tokens"
    add_options(parser, title, row.load().Options if row else TaskOptions, batch_size=usual)
    job.add_arguments(parser, row.load() if row else None)
    parser.epilog = "tasks, each with an example:\n" + "".join(map(_told, TASKS.values()))


def _told(row: TaskRow) -> str:
    """A task for the help text: what it does, its other names, what a line holds, and its example."""
    names = [name for name, alias in ALIASES.items() if alias.task == row.name]
    columns = row.load().columns
    lines = [
        f"  {row.name}: {row.summary}",
        *([f"also called {', '.join(names)}"] if names else []),
        *([f"a line holds {', tab, '.join(columns)}"] if columns else []),
        *row.example.splitlines(),
    ]
    return "\n" + "\n    ".join(lines) + "\n"


def _task_in(words: Sequence[str]) -> str | None:
    """The task that is named among the words; none where help is asked for without one, or the name is forgotten.

    Raises:
        UsageError: if there is none.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--task", nargs="?", const="")
    early.add_argument("-h", "--help", action="store_true")
    found = early.parse_known_args(words)[0]
    if found.task is None and not found.help:
        raise UsageError(f"xlmr run needs --task, one of {', '.join(TASKS)}; usage: {USAGE}")
    name: str | None = found.task or None
    return name


def execute(arguments: argparse.Namespace) -> int:
    """Answer all texts; 0 if all went well, 2 if a line could not be answered."""
    _refuse_files(arguments.texts)
    name = arguments.backend or first_installed()
    is_job = job.is_asked_for(arguments)
    keep_few_kernels()
    if arguments.batch_size is None and is_job:
        arguments.batch_tokens = arguments.batch_tokens or USUAL_TOKENS
    elif arguments.batch_size is None:
        arguments.batch_size = BATCH_SIZE
    with quietly(name):
        if not is_job:
            return _answer_all(_pipeline(name, arguments), arguments)
        row = find_task(arguments.task)
        task = row.load()
        options = read_options(arguments, task.Options)
        asked = changed(row.name, task.Options(), options)
        put_off, at_the_end = task.put_off(asked)
        for one in options:
            if getattr(put_off, one) is not getattr(asked, one):
                setattr(arguments, one, getattr(put_off, one))
        for one in BATCHES:  # which rows run together changes answers by rounding only
            options.pop(one)
        model, dtype = arguments.model, arguments.dtype or FLOAT_DTYPES[0]
        return job.execute(
            arguments,
            task,
            {"task": row.name, "model": model, "backend": name, "dtype": dtype, **options},
            load=lambda: _pipeline(name, arguments),
            optimizer=lambda: getattr(load_backend(name), BACKENDS[name].optimize, None),
            at_the_end=at_the_end,
        )


def _answer_all(pipeline: Any, arguments: argparse.Namespace) -> int:
    pipeline.check_options()
    printed, task = PRINTERS[arguments.format](), find_task(arguments.task).load()
    # Where tokens are counted, more lines are read before they run, and sorted by length.
    size = arguments.batch_size if arguments.batch_tokens is None else WINDOW
    wanted = False if arguments.progress is None and sys.stdout.isatty() else arguments.progress
    total, done, failed = len(arguments.texts) or None, 0, False
    aside = stepping_aside if sys.stdout.isatty() else contextlib.nullcontext

    def write(text: str) -> None:
        with aside():
            sys.stdout.write(text)
            sys.stdout.flush()

    # A person sees the answer to one text while it comes.
    as_it_comes = write if sys.stdout.isatty() and arguments.format == "text" else None
    with ProgressBar(wanted, " lines") as progress:
        for batch in lines.batches(_lines(arguments.texts), size):
            for line, answer, truncated, is_shown in _answers(pipeline, task, batch, as_it_comes):
                if isinstance(answer, XLMRError):
                    say("error", f"line {line.number}: {arguments.in_place(str(answer))}")
                    failed = True
                elif not is_shown:
                    with aside():
                        sys.stdout.write(printed(line, answer, pipeline, truncated))
            sys.stdout.flush()
            done += len(batch)
            progress("answering", done, total)
    return 2 if failed else 0


def _refuse_files(texts: Sequence[str]) -> None:
    """Refuse the name of a file where a text is expected: to answer the name would be no help to anybody."""
    for text in texts:
        if ("." in text or os.sep in text) and os.path.isfile(text):
            name = shlex.quote(text)
            table = os.path.splitext(text)[1] in READERS and not text.endswith(".txt")
            how = f"--input {name} --output answers.jsonl" if table else f"< {name}"
            raise XLMRError(
                f"expected a text, received {text!r}, which is a file; to answer its lines: xlmr run ... {how}"
            )


def _pipeline(name: str, arguments: argparse.Namespace) -> Any:
    row = find_task(arguments.task)
    device = arguments.device
    if device is not None and device.lstrip("-").isdecimal():
        device = int(device)
    return load_backend(name).pipeline(
        arguments.task,
        model=arguments.model,
        device=device,
        dtype=arguments.dtype,
        progress=False,
        **read_options(arguments, row.load().Options),
    )


def _lines(texts: list[str]) -> Iterator[Line]:
    if texts:
        return lines.from_arguments(texts)
    if sys.stdin is None:
        raise XLMRError("expected texts as arguments or on standard input, received neither; give a text")
    if sys.stdin.isatty():
        say("", "reading lines from the terminal; end with Ctrl-D")
    # A reader of its own: at exit the interpreter waits for the lock of sys.stdin, which the reading thread may hold.
    return lines.from_stream(os.fdopen(sys.stdin.fileno(), "rb", closefd=False))


def _answers(
    pipeline: Any, task: type[Task], batch: Sequence[Line], as_it_comes: Callable[[str], None] | None
) -> Iterator[tuple[Line, Any, bool, bool]]:
    """Of each line the answer, or the error, whether it was truncated, and whether it was shown as it came."""
    inputs = [_input(task, line) for line in batch]
    if as_it_comes is not None and len(batch) == 1:
        found = show_as_it_comes(pipeline, batch[0], inputs[0], as_it_comes)
        if found is not None:
            yield batch[0], *found, True
            return
    for line, (answer, truncated) in zip(batch, answer_each(pipeline, inputs), strict=True):
        yield line, answer, truncated, False


def _input(task: type[Task], line: Line) -> Any:
    """What a line holds for a task, or the error that says why it holds nothing."""
    if line.text is None:
        return XLMRError("expected UTF-8, received other bytes; convert the input")
    try:
        return task.from_line(line.text)
    except XLMRError as error:
        return error
