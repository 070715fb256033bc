"""How long does it take to compile a step of masked language modelling in Flax?

Tracing and compiling of the step of ``flax_training``, of shapes alone, with nothing in JAX's caches. "scanned" is
after ``set_scan_layers(True)``, which compiles one layer for all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from benchmarks import harness
from benchmarks.flax_training import BASELINES, original, ours
from benchmarks.harness import Case, Options
from benchmarks.models import checkpoint


def cases(options: Options) -> Iterator[Case]:
    checkpoint(options)
    size = "2x16" if options.tiny else "8x128"
    for layers in (12,) if options.tiny else (12, 24):
        argument = f"{2 if options.tiny else layers}x{size}"
        yield Case(
            f"{layers} layers",
            {
                "transformers 4 flax": functools.partial(original, options, "compiling", argument),
                "xlmr flax": functools.partial(ours, options, "compiling", argument),
                "xlmr flax scanned": functools.partial(ours, options, "compiling", argument, scan=True),
            },
            BASELINES,
            facts={"batch": size},
            rounds=min(3, options.rounds),
            warmup=0,
        )


if __name__ == "__main__":
    harness.main("flax_compiling", __doc__, cases)
