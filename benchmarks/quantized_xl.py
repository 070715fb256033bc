"""How much memory do the largest models take on a small machine?

A synthetic XLM-RoBERTa-XL of its true size: 3.5 billion random values in float16, in files of 2 GB. A first case
quantizes it as ``xlmr quantize`` does, a second loads what that wrote and fills a mask; each turn in a fresh process.
A third quantizes four of its layers from each other format, in float32, in one file or in several.
Memory is the most that was resident, the interpreter and the framework included; "mib" is the size of what was written.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks import conversion, harness
from benchmarks.children import Child
from benchmarks.conversion import read
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import MINI_VOCABULARY, PIECES, once, with_pairs
from benchmarks.targets import XL_ANSWERS, XL_QUANTIZED

OURS = ("int8", "int4", "nf4")
TINY = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
SHARD, ONE_FILE = "2GB", "100GB"

QUANTIZE = """
from xlmr_core.conversion import convert
convert({source!r}, {target!r}, "safetensors", scheme={scheme!r}, max_shard_size={shard!r})
from benchmarks import children
children.answer()
"""
FILL = """
from xlmr_torch import pipeline
found = pipeline("fill-mask", model={folder!r})("Plants create <mask> through a process known as photosynthesis.")
from benchmarks import children
children.answer(len(found))
"""


def cases(options: Options) -> Iterator[Case]:
    few = {"rounds": min(options.rounds, 3), "warmup": 0}  # minutes a turn
    yield Case(
        XL_QUANTIZED,
        {scheme: functools.partial(Quantized, options, scheme) for scheme in (*OURS, "bitsandbytes-nf4")},
        (),
        **few,
    )
    yield Case(XL_ANSWERS, {scheme: functools.partial(Answered, options, scheme) for scheme in OURS}, (), **few)
    yield Case(
        "four layers of XL are quantized",
        {
            f"from {format}, {how}": functools.partial(Quantized, options, "int4", format, size)
            for format in ("torch", "tf", "flax")
            for how, size in (("one file", ONE_FILE), ("several", SHARD))
        },
        (),
        **few,
    )


class Quantized:
    """A job that quantizes the checkpoint, and leaves what it wrote for the other case.

    Args:
        options: of the benchmark.
        scheme: by name.
        format: of the checkpoint of four layers that is read in place of the whole one.
        size: of the largest file of that.
    """

    def __init__(self, options: Options, scheme: str, format: str = "", size: str = "") -> None:
        self._source = four_layers(options, format, size) if format else checkpoint(options)
        self._target = place(options, f"{scheme} from {format}" if format else scheme)
        names = {"source": str(self._source), "target": str(self._target), "scheme": scheme, "shard": SHARD}
        self._child = Child(QUANTIZE.format(**names))

    def __call__(self) -> Numbers:
        shutil.rmtree(self._target, ignore_errors=True)
        read(self._source)
        found = self._child()
        return {**found, "mib": sum(path.stat().st_size for path in self._target.glob("*.safetensors")) / 2**20}


class Answered:
    """A job that loads the quantized checkpoint and fills a mask."""

    def __init__(self, options: Options, scheme: str) -> None:
        folder = place(options, scheme)
        if not (folder / "config.json").is_file():
            Quantized(options, scheme)()
        self._folder, self._child = folder, Child(FILL.format(folder=str(folder)))

    def __call__(self) -> Numbers:
        read(self._folder)
        return self._child()


def place(options: Options, name: str) -> Path:
    """Where a checkpoint of this name is kept."""
    return options.work / ("tiny" if options.tiny else "xl") / "quantized" / name


def checkpoint(options: Options) -> Path:
    """The checkpoint as it is, made if it is not there."""
    return once(place(options, "float16"), functools.partial(_make, tiny=options.tiny))


def four_layers(options: Options, format: str, size: str) -> Path:
    """Four layers of it in another format, in files of a size at most, made if they are not there."""
    if size == ONE_FILE:
        return conversion.checkpoint(options, format)
    source = conversion.checkpoint(options, "safetensors")
    return once(place(options, f"{format} in {size}"), functools.partial(_shard, source, format, size))


def _shard(source: Path, format: str, size: str, folder: Path) -> None:
    from xlmr_core.conversion import convert

    convert(source, folder, format, max_shard_size=size)


def _make(folder: Path, tiny: bool) -> None:
    """Random values, one parameter in memory at a time, without a framework."""
    import numpy as np

    from xlmr_core.checkpoints.saving import save_checkpoint
    from xlmr_core.config import XLMRobertaXLConfig
    from xlmr_core.formats.tensors import RawTensor
    from xlmr_core.parameters import parameters
    from xlmr_core.tokenization import XLMRobertaTokenizerFast

    folder.mkdir()
    vocabulary, small = folder / "sentencepiece.bpe.model", MINI_VOCABULARY.read_bytes()
    vocabulary.write_bytes(small if tiny else with_pairs(small, PIECES))
    XLMRobertaTokenizerFast(vocabulary).save_pretrained(folder)
    sizes = {**TINY, "vocab_size": 32000} if tiny else {}
    config = XLMRobertaXLConfig(**sizes, architectures=["XLMRobertaXLForMaskedLM"], dtype="float16")
    rows = parameters(config, "ForMaskedLM")
    # Of an odd number of values, so that no two rows are alike where they are repeated.
    drawn = np.random.default_rng(0).standard_normal((1 << 22) + 1, np.float32)
    block = (drawn * np.float32(config.initializer_range)).astype(np.float16)

    def values(name: str) -> RawTensor:
        return RawTensor.from_numpy(np.resize(block, rows[name].shape))

    stored = {name: functools.partial(values, name) for name, row in rows.items() if row.tied_to is None}
    together = {"config.json": config.to_json_string().encode()}
    save_checkpoint(folder, "safetensors", stored, config, "ForMaskedLM", max_shard_size=SHARD, together=together)


if __name__ == "__main__":
    harness.main("quantized_xl", __doc__, cases)
