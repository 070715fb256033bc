"""How the rows of a model run: one thread for the model, and two for all that is done around it.

While a batch runs, the next requests are tokenized and the last ones decoded. What takes long has a thread of its own
there, so that short requests do not wait behind it. Everything about who waits is decided on the event loop, so that it
needs no lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from xlmr_core.errors import XLMRError
from xlmr_core.serving.batching import FullError, Row, Ticket, Waiting
from xlmr_core.serving.faults import Fault, fault_of
from xlmr_core.serving.memory import FreeMemory
from xlmr_core.serving.metrics import Metrics
from xlmr_core.serving.settings import Settings
from xlmr_core.tasks.task import Arrays

__all__ = ["Worker"]

T = TypeVar("T")
# Of the pace at which tokens run, by which a client is told when to come again.
_NEW_SHARE = 0.2


class Worker:
    """Runs what waits for a model.

    Args:
        name: of the model.
        running: the thread in which the model runs.
        settings: of the server.
        metrics: of the server.
    """

    def __init__(self, name: str, running: ThreadPoolExecutor, settings: Settings, metrics: Metrics) -> None:
        self.waiting = Waiting(settings.batch_tokens, settings.max_waiting_tokens)
        self._running = running
        self._around = ThreadPoolExecutor(1, f"xlmr-around-{name}")
        self._large = ThreadPoolExecutor(1, f"xlmr-large-{name}")
        self._asked: dict[Ticket, asyncio.Future[list[list[Arrays]]]] = {}
        self._outputs: dict[Ticket, list[list[Arrays]]] = {}
        self._left: dict[Ticket, int] = {}
        self._drive: asyncio.Task[None] | None = None
        self._pace = 0.0  # tokens a second
        self._metrics = metrics
        self._name = name
        self._memory = FreeMemory()
        metrics.waiting.labels(name).set_function(lambda: self.waiting.tokens)

    async def around(self, function: Callable[[], T], *, large: bool = False) -> T:
        """Call what is no work of the model, one call after the other; those that take long in a row of their own."""
        thread = self._large if large else self._around
        return await asyncio.get_running_loop().run_in_executor(thread, function)

    async def run(self, ticket: Ticket, rows: Sequence[int]) -> list[list[Arrays]]:
        """The outputs of a request's rows. If the caller is cancelled, what did not run yet does not run.

        Args:
            ticket: the request, with its rows.
            rows: how many rows each of its items has.

        Raises:
            Fault: if too much waits already, or the model fails.
        """
        outputs: list[list[Arrays]] = [[{} for _ in range(count)] for count in rows]
        if not ticket.rows:
            return outputs
        try:
            self.waiting.add(ticket)
        except FullError:
            raise self.full() from None
        future: asyncio.Future[list[list[Arrays]]] = asyncio.get_running_loop().create_future()
        self._asked[ticket], self._outputs[ticket], self._left[ticket] = future, outputs, len(ticket.rows)
        if self._drive is None or self._drive.done():
            self._drive = asyncio.create_task(self._run_all())
        try:
            return await future
        finally:
            self._forget(ticket)

    def full(self) -> Fault:
        """The refusal of a request for which there is no room, with the seconds until there may be some."""
        seconds = 1 + int(self.waiting.tokens / self._pace) if self._pace else 1
        return Fault(
            "overloaded",
            f"expected some room, {self.waiting.tokens} tokens wait for {self._name!r} already; come again in "
            f"{seconds} s",
            headers={"retry-after": str(seconds)},
        )

    def close(self) -> None:
        """End the threads, when what runs has run."""
        for pool in (self._running, self._around, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    def _forget(self, ticket: Ticket) -> None:
        self.waiting.drop(ticket)
        for table in (self._asked, self._outputs, self._left):
            table.pop(ticket, None)

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self.waiting.next_batch():
            started = time.perf_counter()
            found = await loop.run_in_executor(self._running, _run, batch)
            self._count(sum(row.tokens for row in batch), time.perf_counter() - started)
            for row, outputs in zip(batch, found, strict=True):
                self._deliver(row, outputs)
            if self._memory.is_due():
                await loop.run_in_executor(self._running, self._memory.give_back)

    def _count(self, tokens: int, seconds: float) -> None:
        pace = tokens / max(seconds, 1e-6)
        self._pace = pace if not self._pace else (1 - _NEW_SHARE) * self._pace + _NEW_SHARE * pace
        self._metrics.tokens.labels(self._name).inc(tokens)
        self._metrics.batches.labels(self._name).observe(tokens)
        self._metrics.runs.labels(self._name).observe(seconds)

    def _deliver(self, row: Row, found: Arrays | Exception) -> None:
        future = self._asked.get(row.ticket)
        if future is None or future.done():
            return  # the client went away meanwhile
        if isinstance(found, Exception):
            future.set_exception(found)
            return
        self._outputs[row.ticket][row.item][row.number] = found
        self._left[row.ticket] -= 1
        if not self._left[row.ticket]:
            future.set_result(self._outputs[row.ticket])


def _run(batch: list[Row]) -> list[Arrays | Exception]:
    """What the model gives for each row; if it fails, each request runs by itself, so that only a faulty one fails."""
    try:
        return list(batch[0].ticket.run(batch))
    except Exception as error:
        tickets = list(dict.fromkeys(row.ticket for row in batch))
        if len(tickets) == 1:
            failure = fault_of(error) if isinstance(error, XLMRError) else error
            return [failure] * len(batch)
        own = {ticket: iter(_run([row for row in batch if row.ticket is ticket])) for ticket in tickets}
        return [next(own[row.ticket]) for row in batch]
