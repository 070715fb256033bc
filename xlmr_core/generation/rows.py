"""Ids of any framework as plain lists."""

from __future__ import annotations

from typing import Any

__all__ = ["as_list", "as_rows"]


def as_list(x: Any) -> Any:
    """An array of any framework, on any device, or nested lists, as nested lists of plain numbers."""
    if hasattr(x, "tolist"):
        return x.tolist()
    if hasattr(x, "numpy"):  # TensorFlow
        return x.numpy().tolist()
    return x


def as_rows(x: Any) -> list[list[int]]:
    """Ids (R, L) as a list of rows."""
    rows: list[list[int]] = as_list(x)
    return rows
