"""``xlmr run --input FILE --output FILE``: a job over a file; what it does stands in ``xlmr_core/jobs``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xlmr_core.cli.parser import UsageError
from xlmr_core.cli.terminal import say
from xlmr_core.jobs.compiling import COMPILED_FROM, compiled
from xlmr_core.jobs.job import Job, fingerprint_of_folder
from xlmr_core.jobs.results import RESULTS
from xlmr_core.jobs.rows import READERS
from xlmr_core.progress import ProgressBar
from xlmr_core.tasks.pipeline import TRUNCATED
from xlmr_core.tasks.task import AtTheEnd, Task
from xlmr_core.wording import counted

__all__ = ["add_arguments", "execute", "is_asked_for"]

CUT = "%s: truncated, as longer than the model takes; --on-overflow says what happens to such texts"


def add_arguments(parser: argparse.ArgumentParser, task: type[Task] | None) -> None:
    """Declare the arguments of jobs, among them one for each column that the task takes."""
    group = parser.add_argument_group("options of a job over a file")
    group.add_argument("--input", metavar="FILE", help=f"file to read: {', '.join(READERS)}")
    group.add_argument("--output", metavar="FILE", help=f"file to write: {', '.join(RESULTS)}; .npy for vectors")
    several = "; repeated, the next column that the task takes" if task is None or len(task.columns) > 1 else ""
    group.add_argument(
        "--column", action="append", default=[], metavar="NAME", help=f"column of the input that holds texts{several}"
    )
    for name in task.columns if task else ():
        words = name.replace("_", " ")
        group.add_argument(f"--{_shell(name)}", action="append", metavar="NAME", help=f"column that holds the {words}")
    group.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME",
        help="another column to have beside the answers, or all; may be repeated",
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help=f"compile the model (default: in PyTorch on the CPU, for more than {COMPILED_FROM} rows)",
    )
    group.add_argument("--restart", action="store_true", help="forget what an interrupted job has done")
    group.add_argument("--force", action="store_true", help="replace an output that is there")


def _shell(column: str) -> str:
    return f"{column}_column".replace("_", "-")


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Whether the command is a job.

    Raises:
        UsageError: for half of one, or one that is given texts too.
    """
    if not (arguments.input or arguments.output):
        said = [name for name in ("column", "keep", "restart", "force") if getattr(arguments, name)]
        said += {None: [], True: ["compile"], False: ["no-compile"]}[arguments.compile]
        if said:
            raise UsageError(f"--{said[0]} is for jobs over files, received no --input; give --input and --output")
        return False
    if not (arguments.input and arguments.output):
        missing = "--output" if arguments.input else "--input"
        raise UsageError(f"expected --input and --output, received one of them; give {missing} too")
    if arguments.texts:
        raise UsageError(f"expected texts or --input, received both ({arguments.texts[0]!r}); leave one out")
    if arguments.format != "text":
        raise UsageError(
            f"expected the format in the ending of --output, received --format {arguments.format}; leave it out"
        )
    return True


def execute(
    arguments: argparse.Namespace,
    task: type[Task],
    settings: Mapping[str, Any],
    load: Callable[[], Any],
    optimizer: Callable[[], Callable[..., Any] | None],
    at_the_end: AtTheEnd | None = None,
) -> int:
    """Run the job; 0 if all rows have an answer, 2 if one has none.

    Args:
        arguments: of the command.
        task: its task.
        settings: what the answers depend on, by words for it.
        load: makes the pipeline.
        optimizer: gives the backend's function that compiles a model, if it has one.
        at_the_end: makes of all answers together those that were asked for.
    """
    job = Job(
        input=Path(arguments.input),
        output=Path(arguments.output),
        task=task,
        settings={**settings, **_of_folder(settings["model"])},
        column=arguments.column,
        named={name: getattr(arguments, f"{name}_column") or () for name in task.columns},
        keep=arguments.keep,
        restart=arguments.restart,
        force=arguments.force,
        wording=arguments.in_place,
        at_the_end=at_the_end,
    )

    def tell(kind: str, text: str) -> None:
        say(kind, arguments.in_place(text))

    def checked() -> Any:
        pipeline = load()
        pipeline.check_options()
        return pipeline

    def make(rows: int, examples: Any) -> Any:
        return compiled(checked, optimizer(), arguments.compile, rows, examples, tell)

    logger, once = logging.getLogger("xlmr_core.tasks"), _Once()
    logger.addFilter(once)
    try:
        with ProgressBar(arguments.progress, " rows") as bar:
            outcome = job.run(make, tell, lambda done, total, before: bar("answering", done, total, before))
    except KeyboardInterrupt:
        say("", f"interrupted; the same command{' without --restart' if arguments.restart else ''} goes on")
        raise
    finally:
        logger.removeFilter(once)
    without = f", {outcome.failed} without an answer" if outcome.failed else ""
    cut = f", {outcome.truncated} truncated" if outcome.truncated else ""
    tell("", f"{counted(outcome.rows, 'row')}{without}{cut}, in {arguments.output}")
    return 2 if outcome.failed else 0


def _of_folder(model: Any) -> dict[str, str]:
    """A model that somebody trains on is another one, though its folder has the same name."""
    folder = Path(str(model))
    return {"content of the model's folder": fingerprint_of_folder(folder)} if folder.is_dir() else {}


class _Once(logging.Filter):
    """That texts were cut is said once, in the words of the command; how many they are is said at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._said = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg != TRUNCATED:
            return True
        was_said, self._said = self._said, True
        text = record.args[0] if isinstance(record.args, tuple) else ""
        record.msg, record.args = CUT, (text,)
        return not was_said
