"""A server gives back what is free, now and then, where the C library can."""

from __future__ import annotations

import asyncio
import platform
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from xlmr_core.serving import memory
from xlmr_core.serving.batching import Row, Ticket
from xlmr_core.serving.memory import SECONDS, FreeMemory
from xlmr_core.serving.metrics import Metrics
from xlmr_core.serving.settings import Settings
from xlmr_core.serving.worker import Worker
from xlmr_core.tasks.task import Arrays


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
        if free.is_due():
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
    assert not free.is_due()
    free.give_back()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the call is glibc's")
def test_the_call_of_this_system_can_be_made(clock: SimpleNamespace) -> None:
    free = FreeMemory()
    clock.now += 2 * SECONDS
    assert free.is_due()
    free.give_back()
    assert not free.is_due()


def test_a_worker_gives_it_back_when_a_batch_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(FreeMemory, "is_due", lambda self: True)
    monkeypatch.setattr(FreeMemory, "give_back", lambda self: done.append("given back"))

    def runs(batch: list[Row]) -> list[Arrays]:
        done.append("run")
        return [{} for _ in batch]

    async def asks() -> None:
        with ThreadPoolExecutor(1) as thread:
            worker = Worker("model", thread, Settings(), Metrics())
            ticket = Ticket("key", runs)
            ticket.add(0, 0, 3, {})
            await worker.run(ticket, [1])
            await asyncio.sleep(0.1)
            worker.close()

    asyncio.run(asks())
    assert done == ["run", "given back"]
