"""How answers are printed: for people (``text``) or for programs (``json``, one object a line)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from xlmr_core.cli.lines import Line

__all__ = ["FORMATS", "write_json", "write_text"]


def write_text(out: TextIO, line: Line, answer: Any, mask_token: str) -> None:
    """The text, then a score and a token a line. The token comes last, so that no script, wide or right-to-left, can break the columns."""
    several = bool(answer) and isinstance(answer[0], list)
    out.write(f"{line.text}\n")
    for number, candidates in enumerate(answer if several else [answer], 1):
        if several:
            out.write(f"  {mask_token} {number}\n")
        for candidate in candidates:
            out.write(f"  {candidate['score']:.4f}  {_visible(candidate['token_str'])}\n")
    out.write("\n")


def _visible(token: str) -> str:
    """The token, quoted and escaped where it would not be seen otherwise."""
    return token if token.strip() and token.isprintable() else repr(token)


def write_json(out: TextIO, line: Line, answer: Any, mask_token: str) -> None:
    """``{"line": number, "text": ..., "answer": what the pipeline returns}``."""
    out.write(json.dumps({"line": line.number, "text": line.text, "answer": answer}, ensure_ascii=False) + "\n")


FORMATS: dict[str, Callable[[TextIO, Line, Any, str], None]] = {"text": write_text, "json": write_json}
