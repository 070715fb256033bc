"""How long does it take the Flax backend from nothing to the first answer, and how much memory, beside the original class?

As in ``start_up``. "xlmr flax, same file" reads the same file as the original, ``flax_model.msgpack``; "xlmr flax" reads safetensors, which the
original reads through PyTorch only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from benchmarks import harness
from benchmarks.children import Child
from benchmarks.guests import guest_python
from benchmarks.harness import Case, Options
from benchmarks.models import checkpoint, converted
from benchmarks.start_up import IMPORT, difference, file_mib

FIRST_ANSWER = """
from {module} import FlaxXLMRobertaForMaskedLM
import numpy as np
model = FlaxXLMRobertaForMaskedLM.from_pretrained({folder!r})
ids = np.array([[0, 101, 2002, 303, 4004, 505, model.config.vocab_size - 1, 707, 8008, 909, 5, 2]], np.int32)
logits = model(input_ids=ids, attention_mask=np.ones_like(ids)).logits
found = np.asarray(logits[0, 6, :1000]).tolist()
from benchmarks import children
children.answer(found)
"""


def cases(options: Options) -> Iterator[Case]:
    yield Case(
        "first answer",
        {
            "transformers 4 flax": functools.partial(original, options),
            "xlmr flax, same file": functools.partial(ours, options, same_file=True),
            "xlmr flax": functools.partial(ours, options),
            "jax alone": functools.partial(Child, IMPORT.format(module="jax")),
        },
        ("transformers 4 flax", "xlmr flax"),
        facts={"file_mib": file_mib(checkpoint(options))},
        compare=difference,
    )


def original(options: Options) -> Child:
    folder = str(converted(options, "flax"))
    return Child(FIRST_ANSWER.format(module="transformers", folder=folder), python=guest_python(options))


def ours(options: Options, *, same_file: bool = False) -> Child:
    folder = str(converted(options, "flax") if same_file else checkpoint(options))
    return Child(FIRST_ANSWER.format(module="xlmr_flax", folder=folder))


if __name__ == "__main__":
    harness.main("flax_start_up", __doc__, cases)
