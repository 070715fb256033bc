"""How fast is ``generate()`` in Flax beside our PyTorch, and how often is it compiled while lengths grow?

The texts of ``generation``, after compilation. "time per token" is that of a whole text of so many new tokens, over
their number. "lengths that grow" counts all that XLA compiles, small operations included: "first" for the first call,
"later" for those behind it, whose prompts and texts are a token longer each, up to the length that all are rounded to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import harness
from benchmarks.generation import Count, Ids, Writer, Written, beside_pytorch
from benchmarks.harness import Absent, Case, Options
from benchmarks.models import checkpoint

COMPILATION = "/jax/core/compile/backend_compile_duration"


def flax(options: Options) -> tuple[Writer, Count]:
    """As it comes out of ``from_pretrained``."""
    try:
        from xlmr_flax import FlaxAutoModelForCausalLM
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from error
    model = FlaxAutoModelForCausalLM.from_pretrained(checkpoint(options), is_decoder=True)

    def write(prompts: Ids, new: int) -> Written:
        mask = np.ones_like(prompts)
        found = model.generate(prompts, attention_mask=mask, max_new_tokens=new, do_sample=False)
        return Written(np.asarray(found.sequences))

    return write, counter()


def counter() -> Count:
    """Counts from now on what JAX compiles in this process."""
    import jax.monitoring

    durations: list[float] = []

    def note(event: str, duration: float, **more: object) -> None:
        if event == COMPILATION:
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    return lambda: len(durations)


def cases(options: Options) -> Iterator[Case]:
    yield from beside_pytorch(options, "xlmr flax", flax, "xlmr torch")


if __name__ == "__main__":
    harness.main("flax_generation", __doc__, cases)
