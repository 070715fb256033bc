"""How answers are printed: for people (``text``) or for programs (``json``, one object a line)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from xlmr_core.cli.lines import Line
from xlmr_core.wording import seen, seen_in_json

__all__ = ["PRINTERS", "as_json", "as_text"]


def as_text(line: Line, answer: Any, pipeline: Any) -> str:
    """The text, the answer as its task shows it, and a blank line."""
    return f"{seen(line.text or '')}\n{seen(pipeline.text(answer), lines=True)}\n\n"


def as_json(line: Line, answer: Any, pipeline: Any) -> str:
    """``{"line": number, "text": ..., "answer": what the pipeline returns}``."""
    row = {"line": line.number, "text": line.text, "answer": answer}
    return seen_in_json(json.dumps(row, ensure_ascii=False)) + "\n"


PRINTERS: dict[str, Callable[[Line, Any, Any], str]] = {"text": as_text, "json": as_json}
