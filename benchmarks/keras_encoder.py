"""How fast is the Keras encoder, beside the original TensorFlow class, KerasHub's backbone and our PyTorch?

Everybody computes the last hidden states of the same batches with the same weights, in one graph (``tf.function``); what XLA compiled
(``jit_compile=True``) stands beside it. The original class runs in a process of its own, which takes its own time. The error is the
difference to the baseline at real tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import harness, keras_peers, texts
from benchmarks.encoder import difference
from benchmarks.harness import Case, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.original_tf import Original
from benchmarks.texts import Batch
from xlmr_core.config import AutoConfig

BASELINES = ("original", "xlmr_tf padded", "xlmr_tf")


def our_torch(options: Options) -> Any:
    from benchmarks import ours

    return ours.encoder(options)


# In one process, which may serve both cases with one model.
FORWARDS: dict[str, Callable[[Options], Any]] = {
    "KerasHub": keras_peers.keras_hub,
    "KerasHub XLA": functools.partial(keras_peers.keras_hub, mode="XLA"),
    "xlmr_torch": our_torch,
    "xlmr_tf eager": functools.partial(keras_peers.ours, mode="eager"),
    "xlmr_tf padded": functools.partial(keras_peers.ours, packing="never"),
    "xlmr_tf padded XLA": functools.partial(keras_peers.ours, packing="never", mode="XLA"),
    "xlmr_tf": keras_peers.ours,
}


def cases(options: Options) -> Iterator[Case]:
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    small = {"rows": 4} if options.tiny else {}
    batches = {
        "32 texts of natural length": texts.natural(vocabulary, **small),
        "8 x 128, no padding": texts.full(vocabulary, **small),
    }
    forwards = {name: functools.cache(functools.partial(make, options)) for name, make in FORWARDS.items()}
    for name, batch in batches.items():
        originals = {
            "original": functools.partial(original, options, batch),
            "original XLA": functools.partial(original, options, batch, compiled=True),
        }
        own = {who: functools.partial(_job, forward, batch) for who, forward in forwards.items()}
        yield Case(name, originals | own, BASELINES, facts=batch.facts, compare=functools.partial(difference, batch))


def _job(forward: Callable[[], Any], batch: Batch) -> Timed:
    return Timed(functools.partial(forward(), batch))


def original(options: Options, batch: Batch, compiled: bool = False) -> Original:
    arrays = {"input_ids": batch.ids_BS, "attention_mask": batch.mask_BS}
    return Original("encode", checkpoint(options), arrays, compiled)


if __name__ == "__main__":
    harness.main("keras_encoder", __doc__, cases)
