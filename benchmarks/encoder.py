"""How fast is the encoder, on texts of natural length and without any padding?

Everybody computes the last hidden states of the same batch with the same weights. The error is the difference to the
baseline at real tokens, mean and largest; a float32 one of 1e-6 is rounding. "pad" is the padding ratio: positions of
the padded batch for each real token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, ours, peers, texts
from benchmarks.guests import Guest, GuestJob
from benchmarks.harness import Case, Job, Numbers, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.targets import FULL, NATURAL
from benchmarks.texts import Batch
from xlmr_core.config import AutoConfig

# What a contestant does with a batch.
Maker = Callable[[Batch], Job]

CONTESTANTS: dict[str, Callable[[Options], peers.Forward]] = {
    "transformers": peers.transformers,
    "transformers bfloat16": functools.partial(peers.transformers, dtype="bfloat16"),
    "CTranslate2": peers.ctranslate2,
    "CTranslate2 int8": functools.partial(peers.ctranslate2, compute_type="int8"),
    "ONNX Runtime": peers.onnxruntime,
    "ONNX Runtime int8": functools.partial(peers.onnxruntime, int8=True),
    "OpenVINO": peers.openvino,
    "OpenVINO int8": functools.partial(peers.openvino, int8="static"),
    "OpenVINO int8 weights": functools.partial(peers.openvino, int8="weights"),
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
    contestants = {name: functools.partial(here, make) for name, make in CONTESTANTS.items()}
    return over_batches(options, checkpoint(options), contestants, BASELINES)


# ---- Also for the questions about the other backends


def here(make: Callable[[Options], peers.Forward], options: Options) -> Maker:
    """The jobs of a function of batches in this process."""
    forward = make(options)
    return lambda batch: Timed(functools.partial(forward, batch))


def guest(module: str, options: Options, argument: str) -> Maker:
    """The jobs of an original class in its own process."""
    process = Guest(options, module, "encoder", str(checkpoint(options)), argument)
    return lambda batch: GuestJob(process, [batch.ids_BS.tolist(), batch.mask_BS.tolist()])


def over_batches(
    options: Options, folder: Path, contestants: Mapping[str, Callable[[Options], Maker]], baselines: tuple[str, ...]
) -> Iterator[Case]:
    """A case for each of the two batches; a contestant's model, made when its first turn is prepared, serves both."""
    vocabulary = AutoConfig.from_pretrained(folder).vocab_size
    small: dict[str, Any] = {"rows": 4} if options.tiny else {}
    batches = {NATURAL: texts.natural(vocabulary, **small), FULL: texts.full(vocabulary, **small)}
    makers = {name: functools.cache(functools.partial(make, options)) for name, make in contestants.items()}
    for name, batch in batches.items():
        yield Case(
            name,
            {contestant: functools.partial(_job, maker, batch) for contestant, maker in makers.items()},
            baselines,
            facts=batch.facts,
            compare=functools.partial(difference, batch),
        )


def _job(maker: Callable[[], Maker], batch: Batch) -> Job:
    return maker()(batch)


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
