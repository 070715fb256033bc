"""Throw damaged and wrapped files of every format at their readers for a while: ``nox -s fuzz``, or ``-- --minutes 10
--seed 1``.

A file is taken from the recorded ones and from our own writers, bytes of it are changed, removed, doubled or cut, or
lengths in it made absurd, mostly where its structure is. Reading it, all of it, must end within seconds in a result or
in a ``CheckpointError``, and take little memory. Each format is read in a process of its own, which may die: then the
seed of the file is printed.

``wrapped`` are whole files as wrappers and training programs leave them (``tests/core/wrapped.py``): every value of the
model in them arrives, or a sentence says why there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
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
MOST_SECONDS, MOST_BYTES = 20.0, 3 << 30
WRAPPED = "wrapped"
KINDS = (*WRITABLE, WRAPPED)


def sources(format: str, folder: Path) -> list[bytes]:
    """Whole files of a format."""
    write(folder / format, format)
    own = (folder / format / FORMATS[format].single).read_bytes()
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


def read_all(path: Path, format: str) -> bool:
    """Read everything; whether that was possible."""
    try:
        with open_checkpoint(path, format) as checkpoint:
            for name in checkpoint.names:
                raw = checkpoint.tensor(name)
                assert raw.nbytes == len(raw.data), name
                for _ in checkpoint.stream(name).pieces():
                    pass
    except XLMRError:
        return False
    return True


def read_wrapped(path: Path, seed: int) -> bool:
    """Write and read a wrapped model; whether there was one to read."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    file = draw(seed)
    path = file.write(path)
    try:
        with open_checkpoint(path) as checkpoint:
            plan_load(CONFIG, HEAD, checkpoint)
            found = bare(plain({name: checkpoint.tensor(name) for name in checkpoint.names}))
    except XLMRError as error:
        assert not file.expected, f"{file.how}: {error}"
        return False
    assert file.expected, file.how
    assert {name: found.get(name) for name in file.expected} == file.expected, file.how
    return True


def run(format: str, seed: int, seconds: float) -> dict[str, float]:
    """Read damaged files of one format until the time is over."""
    warnings.simplefilter("ignore")
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, limit[1]))
    end, counts, slowest = time.monotonic() + seconds, {True: 0, False: 0}, 0.0
    with tempfile.TemporaryDirectory(prefix="xlmr-fuzz-") as name:
        wholes = [] if format == WRAPPED else sources(format, Path(name))
        path = Path(name) / ("x" if format == WRAPPED else FORMATS[format].single)
        while time.monotonic() < end:
            if wholes:
                path.write_bytes(damaged(wholes[seed % len(wholes)], seed))
            print(seed, flush=True, file=sys.stderr)
            started = time.monotonic()
            counts[read_all(path, format) if wholes else read_wrapped(path, seed)] += 1
            slowest = max(slowest, time.monotonic() - started)
            assert slowest < MOST_SECONDS, f"{format}, seed {seed}: took {slowest:.1f} s"
            seed += 1
    return {"read": counts[True], "refused": counts[False], "slowest_ms": round(slowest * 1e3, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="for all formats together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first file (default: %(default)s)")
    parser.add_argument("--format", choices=KINDS, help="only this one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    formats = (arguments.format,) if arguments.format else KINDS
    seconds = arguments.minutes * 60 / len(formats)
    if arguments.child:
        print(json.dumps(run(arguments.format, arguments.seed, seconds)))
        return 0
    failed = 0
    for format in formats:
        command = [sys.executable, __file__, "--child", "--format", format, "--seed", str(arguments.seed)]
        command += ["--minutes", str(seconds / 60)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
        except subprocess.TimeoutExpired as error:
            failed += 1
            print(f"{format}: does not come back; last lines: {str(error.stderr)[-200:]}")
            continue
        if done.returncode == 0:
            print(f"{format:12} {done.stdout.strip()}")
        else:
            failed += 1
            print(
                f"{format}: died with {done.returncode}; last lines, of which numbers are seeds:\n{done.stderr[-1500:]}"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
