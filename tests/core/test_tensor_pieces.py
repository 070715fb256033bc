"""Tensors on their way into a framework: piece by piece, into memory that it takes over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmr_core.checkpoints.found import open_checkpoint
from xlmr_core.checkpoints.saving import save_tensors
from xlmr_core.formats import tensors
from xlmr_core.formats.tensors import RawTensor, aligned_empty

SHAPES = [(), (1,), (0,), (0, 3), (3, 0), (5,), (7, 3), (2, 3, 4)]


@pytest.mark.parametrize("mapped", [False, True], ids=["in memory", "mapped"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pieces_make_the_whole(
    shape: tuple[int, ...], mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "PIECE", 26)  # two rows of three float32 and not quite three
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    raw = RawTensor.from_numpy(values)
    if mapped:
        save_tensors(tmp_path, {"before": RawTensor.from_numpy(np.ones(3000, np.float32)), "x": raw}, together={})
        raw = open_checkpoint(tmp_path).tensor("x")
    found = aligned_empty(shape, np.float32)
    found[...] = np.nan
    sizes = []
    for rows, piece in raw.pieces():
        found[rows] = piece.to_numpy()
        sizes.append(piece.nbytes)
    np.testing.assert_array_equal(found, values)
    assert sum(sizes) == values.nbytes and max(sizes) <= max(26, values[:1].nbytes if shape else 4)
    np.testing.assert_array_equal(raw.to_numpy(), values)  # pages that were let go are read again


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) == 2], ids=str)
def test_a_copy_by_pieces(shape: tuple[int, ...], transposed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "PIECE", 26)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    raw = RawTensor.from_numpy(values)
    expected = (values.T if transposed else values).astype(np.float16)
    found = raw.to_aligned(np.float16, transposed=transposed)
    assert found.dtype == np.float16 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    halved = raw.to_aligned(np.float16, transposed=transposed, decode=lambda piece: piece.to_numpy() / 2)
    np.testing.assert_array_equal(halved, expected / 2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_aligned(shape: tuple[int, ...], dtype: str) -> None:
    array = aligned_empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype and array.flags.writeable and array.flags.c_contiguous
    assert array.size == 0 or array.ctypes.data % tensors.ALIGNMENT == 0
