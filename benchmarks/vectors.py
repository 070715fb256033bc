"""How fast are vectors and ranking, beside sentence-transformers?

The same folders and calls for both, in batches as each library chooses them. 1 500 sentences of natural lengths at base
size, ``SentenceTransformer.encode``, which sorts by length in both libraries; "sorted" is given the same sentences by
length. 4 queries with 25 passages each at the shape of bge-reranker-v2-m3 (24 layers of 1024),
``CrossEncoder.predict``.

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
from numpy.typing import NDArray

from benchmarks import harness, peers
from benchmarks.harness import PEERS, Case, Numbers, Options, Timed
from benchmarks.models import checkpoint, once, place_of
from benchmarks.tasks import passages
from xlmr_core.tokenization import AutoTokenizer

BATCH = 32
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
# Positions of bge-m3, of which two are none of a token.
POSITIONS = 8194
LIBRARIES = {"sentence_transformers": "sentence_transformers", "xlmr": "xlmr_torch"}
# By contestant, how ours are made fast; None is the model as it was loaded.
WAYS: dict[str, Any] = {"xlmr": None, "xlmr compiled": {}, "xlmr bfloat16": {"dtype": "bfloat16"}}


def cases(options: Options) -> Iterator[Case]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(options))
    sentences = passages(24 if options.tiny else 1500, tokenizer)
    encode = functools.partial(method, options, "SentenceTransformer", "encode", checkpoint)
    by_length = np.argsort([len(row) for row in tokenizer(sentences)["input_ids"]])
    yield Case(
        "vectors of natural sentences",
        {
            "sentence_transformers": functools.partial(
                job, encode, "sentence_transformers", sentences, batch_size=BATCH
            ),
            **{name: functools.partial(job, encode, name, sentences) for name in WAYS},
            "xlmr, sorted": functools.partial(_in_order, encode, sentences, by_length),
        },
        tuple(LIBRARIES),
        facts={"sentences": len(sentences), "batch": BATCH},
        compare=difference,
        warmup=0,  # minutes a turn
    )
    count = 2 if options.tiny else 25
    queries, documents = passages(4, tokenizer, seed=1), passages(count, tokenizer, seed=2)
    pairs = [[query, document] for query in queries for document in documents]
    reranker = functools.partial(shaped, name="reranker", head="SequenceClassification", num_labels=1, **LARGE)
    predict = functools.partial(method, options, "CrossEncoder", "predict", reranker)
    yield Case(
        "4 queries, 25 passages each",
        {
            "sentence_transformers": functools.partial(job, predict, "sentence_transformers", pairs, batch_size=BATCH),
            **{name: functools.partial(job, predict, name, pairs) for name in WAYS},
        },
        tuple(LIBRARIES),
        facts={"pairs": len(pairs)},
        compare=difference,
        warmup=0,
    )


# ---- The work


@functools.cache
def method(
    options: Options, kind: str, called: str, folder: Callable[[Options], Path], name: str, **how: Any
) -> Callable[..., Any]:
    """A method of a published class, of a peer's or of ours, made of a folder, with arguments of its constructor."""
    if name in PEERS:
        model = getattr(peers.peer(name, options), kind)(str(folder(options)), **how)
    else:
        ours = importlib.import_module("xlmr_torch")
        model = getattr(ours, kind)(str(folder(options)), **how)
        if WAYS.get(name) is not None:
            ours.optimize_for_inference(model.model, **WAYS[name])
    found: Callable[..., Any] = getattr(model, called)
    return found


def job(made: Callable[[str], Callable[..., Any]], name: str, inputs: list[Any], **how: Any) -> Timed:
    call = made(name)
    call(inputs[:2], **how)  # what is done once only
    return Timed(functools.partial(call, inputs, **how))


def _in_order(made: Callable[[str], Callable[..., Any]], sentences: list[str], order: NDArray[np.intp]) -> Timed:
    """Asked in another order, answered in the first."""
    call, inputs = made("xlmr"), [sentences[index] for index in order]
    return Timed(lambda: call(inputs)[np.argsort(order)])


def shaped(
    options: Options,
    name: str,
    head: str = "",
    num_labels: int | None = None,
    positions: int = POSITIONS,
    **sizes: int,
) -> Path:
    """The folder of a model of a shape, random weights; beside it the shared tokenizer."""

    def make(folder: Path) -> None:
        import torch

        from xlmr_torch import auto

        source = checkpoint(options)
        torch.manual_seed(0)
        labels = {} if num_labels is None else {"num_labels": num_labels}
        config = importlib.import_module("xlmr_core").AutoConfig.from_pretrained(
            source, **(TINY if options.tiny else sizes), max_position_embeddings=positions, **labels
        )
        getattr(auto, f"AutoModelFor{head}" if head else "AutoModel").from_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, model_max_length=positions - 2).save_pretrained(folder)

    return once(place_of(f"checkpoint-{name}", options), make)


def text_of(tokenizer: Any, length: int) -> str:
    """A text of about so many tokens, ``<s>`` and ``</s>`` counted."""
    ids = tokenizer(" ".join(passages(64, tokenizer, seed=3)), add_special_tokens=False, verbose=False)["input_ids"]
    return str(tokenizer.decode((ids * (1 + length // len(ids)))[: length - 2]))


def difference(expected: Any, found: Any) -> Numbers:
    """Of arrays."""
    return {"error": float(np.abs(np.asarray(expected, np.float32) - np.asarray(found, np.float32)).max())}


if __name__ == "__main__":
    harness.main("vectors", str(__doc__), cases)
