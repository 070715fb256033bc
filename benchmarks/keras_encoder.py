"""How fast is the Keras encoder, beside the original TensorFlow class, KerasHub's backbone and our PyTorch?

Everybody computes the last hidden states of the same batches with the same weights, in one graph (``tf.function``);
what XLA compiled (``jit_compile=True``) stands beside it. The original class runs in a process of its own, which takes
its own time. The error is the difference to the baseline at real tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from benchmarks import harness, keras_peers, ours
from benchmarks.encoder import Maker, guest, here, over_batches
from benchmarks.harness import Case, Options
from benchmarks.models import checkpoint

BASELINES = ("original", "xlmr_tf padded", "xlmr_tf")

original = functools.partial(guest, "benchmarks.keras_original")

CONTESTANTS: dict[str, Callable[[Options], Maker]] = {
    "original": functools.partial(original, argument="graph"),
    "original XLA": functools.partial(original, argument="XLA"),
    "KerasHub": functools.partial(here, keras_peers.keras_hub),
    "KerasHub XLA": functools.partial(here, functools.partial(keras_peers.keras_hub, mode="XLA")),
    "xlmr_torch": functools.partial(here, ours.encoder),
    "xlmr_tf eager": functools.partial(here, functools.partial(keras_peers.ours, mode="eager")),
    "xlmr_tf padded": functools.partial(here, functools.partial(keras_peers.ours, packing="never")),
    "xlmr_tf padded XLA": functools.partial(here, functools.partial(keras_peers.ours, packing="never", mode="XLA")),
    "xlmr_tf": functools.partial(here, keras_peers.ours),
    "xlmr_tf mixed_bfloat16": functools.partial(here, functools.partial(keras_peers.ours, dtype="mixed_bfloat16")),
}


def cases(options: Options) -> Iterator[Case]:
    return over_batches(options, checkpoint(options), CONTESTANTS, BASELINES)


if __name__ == "__main__":
    harness.main("keras_encoder", __doc__, cases)
