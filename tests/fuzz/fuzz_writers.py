"""Several that save to one folder at once, and readers beside them: part of ``nox -s fuzz``.

The last to finish leaves its own, whole: weights, configuration and the small files. Who reads meanwhile gets one of
them.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.fuzz_kills import WAYS, Saved
from tests.fuzz.harness import Attempt
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.errors import XLMRError

MOST_WRITERS = 4
# By what they save; those of a row may meet in one folder.
MEETINGS = {
    "shards": ("shards over shards",),
    "singles": ("single over single",),
    "shards and singles": ("shards over shards", "single over single"),
    "tokenizers, fast": ("tokenizer, fast",),
    "tokenizers, slow": ("tokenizer, slow",),
    "configurations": ("configuration",),
}


def apart(work: Callable[[], object]) -> int:
    """Do it in a forked child; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(1)


def succeeded(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def attempt(seed: int, folder: Path, ways: tuple[Saved, ...]) -> None:
    where = folder / "model"
    ways[0].save(where, 1)
    numbers = [(random.choice(ways), random.choice((1, 2))) for _ in range(random.randint(2, MOST_WRITERS))]
    start, go = os.pipe()

    def save(way: Saved, number: int) -> None:
        os.close(go)
        os.read(start, 1)
        time.sleep(random.random() * 0.01)
        way.save(where, number)

    writers = [apart(lambda way=way, number=number: save(way, number)) for way, number in numbers]
    os.close(start)
    os.close(go)
    failed = [child for child in writers if not succeeded(child)]
    assert not failed, f"of {len(writers)} writers {len(failed)} failed"
    try:
        assert ways[0].read(where) in (1, 2)
    except XLMRError as error:
        raise AssertionError(f"what is left cannot be read: {error}") from error
    left = [path.name for path in where.iterdir() if path.name.startswith(".")]
    assert not left, f"left over: {left}"


def attempt_reading(seed: int, folder: Path, ways: tuple[Saved, ...]) -> None:
    """Weights only: a reader that opens one file after the other may see two saves."""
    where = folder / "model"
    ways[0].save(where, 1)
    writer = apart(lambda: [ways[number % len(ways)].save(where, number % 2 + 1) for number in range(8)])
    writing = True
    while writing:
        try:
            with open_checkpoint(where) as checkpoint:
                found = {float(value) for name in checkpoint.names for value in checkpoint.tensor(name).to_numpy().flat}
            assert len(found) == 1, f"the values of {sorted(found)} are mixed"
        except XLMRError as error:
            raise AssertionError(f"a reader beside a writer: {error}") from error
        finally:
            writing = os.waitpid(writer, os.WNOHANG)[0] == 0


def kind(attempt: Callable[[int, Path, tuple[Saved, ...]], None], names: tuple[str, ...]) -> Attempt:
    return lambda seed, folder: attempt(seed, folder, tuple(WAYS[name] for name in names))


KINDS = {
    **{f"at once: {name}": kind(attempt, names) for name, names in MEETINGS.items()},
    **{f"read beside: {name}": kind(attempt_reading, MEETINGS[name]) for name in list(MEETINGS)[:3]},
}
