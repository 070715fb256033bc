"""How many rows of a weight are in the works at a time, in every backend: while it is quantized or widened."""

from __future__ import annotations

__all__ = ["rows_at_once", "spans"]

# Values of a weight in the works at a time, unless it is widened for a product.
PIECE = 1 << 21

# Bytes of a weight in float32 that is widened as a whole, and of a block of one that is not.
WHOLE, BLOCK = 64 << 20, 32 << 20


def rows_at_once(width: int, alignment: int = 1) -> int:
    """How many rows of this width are in the works at a time, unless they are widened for a product.

    It is a multiple of ``alignment``.
    """
    return max(1, PIECE // width // alignment) * alignment


def spans(count: int, width: int, alignment: int = 1) -> list[tuple[int, int]]:
    """The rows of a weight (count, width) that are widened for a product at a time: all, or blocks of them.

    The first row of a block is a multiple of ``alignment``.
    """
    nbytes = 4 * width
    if nbytes * count <= WHOLE:
        return [(0, count)]
    step = max(1, BLOCK // nbytes // alignment) * alignment
    return [(begin, min(begin + step, count)) for begin in range(0, count, step)]
