"""How fast is ``generate()`` in Keras beside our PyTorch, and how often is it compiled while lengths grow?

The texts of ``generation``, after compilation. "time per token" is that of a whole text of so many new tokens, over
their number. "lengths that grow" counts the programs that XLA compiles: "first" for the first call, "later" for those
behind it, whose prompts and texts are a token longer each, up to the length that all are rounded to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import harness
from benchmarks.generation import Count, Ids, Writer, Written, beside_pytorch
from benchmarks.harness import Absent, Case, Options
from benchmarks.models import checkpoint


def keras(options: Options) -> tuple[Writer, Count]:
    """As it comes out of ``from_pretrained``."""
    try:
        from xlmr_tf import TFAutoModelForCausalLM
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from error
    model = TFAutoModelForCausalLM.from_pretrained(checkpoint(options), is_decoder=True)

    def write(prompts: Ids, new: int) -> Written:
        mask = np.ones_like(prompts)
        return Written(model.generate(prompts, attention_mask=mask, max_new_tokens=new, do_sample=False).numpy())

    return write, lambda: model.generation_programs.traced


def cases(options: Options) -> Iterator[Case]:
    yield from beside_pytorch(options, "xlmr_tf", keras, "xlmr_torch")


if __name__ == "__main__":
    harness.main("keras_generation", __doc__, cases)
