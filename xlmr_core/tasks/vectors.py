"""What is done with vectors, whatever they came from: length one, fewer numbers, fewer bits, similarity."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError

__all__ = ["PRECISIONS", "SIMILARITIES", "cut", "normalized", "pairwise", "quantized", "ranges_of", "similarity"]

logger = logging.getLogger("xlmr_core.tasks")

Vectors: TypeAlias = NDArray[Any]

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
# Fewer vectors say little of where the numbers of others lie.
FEW = 100
_LEAST = 1e-12


def normalized(vectors: Vectors) -> Vectors:
    """Vectors (..., D) of length one; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    divided: Vectors = vectors / np.maximum(lengths, _LEAST)
    return divided


def cut(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first numbers of vectors (..., D).

    Raises:
        InputError: for more than there are.
    """
    if dimensions is None:
        return vectors
    if dimensions > vectors.shape[-1]:
        raise InputError(
            f"expected at most {vectors.shape[-1]} dimensions, which the vectors have, received {dimensions}; pass "
            "fewer"
        )
    return vectors[..., :dimensions]


def quantized(vectors: Vectors, precision: str, ranges: Any = None) -> Vectors:
    """Vectors with fewer bits, as sentence-transformers has them.

    Args:
        vectors: (n, D), or with ranges (D,).
        precision: of ``PRECISIONS``. ``int8`` and ``uint8`` divide what lies between the least and the largest number
            of each dimension into 255 steps; ``binary`` and ``ubinary`` keep the signs, eight a byte.
        ranges: (2, D), the least and the largest numbers; by default those of ``vectors``.

    Raises:
        InputError: for ranges of another shape, or none where there is one vector.
    """
    if precision == "float32":
        return vectors
    if precision.endswith("binary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        if not len(vectors):
            return vectors.astype(precision)
        assert vectors.ndim == 2, "one vector has no ranges"
        ranges = ranges_of([vectors], precision)
    ranges = np.asarray(ranges, np.float32)
    if ranges.shape != (2, vectors.shape[-1]):
        raise InputError(
            f"ranges must be the least and the largest numbers of {vectors.shape[-1]} dimensions, (2, "
            f"{vectors.shape[-1]}), received the shape {ranges.shape}; pass both"
        )
    steps = (ranges[1] - ranges[0]) / 255
    places = (vectors - ranges[0]) / np.where(steps > 0, steps, 1)
    # Rounded down as published; what lies outside the ranges stays at their ends.
    within: Vectors = (np.clip(np.floor(places), 0, 255) + np.iinfo(precision).min).astype(precision)
    return within


def ranges_of(parts: Iterable[Vectors], precision: str) -> Vectors:
    """The least and the largest numbers (2, D) of vectors (D,) or (n, D), which are there part by part.

    Args:
        parts: one or several vectors each.
        precision: what they are for.

    Raises:
        InputError: for one vector, whose numbers would all be the least.
    """
    ranges, count = np.zeros((2, 0), np.float32), 0
    for part in parts:
        rows = np.atleast_2d(part)
        bounds = np.stack([rows.min(axis=0), rows.max(axis=0)])
        ranges = bounds if not count else np.stack([np.minimum(ranges[0], bounds[0]), np.maximum(ranges[1], bounds[1])])
        count += len(rows)
    if count == 1:
        raise InputError(
            f"{precision} divides the ranges of several vectors' numbers, received one; pass ranges, or more texts"
        )
    if 0 < count < FEW:
        logger.warning(
            "%s: the ranges of numbers come from %d vectors, too few to say much; pass ranges, or more texts",
            *(precision, count),
        )
    return ranges


def _cosine(a: Vectors, b: Vectors) -> Vectors:
    return normalized(a) @ normalized(b).swapaxes(-1, -2)


def _dot(a: Vectors, b: Vectors) -> Vectors:
    return a @ b.swapaxes(-1, -2)


def _euclidean(a: Vectors, b: Vectors) -> Vectors:
    # By the differences themselves: the usual formula loses half of the digits where two vectors are close.
    return np.stack([-np.linalg.norm(one - b, axis=-1) for one in a]) if len(a) else np.zeros((0, len(b)), a.dtype)


def _manhattan(a: Vectors, b: Vectors) -> Vectors:
    return np.stack([-np.abs(one - b).sum(axis=-1) for one in a]) if len(a) else np.zeros((0, len(b)), a.dtype)


SIMILARITIES: Mapping[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}


def _rows(vectors: Any) -> Vectors:
    array = np.asarray(vectors)
    array = array.astype(np.float32) if array.dtype.kind in "iub" or array.dtype == np.float16 else array
    return array[None] if array.ndim == 1 else array


def similarity(a: Any, b: Any, name: str = "cosine") -> Vectors:
    """Of each of ``a`` (n, D) with each of ``b`` (m, D): (n, m); more is more alike, whatever the function.

    Raises:
        InputError: for vectors of two sizes.
    """
    return SIMILARITIES[name](*_alike(a, b))


def pairwise(a: Any, b: Any, name: str = "cosine") -> Vectors:
    """Of each of ``a`` (n, D) with that of ``b`` (n, D) in the same place: (n,)."""
    first, second = _alike(a, b)
    if len(first) != len(second):
        raise InputError(f"expected as many vectors on both sides, received {len(first)} and {len(second)}")
    found = [SIMILARITIES[name](one[None], other[None])[0, 0] for one, other in zip(first, second, strict=True)]
    return np.array(found, first.dtype)


def _alike(a: Any, b: Any) -> tuple[Vectors, Vectors]:
    first, second = _rows(a), _rows(b)
    if first.shape[-1] != second.shape[-1] and len(first) and len(second):
        raise InputError(
            f"expected vectors of one size, received {first.shape[-1]} and {second.shape[-1]} dimensions; encode both "
            "with the same model and options"
        )
    return first, second
