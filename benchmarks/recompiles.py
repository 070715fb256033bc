"""How often is the compiled encoder compiled over a hundred batches of natural length?

"first" counts graphs after the first batch, "later" those that the others add, "breaks" the places where a graph had to
be cut. No time is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import harness, ours, texts
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import checkpoint
from xlmr_core.config import AutoConfig

OPTIMIZED = {"xlmr compiled": "float32", "xlmr compiled bfloat16": "bfloat16", "xlmr compiled int8": "int8"}


def cases(options: Options) -> Iterator[Case]:
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    rows, count = (4, 5) if options.tiny else (32, 100)
    batches = [texts.natural(vocabulary, rows, seed) for seed in range(count)]
    tokens = [batch.facts["tokens"] for batch in batches]
    yield Case(
        "a hundred batches",
        {name: functools.partial(job, options, dtype, batches) for name, dtype in OPTIMIZED.items()},
        (),
        facts={"batches": count, "rows": rows, "tokens": f"{min(tokens)} to {max(tokens)}"},
        rounds=1,
        warmup=0,
    )


def job(options: Options, dtype: str, batches: list[texts.Batch]) -> harness.Job:
    """Counts when called."""
    return functools.partial(count, ours.optimized_encoder(options, dtype), batches)


def count(forward: Callable[[Any], Any], batches: Sequence[Any]) -> Numbers:
    """Graphs compiled for the first batch and for the others; what this process compiled before is forgotten."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    forward(batches[0])
    first = counters["stats"]["unique_graphs"]
    for batch in batches[1:]:
        forward(batch)
    later = counters["stats"]["unique_graphs"] - first
    return {"first": first, "later": later, "breaks": sum(counters["graph_break"].values())}


if __name__ == "__main__":
    harness.main("recompiles", __doc__, cases)
