"""Every backend against what Hugging Face's own code recorded, loaded by the backend's own loading."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity import recorded, tolerances
from tests.parity.adapters import Mode, adapter, modes
from tests.parity.compare import assert_close, assert_half_close
from xlmr_core.heads import model_class_name

pytestmark = pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning")

HALF_FOLDERS = {"hf_variants/ForMaskedLM_fp16": "float16", "hf_variants/ForMaskedLM_bf16": "bfloat16"}
# A call that changes the config cannot be made with the folder as it is.
CHANGED_CONFIG = ("multi_label_classification", "regression")
CALLS = [
    pytest.param(folder, call, id=f"{folder}-{call or 'call'}")
    for folder, calls in recorded.CALLS.items()
    for call in calls
    if call not in CHANGED_CONFIG
]


def without_attentions(call: recorded.Call) -> recorded.Call:
    expected = {name: x for name, x in call.expected.items() if "attentions" not in name}
    return recorded.Call(call.config, call.head, call.inputs, expected, call.where_BS)


@pytest.mark.parametrize("mode", modes(packed=False))
@pytest.mark.parametrize(("folder", "call"), CALLS)
def test_padded(shared: Path, folder: str, call: str, mode: Mode) -> None:
    recording = recorded.read_call(shared / "fixtures" / folder, call)
    if mode.kernel != "eager":
        recording = without_attentions(recording)
    model = adapter(mode).load(
        shared / "fixtures" / folder, model_class_name(recording.config, recording.head), mode, "float32"
    )
    assert_close(
        recording.head, model.forward(recording.inputs), recording.expected, tolerances.FLOAT32, recording.where_BS
    )


@pytest.mark.parametrize("mode", modes(padded=False))
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no-labels"])
@pytest.mark.parametrize(("folder", "call"), CALLS)
def test_packed(shared: Path, folder: str, call: str, labelled: bool, mode: Mode) -> None:
    """Compared where ``attention_mask`` is 1: what the padded computation gives elsewhere is not promised. Many of the
    recorded labels lie on masked positions, so the calls are made without them too."""
    recording = without_attentions(recorded.read_call(shared / "fixtures" / folder, call))
    recording = recording if labelled else recording.without_labels()
    where_BS = recording.where_BS
    mask = recording.inputs.get("attention_mask")
    if mask is not None and mask.ndim == 2:
        where_BS = mask == 1
    elif mask is not None and recording.head == "ForMultipleChoice":
        where_BS = mask.reshape(-1, mask.shape[-1]) == 1
    model = adapter(mode).load(
        shared / "fixtures" / folder, model_class_name(recording.config, recording.head), mode, "float32"
    )
    assert_close(recording.head, model.forward(recording.inputs), recording.expected, tolerances.FLOAT32, where_BS)


@pytest.mark.parametrize(
    ("folder", "mode"),
    [
        pytest.param(folder, *row.values, id=f"{folder}-{row.id}", marks=row.marks)
        for folder, dtype in HALF_FOLDERS.items()
        for row in modes(dtype=dtype)
    ],
)
def test_half_precision(shared: Path, folder: str, mode: Mode) -> None:
    """The recorded outputs were computed in float32 from the rounded weights."""
    recording = recorded.read_call(shared / "fixtures" / folder, "")
    dtype = HALF_FOLDERS[folder]
    model = adapter(mode).load(
        shared / "fixtures" / folder, model_class_name(recording.config, recording.head), mode, dtype
    )
    where_BS = recording.inputs["attention_mask"] == 1 if mode.packed else None
    assert_half_close(
        recording.head, model.forward(recording.inputs), recording.expected, tolerances.HALF[dtype], where_BS
    )


@pytest.mark.parametrize("mode", modes(packed=False))
def test_sharded(shared: Path, mode: Mode) -> None:
    """Four shards of the weights of ForMaskedLM_small give its outputs."""
    recording = recorded.read_call(shared / "fixtures" / "hf_variants" / "ForMaskedLM_small", "").without_labels()
    recording = recording if mode.kernel == "eager" else without_attentions(recording)
    folder = shared / "fixtures" / "hf_sharded" / "ForMaskedLM_safetensors"
    model = adapter(mode).load(folder, "XLMRobertaForMaskedLM", mode, "float32")
    assert_close(
        recording.head, model.forward(recording.inputs), recording.expected, tolerances.FLOAT32, recording.where_BS
    )
