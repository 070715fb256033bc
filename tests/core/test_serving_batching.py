"""Which rows run together, without a model, a clock or a thread."""

from __future__ import annotations

import random

import numpy as np
import pytest

from xlmr_core.serving.batching import PADDED, FullError, Ticket, Waiting

BUDGET = 16


def ticket(*tokens, key="all"):
    made = Ticket(key, run=list)
    for place, count in enumerate(tokens):
        made.add(place, 0, count, {"input_ids": np.zeros(count, np.int64)})
    return made


def waiting(*tickets, most=10**6):
    made = Waiting(BUDGET, most)
    for one in tickets:
        made.add(one)
    return made


def places(batch, tickets):
    return [(tickets.index(row.ticket), row.item) for row in batch]


def test_requests_of_many_clients_fill_one_batch():
    tickets = [ticket(4), ticket(4, 4), ticket(2)]
    queue = waiting(*tickets)
    assert queue.tokens == 14 and len(queue) == 3
    assert sorted(places(queue.next_batch(), tickets)) == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert queue.next_batch() == [] and queue.tokens == 0 and len(queue) == 0


def test_half_of_a_batch_goes_to_the_first_and_half_to_the_shortest():
    long, other, short = ticket(*[4] * 20), ticket(*[4] * 10), ticket(3)
    tickets = [long, other, short]
    queue = waiting(*tickets)
    first = places(queue.next_batch(), tickets)
    assert first == [(0, 0), (0, 1), (2, 0), (1, 0)], "half for who came first, then the shortest, then the next one"
    assert places(queue.next_batch(), tickets) == [(1, 1), (1, 2), (0, 2), (0, 3)], "then the other way round"


def test_a_short_request_is_in_the_next_batch_however_much_waits():
    long = [ticket(*[BUDGET] * 50) for _ in range(50)]
    queue = waiting(*long)
    queue.next_batch()
    short = ticket(3)
    queue.add(short)
    # A row that fills a batch by itself leaves no room for others.
    found = [queue.next_batch() for _ in range(2)]
    assert short in {row.ticket for batch in found for row in batch}


def test_a_long_row_is_a_batch_by_itself_and_rows_of_a_request_keep_their_order():
    one = ticket(BUDGET * 3, 2, BUDGET, 2)
    queue = waiting(one)
    assert [[row.item for row in queue.next_batch()] for _ in range(3)] == [[0], [1], [2]]


def test_a_batch_is_not_mostly_padding():
    queue = waiting(ticket(8), *(ticket(1) for _ in range(40)))
    batch = queue.next_batch()
    assert len(batch) == 8 == PADDED * BUDGET // 8, "one more would be 9 rows of 8, of which most is padding"


def test_other_kinds_run_in_batches_of_their_own_in_turns():
    ours, theirs = ticket(*[8] * 6, key="ours"), ticket(*[1] * 4, key="theirs")
    queue = waiting(ours, theirs)
    kinds = []
    while batch := queue.next_batch():
        kinds.append({row.ticket.key for row in batch})
    assert kinds == [{"ours"}, {"theirs"}, {"ours"}, {"ours"}]


def test_what_is_dropped_does_not_run():
    gone, stays = ticket(*[8] * 4), ticket(4)
    queue = waiting(gone, stays)
    assert gone in {row.ticket for row in queue.next_batch()}
    queue.drop(gone)
    queue.drop(gone)  # a second time, or after it ran, is no mistake
    assert queue.next_batch() == [] and queue.tokens == 0


def test_a_full_queue_refuses_but_an_empty_one_takes_anything():
    queue = waiting(ticket(200), most=100)
    with pytest.raises(FullError):
        queue.add(ticket(1))
    queue.next_batch()
    queue.add(ticket(1))
    queue.add(ticket(99))
    with pytest.raises(FullError):
        queue.add(ticket(1))


@pytest.mark.parametrize("seed", range(20))
def test_every_row_runs_once_in_order_and_nobody_is_passed_over(seed):
    draw = random.Random(seed)
    queue, ran, alive = Waiting(BUDGET, 10**9), {}, []
    for step in range(400):
        for _ in range(draw.choice((0, 0, 1, 3)) if step < 200 else 0):
            made = ticket(
                *(draw.choice((1, 2, 5, BUDGET, 40)) for _ in range(draw.randint(1, 6))), key=draw.choice("ab")
            )
            queue.add(made)
            alive.append(made)
            ran[made] = []
        oldest = next((one for one in alive if one.rows), None)
        before = len(oldest.rows) if oldest else 0
        batches = [queue.next_batch(), queue.next_batch()]
        for batch in batches:
            assert len({row.ticket.key for row in batch}) <= 1
            assert len(batch) <= 1 or sum(row.tokens for row in batch) <= BUDGET
            for row in batch:
                ran[row.ticket].append(row.item)
        assert oldest is None or len(oldest.rows) < before, "who came first runs in one of two batches"
    assert queue.tokens == 0 and all(items == sorted(set(items)) and items for items in ran.values())
    assert all(not one.rows and one.tokens == 0 for one in alive)
