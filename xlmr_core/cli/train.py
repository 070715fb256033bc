"""``xlmr train``: train a model by a recipe; what it does stands in ``xlmr_core/training``."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xlmr_core.backends import BACKENDS, first_installed, load_training
from xlmr_core.cli.options import add_options, read_options
from xlmr_core.cli.parser import UsageError, add_backend, add_format, add_progress, backend
from xlmr_core.cli.terminal import print_json, quietly, say, show

if TYPE_CHECKING:
    from xlmr_core.training.reports import Outcome
    from xlmr_core.training.run import Run

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "train a model for a task"
USAGE = "xlmr train --task TASK --train FILE --output FOLDER [options]"
DESCRIPTION = """\
Train a model: a classifier of texts or of their tokens, an answerer of questions, sentence
embeddings, and more. What decides the result is a recipe, a file in TOML or the options below,
and everything in it is looked at before anything starts. What nobody says comes from the papers.

The folder has the model and its card, the log and the curves of the run, and its checkpoints. If
the run is interrupted the same command goes on where it was.

  xlmr train --task text-classification --train train.csv --eval dev.csv \\
    --output topics
  xlmr train --recipe recipe.toml --output topics --seed 1
"""
# How a run that a signal stopped ends: 128 and the number of the signal.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 128
TRAINERS = tuple(name for name, row in BACKENDS.items() if not row.model)


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments, among them one for each field of a recipe."""
    from xlmr_core.training.recipe import EVERY, Recipe

    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder of the run, and of its model")
    parser.add_argument("--recipe", metavar="FILE", help="a recipe in TOML; options below take the place of its values")
    add_backend(
        parser,
        type=backend(TRAINERS),
        metavar="BACKEND",
        help=f"what trains: {', '.join(TRAINERS)} (default: the first of them that is installed)",
    )
    parser.add_argument(
        "--accumulate",
        type=_count,
        default=1,
        metavar="N",
        help="compute a batch in N parts, one after the other, where it is too large for the memory (default: 1)",
    )
    parser.add_argument("--restart", action="store_true", help="forget the run that is in the folder")
    add_format(parser, json="one object")
    add_progress(parser)
    told = dict.fromkeys(EVERY, "by the task")
    add_options(parser, "options of the recipe", Recipe, left_open=True, **told)


def execute(arguments: argparse.Namespace) -> int:
    """Train; 0 if all went well, 1 if the run seems to have collapsed, 130 or 143 if it was stopped."""
    from xlmr_core.training.run import Run

    name = arguments.backend or first_installed("training", TRAINERS)
    recipe = _recipe(arguments)

    def tell(kind: str, text: str) -> None:
        say(kind, arguments.in_place(text))

    with (
        quietly(name),
        Run.of(
            recipe,
            arguments.output,
            made_with={"backend": name},
            tell=tell,
            progress=arguments.progress,
            restart=arguments.restart,
        ) as run,
    ):
        run.open()
        if run.done:
            say("", f"the run in {arguments.output} is over; its model is there")
            return _report(run.outcome, arguments)
        training = load_training(name)
        with _stopping(run) as stopped:
            outcome = training.train(training.model_for(run), run, accumulate=arguments.accumulate)
    if outcome is None:
        return STOPPED + stopped[0]
    return _report(outcome, arguments)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, received {text!r}")
    return int(text)


def _recipe(arguments: argparse.Namespace) -> Any:
    from xlmr_core.training.recipe import Recipe

    given = {name: value for name, value in read_options(arguments, Recipe).items() if value is not None}
    if arguments.recipe:
        return Recipe.from_toml(arguments.recipe, **given)
    if "task" not in given:
        raise UsageError(f"xlmr train needs --task, or --recipe with a file that says it; usage: {USAGE}")
    return Recipe.of(given, "xlmr train")


@contextlib.contextmanager
def _stopping(run: Run) -> Iterator[list[int]]:
    """While the block runs, the first signal lets the run end with a checkpoint, and the second ends it at once.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def stop(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        say("", "stops after this step, with a checkpoint; the same command goes on (once more: stops at once)")
        run.stop()

    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        yield came
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _report(outcome: Outcome, arguments: argparse.Namespace) -> int:
    """Print what came of it."""
    from xlmr_core.jobs.values import shown_in_json
    from xlmr_core.training.reports import as_values, in_columns, table

    if arguments.format == "json":
        print_json(shown_in_json({"output": arguments.output, **as_values(outcome)}))
    else:
        for what, figures in (("eval", outcome.evaluation), ("test", outcome.test)):
            if figures is not None:
                at = f", step {outcome.best}" if what == "eval" else ""
                show(f"{what}{at}")
                for line in in_columns(table(figures)):
                    show(f"  {line}")
    return 1 if outcome.collapsed else 0
