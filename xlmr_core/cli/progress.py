"""Progress on standard error: how much is done, how fast, and how long it will still take."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import TextIO

from xlmr_core.cli.words import nbytes_text

__all__ = ["ProgressLine"]


class ProgressLine:
    """A line that is written over again on a terminal; elsewhere a line now and then. Use it in a ``with`` statement.

    Args:
        wanted: ``None`` shows it on a terminal only.
        stream: where to; standard error by default.
    """

    def __init__(self, wanted: bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream is not None and self._stream.isatty()
        self._wanted = self._terminal if wanted is None else wanted and self._stream is not None
        self._every = 0.2 if self._terminal else 5.0
        self._what = ""
        self._start = self._last = 0.0
        self._width = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Tell it how much is done."""
        now = time.monotonic()
        if what != self._what:
            self._finish()
            self._what, self._start, self._last = what, now, -math.inf
        if not self._wanted or (now - self._last < self._every and done < total):
            return
        self._last = now
        self._show(text_of(what, done, total, now - self._start))

    def _show(self, text: str) -> None:
        if self._terminal:
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _finish(self) -> None:
        if self._terminal and self._width:
            self._stream.write("\n")
            self._stream.flush()
        self._width = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()


def text_of(what: str, done: int, total: int, seconds: float) -> str:
    """``converting  1.2 of 4.0 GB, 30 %, 812 MB/s, 0:03 left``"""
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {_clock((total - done) / rate)} left" if rate and done < total else ""
    percent = 100 * done // total if total else 100
    speed = f", {nbytes_text(rate)}/s" if rate else ""
    return f"{what}  {nbytes_text(done)} of {nbytes_text(total)}, {percent} %{speed}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
