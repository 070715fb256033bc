"""``xlmr verify``: whether two checkpoints are the same model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xlmr_core.backends import BACKENDS
from xlmr_core.cli.parser import MODEL, add_backend, add_format, add_head, add_progress, backend
from xlmr_core.cli.terminal import print_json, quietly, show
from xlmr_core.cli.words import as_json, comparison_lines
from xlmr_core.progress import ProgressBar

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "say whether two checkpoints are the same model"
USAGE = "xlmr verify A B [options]"
DESCRIPTION = """\
Say whether two checkpoints are the same model: names, shapes and values of all parameters, the ids
that their tokenizers give to texts in many scripts, and the outputs of a small forward pass. The
exit status is 0 if they are equal, 1 if they differ, 2 if they could not be compared.

  xlmr verify xlm-roberta-base converted/
  xlmr verify xlmr-mini xlmr-mini --backend reference,torch
"""

# The word that the core knows for it; it stands here because nothing heavy is imported before the arguments are known.
REFERENCE = "reference"
WAYS = (REFERENCE, *BACKENDS)


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments."""
    parser.add_argument("a", metavar="A", help=MODEL)
    parser.add_argument("b", metavar="B", help="the same")
    add_backend(
        parser,
        type=_backends,
        default=(REFERENCE, REFERENCE),
        metavar="NAME[,NAME]",
        help=f"what runs them, one for both or one for each: {', '.join(WAYS)} "
        f"(default: {REFERENCE}, which needs no framework)",
    )
    add_head(parser)
    add_format(parser, json="one object")
    add_progress(parser)


def _backends(value: str) -> tuple[str, str]:
    names = value.split(",")
    if len(names) > 2:
        raise argparse.ArgumentTypeError(f"expected one name or two with a comma between, received {value!r}")
    found = [backend(WAYS)(name.strip()) for name in names]
    return found[0], found[-1]


def execute(arguments: argparse.Namespace) -> int:
    """Compare; 0 if they are equal, 1 if not."""
    from xlmr_core.verification import compare

    with quietly(*arguments.backend), ProgressBar(arguments.progress) as progress:
        found = compare(arguments.a, arguments.b, head=arguments.head, backends=arguments.backend, progress=progress)
    if arguments.format == "json":
        print_json(as_json(found, equal=found.equal))
    else:
        show(f"first    {found.a}", 9)
        show(f"second   {found.b}", 9)
        for line in comparison_lines(found):
            show(line, 9)
    return 0 if found.equal else 1
