"""How often is the graph of the Keras encoder traced over a hundred batches of natural length?

"first" counts graphs after the first batch, "later" those that the others add. The function declares no sizes, and the
texts and lengths of the batches differ. No time is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import harness, keras_peers, texts
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import checkpoint
from benchmarks.texts import Batch
from xlmr_core.config import AutoConfig


def cases(options: Options) -> Iterator[Case]:
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    rows, count = (4, 5) if options.tiny else (32, 100)
    batches = [texts.natural(vocabulary, rows, seed) for seed in range(count)]
    tokens = [batch.facts["tokens"] for batch in batches]
    yield Case(
        "a hundred batches",
        {"xlmr_tf": lambda: lambda: count_traces(options, batches)},
        (),
        facts={"batches": count, "rows": rows, "tokens": f"{min(tokens)} to {max(tokens)}"},
        rounds=1,
        warmup=0,
    )


def count_traces(options: Options, batches: list[Batch]) -> Numbers:
    """Graphs for the first batch and for the others."""
    forward, tensors = keras_peers.encoder(options, "auto", "graph")
    forward(*tensors(batches[0]))
    first = forward.experimental_get_tracing_count()
    for batch in batches[1:]:
        forward(*tensors(batch))
    return {"first": first, "later": forward.experimental_get_tracing_count() - first}


if __name__ == "__main__":
    harness.main("keras_retraces", __doc__, cases)
