"""The pretraining text: which languages there are, how much of each, and how often each is read."""

from __future__ import annotations

import json
import lzma
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SHARED = Path(os.environ.get("XLMR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
PRETRAIN = SHARED / "data" / "pretrain"

SAMPLING_POWER = 0.7  # alpha of language sampling, as in the XLM line of models (0.3 there, for far more skewed data)
MOST_PASSES = 4.0  # no run reads a text more often than this, however thin its language


def characters(pretrain: Path = PRETRAIN) -> dict[str, int]:
    """Characters of training text per language code, sorted by code."""
    languages = json.loads((pretrain / "manifest.json").read_text(encoding="utf-8"))["langs"]
    return {code: languages[code]["train"]["chars"] for code in sorted(languages)}


def passes(counts: dict[str, int], largest: float = 1.0) -> dict[str, float]:
    """How often each language is read so that its share is its characters to the power 0.7.

    Args:
        counts: characters per language.
        largest: passes over the largest language; all others follow from it, up to `MOST_PASSES`.
    """
    top = max(counts.values())
    return {code: min(MOST_PASSES, largest * (top / count) ** (1 - SAMPLING_POWER)) for code, count in counts.items()}


def passes_in_all(runs: Iterable[Mapping[str, Any]], counts: dict[str, int]) -> dict[str, float]:
    """How often each language was read by runs that went on from each other, most often read first.

    Args:
        runs: as `manifest.json` holds them, with `largest` and `share_of_rows`.
        counts: characters per language.
    """
    total = dict.fromkeys(counts, 0.0)
    for run in runs:
        for code, times in passes(counts, run["largest"]).items():
            total[code] += times * run["share_of_rows"]
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def lines(path: Path) -> list[str]:
    """The lines of one `.txt.xz` file, stripped; an empty one ends a document."""
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [line.strip() for line in file]


def repeated(items: list[T], times: float, rng: random.Random) -> Iterator[T]:
    """Each item `times` times, shuffled within every pass; a fractional pass is a random part of the items."""
    whole = int(times)
    for number in range(whole + 1):
        order = list(range(len(items)))
        rng.shuffle(order)
        yield from (items[i] for i in (order if number < whole else order[: round((times - whole) * len(items))]))
