"""How fast is the encoder, on texts of natural length and without any padding?

Everybody computes the last hidden states of the same batch with the same weights. The error is the difference to the baseline at real tokens,
mean and largest; a float32 one of 1e-6 is rounding. "pad" is the padding ratio: positions of the padded batch for each real token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, ours, peers, texts
from benchmarks.harness import Case, Numbers, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.texts import Batch
from xlmr_core.config import AutoConfig

CONTESTANTS: dict[str, Callable[[Options], peers.Forward]] = {
    "transformers": peers.transformers,
    "transformers bfloat16": functools.partial(peers.transformers, dtype="bfloat16"),
    "CTranslate2": peers.ctranslate2,
    "CTranslate2 int8": functools.partial(peers.ctranslate2, compute_type="int8"),
    "ONNX Runtime": peers.onnxruntime,
    "ONNX Runtime int8": functools.partial(peers.onnxruntime, int8=True),
    "xlmr padded": functools.partial(ours.encoder, packing="never"),
    "xlmr": ours.encoder,
    "xlmr optimized": functools.partial(ours.optimized_encoder, dtype="float32", compile=False),
    "xlmr optimized bfloat16": functools.partial(ours.optimized_encoder, dtype="bfloat16", compile=False),
    "xlmr optimized int8": functools.partial(ours.optimized_encoder, dtype="int8", compile=False),
    "xlmr compiled": functools.partial(ours.optimized_encoder, dtype="float32"),
    "xlmr compiled bfloat16": functools.partial(ours.optimized_encoder, dtype="bfloat16"),
    "xlmr compiled int8": functools.partial(ours.optimized_encoder, dtype="int8"),
}
BASELINES = ("transformers", "xlmr padded", "xlmr")


def cases(options: Options) -> Iterator[Case]:
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    small = {"rows": 4} if options.tiny else {}
    batches = {
        "32 texts of natural length": texts.natural(vocabulary, **small),
        "8 x 128, no padding": texts.full(vocabulary, **small),
    }
    # A model serves both cases.
    forwards = {name: functools.cache(functools.partial(make, options)) for name, make in CONTESTANTS.items()}
    for name, batch in batches.items():
        yield Case(
            name,
            {contestant: functools.partial(_job, forward, batch) for contestant, forward in forwards.items()},
            BASELINES,
            facts=batch.facts,
            compare=functools.partial(difference, batch),
        )


def _job(forward: Callable[[], peers.Forward], batch: Batch) -> Timed:
    return Timed(functools.partial(forward(), batch))


def difference(batch: Batch, expected: Any, found: Any) -> Numbers:
    """Mean and largest difference of the states at real tokens."""
    real = batch.mask_BS.astype(bool)
    apart = np.abs(as_array(expected)[real] - as_array(found)[real])
    return {"mean error": float(apart.mean()), "largest error": float(apart.max())}


def as_array(states: Any) -> NDArray[np.float32]:
    """States of any contestant as float32."""
    return np.asarray(states.float() if hasattr(states, "float") else states, dtype=np.float32)


if __name__ == "__main__":
    harness.main("encoder", __doc__, cases)
