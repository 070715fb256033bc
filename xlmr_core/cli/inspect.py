"""``xlmr inspect``: what a checkpoint is."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xlmr_core.cli.words import listed, nbytes_text, number_text
from xlmr_core.heads import HEADS

if TYPE_CHECKING:
    from xlmr_core.inspection import Inspection

__all__ = ["DESCRIPTION", "SUMMARY", "add_arguments", "execute"]

SUMMARY = "say what a checkpoint is"
DESCRIPTION = """\
Say what a checkpoint is: format, architecture, head, sizes, dtypes, number of parameters, the
memory it takes, and what is tied, missing and unexpected. Little more than headers is read.

  xlmr inspect FacebookAI/xlm-roberta-base
  xlmr inspect model.pt --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "path", metavar="PATH", help="a folder, a file of weights, a built-in model or a name on the Hugging Face hub"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--head", choices=tuple(HEADS), help="where neither the config nor the weights say it")
    parser.add_argument("--part", metavar="NAME", help="which model or head to read of a file that holds several")


def execute(arguments: argparse.Namespace) -> int:
    """Print what it is; 0, or 1 if a model could not be loaded from it."""
    from xlmr_core.inspection import inspect_model

    found = inspect_model(arguments.path, head=arguments.head, part=arguments.part)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=2))
    else:
        for line in lines(found):
            print(line)
    return 1 if found.problem else 0


def lines(found: Inspection) -> Iterator[str]:
    """An inspection for people."""
    yield found.path
    files = ", ".join(f"{file.name} ({nbytes_text(file.nbytes)})" for file in found.files)
    rows = [
        ("format", f"{found.format}: {files}"),
        ("architecture", f"{found.architecture} ({found.model_type})"),
        ("sizes", ", ".join(f"{key} {value}" for key, value in found.sizes.items())),
        (
            "parameters",
            f"{number_text(found.num_parameters)}, {number_text(found.num_embedding_parameters)} of them in embedding "
            "tables",
        ),
        (
            "dtypes",
            ", ".join(f"{share.dtype}: {share.tensors} tensors, {nbytes_text(share.nbytes)}" for share in found.dtypes),
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
    yield from (f"  {key:13}{text}" for key, text in rows)
    for key, names in (
        ("tied", [f"{row.name} = {row.to}" for row in found.tied]),
        ("missing", found.missing),
        ("unexpected", found.unexpected),
        ("mismatched", [f"{row.name}: expected {row.expected}, received {row.received}" for row in found.mismatched]),
        ("left alone", [f"{row.name}: {row.why}" for row in found.dropped]),
        ("note", found.notes),
        ("problem", found.problem.splitlines()),
    ):
        yield from (f"  {key:13}{name}" for name in listed(list(names)))
