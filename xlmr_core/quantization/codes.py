"""Four bit codes: the values they stand for, the nearest of them, two of them a byte.

``NF4`` are the quantiles of a normal distribution of Dettmers et al. 2023 (QLoRA), ``FP4`` a sign, two bits of exponent
and one of fraction, both as bitsandbytes publishes them and over a largest magnitude of 1. ``dynamic_values`` is the
map of 256 values in which bitsandbytes stores the largest magnitudes themselves (Dettmers 2015).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from xlmr_core.quantization.base import Array

__all__ = ["CODEBOOKS", "dynamic_values", "nearest_codes", "packed", "unpacked"]

_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_FP4 = (0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25)

# By name: the value of each code.
CODEBOOKS: dict[str, Array] = {
    "nf4": np.array(_NF4, np.float32),
    # Code 8 is no negative zero.
    "fp4": np.array([*_FP4, *(0.0 - value for value in _FP4)], np.float32),
}


@cache
def dynamic_values() -> Array:
    """The 256 ascending float32 values of the signed dynamic map: of each power of ten below 1 twice as many as of the
    one before it.
    """
    steps = []
    for power in range(7):
        bounds = _evenly(2**power + 1)
        steps.append(np.float32(10.0 ** (power - 6)) * ((bounds[:-1] + bounds[1:]) / np.float32(2)))
    magnitudes = np.concatenate(steps)
    values: Array = np.sort(np.concatenate([magnitudes, -magnitudes, np.array([0, 1], np.float32)]))
    values.flags.writeable = False
    return values


def _evenly(count: int) -> Array:
    """Float32 values from 0.1 to 1, each rounded once from the nearer end, as the published map has them."""
    first, last = np.float32(0.1), np.float32(1)
    step = np.float64((last - first) / np.float32(count - 1))
    numbers = np.arange(count)
    up, down = first + step * numbers, last - step * (count - 1 - numbers)
    return np.where(numbers < count // 2, up, down).astype(np.float32)


def nearest_codes(values: Array, book: Array) -> Array:
    """The uint8 code of the nearest value of a codebook in any order; of two that are as near, the lower value's.

    Args:
        values: float32, finite.
        book: float32, at most 256 values.
    """
    by_prefix, is_mixed = _by_prefix(book.tobytes())
    prefixes = (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)
    codes: Array = by_prefix[prefixes]
    mixed = is_mixed[prefixes]
    codes[mixed] = _searched(values[mixed], book)
    return codes


def _searched(values: Array, book: Array) -> Array:
    order = np.argsort(book, kind="stable")
    ascending = book[order]
    between = (ascending[1:] + ascending[:-1]) / np.float32(2)
    codes: Array = order.astype(np.uint8)[np.searchsorted(between, values, "left")]
    return codes


@cache
def _by_prefix(book: bytes) -> tuple[Array, Array]:
    """The code of the values with each upper half of their bits, and whether they have not all the same.

    Nearly all have, and a look-up is many times as fast as a search.
    """
    values = np.frombuffer(book, np.float32)
    prefixes = np.arange(1 << 16, dtype=np.uint32) << 16
    low, high = (_searched(bits.view(np.float32), values) for bits in (prefixes, prefixes | np.uint32(0xFFFF)))
    return low, low != high


def packed(codes: Array) -> Array:
    """An even number of codes along the last axis, two a byte: the first in the high half."""
    return (codes[..., ::2] << 4) | codes[..., 1::2]


def unpacked(pairs: Array) -> Array:
    """What :func:`packed` packed."""
    codes: Array = np.stack([pairs >> 4, pairs & 15], -1)
    return codes.reshape(*pairs.shape[:-1], -1)
