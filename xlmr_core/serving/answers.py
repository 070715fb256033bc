"""What every answer to a client has to keep to: numbers that JSON has, its own words for advice, and nothing of it in a
log.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from xlmr_core.serving.faults import Fault
from xlmr_core.tasks.options import OVERFLOWS

__all__ = ["WORDING", "as_json", "log_failure", "worded"]

# What advice for Python reads for clients of ``/tasks/NAME``.
WORDING: Mapping[str, str] = {
    f"pass on_overflow='{how}'": f'send "parameters": {{"on_overflow": "{how}"}}' for how in OVERFLOWS
}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def as_json(content: Any) -> bytes:
    """As it is sent.

    Raises:
        Fault: for numbers that JSON does not have.
    """
    try:
        return "".join(_written(content)).encode()
    except ValueError:
        message = "expected finite numbers, the model gave others; check the checkpoint, or load it with dtype float32"
        raise Fault("unable", message) from None


def _written(content: Any) -> Iterator[str]:
    """Its parts. No other thread has a turn while the encoder writes one, so lists of lists are several."""
    if isinstance(content, dict) and any(isinstance(value, list | dict) for value in content.values()):
        for number, (name, value) in enumerate(content.items()):
            yield "," if number else "{"
            yield _encode(str(name)) + ":"
            yield from _written(value)
        yield "}"
    elif isinstance(content, list) and content and isinstance(content[0], list | dict):
        for number, value in enumerate(content):
            yield "," if number else "["
            yield from _written(value)
        yield "]"
    else:
        yield _encode(content)


def worded(fault: Fault, wording: Mapping[str, str]) -> str:
    """The sentence of a fault, with advice for Python in the words of a client."""
    text = str(fault)
    for python, here in wording.items():
        text = text.replace(python, here)
    return text


def log_failure(logger: logging.Logger, what: str, error: Exception) -> None:
    """Where it failed, without what was sent: the message of an error may hold it."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
    logger.error("%s failed: %s at %s", what, type(error).__name__, where)
