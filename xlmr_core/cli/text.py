"""How answers are printed: for people (``text``) or for programs (``json``, one object a line)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from xlmr_core.cli.lines import Line

__all__ = ["PRINTERS", "as_json", "as_text"]


def as_text(line: Line, answer: Any, pipeline: Any) -> str:
    """The text, the answer as its task shows it, and a blank line."""
    return f"{line.text}\n{pipeline.text(answer)}\n\n"


def as_json(line: Line, answer: Any, pipeline: Any) -> str:
    """``{"line": number, "text": ..., "answer": what the pipeline returns}``."""
    return json.dumps({"line": line.number, "text": line.text, "answer": answer}, ensure_ascii=False) + "\n"


PRINTERS: dict[str, Callable[[Line, Any, Any], str]] = {"text": as_text, "json": as_json}
