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
from benchmarks.guests import Guest, GuestJob
from benchmarks.harness import Case, Job, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.targets import FULL, NATURAL
from benchmarks.texts import Batch
from xlmr_core.config import AutoConfig

BASELINES = ("original", "xlmr_tf padded", "xlmr_tf")


Maker = Callable[[Batch], Job]


def original(options: Options, mode: str = "graph") -> Maker:
    guest = Guest(options, "benchmarks.keras_original", "encoder", str(checkpoint(options)), mode)
    return lambda batch: GuestJob(guest, [batch.ids_BS.tolist(), batch.mask_BS.tolist()])


def our_torch(options: Options) -> Any:
    from benchmarks import ours

    return ours.encoder(options)


def here(make: Callable[[Options], Any], options: Options) -> Maker:
    """The jobs of a function of batches in this process."""
    forward = make(options)
    return lambda batch: Timed(functools.partial(forward, batch))


CONTESTANTS: dict[str, Callable[[Options], Maker]] = {
    "original": original,
    "original XLA": functools.partial(original, mode="XLA"),
    "KerasHub": functools.partial(here, keras_peers.keras_hub),
    "KerasHub XLA": functools.partial(here, functools.partial(keras_peers.keras_hub, mode="XLA")),
    "xlmr_torch": functools.partial(here, our_torch),
    "xlmr_tf eager": functools.partial(here, functools.partial(keras_peers.ours, mode="eager")),
    "xlmr_tf padded": functools.partial(here, functools.partial(keras_peers.ours, packing="never")),
    "xlmr_tf padded XLA": functools.partial(here, functools.partial(keras_peers.ours, packing="never", mode="XLA")),
    "xlmr_tf": functools.partial(here, keras_peers.ours),
}


def cases(options: Options) -> Iterator[Case]:
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    small: dict[str, Any] = {"rows": 4} if options.tiny else {}
    batches = {NATURAL: texts.natural(vocabulary, **small), FULL: texts.full(vocabulary, **small)}
    # A model serves both cases.
    makers = {name: functools.cache(functools.partial(make, options)) for name, make in CONTESTANTS.items()}
    for name, batch in batches.items():
        yield Case(
            name,
            {contestant: functools.partial(_job, maker, batch) for contestant, maker in makers.items()},
            BASELINES,
            facts=batch.facts,
            compare=functools.partial(difference, batch),
        )


def _job(maker: Callable[[], Maker], batch: Batch) -> Job:
    return maker()(batch)


if __name__ == "__main__":
    harness.main("keras_encoder", __doc__, cases)
