"""Memory of a process that serves."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["take_one_heap"]

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's mallopt


def take_one_heap() -> None:
    """Let all threads of this process take their memory from one heap; to be called before there are any.

    glibc gives a thread a heap of its own, in pieces of 64 MB. The arrays of batches, each of another size and some of
    them larger, leave gaps there that grow for hours, and the system gives and takes back their pages at every batch.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # which other C libraries lack
        if mallopt is not None:
            mallopt(_ARENA_MAX, 1)
