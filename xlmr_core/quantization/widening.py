"""How much of a weight is widened at a time, in every backend."""

from __future__ import annotations

__all__ = ["spans"]

# Bytes of a weight in float32 that is widened as a whole, and of a block of one that is not.
WHOLE, BLOCK = 64 << 20, 32 << 20


def spans(count: int, width: int, alignment: int = 1) -> list[tuple[int, int]]:
    """The rows of a weight (count, width) that are widened at a time: all, or blocks of them.

    The first row of a block is a multiple of ``alignment``.
    """
    nbytes = 4 * width
    if nbytes * count <= WHOLE:
        return [(0, count)]
    step = max(1, BLOCK // nbytes // alignment) * alignment
    return [(begin, min(begin + step, count)) for begin in range(0, count, step)]
