"""``xlmr inspect``: what a checkpoint is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from xlmr_core.cli.parser import MODEL, add_format, add_head, add_part, add_progress
from xlmr_core.cli.terminal import print_json, show
from xlmr_core.cli.words import as_json, listed, nbytes_text, number_text
from xlmr_core.wording import counted

if TYPE_CHECKING:
    from xlmr_core.inspection import Inspection, QuantizedShare

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "say what a checkpoint is"
USAGE = "xlmr inspect PATH [options]"
DESCRIPTION = """\
Say what a checkpoint is: format, architecture, head, sizes, dtypes, number of parameters, the
memory it takes, and what is tied, missing and unexpected. Little more than headers is read.

  xlmr inspect FacebookAI/xlm-roberta-base
  xlmr inspect model.pt --format json
"""


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments."""
    parser.add_argument("path", metavar="PATH", help=MODEL)
    add_head(parser)
    add_part(parser)
    add_format(parser, json="one object")
    add_progress(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print what it is; 0, or 1 if a model could not be loaded from it."""
    from xlmr_core.inspection import inspect_model

    found = inspect_model(arguments.path, head=arguments.head, part=arguments.part)
    if arguments.format == "json":
        print_json(as_json(found))
    else:
        for line in lines(found, arguments.in_place):
            show(line, 15)
    return 1 if found.problem else 0


def _quantized(share: QuantizedShare) -> str:
    bits = 8 * share.nbytes / share.parameters
    said = {key: value for key, value in share.settings.items() if value and key not in ("quant_method", "version")}
    settings = ", ".join(f"{key} {value}" for key, value in said.items() if not key.startswith("_"))
    weights = f"{counted(share.weights, 'weight')} of {number_text(share.parameters)} values, {bits:.3g} bits a value"
    return f"{share.scheme}: {weights}" + (f" ({settings})" if settings else "")


def lines(found: Inspection, in_place: Callable[[str], str] = str) -> Iterator[str]:
    """An inspection for people; ``in_place`` puts advice into the words of the command line."""
    yield found.path
    files = ", ".join(f"{file.name} ({nbytes_text(file.nbytes)})" for file in found.files)
    own = f"{found.own_class}, which is none of this library; read as " if found.own_class else ""
    own_parameters = f", {number_text(found.num_own_parameters)} in its own parts" if found.own else ""
    rows = [
        ("format", f"{found.format}: {files}"),
        ("architecture", f"{own}{found.architecture} ({found.model_type})"),
        ("sizes", ", ".join(f"{key} {value}" for key, value in found.sizes.items())),
        (
            "parameters",
            f"{number_text(found.num_parameters)}, {number_text(found.num_embedding_parameters)} of them in embedding "
            f"tables{own_parameters}",
        ),
        (
            "dtypes",
            ", ".join(
                f"{share.dtype}: {counted(share.tensors, 'tensor')}, {nbytes_text(share.nbytes)}"
                for share in found.dtypes
            ),
        ),
        (
            "to load",
            f"{nbytes_text(found.memory.as_stored)} as stored, {nbytes_text(found.memory.float32)} in float32, "
            f"{nbytes_text(found.memory.half)} in float16 or bfloat16",
        ),
        (
            "to train",
            f"{nbytes_text(found.memory.train_float32)} with AdamW in float32 (4 weight + 4 gradient + 8 moments = 16 "
            "bytes a parameter), "
            f"{nbytes_text(found.memory.train_mixed)} mixed (2 weight + 2 gradient + 4 float32 weight + 8 moments); "
            "activations on top",
        ),
    ]
    if found.adapter:
        rows.insert(1, ("adapter", f"{found.adapter}, over {found.base}"))
    if found.quantized is not None:
        rows.insert(len(rows) - 2, ("quantized", _quantized(found.quantized)))
    yield from (f"  {key:13}{text}" for key, text in rows)
    for key, names in (
        ("own parts", found.own),
        ("tied", [f"{row.name} = {row.to}" for row in found.tied]),
        ("missing", found.missing),
        ("unexpected", found.unexpected),
        ("mismatched", [f"{row.name}: expected {row.expected}, received {row.received}" for row in found.mismatched]),
        ("left alone", [f"{row.name}: {row.why}" for row in found.dropped]),
        ("note", [in_place(note) for note in found.notes]),
        ("problem", in_place(found.problem).splitlines()),
    ):
        yield from (f"  {key:13}{name}" for name in listed(list(names)))
