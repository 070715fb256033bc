"""How sizes, comparisons and whole results are put into words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xlmr_core.wording import counted, number

if TYPE_CHECKING:
    from xlmr_core.verification import Comparison

__all__ = ["as_json", "comparison_lines", "listed", "nbytes_text", "number_text"]

_MOST = 8  # rows of a list that are shown


def nbytes_text(nbytes: float) -> str:
    """``1.11 GB``"""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def number_text(number: int) -> str:
    """``278 043 648``: groups of three, with thin spaces left out of the way of those who copy it."""
    return f"{number:,}".replace(",", " ")


def listed(rows: Sequence[str]) -> list[str]:
    """The first rows, and how many more there are."""
    return [*rows[:_MOST], *([f"... and {len(rows) - _MOST} more"] if len(rows) > _MOST else [])]


def as_json(found: Any, **more: Any) -> str:
    """A dataclass as one object of JSON, with the values of its properties in ``more``."""
    return json.dumps({**dataclasses.asdict(found), **more}, ensure_ascii=False, indent=2, default=str)


def comparison_lines(found: Comparison) -> Iterator[str]:
    """A comparison for people, the verdict last."""
    for heading, rows in (
        ("only in the first", found.only_a),
        ("only in the second", found.only_b),
        ("of another shape", [f"{row.name}: {row.a} and {row.b}" for row in found.shapes]),
        (
            "of other values",
            [
                f"{row.name}: {counted(row.count, 'value')}, the largest difference {row.largest:.3g}"
                for row in found.values
            ],
        ),
        ("of another meaning in config.json", found.config),
        ("other ids", [f"{row.text!r}: {list(row.a)} and {list(row.b)}" for row in found.tokens]),
    ):
        if rows:
            yield f"{heading} ({len(rows)}):"
            yield from (f"  {row}" for row in listed(list(rows)))
    rounded = found.compared - len(found.values) - found.identical
    rest = f", {rounded} up to the rounding of the narrower dtype" if rounded else ""
    are = number(found.identical, "is", "are")
    yield (
        f"values   of {counted(found.compared, 'tensor')} {found.identical} {are} equal bit for bit{rest}; "
        f"the largest difference is {found.largest:.3g}"
    )
    if found.sentences:
        same = found.sentences - len(found.tokens)
        yield f"tokens   {same} of {counted(found.sentences, 'text')} {number(same, 'has', 'have')} the same ids"
    if found.outputs:
        who = " and ".join(dict.fromkeys(found.backends))
        yield f"outputs  {found.probe} ({who}):"
        for row in found.outputs:
            yield (
                f"  {row.name}: the largest difference {row.largest:.3g}, relative {row.relative:.3g}"
                f"{'' if row.equal else ', more than rounding explains'}"
            )
    yield from (f"note     {note}" for note in found.notes)
    yield "equal" if found.equal else "different"
