"""A checkpoint to another format and back, without any framework, and four questions about it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from xlmr_core.conversion import convert
from xlmr_core.diagnosis import diagnose
from xlmr_core.inspection import inspect_model
from xlmr_core.verification import compare

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)

    # Written in the layout and the names of Flax, with config and tokenizer; compared with the source afterwards.
    done = convert("xlmr-mini", folder / "flax", "flax", verify=True)
    assert done.comparison is not None
    print(f"{done.architecture}: {done.tensors} tensors, largest difference {done.comparison.largest}")

    # And back, rounded to bfloat16.
    convert(folder / "flax", folder / "bfloat16", "safetensors", dtype="bfloat16")
    found = compare("xlmr-mini", folder / "bfloat16")
    print(f"equal up to rounding: {found.equal}, largest difference {found.largest:.3g}")

    what = inspect_model(folder / "bfloat16")
    print(
        f"{what.num_parameters} parameters as {what.dtypes[0].dtype}, {what.memory.train_mixed / 1e6:.0f} MB to train "
        "them"
    )

    print(f"healthy: {diagnose(folder / 'bfloat16').healthy}")

assert not {"torch", "tensorflow", "jax"} & set(sys.modules)
