"""``xlmr export``: a model as a graph of ONNX."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xlmr_core.cli.parser import MODEL, OneOf, add_progress
from xlmr_core.cli.terminal import print_json, show
from xlmr_core.cli.words import as_json, nbytes_text
from xlmr_core.progress import ProgressBar
from xlmr_core.tasks import TASKS
from xlmr_core.wording import counted

if TYPE_CHECKING:
    from xlmr_core.onnx import Export

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "write a model as a graph of ONNX"
USAGE = "xlmr export SRC DST --format onnx [options]"
DESCRIPTION = """\
Write a model as a graph of ONNX, in a folder as the hub has them: onnx/model.onnx, or with
--scheme int8 onnx/model_quantized.onnx, and beside it config, tokenizer and the other small files.
The graph leaves padding out by itself. No framework is needed, and to run it only ONNX Runtime.

  xlmr export xlm-roberta-base exported/ --format onnx
  xlmr export BAAI/bge-m3 exported/ --format onnx --scheme int8
  xlmr run --backend onnx --task fill-mask --model exported/ "Un <mask>."
"""
FORMATS = ("onnx",)
SCHEMES = ("int8",)
READERS = ("transformers.js",)


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SRC", help=MODEL)
    parser.add_argument("destination", metavar="DST", help="the folder to write")
    parser.add_argument(
        "--format", type=OneOf(FORMATS), default=FORMATS[0], metavar="FORMAT", help="onnx, which is also the default"
    )
    parser.add_argument(
        "--task",
        type=OneOf(tuple(TASKS)),
        metavar="TASK",
        help="what the graph is for (default: what the checkpoint's architecture is for)",
    )
    parser.add_argument(
        "--scheme", type=OneOf(SCHEMES), metavar="SCHEME", help="int8 for weights in bytes (default: float32)"
    )
    parser.add_argument(
        "--for",
        dest="reader",
        type=OneOf(READERS),
        metavar="LIBRARY",
        help="a library that is to read the folder, and needs other files than there are: transformers.js",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    add_progress(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Export; 0 if all went well."""
    from xlmr_core.onnx import export

    with ProgressBar(arguments.progress) as progress:
        done = export(
            arguments.source,
            arguments.destination,
            task=arguments.task,
            scheme=arguments.scheme,
            reader=arguments.reader,
            force=arguments.force,
            progress=progress,
        )
    if arguments.json:
        print_json(as_json(done))
    else:
        _print(done)
    return 0


def _print(done: Export) -> None:
    show(f"{done.architecture} from {done.source} to {done.destination}, for {done.task}")
    weights = f" with {counted(done.quantized, 'quantized weight')}" if done.quantized else ""
    show(f"{counted(done.parameters, 'tensor')}{weights}, {nbytes_text(done.nbytes)} in {done.seconds:.3g} s")
    show(f"wrote    {', '.join(str(path.relative_to(done.destination)) for path in done.files)}", 9)
    show(f"copied   {', '.join(done.copied)}", 9)
    inputs = [f"{name} (may be left out)" if name in done.optional else name for name in done.inputs]
    show(f"takes    {', '.join(inputs)}", 9)
    show(f"gives    {', '.join(done.outputs)}", 9)
