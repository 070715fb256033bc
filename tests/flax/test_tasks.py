"""Tasks in Flax: a few of the recorded calls of the original pipelines, asked again."""

from __future__ import annotations

from functools import cache

import pytest

pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

from tests.recorded_calls import FEW, ask_again
from tests.writing import check_draws
from xlmr_flax import pipeline


@cache
def made(task, folder):
    return pipeline(task, model=folder)


@pytest.mark.parametrize(("name", "number"), FEW)
def test_recorded_call(name, number, shared):
    ask_again(pipeline, made, shared / "fixtures" / "tasks" / name, number)


def test_draws(shared):
    check_draws(made("text-generation", shared / "fixtures" / "tasks" / "text_generation"))
