"""Answers as JSON: for ourselves and back, arrays of any framework keep their bits; and for readers."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

from xlmr_core.tasks.task import plain

__all__ = ["from_json", "shown_in_json", "to_json"]

# The keys of an array in JSON.
ARRAY, DTYPE, SHAPE = "__array__", "dtype", "shape"


def to_json(value: Any) -> str:
    """A value in a line of JSON; what JSON does not know (dates, numbers of other kinds) is its text."""
    return json.dumps(value, default=_known)


def from_json(line: str | bytes) -> Any:
    """What :func:`to_json` wrote.

    Raises:
        ValueError: for a line that is not whole.
    """
    return json.loads(line, object_hook=_array)


def _known(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            code = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
            return {ARRAY: code, DTYPE: array.dtype.str, SHAPE: array.shape}
    return str(value)


def _array(found: dict[str, Any]) -> Any:
    if set(found) != {ARRAY, DTYPE, SHAPE}:
        return found
    try:
        return np.frombuffer(base64.b64decode(found[ARRAY]), found[DTYPE]).reshape(found[SHAPE])
    except (ValueError, TypeError):  # a user's own object that looks like one
        return found


def shown_in_json(value: Any) -> str:
    """A value in JSON, lists in the place of arrays. JSON has no numbers that are none: ``null`` stands in the place of
    NaN and infinity.
    """
    value = plain(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
