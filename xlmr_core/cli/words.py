"""How sizes and comparisons are put into words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlmr_core.verification import Comparison

__all__ = ["comparison_lines", "listed", "nbytes_text", "number_text"]

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


def comparison_lines(found: Comparison) -> Iterator[str]:
    """A comparison for people, the verdict last."""
    for heading, rows in (
        ("only in the first", found.only_a),
        ("only in the second", found.only_b),
        ("of another shape", [f"{row.name}: {row.a} and {row.b}" for row in found.shapes]),
        (
            "of other values",
            [f"{row.name}: {row.count} values, the largest difference {row.largest:.3g}" for row in found.values],
        ),
        ("of another meaning in config.json", found.config),
        ("other ids", [f"{row.text!r}: {list(row.a)} and {list(row.b)}" for row in found.tokens]),
    ):
        if rows:
            yield f"{heading} ({len(rows)}):"
            yield from (f"  {row}" for row in listed(list(rows)))
    rounded = found.compared - len(found.values) - found.identical
    rest = f", {rounded} up to the rounding of the narrower dtype" if rounded else ""
    yield (
        f"values   of {found.compared} tensors {found.identical} are equal bit for bit{rest}; "
        f"the largest difference is {found.largest:.3g}"
    )
    if found.sentences:
        yield f"tokens   {found.sentences - len(found.tokens)} of {found.sentences} texts have the same ids"
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
