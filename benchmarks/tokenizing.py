"""How fast are texts turned into ids, and how soon is the tokenizer there?

Ten thousand real lines of all languages of the shared data, ids only, the same call for all; a vocabulary of 250 000
pieces. The error is the share of lines with other ids than the baseline's. The cold start is a fresh process from
nothing to the first ids.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

from benchmarks import harness, peers, texts
from benchmarks.children import Child
from benchmarks.harness import PEERS, Case, Options, Timed
from benchmarks.models import checkpoint

# By contestant: module and class.
TOKENIZERS = {
    "transformers": ("transformers", "AutoTokenizer"),
    "xlmr": ("xlmr_core.tokenization", "XLMRobertaTokenizer"),
    "xlmr fast": ("xlmr_core.tokenization", "XLMRobertaTokenizerFast"),
}
SENTENCE = "Plants create energy through a process known as photosynthesis."
COLD_START = """
from {module} import {name}
found = {name}.from_pretrained({folder!r})({sentence!r})["input_ids"]
from benchmarks import children
children.answer(found)
"""


def cases(options: Options) -> Iterator[Case]:
    sentences = texts.PASSAGE.split(", ") * 3 if options.tiny else texts.sentences(10_000)
    yield Case(
        "10 000 sentences to ids",
        {name: functools.partial(ids_job, options, name, sentences) for name in TOKENIZERS},
        tuple(TOKENIZERS),
        facts={"sentences": len(sentences), "characters": sum(map(len, sentences))},
        compare=other_ids,
    )
    yield Case(
        "cold start",
        {name: functools.partial(start_job, options, name) for name in TOKENIZERS},
        tuple(TOKENIZERS),
        compare=lambda expected, found: {"other ids": float(expected != found)},
    )


def ids_job(options: Options, name: str, sentences: list[str]) -> Timed:
    tokenizer = getattr(_module(options, name), TOKENIZERS[name][1]).from_pretrained(checkpoint(options))
    return Timed(lambda: tokenizer(sentences, return_attention_mask=False)["input_ids"])


def start_job(options: Options, name: str) -> Child:
    _module(options, name)
    module, class_name = TOKENIZERS[name]
    folder = str(checkpoint(options))
    code = COLD_START.format(module=module, name=class_name, folder=folder, sentence=SENTENCE)
    return Child(code, quantities=("seconds",))


def other_ids(expected: list[list[int]], found: list[list[int]]) -> dict[str, float]:
    return {"other ids": sum(theirs != ours for theirs, ours in zip(expected, found, strict=True)) / len(expected)}


def _module(options: Options, name: str) -> Any:
    return peers.peer(name, options) if name in PEERS else importlib.import_module(TOKENIZERS[name][0])


if __name__ == "__main__":
    harness.main("tokenizing", __doc__, cases)
