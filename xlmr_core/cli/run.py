"""``xlmr run``: answer texts with a model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xlmr_core.backends import BACKENDS, find_backend, installed, load_backend
from xlmr_core.cli import lines
from xlmr_core.cli.lines import Line
from xlmr_core.cli.options import add_options, read_options
from xlmr_core.cli.text import PRINTERS
from xlmr_core.errors import MissingBackendError, XLMRError
from xlmr_core.tasks import TASKS, find_task
from xlmr_core.tasks.options import TaskOptions

__all__ = ["DESCRIPTION", "SUMMARY", "add_arguments", "add_task_arguments", "execute"]

SUMMARY = "answer texts with a model"
DESCRIPTION = """\
Answer texts with a model. Texts are the arguments, or else the lines of
standard input (UTF-8; blank lines are skipped). Answers are printed as they
come. A line that cannot be answered is reported with its number on standard
error, the others are answered all the same, and the exit status is 2.

  echo "Plants create <mask> through a process known as photosynthesis." \\
    | xlmr run --task fill-mask
"""
# Lines come many at a time, texts of a program often one.
BATCH_SIZE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that all tasks have."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="text to answer; without any, lines of standard input")
    parser.add_argument("--task", required=True, metavar="TASK", help="what to do; the tasks stand below")
    parser.add_argument("--device", help="cpu or -1, a GPU's number such as 0, or a name such as cuda:1 (default: cpu)")
    parser.add_argument(
        "--dtype", help="float32, float16, bfloat16, or auto for the checkpoint's own (default: float32)"
    )
    parser.add_argument(
        "--format", choices=sorted(PRINTERS), default="text", help="json prints an object a line (default: %(default)s)"
    )
    extras = [backend.extra for backend in BACKENDS.values()]
    parser.add_argument(
        "--backend",
        "--framework",
        choices=sorted({*BACKENDS, *extras}),
        metavar="BACKEND",
        help=f"what runs the model: {', '.join(extras)} (default: the one that is installed)",
    )
    parser.epilog = "tasks, each with an example:\n" + "".join(
        f"\n  {row.name}: {row.summary}\n    {row.example}\n" for row in TASKS.values()
    )


def add_task_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Declare the arguments of the task that ``argv`` names; without a task, those that every task has."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--task", nargs="?")
    name = early.parse_known_args(argv)[0].task
    row = None if name is None else find_task(name)
    model = "a folder, a built-in model or a name on the Hugging Face hub"
    default = row.model if row and row.model else None
    parser.add_argument("--model", default=default, help=model + (" (default: %(default)s)" if default else ""))
    title = f"options of {row.name}" if row else "options of the task, more with --task TASK --help"
    add_options(parser, title, row.load().Options if row else TaskOptions, batch_size=BATCH_SIZE)


def execute(arguments: argparse.Namespace) -> int:
    """Answer all texts; 0 if all went well, 2 if a line could not be answered."""
    pipeline = _pipeline(arguments)
    printed = PRINTERS[arguments.format]
    failed = False
    for batch in lines.batches(_lines(arguments.texts), arguments.batch_size):
        for line, answer in _answers(pipeline, batch):
            if isinstance(answer, XLMRError):
                print(f"xlmr: error: line {line.number}: {answer}", file=sys.stderr)
                failed = True
            else:
                sys.stdout.write(printed(line, answer, pipeline))
        sys.stdout.flush()
    return 2 if failed else 0


def _pipeline(arguments: argparse.Namespace) -> Any:
    row = find_task(arguments.task)
    name = find_backend(arguments.backend) or next(filter(installed, BACKENDS), None)
    if name is None:
        extras = ", ".join(f"'xlmr[{backend.extra}]'" for backend in BACKENDS.values())
        raise MissingBackendError(f"a model needs a framework and none is installed; pip install one of {extras}")
    device = arguments.device
    if device is not None and device.lstrip("-").isdecimal():
        device = int(device)
    return load_backend(name).pipeline(
        row.name,
        model=arguments.model,
        device=device,
        dtype=arguments.dtype,
        **read_options(arguments, row.load().Options),
    )


def _lines(texts: list[str]) -> Iterator[Line]:
    if texts:
        return lines.from_arguments(texts)
    if sys.stdin is None:
        raise XLMRError("expected texts as arguments or on standard input, received neither; give a text")
    if sys.stdin.isatty():
        print("xlmr: reading lines from the terminal; end with Ctrl-D", file=sys.stderr)
    # A reader of its own: at exit the interpreter waits for the lock of sys.stdin, which the reading thread may hold.
    return lines.from_stream(os.fdopen(sys.stdin.fileno(), "rb", closefd=False))


def _answers(pipeline: Callable[[str | list[str]], Any], batch: Any) -> Iterator[tuple[Line, Any]]:
    """The answer, or the error, of each line. The lines of a batch that holds a faulty one are answered one by one."""
    texts = [line.text for line in batch]
    if len(batch) > 1 and None not in texts:
        try:
            yield from zip(batch, pipeline(texts), strict=True)
            return
        except XLMRError:
            pass
    for line in batch:
        if line.text is None:
            yield line, XLMRError("expected UTF-8, received other bytes; convert the input")
            continue
        try:
            yield line, pipeline(line.text)
        except XLMRError as error:
            yield line, error
