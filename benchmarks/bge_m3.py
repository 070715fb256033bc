"""How fast are the three kinds of vectors of bge-m3, beside FlagEmbedding?

At the shape of bge-m3 (24 layers of 1024), random weights: 64 texts of 64 to 512 tokens, ``BGEM3FlagModel.encode``,
with all three kinds of vectors, and ours with the dense ones alone. FlagEmbedding's batches of 256 are made 8. It needs
another transformers than other peers, so it is measured in an environment of its own (``nox -s bench-flag``).

"compiled" and "bfloat16" are models after ``optimize_for_inference``. Errors: the largest difference of a number of the
dense vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import checkpoint
from benchmarks.vectors import LARGE, WAYS, difference, job, method, shaped, text_of
from xlmr_core import AutoConfig
from xlmr_core.checkpoints.extra_heads import extra_head_contents
from xlmr_core.formats.tensors import RawTensor, as_lazy
from xlmr_core.tokenization import AutoTokenizer

SHORTEST, LONGEST = 64, 512
BATCH = 8


def cases(options: Options) -> Iterator[Case]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(options))
    lengths = np.linspace(SHORTEST, LONGEST, 4 if options.tiny else 64).astype(int)
    texts = [text_of(tokenizer, int(length)) for length in np.random.default_rng(4).permutation(lengths)]
    encode = functools.partial(method, options, "BGEM3FlagModel", "encode", three, use_fp16=False)
    all_three = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    dense = {**all_three, "return_sparse": False, "return_colbert_vecs": False}
    yield Case(
        "three kinds of vectors",
        {
            "FlagEmbedding": functools.partial(job, encode, "FlagEmbedding", texts, batch_size=BATCH, **all_three),
            **{name: functools.partial(job, encode, name, texts, **all_three) for name in WAYS},
            "xlmr, dense alone": functools.partial(job, encode, "xlmr", texts, **dense),
        },
        ("FlagEmbedding", "xlmr"),
        facts={"texts": len(texts), "tokens": int(lengths.sum())},
        compare=_of_dense,
        warmup=0,  # minutes a turn
    )


def _of_dense(expected: Any, found: Any) -> Numbers:
    return difference(expected["dense_vecs"], found["dense_vecs"])


def three(options: Options) -> Path:
    """The folder of a model with the two further heads."""
    folder = shaped(options, "three", **LARGE)
    size = int(AutoConfig.from_pretrained(folder).hidden_size)
    rng = np.random.default_rng(0)
    heads = {f"{name}_linear": _linear(rng, rows, size) for name, rows in (("sparse", 1), ("colbert", size))}
    for name, content in extra_head_contents(heads).items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
    return folder


def _linear(rng: np.random.Generator, rows: int, columns: int) -> dict[str, Any]:
    weight = rng.normal(0, 0.02, (rows, columns)).astype(np.float32)
    arrays = {"weight": weight, "bias": np.zeros(rows, np.float32)}
    return {name: as_lazy(RawTensor.from_numpy(array)) for name, array in arrays.items()}


if __name__ == "__main__":
    harness.main("bge_m3", str(__doc__), cases)
