"""The models that come with the library answer where none is named, as they did when they were made."""

from __future__ import annotations

import pytest

from tests.ready_made import CALLS, assert_answers
from xlmr_torch import pipeline


@pytest.mark.parametrize("task", CALLS)
def test_a_task_runs_without_naming_a_model(task: str) -> None:
    assert_answers(task, pipeline)
