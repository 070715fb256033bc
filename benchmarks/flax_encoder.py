"""How fast is the Flax encoder, on texts of natural length and without any padding, beside the original Flax class and our PyTorch?

As in ``encoder``, with the original class of transformers 4, jitted, on the padded batch, as the baseline.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import harness, ours, texts
from benchmarks.encoder import difference
from benchmarks.guests import Guest, GuestJob
from benchmarks.harness import Absent, Case, Job, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.targets import FULL, NATURAL
from benchmarks.texts import Batch
from xlmr_core.config import AutoConfig

BASELINES = ("transformers 4 flax", "xlmr flax padded", "xlmr flax")

Maker = Callable[[Batch], Job]


def original(options: Options, dtype: str = "float32") -> Maker:
    guest = Guest(options, "benchmarks.flax_original", "encoder", str(checkpoint(options)), dtype)
    return lambda batch: GuestJob(guest, [batch.ids_BS.tolist(), batch.mask_BS.tolist()])


def flax(options: Options, packing: str = "auto", dtype: str = "float32") -> Maker:
    """As it comes out of ``from_pretrained``."""
    try:
        from xlmr_flax import FlaxXLMRobertaModel
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from error
    model = FlaxXLMRobertaModel.from_pretrained(checkpoint(options), add_pooling_layer=False, dtype=dtype)
    model.set_packing(packing)
    return lambda batch: Timed(lambda: np.asarray(model(batch.ids_BS, batch.mask_BS).last_hidden_state))


def torch(options: Options) -> Maker:
    forward = ours.encoder(options)
    return lambda batch: Timed(functools.partial(forward, batch))


CONTESTANTS: dict[str, Callable[[Options], Maker]] = {
    "transformers 4 flax": original,
    "transformers 4 flax bfloat16": functools.partial(original, dtype="bfloat16"),
    "xlmr torch": torch,
    "xlmr flax padded": functools.partial(flax, packing="never"),
    "xlmr flax": flax,
    "xlmr flax bfloat16": functools.partial(flax, dtype="bfloat16"),
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
    harness.main("flax_encoder", __doc__, cases)
