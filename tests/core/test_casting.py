"""Casting between floating point dtypes on raw bytes: exact rounding, judged by whole-number arithmetic."""

from __future__ import annotations

import re
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.small_models import in_pieces
from xlmr_core.checkpoints import casting
from xlmr_core.checkpoints.casting import blocks, cast, tag_of
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import LazyTensor, RawTensor

# Bits of the exponent and of the fraction.
LAYOUTS = {"F16": (5, 10), "BF16": (8, 7), "F32": (8, 23)}


def stream(array: np.ndarray) -> LazyTensor:
    return in_pieces(array, 1000)


def bits_of(tensor: LazyTensor) -> list[int]:
    return tensor.read().bits().tolist()


def nearest(value: float, tag: str) -> int:
    """The bits of the nearest number, ties to even, from the definition."""
    exponent_bits, fraction_bits = LAYOUTS[tag]
    bias = 2 ** (exponent_bits - 1) - 1
    sign = 1 << (exponent_bits + fraction_bits) if np.signbit(value) else 0
    x = abs(Fraction(value))
    exponent = 1 - bias
    while x >= Fraction(2) ** (exponent + 1):
        exponent += 1
    units = x / Fraction(2) ** (exponent - fraction_bits)
    whole = round(units)  # of a Fraction: to nearest, ties to even
    largest = (2**exponent_bits - 1) << fraction_bits
    normal = whole >= 1 << fraction_bits
    result = (((exponent + bias) << fraction_bits) + whole - (1 << fraction_bits)) if normal else whole
    return sign | min(result, largest)


floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=64),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    # The middle between two neighbours of bfloat16, and the next numbers beside it.
    st.builds(
        lambda upper, step: np.nextafter(struct.unpack("<f", struct.pack("<I", upper << 16 | 0x8000))[0], step).item(),
        st.integers(0, 0x7F7E),
        st.sampled_from([-np.inf, np.inf]),
    ),
    st.integers(0, 0x7F7E).map(lambda upper: struct.unpack("<f", struct.pack("<I", upper << 16 | 0x8000))[0]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(floats, min_size=1, max_size=20), st.sampled_from(sorted(LAYOUTS)))
def test_float64_is_rounded_to_nearest_and_ties_to_even(values: list[float], tag: str) -> None:
    found = bits_of(cast(stream(np.array(values)), tag, allow_overflow=True))
    assert found == [nearest(value, tag) for value in values]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_float32_to_bfloat16(values: list[float]) -> None:
    found = bits_of(cast(stream(np.array(values, np.float32)), "BF16", allow_overflow=True))
    assert found == [nearest(value, "BF16") for value in values]


@pytest.mark.parametrize("wide", ["F32", "F64"])
@pytest.mark.parametrize("narrow", ["F16", "BF16"])
def test_every_half_survives_the_way_up_and_back(narrow: str, wide: str) -> None:
    every = np.arange(2**16, dtype=np.uint16)
    raw = RawTensor(narrow, every.shape, memoryview(every.tobytes()))
    there = cast(LazyTensor(narrow, raw.shape, lambda: iter([raw.data])), wide)
    back = cast(there, narrow).read().bits()
    is_nan = np.isnan(raw.to_numpy())
    assert (back[~is_nan] == every[~is_nan]).all()
    again = RawTensor(narrow, raw.shape, memoryview(back.tobytes())).to_numpy()
    assert np.isnan(again[is_nan]).all()


def test_infinities_and_nans_stay_what_they_are() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    for tag in LAYOUTS:
        found = cast(stream(values), tag).read().to_numpy()
        assert np.array_equal(found, values, equal_nan=True)
        assert np.signbit(found[4])
    # A NaN whose upper half alone would be an infinity.
    nan = np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32)
    assert np.isnan(cast(stream(nan), "BF16").read().to_numpy()).all()


@pytest.mark.parametrize(
    ("value", "tag", "dtype"),
    [(65520.0, "F16", "float16"), (-7e4, "F16", "float16"), (3.4e38, "BF16", "bfloat16"), (1e300, "F32", "float32")],
)
def test_a_value_that_would_be_infinite_is_refused_by_name(value: float, tag: str, dtype: str) -> None:
    tensor = cast(stream(np.array([1.0, value])), tag, name="a.weight")
    with pytest.raises(
        CheckpointError, match=re.escape(f"a.weight holds {value:.6g}, which is infinite in {dtype}; choose")
    ):
        tensor.read()
    allowed = cast(stream(np.array([1.0, value])), tag, allow_overflow=True).read().to_numpy()
    assert allowed.tolist() == [1.0, np.copysign(np.inf, value)]
    fits = cast(stream(np.array([65519.0 if tag == "F16" else 1.0])), tag).read()
    assert np.isfinite(fits.to_numpy()).all()


def test_the_same_dtype_is_the_same_stream() -> None:
    tensor = stream(np.ones(3, np.float32))
    assert cast(tensor, "F32") is tensor


def test_what_is_no_float_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match="^ids holds I64, and only F32, F16, BF16, F64 can be cast; leave dtype out"
    ):
        cast(stream(np.arange(3)), "F16", name="ids")
    with pytest.raises(
        CheckpointError, match="^dtype must be one of float32, float16, bfloat16, float64, received 'int8'"
    ):
        tag_of("int8")


@pytest.mark.parametrize("size", [1, 3, 7, 64, 4000])
def test_pieces_of_any_size_make_whole_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casting, "BLOCK", 10)
    values = np.arange(95, dtype=np.float32)
    found = [bytes(block) for block in blocks(in_pieces(values, size))]
    assert [len(block) for block in found] == [40] * 9 + [20]
    assert b"".join(found) == values.tobytes()
    assert (cast(in_pieces(values, size), "F64").read().to_numpy() == values).all()


def test_empty_and_scalar_tensors() -> None:
    assert cast(stream(np.empty((0, 3), np.float32)), "BF16").read().shape == (0, 3)
    assert cast(stream(np.array(1.5, np.float32)), "BF16").read().to_numpy() == 1.5
