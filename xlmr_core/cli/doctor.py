"""``xlmr doctor``: what is wrong with a checkpoint, and what to do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xlmr_core.cli.parser import MODEL, add_format, add_head, add_part, add_progress
from xlmr_core.cli.terminal import print_json, show
from xlmr_core.cli.words import as_json
from xlmr_core.progress import ProgressBar
from xlmr_core.wording import counted

if TYPE_CHECKING:
    from xlmr_core.diagnosis import Diagnosis

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "say what is wrong with a checkpoint, and what to do"
USAGE = "xlmr doctor PATH [options]"
DESCRIPTION = """\
Say what is wrong with a checkpoint, and what to do: weights that do not fit the config, fresh
heads, stale files, values that are no numbers, float16 that overflows, labels without names, a
tokenizer that does not belong, lengths and padding ids that disagree. All weights are read. The
exit status is 0 if it is healthy (there may be advice), 1 if there are faults.

  xlmr doctor my-finetuned-model/
"""


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments."""
    parser.add_argument("path", metavar="PATH", help=MODEL)
    add_head(parser)
    add_part(parser)
    add_format(parser, json="one object")
    add_progress(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Examine; 0 if it is healthy, 1 if not."""
    from xlmr_core.diagnosis import diagnose

    with ProgressBar(arguments.progress) as progress:
        found = diagnose(arguments.path, head=arguments.head, part=arguments.part, progress=progress)
    if arguments.format == "json":
        print_json(as_json(found, healthy=found.healthy))
    else:
        _print(found, arguments.in_place)
    return 0 if found.healthy else 1


def _print(found: Diagnosis, in_place: Callable[[str], str]) -> None:
    show(found.path)
    for finding in found.findings:
        show(f"  {'FAULT ' if finding.is_ill else 'advice'}  {finding.check}: {in_place(finding.what)}", 10)
        show(f"          remedy: {in_place(finding.remedy)}", 18)
    faults = sum(finding.is_ill for finding in found.findings)
    verdict = "healthy" if found.healthy else counted(faults, "fault")
    show(f"{verdict}; {counted(len(found.checks), 'check')}")
