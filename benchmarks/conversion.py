"""How fast does a checkpoint go from each format to each other, and how much memory does that hold?

A synthetic XLM-RoBERTa-XL of 4 GB: its true vocabulary and width, four of its 36 layers, random values. A case is a
format to read; each turn converts it, in a fresh process, to one format. "copying" is what the system takes to copy the
safetensors file and to bring the copy to the disk, which a conversion does too. What is read is in the system's cache
for everybody. Memory is the most that was resident, the interpreter with NumPy included; "mib" is the size of what was
written.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from benchmarks.children import Child
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import once

WRITABLE = ("safetensors", "torch", "tf", "flax", "fairseq", "keras")
SIZES = {"num_hidden_layers": 4, "type_vocab_size": 1}
TINY = {**SIZES, "vocab_size": 2000, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}

CONVERT = """
from xlmr_core.conversion import convert
convert({source!r}, {target!r}, {format!r}, max_shard_size="100GB")
from benchmarks import children
children.answer()
"""
COPY = """
import os, shutil
shutil.copyfile({source!r}, {target!r})
with open({target!r}, "rb") as file:
    os.fsync(file.fileno())
from benchmarks import children
children.answer()
"""


def cases(options: Options) -> Iterator[Case]:
    for source in WRITABLE:
        yield Case(
            f"from {source}",
            {
                "copying": functools.partial(Copied, options),
                **{f"to {to}": functools.partial(Converted, options, source, to) for to in WRITABLE},
            },
            ("copying",),
            rounds=min(options.rounds, 3),
            warmup=min(options.warmup, 1),
        )


class Copied:
    """A job that copies the file of the safetensors checkpoint."""

    def __init__(self, options: Options) -> None:
        self._target = options.work / "copied"
        self._source = checkpoint(options, "safetensors")
        source = self._source / "model.safetensors"
        self._child = Child(COPY.format(source=str(source), target=str(self._target)))

    def __call__(self) -> Numbers:
        read(self._source)
        try:
            return {**self._child(), "mib": self._target.stat().st_size / 2**20}
        finally:
            self._target.unlink(missing_ok=True)


class Converted:
    """A job that converts the checkpoint from a format to another, and takes away what it wrote."""

    def __init__(self, options: Options, source: str, to: str) -> None:
        self._target = options.work / "converted"
        self._source = checkpoint(options, source)
        self._child = Child(CONVERT.format(source=str(self._source), target=str(self._target), format=to))

    def __call__(self) -> Numbers:
        read(self._source)
        try:
            found = self._child()
            size = sum(path.stat().st_size for path in self._target.iterdir())
            return {**found, "mib": size / 2**20}
        finally:
            shutil.rmtree(self._target, ignore_errors=True)


def read(folder: Path) -> None:
    """Bring the files of a folder into the system's cache."""
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def checkpoint(options: Options, format: str) -> Path:
    """The checkpoint in a format, made if it is not there."""
    folder = options.work / ("tiny" if options.tiny else "xl") / "conversion"
    first = once(folder / "safetensors", functools.partial(_make, tiny=options.tiny))
    if format == "safetensors":
        return first
    return once(folder / format, functools.partial(_convert, first, format))


def _convert(source: Path, format: str, folder: Path) -> None:
    from xlmr_core.conversion import convert

    convert(source, folder, format, max_shard_size="100GB")


def _make(folder: Path, tiny: bool) -> None:
    """Random values, one parameter in memory at a time, without a framework."""
    import numpy as np

    from xlmr_core.checkpoints.saving import save_checkpoint
    from xlmr_core.config import XLMRobertaXLConfig
    from xlmr_core.formats.tensors import RawTensor
    from xlmr_core.parameters import parameters

    config = XLMRobertaXLConfig(**(TINY if tiny else SIZES), architectures=["XLMRobertaXLForMaskedLM"])
    rows = parameters(config, "ForMaskedLM")

    def drawn(name: str) -> RawTensor:
        random = np.random.default_rng(list(name.encode()))
        values = random.random(rows[name].shape, np.float32)
        values -= 0.5
        # fairseq has no token types, so their row is zero as in published models.
        values *= 0.0 if "token_type" in name else config.initializer_range
        return RawTensor.from_numpy(values)

    stored = {name: functools.partial(drawn, name) for name, row in rows.items() if row.tied_to is None}
    together = {"config.json": config.to_json_string().encode()}
    save_checkpoint(folder, "safetensors", stored, config, "ForMaskedLM", max_shard_size="100GB", together=together)


if __name__ == "__main__":
    harness.main("conversion", __doc__, cases)
