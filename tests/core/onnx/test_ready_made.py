"""The models that come with the library answer on ONNX Runtime too, as graphs that are made of them."""

from __future__ import annotations

import pytest

from tests.ready_made import CALLS, assert_answers
from xlmr_core.onnx import pipeline


@pytest.mark.parametrize("task", CALLS)
def test_a_task_runs_without_naming_a_model(task: str) -> None:
    assert_answers(task, pipeline)
