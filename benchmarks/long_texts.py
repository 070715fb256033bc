"""How many tokens of long texts become vectors in a second, and what the process holds?

Texts of 128 to 8 192 tokens, 8 192 in all, at base size, ``SentenceTransformer.encode`` in a process of its own, beside
sentence-transformers.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Iterator

from benchmarks import harness, peers
from benchmarks.children import Child, answer
from benchmarks.harness import PEERS, Case, Numbers, Options
from benchmarks.vectors import LIBRARIES, shaped, text_of
from xlmr_core.tokenization import AutoTokenizer

LENGTHS, TOKENS_A_TURN = (128, 512, 2048, 8192), 8192


def cases(options: Options) -> Iterator[Case]:
    for length in LENGTHS[:1] if options.tiny else LENGTHS:
        yield Case(
            f"texts of {length} tokens",
            {name: functools.partial(_reader, options, name, length) for name in LIBRARIES},
            tuple(LIBRARIES),
            facts={"texts": TOKENS_A_TURN // length},
            rounds=min(3, options.rounds),
            warmup=0,
        )


class Reading(Child):
    """Tokens a second, the start not counted, and the most memory."""

    def __call__(self) -> Numbers:
        found = super().__call__()
        return {"tokens a second": self.answer, "peak_mib": found["peak_mib"]}


def _reader(options: Options, name: str, length: int) -> Reading:
    if name in PEERS:
        peers.peer(name, options)
    folder = shaped(options, "long")
    return Reading(
        f"from benchmarks import long_texts; long_texts.read({name!r}, {str(folder)!r}, {length}, {options.tiny})"
    )


def read(name: str, folder: str, length: int, tiny: bool) -> None:
    """In the child."""
    model = getattr(importlib.import_module(LIBRARIES[name]), "SentenceTransformer")(folder)  # noqa: B009
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [text_of(tokenizer, length)] * (TOKENS_A_TURN // length // (16 if tiny else 1))
    tokens = sum(len(row) for row in tokenizer(texts)["input_ids"])
    model.encode(texts[:1])
    start = time.perf_counter()
    model.encode(texts)
    answer(tokens / (time.perf_counter() - start))


if __name__ == "__main__":
    harness.main("long_texts", str(__doc__), cases)
