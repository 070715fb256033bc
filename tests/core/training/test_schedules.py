"""Schedules: the published values, and that they can be kept."""

from __future__ import annotations

import pickle

import pytest

from xlmr_core.errors import InputError
from xlmr_core.training.schedules import SCHEDULES, factor, schedule

# Of 10 steps, 2 of them to warm up, as the published tests have them for a rate of 10 (Apache 2.0 numbers, by formula).
PUBLISHED = {
    "constant": ({}, [1.0] * 10),
    "constant_with_warmup": ({}, [0.0, 0.5, *[1.0] * 8]),
    "linear": ({}, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    "cosine": ({}, [0.0, 0.5, 1.0, 0.961, 0.853, 0.691, 0.5, 0.308, 0.146, 0.038]),
    "cosine_with_restarts": ({"num_cycles": 2}, [0.0, 0.5, 1.0, 0.853, 0.5, 0.146, 1.0, 0.853, 0.5, 0.146]),
    "polynomial": (
        {"power": 2.0, "lr_end": 1e-7, "lr_init": 10.0},
        [0.0, 0.5, 1.0, 0.765, 0.562, 0.39, 0.25, 0.14, 0.062, 0.0156],
    ),
    "inverse_sqrt": ({}, [0.0, 0.5, 1.0, 0.816, 0.707, 0.632, 0.577, 0.534, 0.5, 0.471]),
    "cosine_with_min_lr": ({"min_lr_rate": 0.5}, [0.0, 0.5, 1.0, 0.981, 0.927, 0.846, 0.75, 0.654, 0.573, 0.519]),
}


def test_all_have_their_numbers_here() -> None:
    assert set(PUBLISHED) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_the_published_factors(name: str) -> None:
    options, expected = PUBLISHED[name]
    found = schedule(name, 2, 10, **options)
    assert [found(step) for step in range(10)] == pytest.approx(expected, abs=1.1e-3)
    assert pickle.loads(pickle.dumps(found))(7) == found(7)


def test_schedules_end_where_they_should() -> None:
    assert [factor(name, 10, 2, 10) for name in ("linear", "cosine", "cosine_with_restarts")] == [0, 0, 0]
    assert schedule("polynomial", 2, 10, lr_init=1.0, lr_end=0.1)(11) == pytest.approx(0.1)
    assert factor("linear", 0, 0, 1) == 1.0


def test_a_name_or_an_option_that_is_none_has_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        schedule("cosin", 1, 2)
    with pytest.raises(TypeError, match="did you mean 'num_cycles'"):
        schedule("cosine", 1, 2, num_cycle=3)
    with pytest.raises(InputError, match="at least 0"):
        schedule("linear", -1, 2)
