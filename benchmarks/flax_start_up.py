"""How long does it take the Flax backend from nothing to the first answer, and how much memory, beside the original
class?

As in ``start_up``. "xlmr flax, same file" reads the same file as the original, ``flax_model.msgpack``; "xlmr flax"
reads safetensors, which the original reads through PyTorch only.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import harness
from benchmarks.harness import Case, Options
from benchmarks.models import checkpoint
from benchmarks.start_up import beside_the_original


def cases(options: Options) -> Iterator[Case]:
    yield beside_the_original(
        options,
        checkpoint(options),
        name="FlaxXLMRobertaForMaskedLM",
        native="flax",
        original="transformers 4 flax",
        ours="xlmr flax",
        module="xlmr_flax",
        framework="jax",
    )


if __name__ == "__main__":
    harness.main("flax_start_up", __doc__, cases)
