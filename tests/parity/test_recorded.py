"""The reference against what Hugging Face's own code recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parity import recorded, tolerances
from tests.parity.compare import assert_close, assert_half_close, flatten
from xlmr_core import reference

CALLS = [
    pytest.param(folder, call, id=f"{folder}-{call or 'call'}")
    for folder, calls in recorded.CALLS.items()
    for call in calls
]


def test_every_folder_is_judged_or_named_elsewhere(shared: Path) -> None:
    found = {
        f"{group}/{path.name}"
        for group in ("hf", "xl", "hf_variants")
        for path in (shared / "fixtures" / group).iterdir()
    }
    assert found == set(recorded.CALLS) | set(recorded.ELSEWHERE)


def test_every_call_is_judged(shared: Path) -> None:
    for folder, calls in recorded.CALLS.items():
        with np.load(shared / "fixtures" / folder / "expected.npz") as file:
            found = {name.split("__")[0] for name in file.files if "__" in name}
        assert found <= set(calls), folder


@pytest.mark.parametrize(("folder", "call"), CALLS)
def test_reference_equals_recorded(shared: Path, folder: str, call: str) -> None:
    recording = recorded.read_call(shared / "fixtures" / folder, call)
    params = recorded.read_parameters(shared / "fixtures" / folder)
    actual = flatten(reference.forward(recording.config, recording.head, params, **recording.inputs))
    assert_close(recording.head, actual, recording.expected, tolerances.RECORDED, recording.where_BS)


@pytest.mark.parametrize(
    ("folder", "dtype"), [("hf_variants/ForMaskedLM_fp16", "float16"), ("hf_variants/ForMaskedLM_bf16", "bfloat16")]
)
def test_half_tolerance_fits_the_original(shared: Path, folder: str, dtype: str) -> None:
    """The original's own half precision passes the tolerance that ours has to pass."""
    recording = recorded.read_call(shared / "fixtures" / folder, "")
    with np.load(shared / "fixtures" / folder / "expected.npz") as file:
        half = {"logits": file["logits_computed_in_half"]}
    assert_half_close(recording.head, half, recording.expected, tolerances.HALF[dtype])
