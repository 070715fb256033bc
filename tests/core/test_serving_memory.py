"""A server gives back what is free, now and then, where the C library can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from xlmr_core.serving import memory
from xlmr_core.serving.memory import SECONDS, FreeMemory


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(memory.time, "monotonic", lambda: found.now)
    return found


def test_it_is_given_back_at_most_every_few_seconds(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=asked.append))
    free = FreeMemory()
    for passed, times in ((0.0, 0), (SECONDS - 0.1, 0), (0.2, 1), (0.0, 1), (SECONDS, 2)):
        clock.now += passed
        free.give_back()
        assert asked == [0] * times


def _no_library(name: Any) -> Any:
    raise OSError


@pytest.mark.parametrize("library", [lambda name: SimpleNamespace(), _no_library], ids=["no such call", "no library"])
def test_without_such_a_call_nothing_happens(
    library: Any, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    free = FreeMemory()
    clock.now += 2 * SECONDS
    free.give_back()


def test_the_call_of_this_system_can_be_made(clock: SimpleNamespace) -> None:
    free = FreeMemory()
    clock.now += 2 * SECONDS
    free.give_back()
