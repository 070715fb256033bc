"""How answers are printed: for people (``text``) or for programs (``json``, an object a line; ``csv``, a table)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from xlmr_core.cli.lines import Line
from xlmr_core.wording import seen, seen_in_json

__all__ = ["PRINTERS", "as_json", "as_text", "csv_printer"]

# Prints a line, its answer, and whether something of the line was cut off; the pipeline knows how.
Printer = Callable[[Line, Any, Any, bool], str]


def as_text(line: Line, answer: Any, pipeline: Any, truncated: bool) -> str:
    """The text, the answer as its task shows it, and a blank line."""
    cut = "\n  (the text was truncated)" if truncated else ""
    return f"{seen(line.text or '')}\n{seen(pipeline.text(answer), lines=True)}{cut}\n\n"


def as_json(line: Line, answer: Any, pipeline: Any, truncated: bool) -> str:
    """``{"line": number, "text": ..., "answer": what the pipeline gives}``, with ``"truncated": true`` if it was."""
    cut = {"truncated": True} if truncated else {}
    row = {"line": line.number, "text": line.text, **cut, "answer": pipeline.plain(answer)}
    return seen_in_json(json.dumps(row, ensure_ascii=False)) + "\n"


def csv_printer() -> Printer:
    """Prints rows of a table, below the names of its columns: ``line``, ``text``, ``truncated``, and the answer's."""
    columns: list[str] = []

    def as_csv(line: Line, answer: Any, pipeline: Any, truncated: bool) -> str:
        rows = pipeline.rows(answer)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        if not columns and rows:
            columns.extend(rows[0])
            writer.writerow(["line", "text", "truncated", *columns])
        for row in rows:
            cells = [row.get(name, "") for name in columns]
            told = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell for cell in cells]
            writer.writerow([line.number, line.text, str(truncated).lower(), *told])
        return table.getvalue()

    return as_csv


# By format, what makes a printer.
PRINTERS: dict[str, Callable[[], Printer]] = {"text": lambda: as_text, "json": lambda: as_json, "csv": csv_printer}
