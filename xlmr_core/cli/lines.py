"""Reading texts: from the arguments, or line by line from standard input as they come."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Line", "batches", "from_arguments", "from_stream"]

# How long an unfinished batch waits for the next line: a pipe gives full batches, a person gets an answer at once.
PATIENCE_S = 0.05


@dataclass(frozen=True)
class Line:
    """A line of input, by its 1-based number; ``text`` is None where the bytes are not UTF-8."""

    number: int
    text: str | None


def from_arguments(texts: Iterable[str]) -> Iterator[Line]:
    """The command's own arguments, as the bytes that the shell gave, whatever the locale took them for."""
    for number, text in enumerate(texts, 1):
        yield _line(number, os.fsencode(text))


def from_stream(stream: BinaryIO) -> Iterator[Line]:
    """Lines of a stream without their line ends; blank ones are left out but counted, a byte order mark is dropped."""
    for number, raw in enumerate(stream, 1):
        content = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if content.strip():
            yield _line(number, content.rstrip(b"\r\n"))


def _line(number: int, content: bytes) -> Line:
    try:
        return Line(number, content.decode("utf-8"))
    except UnicodeDecodeError:
        return Line(number, None)


def batches(lines: Iterator[Line], size: int) -> Iterator[Sequence[Line]]:
    """Groups of at most ``size`` lines; a group ends early where no line comes for a moment, and at the end."""
    arrived: queue.Queue[Line | BaseException | None] = queue.Queue(maxsize=4 * size)

    def read() -> None:
        try:
            for line in lines:
                arrived.put(line)
            arrived.put(None)
        except BaseException as error:  # handed to the thread that waits for lines
            arrived.put(error)

    threading.Thread(target=read, name="xlmr-lines", daemon=True).start()
    batch: list[Line] = []
    while True:
        try:
            line = arrived.get(timeout=PATIENCE_S if batch else None)
        except queue.Empty:
            yield batch
            batch = []
            continue
        if isinstance(line, BaseException):
            raise line
        if line is not None:
            batch.append(line)
        if batch and (line is None or len(batch) == size):
            yield batch
            batch = []
        if line is None:
            return
