"""How fast is the Flax encoder, on texts of natural length and without any padding, beside the original Flax class and
our PyTorch?

As in ``encoder``, with the original class of transformers 4, jitted, on the padded batch, as the baseline.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import harness, ours
from benchmarks.encoder import Maker, guest, here, over_batches
from benchmarks.harness import Absent, Case, Options, Timed
from benchmarks.models import checkpoint

BASELINES = ("transformers 4 flax", "xlmr flax padded", "xlmr flax")


def flax(options: Options, packing: str = "auto", dtype: str = "float32") -> Maker:
    """As it comes out of ``from_pretrained``."""
    try:
        from xlmr_flax import FlaxXLMRobertaModel
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from error
    model = FlaxXLMRobertaModel.from_pretrained(checkpoint(options), add_pooling_layer=False, dtype=dtype)
    model.set_packing(packing)
    return lambda batch: Timed(lambda: np.asarray(model(batch.ids_BS, batch.mask_BS).last_hidden_state))


original = functools.partial(guest, "benchmarks.flax_original")

CONTESTANTS: dict[str, Callable[[Options], Maker]] = {
    "transformers 4 flax": functools.partial(original, argument="float32"),
    "transformers 4 flax bfloat16": functools.partial(original, argument="bfloat16"),
    "xlmr torch": functools.partial(here, ours.encoder),
    "xlmr flax padded": functools.partial(flax, packing="never"),
    "xlmr flax": flax,
    "xlmr flax bfloat16": functools.partial(flax, dtype="bfloat16"),
}


def cases(options: Options) -> Iterator[Case]:
    return over_batches(options, checkpoint(options), CONTESTANTS, BASELINES)


if __name__ == "__main__":
    harness.main("flax_encoder", __doc__, cases)
