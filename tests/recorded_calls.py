"""Calls of the original pipelines and what they answered, and how answers are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCORES = 1e-5  # the tolerance for probabilities that came with the recordings

Call = dict[str, Any]


def read_calls(folder: Path) -> list[Call]:
    """The calls of a folder, one a line."""
    with (folder / "calls.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def assert_same(got: Any, expected: Any, where: str = "answer") -> None:
    """Floats agree to ``SCORES``, everything else exactly, types included."""
    assert type(got) is type(expected), f"{where}: {got!r}, expected {expected!r}"
    if isinstance(expected, float):
        assert abs(got - expected) <= SCORES, f"{where}: {got}, expected {expected}"
    elif isinstance(expected, dict):
        assert list(got) == list(expected), where
        for key in expected:
            assert_same(got[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, list):
        assert len(got) == len(expected), f"{where}: {len(got)} items, expected {len(expected)}"
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert got == expected, where
