"""How long does it take the Keras backend from nothing to the first answer, and how much memory, beside the original
class?

As in ``start_up``. "xlmr_tf, same file" reads the same file as the original, ``tf_model.h5``; "xlmr_tf" reads
safetensors, which the original reads through PyTorch only.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import harness
from benchmarks.harness import Case, Options
from benchmarks.models import checkpoint
from benchmarks.start_up import beside_the_original


def cases(options: Options) -> Iterator[Case]:
    yield beside_the_original(
        options,
        checkpoint(options),
        name="TFXLMRobertaForMaskedLM",
        native="tf",
        original="original",
        ours="xlmr_tf",
        module="xlmr_tf",
        framework="tensorflow",
        setup="import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'",  # it knows no Keras 3
    )


if __name__ == "__main__":
    harness.main("keras_start_up", __doc__, cases)
