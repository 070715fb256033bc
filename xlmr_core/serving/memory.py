"""Memory that is free goes back to the system, as arrays of other sizes rarely fit where the last ones lay.

The C library keeps what was freed, in an area for each thread, and batches of ever other sizes make holes in it: a
server grew by a gigabyte in ten minutes.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["FreeMemory"]

SECONDS = 5.0  # between two times; each takes some milliseconds


class FreeMemory:
    """Gives back what is free, at most every few seconds; where the C library has no such call, does nothing."""

    def __init__(self) -> None:
        self._trim: Callable[[int], int] | None = None
        with suppress(AttributeError, OSError, TypeError):
            self._trim = ctypes.CDLL(None).malloc_trim  # of glibc
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time."""
        return self._trim is not None and time.monotonic() - self._last >= SECONDS

    def give_back(self) -> None:
        """Give it back now."""
        if self._trim is not None:
            self._trim(0)
        self._last = time.monotonic()
