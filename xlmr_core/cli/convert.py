"""``xlmr convert``: a checkpoint of any format to any format."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from xlmr_core.cli.progress import ProgressLine
from xlmr_core.cli.words import comparison_lines, nbytes_text
from xlmr_core.heads import HEADS

if TYPE_CHECKING:
    from xlmr_core.conversion import Conversion

__all__ = ["DESCRIPTION", "SUMMARY", "add_arguments", "execute"]

SUMMARY = "write a checkpoint in another format"
DESCRIPTION = """\
Write a checkpoint in another format, with its config, its tokenizer and the other small files that
belong to it. No framework is needed, and a piece of a tensor is in memory at a time. Whatever goes
wrong, the destination holds what it held before, or the new checkpoint.

  xlmr convert xlm-roberta-base-old/ converted/ --to safetensors --verify
  xlmr convert model.pt converted/ --to safetensors --dtype bfloat16
"""

# The words that the core knows for these; they stand here because nothing heavy is imported before the arguments are
# known.
WRITTEN_FORMATS = ("safetensors", "torch", "tf", "flax", "fairseq", "keras")
WRITTEN_DTYPES = ("float32", "float16", "bfloat16", "float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", metavar="SRC", help="a folder, a file of weights, a built-in model or a name on the Hugging Face hub"
    )
    parser.add_argument("destination", metavar="DST", help="the folder to write")
    parser.add_argument("--to", required=True, choices=WRITTEN_FORMATS, help="the format to write")
    parser.add_argument(
        "--dtype",
        choices=WRITTEN_DTYPES,
        help="of all weights, rounded to nearest (default: each keeps its own, bit for bit)",
    )
    parser.add_argument(
        "--allow-overflow", action="store_true", help="let values that are too large for --dtype become infinite"
    )
    parser.add_argument(
        "--no-pooler", dest="pooler", action="store_false", help="leave a pooler out, as fairseq has none"
    )
    parser.add_argument(
        "--max-shard-size",
        default="5GB",
        metavar="SIZE",
        help="bytes of a file at most, such as 5GB (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare source and result afterwards; the exit status is 1 if they differ",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument("--head", choices=tuple(HEADS), help="where neither the config nor the weights say it")
    parser.add_argument("--part", metavar="NAME", help="which model or head to read of a file that holds several")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show progress (default: if standard error is a terminal)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Convert; 0 if all went well, 1 if ``--verify`` found a difference."""
    from xlmr_core.conversion import convert

    with ProgressLine(arguments.progress) as progress:
        done = convert(
            arguments.source,
            arguments.destination,
            arguments.to,
            head=arguments.head,
            part=arguments.part,
            dtype=arguments.dtype,
            allow_overflow=arguments.allow_overflow,
            pooler=arguments.pooler,
            max_shard_size=arguments.max_shard_size,
            verify=arguments.verify,
            force=arguments.force,
            progress=progress,
        )
    _print(done)
    return 0 if done.comparison is None or done.comparison.equal else 1


def _print(done: Conversion) -> None:
    rate = done.nbytes / done.seconds if done.seconds else 0.0
    print(f"{done.architecture} from {done.source} ({done.from_format}) to {done.destination} ({done.to_format})")
    print(f"{done.tensors} tensors, {nbytes_text(done.nbytes)} in {done.seconds:.3g} s ({nbytes_text(rate)}/s)")
    print(f"wrote    {', '.join(path.name for path in done.files)}")
    print(f"copied   {', '.join(done.copied)}")
    report = done.report
    for name in report.missing:
        print(f"xlmr: {name} is not in the source, and not in the result either", file=sys.stderr)
    for name in report.unexpected:
        print(f"xlmr: {name} has no place in {done.architecture} and was left out", file=sys.stderr)
    for row in report.dropped:
        print(f"left out {row.name}: {row.why}")
    for note in report.notes:
        print(f"xlmr: {note}", file=sys.stderr)
    if done.comparison is not None:
        for line in comparison_lines(done.comparison):
            print(line)
