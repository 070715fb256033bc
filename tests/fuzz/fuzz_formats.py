"""Damaged and wrapped files of every format: part of ``nox -s fuzz``.

A file is taken from the recorded ones and from our own writers, bytes of it are changed, removed, doubled or cut, or
lengths in it made absurd, mostly where its structure is. Reading it, all of it, ends in a result or in a sentence.

``wrapped`` are whole files as wrappers and training programs leave them (``tests/core/wrapped.py``): every value of the
model in them arrives, or a sentence says why there is none.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import numpy as np

from tests.core.format_cases import WRITABLE, plain, write
from tests.core.wrapped import CONFIG, HEAD, bare, draw
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.checkpoints.load_plan import plan_load
from xlmr_core.errors import XLMRError
from xlmr_core.formats import FORMATS

SHARED = Path(os.environ.get("XLMR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
RECORDED = {
    "safetensors": ("hf/Model/model.safetensors", "hf_variants/ForMaskedLM_safetensors_by_tf/model.safetensors"),
    "torch": ("hf/Model/pytorch_model.bin", "hf_variants/ForMaskedLM_bin_by_4.30/pytorch_model.bin"),
    "tf": ("hf/Model/tf_model.h5", "hf_sharded/ForMaskedLM_h5/tf_model-00001-of-00004.h5"),
    "flax": ("hf/Model/flax_model.msgpack", "hf_variants/ForMaskedLM_bf16_by_flax/flax_model.msgpack"),
    "fairseq": ("fairseq/base_cfg/model.pt", "fairseq/base_args_inproj/model.pt"),
}
ABSURD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


@functools.cache
def sources(format: str) -> list[bytes]:
    """Whole files of a format."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), format)
        own = (Path(folder) / FORMATS[format].single).read_bytes()
    recorded = [SHARED / "fixtures" / name for name in RECORDED.get(format, ())]
    return [own, *(path.read_bytes() for path in recorded if path.is_file())]


def damaged(data: bytes, seed: int) -> bytes:
    """A file with one to four faults."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(changed)
        if size < 2:
            break
        # Structure is at the start, or at the end (zip), or anywhere (HDF5).
        near = int(min(size, 4096) * rng.random())
        place = (near, size - 1 - near, int(size * rng.random()))[rng.integers(3)]
        kind = rng.integers(6)
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[place] = int(rng.integers(256))
        elif kind == 2:
            width = (1, 2, 4, 8)[rng.integers(4)]
            value = ABSURD[rng.integers(len(ABSURD))] & ((1 << 8 * width) - 1)
            changed[place : place + width] = value.to_bytes(width, ("little", "big")[rng.integers(2)])
        elif kind == 3:
            del changed[place : place + int(rng.integers(1, 64))]
        elif kind == 4:
            changed[place:place] = changed[place : place + int(rng.integers(1, 64))]
        else:
            del changed[place:]
    return bytes(changed)


def read_all(path: Path, format: str | None = None) -> None:
    """Read everything."""
    with open_checkpoint(path, format) as checkpoint:
        for name in checkpoint.names:
            raw = checkpoint.tensor(name)
            assert raw.nbytes == len(raw.data), name
            for _ in checkpoint.stream(name).pieces():
                pass


def read_damaged(format: str, seed: int, folder: Path) -> None:
    """Damage and read a file."""
    wholes = sources(format)
    path = folder / FORMATS[format].single
    path.write_bytes(damaged(wholes[seed % len(wholes)], seed))
    read_all(path, format)


def read_wrapped(seed: int, folder: Path) -> None:
    """Write and read a wrapped model."""
    file = draw(seed)
    path = file.write(folder / "x")
    try:
        with open_checkpoint(path) as checkpoint:
            plan_load(CONFIG, HEAD, checkpoint)
            found = bare(plain({name: checkpoint.tensor(name) for name in checkpoint.names}))
    except XLMRError as error:
        assert not file.expected, f"{file.how}: {error}"
        raise
    assert file.expected, file.how
    assert {name: found.get(name) for name in file.expected} == file.expected, file.how


KINDS = {
    **{f"damaged {format}": functools.partial(read_damaged, format) for format in WRITABLE},
    "wrapped": read_wrapped,
}
