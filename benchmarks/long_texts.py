"""What do texts of each length cost, from 16 tokens to 8 192, and texts of many lengths in one batch?

Last hidden states at three shapes with random weights: base's, xlm-roberta-large's, which reads 512 tokens, and
bge-m3's. A contestant of a shape is a process of its own, which first reads two short texts, so that what is compiled
is. A turn is 2 048 tokens, or one text that is longer: how many tokens were read in a second, and the most memory that
the process held meanwhile. "mixed" is one batch of eight texts that grow from 16 tokens to 2 048 (512 at large's
shape). "compiled", "bfloat16" and "int8" are models after ``optimize_for_inference``. The error is the mean difference
of some numbers of the states to the baseline's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import harness, machine, peers, texts
from benchmarks.children import Standing, forget_peak, peak_bytes, serve
from benchmarks.harness import PEERS, Absent, Case, Numbers, Options
from benchmarks.vectors import LARGE, POSITIONS, shaped
from xlmr_core.config import AutoConfig

# By contestant, how ours are made fast; None is the model as it was loaded.
WAYS: dict[str, Any] = {
    "xlmr": None,
    "xlmr compiled": {"dtype": "float32"},
    "xlmr bfloat16": {"dtype": "bfloat16"},
    "xlmr int8": {"dtype": "int8"},
}
LIBRARIES = ("transformers", *WAYS)
SHORT = (64, 32)
TOKENS_A_TURN = 2048
# More tokens take so long that nothing is read to warm up.
LONG = 4096
SEVERAL = (16, 32, 64, 128, 256, 512, 1024, 2048)
MIXED = "mixed"


@dataclass(frozen=True)
class Shape:
    """What a model is built with."""

    folder: str
    lengths: tuple[int, ...]
    positions: int = POSITIONS
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """How many tokens it reads."""
        return self.positions - 2


SHAPES = {
    "base": Shape("long", (16, 64, 128, 512, 2048, 8192)),
    "large": Shape("large", (128, 512), 514, LARGE),
    "bge-m3": Shape("long-large", (2048, 8192), POSITIONS, LARGE),
}


def name_of(shape: str, length: int | str) -> str:
    """The name of a case."""
    return f"{shape}, {'mixed lengths' if length == MIXED else f'texts of {length} tokens'}"


def cases(options: Options) -> Iterator[Case]:
    for shape, made in list(SHAPES.items())[:1] if options.tiny else SHAPES.items():
        readers: dict[str, Standing] = {}
        for length in (*made.lengths[: 1 if options.tiny else None], MIXED):
            lengths = lengths_of(made, length)
            yield Case(
                name_of(shape, length),
                {name: functools.partial(_reading, options, readers, name, made, lengths) for name in LIBRARIES},
                LIBRARIES,
                facts={"texts": len(lengths), "tokens": sum(lengths)},
                compare=difference,
                rounds=min(3, options.rounds),
                warmup=min(1, options.warmup) if sum(lengths) <= LONG else 0,
            )
        for reader in readers.values():
            reader.close()


def lengths_of(shape: Shape, length: int | str) -> list[int]:
    """The lengths of a turn's texts."""
    if length == MIXED:
        return [min(each, shape.longest) for each in SEVERAL]
    assert isinstance(length, int)
    return [length] * max(1, TOKENS_A_TURN // length)


class Reading:
    """Tokens a second and the most memory of a contestant's process that reads texts of some lengths."""

    def __init__(self, reader: Standing, lengths: list[int]) -> None:
        self._reader, self._lengths = reader, lengths
        self.answer: list[float] = []

    def __call__(self) -> Numbers:
        seconds, peak, self.answer = self._reader.ask(self._lengths)
        return {"tokens a second": sum(self._lengths) / seconds, "peak_mib": peak / 2**20}


def _reading(options: Options, readers: dict[str, Standing], name: str, shape: Shape, lengths: list[int]) -> Reading:
    if name in PEERS:
        peers.peer(name, options)
    if "bfloat16" in name and not options.tiny and not machine.multiplies_bfloat16():
        raise Absent("this processor has no instructions for bfloat16, so a long text takes minutes")
    if name not in readers:
        folder = shaped(options, shape.folder, positions=shape.positions, **shape.sizes)
        readers[name] = Standing(f"from benchmarks import long_texts; long_texts.stand({name!r}, {str(folder)!r})")
    return Reading(readers[name], lengths)


def difference(expected: list[float], found: list[float]) -> Numbers:
    return {"mean error": float(np.abs(np.subtract(expected, found)).mean())}


# ---- In the child


def stand(name: str, folder: str) -> None:
    """Read what is asked for, and answer with the seconds it took, the most memory and some numbers of the states."""
    import torch

    vocabulary = AutoConfig.from_pretrained(folder).vocab_size
    model = made(name, folder)

    def read(lengths: Sequence[int]) -> tuple[float, int, list[float]]:
        batch = texts.batch(np.array(lengths), vocabulary, np.random.default_rng(0))
        inputs = {"input_ids": torch.from_numpy(batch.ids_BS), "attention_mask": torch.from_numpy(batch.mask_BS)}
        forget_peak()
        start = time.perf_counter()
        with torch.inference_mode():
            states_BSD = model(**inputs).last_hidden_state
        seconds = time.perf_counter() - start
        longest = states_BSD[int(np.argmax(lengths))].float()
        some = longest[:: -(-len(longest) // 16), :8]
        return seconds, peak_bytes(), some.flatten().tolist()

    read(SHORT)
    serve(read)


def made(name: str, folder: str) -> Any:
    """A contestant's model."""
    if name in PEERS:
        hf = peers.installed(name)
        return hf.AutoModel.from_pretrained(folder, attn_implementation="sdpa", add_pooling_layer=False).eval()
    from xlmr_torch import XLMRobertaModel, optimize_for_inference

    model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)
    return model if WAYS[name] is None else optimize_for_inference(model, **WAYS[name])


if __name__ == "__main__":
    harness.main("long_texts", str(__doc__), cases)
