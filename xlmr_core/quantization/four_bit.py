"""``int4``, ``nf4`` and ``fp4``: four bits a value, and of each group of neighbours in a row a float16 scale.

=======  ==========================================================  ================================================
scheme   beside the codes, for each group                            a value
=======  ==========================================================  ================================================
nf4      ``weight_scale`` float16                                    the code's in the codebook, times the scale
fp4      the same                                                    the same
int4     ``weight_scale`` float16: a step; ``weight_middle`` int8:   ``(code - 8 + middle / 16) * scale``
         where the middle of the range lies, in sixteenths of it
=======  ==========================================================  ================================================

Two codes lie in a byte, the first in its high half. Scales are searched: values get their nearest codes, a scale, and
of int4 a middle, follow from these as their least squares, and codes from that again. int4 begins with the range of a
group, which has zero in it, and does so three times; nf4 and fp4 begin with the largest magnitude and with 0.9 of it,
nf4 also with the negative of both, because its codebook is not the same on both sides of zero. Of all tries what errs
least is stored. Every row is stored by itself, so that a token is looked up without the rest of the table.

The table of words, and the projection to the vocabulary, are int4 in every scheme of these. All rows of a table are
large in the same few columns, and where two of these share a scale the far codes of nf4 and fp4, which lie wide apart,
round one of them alike for every word: hidden states are then off by twice as much.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xlmr_core.errors import ConfigError
from xlmr_core.parameters import Parameter
from xlmr_core.quantization.base import Array, Parts, Scheme, Stored
from xlmr_core.quantization.codes import CODEBOOKS, nearest_codes, packed, unpacked
from xlmr_core.quantization.int8 import SCALE
from xlmr_core.quantization.own import OwnScheme

__all__ = ["FP4", "INT4", "MIDDLE", "NF4", "FourBit", "Fp4", "Int4", "Nf4"]

MIDDLE = "_middle"  # suffix
_LARGEST_SCALE = np.float32(np.finfo(np.float16).max)
_STEPS = np.arange(16, dtype=np.float32) - np.float32(8)
# How many times int4 fits a scale.
_FITS = 3


@dataclass(frozen=True)
class FourBit(OwnScheme):
    """A scheme of four bits.

    Attributes:
        group_size: how many neighbours in a row share a scale; an even number.
    """

    group_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.group_size) is not int or self.group_size < 2 or self.group_size % 2:
            raise ConfigError(f"group_size must be an even number of at least 2, received {self.group_size!r}")

    def stored(self, row: Parameter) -> tuple[Stored, ...]:
        count, width = row.shape
        if width % self.group_size:
            raise ConfigError(
                f"{self.name} in groups of {self.group_size} needs weights whose rows are a multiple of "
                f"{self.group_size} long, received {row.name} of shape {row.shape}; choose a group_size that divides "
                f"{width}, or skip it"
            )
        dims = (row.dims[0], f"{row.dims[1]} in groups of {self.group_size}")
        groups = (count, width // self.group_size)
        return (
            Stored("", "U8", (count, width // 2), (row.dims[0], f"{row.dims[1]} in pairs")),
            *(Stored(suffix, dtype, groups, dims) for suffix, dtype in self._beside()),
        )

    def encode(self, weight: Array) -> dict[str, Array]:
        """A weight of any floating point dtype; bfloat16, which NumPy has not, as float32."""
        count, width = weight.shape
        groups = weight.astype(np.float32).reshape(count, width // self.group_size, self.group_size)
        with np.errstate(all="ignore"):  # of values that no float16 reaches, and of nothing but zeros
            codes, *beside = _least(self._tries(groups))
        suffixes = (suffix for suffix, _ in self._beside())
        return {"": packed(codes.reshape(count, width)), **dict(zip(suffixes, beside, strict=True))}

    def decode(self, parts: Parts, shape: tuple[int, ...]) -> Array:
        codes = unpacked(parts[""]).reshape(shape[0], -1, self.group_size)
        return self._values(codes, parts).reshape(shape)

    @property
    @abstractmethod
    def book(self) -> Array:
        """What each code stands for, before a middle is added and it is scaled: float32 (16,)."""

    @abstractmethod
    def _beside(self) -> tuple[tuple[str, str], ...]:
        """Suffix and dtype of what each group has beside its codes."""

    @abstractmethod
    def _tries(self, groups: Array) -> Iterator[tuple[Array, ...]]:
        """Ways to store groups (N, groups, values): their squared errors (N, groups), their codes, and what lies beside
        these (N, groups), in the order of :meth:`_beside`.
        """

    @abstractmethod
    def _values(self, codes: Array, parts: Parts) -> Array:
        """What the codes stand for."""


@dataclass(frozen=True)
class _ByCodebook(FourBit):
    # Of the value of the largest magnitude of a group, as a scale to begin with.
    shares: ClassVar[tuple[float, ...]] = (1.0, 0.9)

    def for_weight(self, row: Parameter) -> Scheme:
        is_table = (row.tied_to or row.name).endswith(("word_embeddings.weight", "lm_head.decoder.weight"))
        return Int4(self.skip, min(self.group_size, Int4.group_size)) if is_table else self

    @property
    def book(self) -> Array:
        return CODEBOOKS[self.name]

    def _beside(self) -> tuple[tuple[str, str], ...]:
        return ((SCALE, "F16"),)

    def _tries(self, groups: Array) -> Iterator[tuple[Array, ...]]:
        book, low, high = self.book, groups.min(-1), groups.max(-1)
        extreme = np.where(high < -low, low, high)
        for share in self.shares:
            values = book[nearest_codes(groups / _divisor(_as_scale(extreme * np.float32(share))), book)]
            fitted = (groups * values).sum(-1) / (values * values).sum(-1)
            scale = _as_scale(np.where(np.isfinite(fitted), fitted, extreme))
            codes = nearest_codes(groups / _divisor(scale), book)
            error = np.square(book[codes] * scale.astype(np.float32)[..., None] - groups).sum(-1)
            yield error, codes, scale

    def _values(self, codes: Array, parts: Parts) -> Array:
        values: Array = self.book[codes] * parts[SCALE].astype(np.float32)[..., None]
        return values


@dataclass(frozen=True)
class Nf4(_ByCodebook):
    """See the module."""

    name: ClassVar[str] = "nf4"
    shares: ClassVar[tuple[float, ...]] = (1.0, 0.9, -1.0, -0.9)


@dataclass(frozen=True)
class Fp4(_ByCodebook):
    """See the module."""

    name: ClassVar[str] = "fp4"


@dataclass(frozen=True)
class Int4(FourBit):
    """See the module."""

    name: ClassVar[str] = "int4"

    @property
    def book(self) -> Array:
        return _STEPS

    def _beside(self) -> tuple[tuple[str, str], ...]:
        return (SCALE, "F16"), (MIDDLE, "I8")

    def _tries(self, groups: Array) -> Iterator[tuple[Array, ...]]:
        low, high = np.minimum(groups.min(-1), np.float32(0)), np.maximum(groups.max(-1), np.float32(0))
        step, lowest = (high - low) / np.float32(15), low
        for _ in range(1 + _FITS):
            scale = _as_scale(step)
            divisor = _divisor(scale)
            middle = np.rint((lowest / divisor[..., 0] + np.float32(8)) * np.float32(16))
            middle = np.clip(middle, -127, 127).astype(np.int8)
            shift = middle.astype(np.float32)[..., None] / np.float32(16)
            steps = np.clip(np.rint(groups / divisor - shift), -8, 7)
            error = np.square((steps + shift) * scale.astype(np.float32)[..., None] - groups).sum(-1)
            yield error, (steps + np.float32(8)).astype(np.uint8), scale, middle
            mean = steps.mean(-1)
            centred = steps - mean[..., None]
            fitted = (groups * centred).sum(-1) / np.square(centred).sum(-1)
            step = np.where(np.isfinite(fitted) & (fitted > 0), fitted, step)
            lowest = groups.mean(-1) - step * (mean + np.float32(8))

    def _values(self, codes: Array, parts: Parts) -> Array:
        steps = self.book[codes] + parts[MIDDLE].astype(np.float32)[..., None] / np.float32(16)
        values: Array = steps * parts[SCALE].astype(np.float32)[..., None]
        return values


def _least(tries: Iterator[tuple[Array, ...]]) -> list[Array]:
    """Of each group the try that errs least, of several the first; without the errors."""
    error, *found = next(tries)
    for other, *others in tries:
        is_less = other < error
        for mine, new in zip((error, *found), (other, *others), strict=True):
            mine[is_less] = new[is_less]
    return found


def _as_scale(values: Array) -> Array:
    return np.clip(values, -_LARGEST_SCALE, _LARGEST_SCALE).astype(np.float16)


def _divisor(scale: Array) -> Array:
    """The float32 scale (N, groups, 1) to divide by; 1 where all values are zero."""
    wide = scale.astype(np.float32)[..., None]
    return np.where(wide == 0, np.float32(1), wide)


INT4, NF4, FP4 = Int4(), Nf4(), Fp4()
