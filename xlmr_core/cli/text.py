"""How answers are printed: for people (``text``) or for programs (``json``, an object a line; ``csv``, a table)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from xlmr_core.cli.lines import Line
from xlmr_core.errors import XLMRError
from xlmr_core.wording import seen, seen_in_json

__all__ = ["PRINTERS", "as_json", "as_text", "csv_printer", "show_as_it_comes"]

# Prints a line, its answer, and whether something of the line was cut off; the pipeline knows how.
Printer = Callable[[Line, Any, Any, bool], str]


def as_text(line: Line, answer: Any, pipeline: Any, truncated: bool) -> str:
    """The text, the answer as its task shows it, and a blank line."""
    return _head(line) + seen(pipeline.text(answer), lines=True) + _end(truncated)


def _head(line: Line) -> str:
    return f"{seen(line.text or '')}\n"


def _end(truncated: bool) -> str:
    cut = "\n  (the text was truncated)" if truncated else ""
    return f"{cut}\n\n"


def show_as_it_comes(pipeline: Any, line: Line, given: Any, write: Callable[[str], None]) -> tuple[Any, bool] | None:
    """Answer a line and show, piece by piece, what :func:`as_text` would show at the end.

    Args:
        pipeline: of a task.
        line: as it came.
        given: what it holds for the task, or the error that says why it holds nothing.
        write: takes a piece of text.

    Returns:
        The answer, or the error in its place, and whether the text was truncated; ``None`` where nothing was done, as
        the answer would come whole.
    """
    begun = False

    def piece(text: str) -> None:
        nonlocal begun
        write(("" if begun else _head(line)) + seen(text, lines=True))
        begun = True

    streamer = None if isinstance(given, XLMRError) else pipeline.streamer(given, piece)
    if streamer is None:
        return None
    try:
        answer = pipeline(given, streamer=streamer)
    except XLMRError as error:
        if begun:
            write("\n")
        return error, False
    truncated = bool(pipeline.truncated)
    write(_end(truncated))
    return answer, truncated


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
