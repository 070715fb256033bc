"""How fast are vectors and ranking, beside sentence-transformers and FlagEmbedding?

The same folders and calls for all, in batches as each library chooses them (FlagEmbedding's of 256 are made 8). 1 500
sentences of natural lengths at base size: ``SentenceTransformer.encode``, which sorts by length in both libraries;
"sorted" is given the same sentences by length. At the shape of bge-m3 (24 layers of 1024): 4 queries with 25 passages
each, ``CrossEncoder.predict``, and 64 texts of 64 to 512 tokens, ``BGEM3FlagModel.encode``, with all three kinds of
vectors, and ours with the dense ones alone.

"compiled" and "bfloat16" are models after ``optimize_for_inference``. Errors: the largest difference of a number of the
vectors, and of a score.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, peers
from benchmarks.harness import PEERS, Case, Numbers, Options, Timed
from benchmarks.models import checkpoint, once, place_of
from benchmarks.tasks import passages
from xlmr_core.checkpoints.extra_heads import extra_head_contents
from xlmr_core.formats.tensors import RawTensor, as_lazy
from xlmr_core.tokenization import AutoTokenizer

BATCH = 32
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
# By contestant, how ours are made fast; None is the model as it was loaded.
WAYS: dict[str, Any] = {"xlmr": None, "xlmr compiled": {}, "xlmr bfloat16": {"dtype": "bfloat16"}}


def cases(options: Options) -> Iterator[Case]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(options))
    sentences = passages(24 if options.tiny else 1500, tokenizer)
    encode = functools.partial(_method, options, "SentenceTransformer", "encode", checkpoint(options))
    by_length = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    yield Case(
        "vectors of natural sentences",
        {
            "sentence_transformers": lambda: _job(encode("sentence_transformers"), sentences, batch_size=BATCH),
            **{name: functools.partial(_later, encode, name, sentences) for name in WAYS},
            "xlmr, sorted": lambda: Timed(functools.partial(_in_order, encode("xlmr"), sentences, by_length)),
        },
        ("sentence_transformers", "xlmr"),
        facts={"sentences": len(sentences), "batch": BATCH},
        compare=_difference,
        warmup=0,  # minutes a turn
    )
    count = 2 if options.tiny else 25
    queries, documents = passages(4, tokenizer, seed=1), passages(count, tokenizer, seed=2)
    pairs = [[query, document] for query in queries for document in documents]
    predict = functools.partial(_method, options, "CrossEncoder", "predict", large(options, "SequenceClassification"))
    yield Case(
        "4 queries, 25 passages each",
        {
            "sentence_transformers": lambda: _job(predict("sentence_transformers"), pairs, batch_size=BATCH),
            **{name: functools.partial(_later, predict, name, pairs) for name in WAYS},
        },
        ("sentence_transformers", "xlmr"),
        facts={"pairs": len(pairs)},
        compare=_difference,
        warmup=0,  # minutes a turn
    )
    folder = large(options, "")
    texts = of_lengths(folder, 4 if options.tiny else 64)
    three = functools.partial(_method, options, "BGEM3FlagModel", "encode", folder)
    all_three = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    dense = {**all_three, "return_sparse": False, "return_colbert_vecs": False}
    yield Case(
        "three kinds of vectors",
        {
            "FlagEmbedding": lambda: _job(three("FlagEmbedding"), texts, batch_size=8, **all_three),
            **{name: functools.partial(_later, three, name, texts, **all_three) for name in WAYS},
            "xlmr, dense alone": lambda: _job(three("xlmr"), texts, **dense),
        },
        ("FlagEmbedding", "xlmr"),
        facts={"texts": len(texts)},
        compare=_difference,
        warmup=0,  # minutes a turn
    )


# ---- The work


@functools.cache
def _method(options: Options, kind: str, method: str, folder: Path, name: str) -> Callable[..., Any]:
    """A method of a published class, of a peer's or of ours."""
    if name in PEERS:
        model = getattr(peers.peer(name, options), kind)(str(folder), **({"use_fp16": False} if kind[0] == "B" else {}))
    else:
        ours = importlib.import_module("xlmr_torch")
        model = getattr(ours, kind)(str(folder))
        if WAYS[name] is not None:
            ours.optimize_for_inference(model.model, **WAYS[name])
    found: Callable[..., Any] = getattr(model, method)
    return found


def _later(made: Callable[[str], Any], name: str, inputs: list[Any], **how: Any) -> Timed:
    return _job(made(name), inputs, **how)


def _job(call: Callable[..., Any], inputs: list[Any], **how: Any) -> Timed:
    call(inputs[:2], **how)  # what is done once only
    return Timed(functools.partial(call, inputs, **how))


def _in_order(call: Callable[..., Any], sentences: list[str], order: list[int]) -> Any:
    """Asked in another order, answered in the first."""
    return call([sentences[index] for index in order])[np.argsort(order)]


def large(options: Options, head: str) -> Path:
    """The folder of a model of bge-m3's shape with random weights: with one label, or with its two further heads."""

    def make(folder: Path) -> None:
        import torch

        from xlmr_torch import auto

        source = checkpoint(options)
        torch.manual_seed(0)
        sizes = {**(TINY if options.tiny else LARGE), "max_position_embeddings": 8194}
        labels = {"num_labels": 1} if head else {}
        config = importlib.import_module("xlmr_core").AutoConfig.from_pretrained(source, **sizes, **labels)
        model = getattr(auto, f"AutoModelFor{head}" if head else "AutoModel").from_config(config)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, model_max_length=8192).save_pretrained(folder)
        if not head:
            rng = np.random.default_rng(0)
            for name, content in extra_head_contents(
                {f"{name}_linear": _linear(rng, rows, config.hidden_size) for name, rows in _rows(config)}
            ).items():
                Path(folder, name).write_bytes(content)

    return once(place_of(f"checkpoint-large-{head or 'three'}", options), make)


def _rows(config: Any) -> tuple[tuple[str, int], ...]:
    return ("sparse", 1), ("colbert", config.hidden_size)


def _linear(rng: np.random.Generator, rows: int, columns: int) -> dict[str, Any]:
    weight = rng.normal(0, 0.02, (rows, columns)).astype(np.float32)
    arrays = {"weight": weight, "bias": np.zeros(rows, np.float32)}
    return {name: as_lazy(RawTensor.from_numpy(array)) for name, array in arrays.items()}


def of_lengths(folder: Path, count: int) -> list[str]:
    """Texts of 64 to 512 tokens, as many of each length."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = " ".join(passages(64, tokenizer, seed=3))
    ids = tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
    ids = ids * (1 + 600 // len(ids))
    lengths = np.linspace(62, 510, count).astype(int)
    return [tokenizer.decode(ids[:length]) for length in np.random.default_rng(4).permutation(lengths)]


def _difference(expected: Any, found: Any) -> Numbers:
    """Of arrays, or of the dense vectors among several kinds."""
    one, other = (
        np.asarray(answer["dense_vecs"] if isinstance(answer, dict) else answer, np.float32)
        for answer in (expected, found)
    )
    return {"error": float(np.abs(one - other).max())}


if __name__ == "__main__":
    harness.main("vectors", str(__doc__), cases)
