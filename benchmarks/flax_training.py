"""How fast is a step of masked language modelling in Flax?

A step is forward, backward and AdamW, jitted with the state given away, with the dropout of the config, on 8 x 128
tokens of which 15 % are labelled. "xlmr flax" projects to the vocabulary only at ``masked_positions``; the published
call gets labels and nothing else, and its step returns the loss alone; the original class has logits everywhere. The
error is the difference of the losses without dropout, before the first step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from benchmarks import harness, texts
from benchmarks.guests import Guest, GuestJob
from benchmarks.harness import Absent, Case, Job, Numbers, Options
from benchmarks.models import checkpoint

BASELINES = ("transformers 4 flax", "xlmr flax")


class Worker:
    """A job of ``flax_steps``."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self.answer: Any = None

    def __call__(self) -> Numbers:
        numbers, self.answer = self._work(None)
        return dict(numbers)


def original(options: Options, kind: str, argument: str) -> Job:
    return GuestJob(Guest(options, "benchmarks.flax_original", kind, str(checkpoint(options)), argument), None)


def ours(options: Options, kind: str, argument: str, scan: bool = False, places: bool = True) -> Job:
    try:
        from benchmarks import flax_steps
        from xlmr_core.config import AutoConfig
        from xlmr_flax import FlaxXLMRobertaForMaskedLM
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from error
    numbers = list(map(int, argument.split("x")))
    if kind == "training":
        model, params = FlaxXLMRobertaForMaskedLM.from_pretrained(checkpoint(options), _do_init=False)
    else:
        config = AutoConfig.from_pretrained(checkpoint(options)).copy(num_hidden_layers=numbers.pop(0))
        model = FlaxXLMRobertaForMaskedLM(config, _do_init=False).set_scan_layers(scan)
        params = model.params_shape_tree

    def loss(params: Any, batch: Any, key: Any) -> Any:
        return model(**batch, params=params, dropout_rng=key, train=key is not None).loss

    make = flax_steps.worker if kind == "training" else flax_steps.compiler
    batch = flax_steps.batch(model.config.vocab_size, *numbers)
    if not places:
        del batch["masked_positions"]
    return Worker(make(loss, params, batch))


def cases(options: Options) -> Iterator[Case]:
    checkpoint(options)
    size = "2x16" if options.tiny else "8x128"
    yield Case(
        "8 x 128, AdamW",
        {
            "transformers 4 flax": functools.partial(original, options, "training", size),
            "xlmr flax": functools.partial(ours, options, "training", size),
            "xlmr flax published call": functools.partial(ours, options, "training", size, places=False),
        },
        BASELINES,
        facts={"batch": size, "labelled": texts.LABELLED},
        compare=lambda expected, found: {"error of the loss": abs(float(found) - float(expected))},
        rounds=min(3, options.rounds),
        warmup=min(1, options.warmup),
    )


if __name__ == "__main__":
    harness.main("flax_training", __doc__, cases)
