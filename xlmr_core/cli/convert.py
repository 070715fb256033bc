"""``xlmr convert``: a checkpoint of any format to any format."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from xlmr_core.cli.parser import MODEL, OneOf, add_format, add_head, add_part, add_progress, backend
from xlmr_core.cli.terminal import print_json, say, show
from xlmr_core.cli.words import as_json, comparison_lines, listed, nbytes_text
from xlmr_core.progress import ProgressBar
from xlmr_core.wording import counted

if TYPE_CHECKING:
    from xlmr_core.conversion import Conversion

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute", "report"]

SUMMARY = "write a checkpoint in another format"
USAGE = "xlmr convert SRC DST --to FORMAT [options]"
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


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SRC", help=MODEL)
    parser.add_argument("destination", metavar="DST", help="the folder to write")
    parser.add_argument(
        "--to",
        required=True,
        type=backend(WRITTEN_FORMATS),
        metavar="FORMAT",
        help=f"the format to write: {', '.join(WRITTEN_FORMATS)}",
    )
    parser.add_argument(
        "--dtype",
        type=OneOf(WRITTEN_DTYPES),
        metavar="DTYPE",
        help=f"of all weights, rounded to nearest: {', '.join(WRITTEN_DTYPES)} (default: each keeps its own, bit for "
        "bit)",
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
    parser.add_argument(
        "--dequantize",
        action="store_true",
        help="write the floating point weights that quantized ones stand for, as float32 or --dtype",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    add_head(parser)
    add_part(parser)
    add_format(parser, json="one object")
    add_progress(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Convert; 0 if all went well, 1 if ``--verify`` found a difference."""
    from xlmr_core.conversion import convert

    with ProgressBar(arguments.progress) as progress:
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
            dequantize=arguments.dequantize,
            progress=progress,
        )
    report(done, arguments)
    return 0 if done.comparison is None or done.comparison.equal else 1


def report(done: Conversion, arguments: argparse.Namespace) -> None:
    """Say what was done, and what did not come along."""
    for sentence in _sentences(done, arguments.in_place):
        say("", sentence)
    if arguments.format == "json":
        print_json(as_json(done))
    else:
        _print(done)


def _sentences(done: Conversion, in_place: Callable[[str], str]) -> Iterator[str]:
    """What did not come along, and what else a user should know."""
    if done.own_class:
        yield f"config.json names {done.own_class}, which is none of this library; it was read as {done.architecture}"
    yield from listed([f"{name} is not in the source, and not in the result either" for name in done.report.missing])
    yield from listed(
        [f"{name} has no place in {done.architecture} and was left out" for name in done.report.unexpected]
    )
    yield from map(in_place, done.report.notes)


def _print(done: Conversion) -> None:
    rate = done.nbytes / done.seconds if done.seconds else 0.0
    show(f"{done.architecture} from {done.source} ({done.from_format}) to {done.destination} ({done.to_format})")
    tensors = counted(done.tensors, "tensor")
    show(f"{tensors}, {nbytes_text(done.nbytes)} in {done.seconds:.3g} s ({nbytes_text(rate)}/s)")
    show(f"wrote    {', '.join(path.name for path in done.files)}", 9)
    show(f"copied   {', '.join(done.copied)}", 9)
    for row in done.report.dropped:
        show(f"left out {row.name}: {row.why}", 9)
    if done.comparison is not None:
        for line in comparison_lines(done.comparison):
            show(line, 9)
