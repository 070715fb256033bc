"""The reference's loops against golden files: transformers' own answers to the cases of generation, which need no
shared folder. There each prompt stood by itself, here they stand together.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.parity.generation_cases import GENERATIONS, expected_of, made_of
from tests.parity.golden.record import checksum
from tests.parity.golden.record_generation import RECORDED, recordable

pytestmark = [
    pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning"),
    pytest.mark.filterwarnings("ignore:at least .* were asked for:UserWarning"),
]


@cache
def stored() -> dict[str, Any]:
    cases: dict[str, Any] = json.loads(RECORDED.read_text())["cases"]
    return cases


def test_every_case_is_recorded() -> None:
    assert set(stored()) == {name for name, asked in GENERATIONS.items() if recordable(asked)}


@pytest.mark.parametrize("name", [name for name, asked in GENERATIONS.items() if recordable(asked)])
def test_reference_equals_golden(name: str) -> None:
    made, recording = made_of(GENERATIONS[name]), stored()[name]
    assert checksum(made.params) == pytest.approx(recording["checksum"], rel=1e-12), "drawn weights differ"
    output, pad = expected_of(name), made.config.pad_token_id
    new = output.sequences[:, made.inputs["input_ids"].shape[1] :]
    expected = np.array(recording["tokens"])
    assert (expected[:, new.shape[1] :] == pad).all()
    np.testing.assert_array_equal(new, expected[:, : new.shape[1]])
    if "scores" in recording:
        np.testing.assert_allclose(output.sequences_scores, recording["scores"], atol=1e-6)
