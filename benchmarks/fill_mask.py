"""How fast is the fill-mask pipeline, from text to candidates?

The same folder and call for both: ``pipeline("fill-mask", model=folder)``. The eight sentences have the lengths that
cut the distribution of natural lengths into eight equal parts. "one by one" is the same list without ``batch_size=8``.
The error is the largest difference of a candidate's score, relative to the score.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks import harness, peers, texts
from benchmarks.harness import PEERS, Case, Numbers, Options, Timed
from benchmarks.models import checkpoint
from xlmr_core.tokenization import AutoTokenizer

LIBRARIES = {"transformers": "transformers", "xlmr": "xlmr_torch"}  # by contestant, the module that offers `pipeline`
TOKENS_A_WORD = 1.3


def words(parts: int = 8) -> list[int]:
    """Lengths in words of natural texts: the middle of each of so many equally likely parts."""
    middles = [NormalDist(np.log(texts.MEDIAN), texts.SIGMA).inv_cdf((part + 0.5) / parts) for part in range(parts)]
    return [max(3, round(float(np.exp(middle)) / TOKENS_A_WORD)) for middle in middles]


def cases(options: Options) -> Iterator[Case]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(options))
    pipelines = {name: functools.cache(functools.partial(load, options, name)) for name in LIBRARIES}
    one = texts.masked_sentences(str(tokenizer.mask_token), [10])
    eight = texts.masked_sentences(str(tokenizer.mask_token), words())
    yield Case(
        "one sentence",
        {name: functools.partial(_job, pipeline, one[0]) for name, pipeline in pipelines.items()},
        tuple(LIBRARIES),
        facts=_facts(tokenizer, one),
        compare=difference,
    )
    yield Case(
        "eight natural sentences",
        {
            **{name: functools.partial(_job, pipeline, eight, batch_size=8) for name, pipeline in pipelines.items()},
            **{f"{name}, one by one": functools.partial(_job, pipeline, eight) for name, pipeline in pipelines.items()},
        },
        tuple(LIBRARIES),
        facts=_facts(tokenizer, eight),
        compare=difference,
    )


def load(options: Options, name: str) -> Any:
    if name in PEERS:
        peers.peer(name, options)
    return importlib.import_module(LIBRARIES[name]).pipeline("fill-mask", model=str(checkpoint(options)))


def _job(pipeline: Callable[[], Any], inputs: str | list[str], **how: Any) -> Timed:
    return Timed(functools.partial(pipeline(), inputs, **how))


def _facts(tokenizer: Any, sentences: list[str]) -> dict[str, Any]:
    lengths = [len(row) for row in tokenizer(sentences)["input_ids"]]
    return {"lengths": " ".join(map(str, lengths)), "pad": len(lengths) * max(lengths) / sum(lengths)}


def difference(expected: Any, found: Any) -> Numbers:
    """Relative difference of the scores of the candidates, best first: with random weights near ties change places."""
    scores, others = _scores(expected), _scores(found)
    return {"error of the scores": float((np.abs(others - scores) / scores).max())}


def _scores(answer: Any) -> Any:
    rows = answer if isinstance(answer[0], list) else [answer]
    return np.array([[candidate["score"] for candidate in row] for row in rows])


if __name__ == "__main__":
    harness.main("fill_mask", __doc__, cases)
