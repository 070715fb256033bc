"""``xlmr run``: answer texts with a model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from xlmr_core.backends import BACKENDS, installed, load_backend
from xlmr_core.cli import lines
from xlmr_core.cli.lines import Line
from xlmr_core.cli.text import FORMATS
from xlmr_core.errors import MissingBackendError, XLMRError
from xlmr_core.hub import DEFAULT_MODEL
from xlmr_core.tasks import TASKS, find_task

__all__ = ["DESCRIPTION", "SUMMARY", "add_arguments", "execute"]

SUMMARY = "answer texts with a model"
DESCRIPTION = """\
Answer texts with a model. Texts are the arguments, or else the lines of standard input (UTF-8; blank lines are skipped).
Answers are printed as they come. A line that cannot be answered is reported with its number on standard error, the others are answered
all the same, and the exit status is 2.

  echo "Plants create <mask> through a process known as photosynthesis." | xlmr run --task fill-mask
  xlmr run --task fill-mask --format json --top-k 3 "Bonjour, je suis un modèle <mask>."
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    tasks = "; ".join(f"{task.name}: {task.summary}" for task in TASKS.values())
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="text to answer; without any, lines of standard input")
    parser.add_argument("--task", required=True, metavar="TASK", help=tasks)
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="a folder, a built-in model or a name on the Hugging Face hub (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu or -1, a GPU's number such as 0, or a name such as cuda:1 (default: cpu)")
    parser.add_argument(
        "--dtype", help="float32, float16, bfloat16, or auto for the checkpoint's own (default: float32)"
    )
    parser.add_argument(
        "--top-k", type=_positive, default=5, metavar="K", help="candidates for each mask (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=_positive, default=8, metavar="N", help="texts that run together (default: %(default)s)"
    )
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="text", help="json prints an object a line (default: %(default)s)"
    )
    parser.add_argument(
        "--framework",
        choices=sorted(BACKENDS),
        help="which backend runs the model (default: the one that is installed)",
    )


def _positive(value: str) -> int:
    number = int(value) if value.isascii() and value.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, received {value!r}")
    return number


def execute(arguments: argparse.Namespace) -> int:
    """Answer all texts; 0 if all went well, 2 if a line could not be answered."""
    find_task(arguments.task)
    pipeline = _pipeline(arguments)
    write = FORMATS[arguments.format]
    failed = False
    for batch in lines.batches(_lines(arguments.texts), arguments.batch_size):
        for line, answer in _answers(pipeline, batch):
            if isinstance(answer, XLMRError):
                print(f"xlmr: error: line {line.number}: {answer}", file=sys.stderr)
                failed = True
            else:
                write(sys.stdout, line, answer, pipeline.tokenizer.mask_token)
        sys.stdout.flush()
    return 2 if failed else 0


def _pipeline(arguments: argparse.Namespace) -> Any:
    name = arguments.framework or next(filter(installed, BACKENDS), None)
    if name is None:
        extras = ", ".join(f"'xlmr[{backend.extra}]'" for backend in BACKENDS.values())
        raise MissingBackendError(f"a model needs a framework and none is installed; pip install one of {extras}")
    backend = load_backend(name)
    if not hasattr(backend, "pipeline"):
        raise MissingBackendError(
            f"the backend {name!r} has no {arguments.task} yet; use --framework pt (pip install 'xlmr[torch]')"
        )
    device = arguments.device
    if device is not None and device.lstrip("-").isdecimal():
        device = int(device)
    return backend.pipeline(
        arguments.task,
        model=arguments.model,
        device=device,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        top_k=arguments.top_k,
    )


def _lines(texts: list[str]) -> Iterator[Line]:
    if texts:
        return lines.from_arguments(texts)
    if sys.stdin is None:
        raise XLMRError("expected texts as arguments or on standard input, received neither; give a text")
    if sys.stdin.isatty():
        print("xlmr: reading lines from the terminal; end with Ctrl-D", file=sys.stderr)
    # A reader of its own: at exit the interpreter would wait for the lock of sys.stdin, which the reading thread may hold.
    return lines.from_stream(os.fdopen(sys.stdin.fileno(), "rb", closefd=False))


def _answers(pipeline: Callable[[list[str]], Any], batch: Any) -> Iterator[tuple[Line, Any]]:
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
            yield line, pipeline([line.text])
        except XLMRError as error:
            yield line, error
