"""``xlmr verify``: whether two checkpoints are the same model."""

from __future__ import annotations

import argparse
import dataclasses
import json

from xlmr_core.cli.progress import ProgressLine
from xlmr_core.cli.words import comparison_lines
from xlmr_core.heads import HEADS

__all__ = ["DESCRIPTION", "SUMMARY", "add_arguments", "execute"]

SUMMARY = "say whether two checkpoints are the same model"
DESCRIPTION = """\
Say whether two checkpoints are the same model: names, shapes and values of all parameters, the ids
that their tokenizers give to texts in many scripts, and the outputs of a small forward pass. The
exit status is 0 if they are equal, 1 if they differ, 2 if they could not be compared.

  xlmr verify xlm-roberta-base converted/
  xlmr verify xlmr-mini xlmr-mini --backend reference,pt
"""

# The words that the core knows for these; they stand here because nothing heavy is imported before the arguments are
# known.
REFERENCE = "reference"
WAYS = (REFERENCE, "pt", "tf", "jax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    kinds = "a folder, a file of weights, a built-in model or a name on the Hugging Face hub"
    parser.add_argument("a", metavar="A", help=kinds)
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument(
        "--backend",
        type=_backends,
        default=(REFERENCE, REFERENCE),
        metavar="NAME[,NAME]",
        help=f"what runs them, one for both or one for each: {', '.join(WAYS)} "
        f"(default: {REFERENCE}, which needs no framework)",
    )
    parser.add_argument("--head", choices=tuple(HEADS), help="where neither the config nor the weights say it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show progress (default: if standard error is a terminal)",
    )


def _backends(value: str) -> tuple[str, str]:
    names = value.split(",")
    if len(names) > 2 or any(name not in WAYS for name in names):
        raise argparse.ArgumentTypeError(
            f"expected one or two of {', '.join(WAYS)} with a comma between, received {value!r}"
        )
    return names[0], names[-1]


def execute(arguments: argparse.Namespace) -> int:
    """Compare; 0 if they are equal, 1 if not."""
    from xlmr_core.verification import compare

    with ProgressLine(arguments.progress) as progress:
        found = compare(arguments.a, arguments.b, head=arguments.head, backends=arguments.backend, progress=progress)
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(found), "equal": found.equal}, ensure_ascii=False, indent=2))
    else:
        print(f"first    {found.a}\nsecond   {found.b}")
        for line in comparison_lines(found):
            print(line)
    return 0 if found.equal else 1
