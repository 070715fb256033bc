"""The models for tasks that come with the library: a call of each, and what it answered when it was made.

The answers are those of PyTorch on a CPU, which `python -m tests.ready_made` writes; every backend has to give them,
offline and where no model is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.tasks import default_model

FILE = Path(__file__).with_name("ready_made.json")
CALLS: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
TOLERANCE = 1e-3  # of scores, which are shares of one


def assert_answers(task: str, pipeline: Callable[..., Any]) -> None:
    """The answers of a task are the recorded ones.

    Args:
        task: a name of ``CALLS``.
        pipeline: of a backend.
    """
    call = CALLS[task]
    assert default_model(task) == call["model"]
    assert_alike(pipeline(task, **call["options"])(call["inputs"]), call["answers"])


def assert_alike(found: Any, expected: Any) -> None:
    """Plain Python that is the same but for the rounding of numbers."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        assert isinstance(found, list | tuple) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    else:
        assert found == expected


def main() -> None:
    """Answer all calls anew, where models were made anew."""
    from xlmr_torch import pipeline

    for task, call in CALLS.items():
        call["answers"] = pipeline(task, **call["options"])(call["inputs"])
    FILE.write_text(json.dumps(CALLS, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
