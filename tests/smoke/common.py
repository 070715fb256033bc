"""What the smoke tests of the backends share: a backend in a breath, for versions that the whole suite does not run
with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import tolerances
from tests.parity.adapters import Mode, adapter
from tests.parity.cases import CASES
from tests.parity.compare import assert_close, flatten
from tests.parity.inputs import make
from xlmr_core import reference
from xlmr_core.heads import HEADS

# A batch with padding on the right, through every head of both families.
NAMES = tuple(
    name
    for family in ("XLMRoberta", "XLMRobertaXL")
    for name in (f"{family}-{head.removeprefix('For')}-right" for head in HEADS)
    if name in CASES
)
SENTENCE = "Plants create <mask> through a process known as photosynthesis."


def head_equals_the_reference(backend: str, name: str) -> None:
    """A head, packed, beside the float64 reference, and the gradients of its loss are there."""
    case = CASES[name]
    made = make(case)
    mode = Mode(backend, "sdpa", packed=True)
    model = adapter(mode).build(made.config, case.head, made.params, mode, "float32")
    expected = flatten(reference.forward(made.config, case.head, made.params, **made.inputs))
    expected = {name: x for name, x in expected.items() if not name.startswith("attentions")}
    assert_close(case.head, model.forward(made.inputs), expected, tolerances.FLOAT32, made.mask_BS == 1)


def answers_survive_a_save(pipeline: Callable[..., Any], folder: Path) -> None:
    """The built-in model answers, and answers the same once it was saved and loaded."""
    fill_mask = pipeline("fill-mask")
    before = fill_mask(SENTENCE)
    fill_mask.model.save_pretrained(folder)
    fill_mask.tokenizer.save_pretrained(folder)
    after = pipeline("fill-mask", model=str(folder))(SENTENCE)
    assert [x["token"] for x in after] == [x["token"] for x in before]
    np.testing.assert_allclose([x["score"] for x in after], [x["score"] for x in before], rtol=1e-5)
