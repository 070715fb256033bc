"""Which rows run together: requests of many clients fill one batch, and short ones do not wait for long ones.

A batch holds ``batch_tokens`` tokens, wherever they come from; packing leaves padding out, so rows of any lengths run
together. Half of it goes to the requests that came first, the other half to those with the fewest tokens left. Which
half is filled first changes from batch to batch, as the first row may leave no room for others. So

- the request that came first is in one of any two batches, and none is passed over for ever;
- a short one waits for the batch that runs when it comes and for one more at most, if those that are as short have room
  in half a batch beside it.

Rows that need other outputs of the model, or that may not be mixed, are of another kind (``Ticket.key``) and run in
batches of their own; the first row says the kind.

No clock, no thread: what runs together depends on nothing but the order in which requests came and went.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from xlmr_core.tasks.task import Arrays

__all__ = ["FullError", "Row", "Ticket", "Waiting"]

# A batch of one long row and many short ones is mostly padding where a model's outputs are laid out row by row: so many
# times the tokens of a batch at most.
PADDED = 4


class FullError(Exception):
    """So much waits already that nothing more is taken."""


@dataclass(frozen=True, eq=False)
class Row:
    """What goes through the model.

    Attributes:
        ticket: the request that it belongs to.
        item, number: its place there.
        tokens: how many it counts.
        arrays: its own, without a batch axis.
    """

    ticket: Ticket
    item: int
    number: int
    tokens: int
    arrays: Arrays


@dataclass(eq=False)
class Ticket:
    """A request that waits.

    Attributes:
        key: rows run together if those of their tickets are equal.
        run: sends a batch of its rows through the model.
        rows: those that did not run yet.
        tokens: how many those hold.
    """

    key: Any
    run: Callable[[list[Row]], Iterable[Arrays]]
    rows: deque[Row] = field(default_factory=deque)
    tokens: int = 0

    def add(self, item: int, number: int, tokens: int, arrays: Arrays) -> None:
        """A row behind the others."""
        self.rows.append(Row(self, item, number, tokens, arrays))
        self.tokens += tokens

    def pop(self) -> Row:
        """The next row."""
        row = self.rows.popleft()
        self.tokens -= row.tokens
        return row


class Waiting:
    """The requests that wait for a model.

    Args:
        batch_tokens: tokens of a batch; a row that holds more is a batch by itself.
        max_tokens: that may wait.
    """

    def __init__(self, batch_tokens: int, max_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self.max_tokens = max_tokens
        self.tokens = 0
        self._tickets: dict[Ticket, None] = {}  # in the order in which they came
        self._shortest_begins = False

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, ticket: Ticket) -> None:
        """Take a request.

        Raises:
            FullError: if others wait, and there would be too many tokens with it.
        """
        if self.tokens and self.tokens + ticket.tokens > self.max_tokens:
            raise FullError
        if ticket.rows:
            self._tickets[ticket] = None
            self.tokens += ticket.tokens

    def drop(self, ticket: Ticket) -> None:
        """Forget a request, if it is there: what is left of it does not run."""
        if ticket in self._tickets:
            del self._tickets[ticket]
            self.tokens -= ticket.tokens

    def next_batch(self) -> list[Row]:
        """Take what runs next; nothing if nothing waits."""
        if not self._tickets:
            return []
        oldest = list(self._tickets)
        shortest = sorted(oldest, key=lambda ticket: ticket.tokens)  # of the same length: who came first
        orders = (shortest, oldest) if self._shortest_begins else (oldest, shortest)
        self._shortest_begins = not self._shortest_begins
        batch, key = _Batch(self.batch_tokens), orders[0][0].key
        for tickets, limit in zip(orders, (self.batch_tokens // 2, self.batch_tokens), strict=True):
            for ticket in tickets:
                if ticket.key == key:
                    self._take(ticket, batch, limit)
                if batch.tokens >= limit:
                    break
        return batch.rows

    def _take(self, ticket: Ticket, batch: _Batch, limit: int) -> None:
        while ticket.rows and batch.has_room(ticket.rows[0], limit):
            row = ticket.pop()
            batch.add(row)
            self.tokens -= row.tokens
        if not ticket.rows:
            self._tickets.pop(ticket, None)


class _Batch:
    def __init__(self, batch_tokens: int) -> None:
        self.rows: list[Row] = []
        self.tokens = 0
        self._longest = 0
        self._most_padded = PADDED * batch_tokens

    def has_room(self, row: Row, limit: int) -> bool:
        """Whether a row fits; the first always does."""
        if not self.rows:
            return True
        padded = (len(self.rows) + 1) * max(self._longest, row.tokens)
        return self.tokens + row.tokens <= limit and padded <= self._most_padded

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.tokens += row.tokens
        self._longest = max(self._longest, row.tokens)
