"""``int4``, ``nf4`` and ``fp4``: four bits a value, and of each group of neighbours in a row a float16 scale.

=======  ==========================================================  ================================================
scheme   beside the codes, for each group                            a value
=======  ==========================================================  ================================================
nf4      ``weight_scale`` float16                                    the code's in the codebook, times the scale
fp4      the same                                                    the same
int4     ``weight_scale`` float16: a step; ``weight_middle`` int8:   ``(code - 8 + middle / 16) * scale``
         where the middle of the range lies, in sixteenths of it
=======  ==========================================================  ================================================

Two codes lie in a byte, the first in its high half. A range of int4 has zero in it. A scale of nf4 and fp4 is searched:
from the largest magnitude and from 0.9 of it values get their nearest codes, a scale follows from these as their least
squares, and codes from that; of both, what errs less is stored. Every row is stored by itself, so
that a token is looked up without the rest of the table.

The table of words, and the projection to the vocabulary, are int4 in every scheme of these. All rows of a table are
large in the same few columns, and where two of these share a scale the far codes of nf4 and fp4, which lie wide apart,
round one of them alike for every word: hidden states are then off by twice as much.
"""

from __future__ import annotations

from abc import abstractmethod
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
# Of the largest magnitude of a group, as a scale to begin with.
_SHARES = np.float32(1), np.float32(0.9)


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
        codes, beside = self._codes(groups)
        return {"": packed(codes.reshape(count, width)), **beside}

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
    def _codes(self, groups: Array) -> tuple[Array, dict[str, Array]]:
        """The codes of groups (N, groups, values), and what lies beside them (N, groups)."""

    @abstractmethod
    def _values(self, codes: Array, parts: Parts) -> Array:
        """What the codes stand for."""


@dataclass(frozen=True)
class _ByCodebook(FourBit):
    def for_weight(self, row: Parameter) -> Scheme:
        is_table = (row.tied_to or row.name).endswith(("word_embeddings.weight", "lm_head.decoder.weight"))
        return Int4(self.skip, min(self.group_size, Int4.group_size)) if is_table else self

    @property
    def book(self) -> Array:
        return CODEBOOKS[self.name]

    def _beside(self) -> tuple[tuple[str, str], ...]:
        return ((SCALE, "F16"),)

    def _codes(self, groups: Array) -> tuple[Array, dict[str, Array]]:
        book, largest = self.book, np.abs(groups).max(-1)
        found: list[tuple[Array, Array, Array]] = []
        for share in _SHARES:
            codes = nearest_codes(groups / _divisor(_as_scale(largest * share)), book)
            values = book[codes]
            with np.errstate(all="ignore"):  # of values that no float16 reaches, and of nothing but zeros
                fitted = (groups * values).sum(-1) / (values * values).sum(-1)
            scale = _as_scale(np.where(np.isfinite(fitted), fitted, largest))
            codes = nearest_codes(groups / _divisor(scale), book)
            with np.errstate(over="ignore"):
                error = np.square(book[codes] * scale.astype(np.float32)[..., None] - groups).sum(-1)
            found.append((error, scale, codes))
        (least, scale, codes), (error, other, others) = found
        is_less = error < least
        scale[is_less], codes[is_less] = other[is_less], others[is_less]
        return codes, {SCALE: scale}

    def _values(self, codes: Array, parts: Parts) -> Array:
        values: Array = self.book[codes] * parts[SCALE].astype(np.float32)[..., None]
        return values


@dataclass(frozen=True)
class Nf4(_ByCodebook):
    """See the module."""

    name: ClassVar[str] = "nf4"


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

    def _codes(self, groups: Array) -> tuple[Array, dict[str, Array]]:
        low, high = np.minimum(groups.min(-1), np.float32(0)), np.maximum(groups.max(-1), np.float32(0))
        scale = np.minimum((high - low) / np.float32(15), _LARGEST_SCALE).astype(np.float16)
        divisor = _divisor(scale)
        sixteenths = np.rint((low / divisor[..., 0] + np.float32(8)) * np.float32(16))
        middle = np.clip(sixteenths, -127, 127).astype(np.int8)
        codes = np.rint(groups / divisor - middle.astype(np.float32)[..., None] / np.float32(16)) + np.float32(8)
        return np.clip(codes, 0, 15).astype(np.uint8), {SCALE: scale, MIDDLE: middle}

    def _values(self, codes: Array, parts: Parts) -> Array:
        steps = self.book[codes] + parts[MIDDLE].astype(np.float32)[..., None] / np.float32(16)
        values: Array = steps * parts[SCALE].astype(np.float32)[..., None]
        return values


def _as_scale(values: Array) -> Array:
    return np.minimum(values, _LARGEST_SCALE).astype(np.float16)


def _divisor(scale: Array) -> Array:
    """The float32 scale (N, groups, 1) to divide by; 1 where all values are zero."""
    wide = scale.astype(np.float32)[..., None]
    return np.where(wide == 0, np.float32(1), wide)


INT4, NF4, FP4 = Int4(), Nf4(), Fp4()
