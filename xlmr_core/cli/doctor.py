"""``xlmr doctor``: what is wrong with a checkpoint, and what to do."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from xlmr_core.heads import HEADS

if TYPE_CHECKING:
    from xlmr_core.diagnosis import Diagnosis

__all__ = ["DESCRIPTION", "SUMMARY", "add_arguments", "execute"]

SUMMARY = "say what is wrong with a checkpoint, and what to do"
DESCRIPTION = """\
Say what is wrong with a checkpoint, and what to do: weights that do not fit the config, fresh
heads, stale files, values that are no numbers, float16 that overflows, labels without names, a
tokenizer that does not belong, lengths and padding ids that disagree. All weights are read. The
exit status is 0 if it is healthy (there may be advice), 1 if there are ills.

  xlmr doctor my-finetuned-model/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "path", metavar="PATH", help="a folder, a file of weights, a built-in model or a name on the Hugging Face hub"
    )
    parser.add_argument("--head", choices=tuple(HEADS), help="where neither the config nor the weights say it")
    parser.add_argument("--part", metavar="NAME", help="which model or head to read of a file that holds several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(arguments: argparse.Namespace) -> int:
    """Examine; 0 if it is healthy, 1 if not."""
    from xlmr_core.diagnosis import diagnose

    found = diagnose(arguments.path, head=arguments.head, part=arguments.part)
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(found), "healthy": found.healthy}, ensure_ascii=False, indent=2))
    else:
        _print(found)
    return 0 if found.healthy else 1


def _print(found: Diagnosis) -> None:
    print(found.path)
    for finding in found.findings:
        print(f"  {'ILL   ' if finding.is_ill else 'advice'}  {finding.check}: {finding.what}")
        print(f"          remedy: {finding.remedy}")
    ills = sum(finding.is_ill for finding in found.findings)
    verdict = "healthy" if found.healthy else f"{ills} ill{'s' if ills > 1 else ''}"
    print(f"{verdict}; {len(found.checks)} checks")
