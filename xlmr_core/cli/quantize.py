"""``xlmr quantize``: a checkpoint whose weights have four or eight bits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xlmr_core.cli.convert import report
from xlmr_core.cli.parser import MODEL, OneOf, add_format, add_head, add_part, add_progress
from xlmr_core.progress import ProgressBar

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "write a checkpoint whose weights have four or eight bits"
USAGE = "xlmr quantize SRC DST --scheme SCHEME [options]"
DESCRIPTION = """\
Write a checkpoint whose weights have four or eight bits, as safetensors, with its config, its
tokenizer and the other small files that belong to it. No framework is needed, and a piece of a
weight is in memory at a time. The schemes int8, int4, nf4 and fp4 are this library's own and take
the table of words too; those that begin with bitsandbytes are read by transformers.

  xlmr quantize xlm-roberta-xl/ smaller/ --scheme nf4
  xlmr quantize my-model/ smaller/ --scheme int4 --skip encoder.layer.0
"""

# The words that the core knows for these; they stand here because nothing heavy is imported before the arguments are
# known.
SCHEME_NAMES = ("int8", "int4", "nf4", "fp4", "bitsandbytes-nf4", "bitsandbytes-fp4", "bitsandbytes-int8")


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SRC", help=MODEL)
    parser.add_argument("destination", metavar="DST", help="the folder to write")
    parser.add_argument(
        "--scheme",
        required=True,
        type=OneOf(SCHEME_NAMES),
        metavar="SCHEME",
        help=f"how weights are stored: {', '.join(SCHEME_NAMES)}",
    )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose weights stay as they are, such as query or encoder.layer.0; may be given again",
    )
    parser.add_argument(
        "--group-size",
        type=int,
        metavar="COUNT",
        help="values that share a scale, of int4, nf4 and fp4 (default: 32)",
    )
    parser.add_argument(
        "--max-shard-size",
        default="5GB",
        metavar="SIZE",
        help="bytes of a file at most, such as 5GB (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    add_head(parser)
    add_part(parser)
    add_format(parser, json="one object")
    add_progress(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Quantize; 0 if all went well."""
    from xlmr_core.conversion import convert
    from xlmr_core.quantization import scheme_with

    scheme = scheme_with(arguments.scheme, arguments.skip, arguments.group_size)
    with ProgressBar(arguments.progress) as progress:
        done = convert(
            arguments.source,
            arguments.destination,
            "safetensors",
            head=arguments.head,
            part=arguments.part,
            max_shard_size=arguments.max_shard_size,
            force=arguments.force,
            scheme=scheme,
            progress=progress,
        )
    report(done, arguments)
    return 0
