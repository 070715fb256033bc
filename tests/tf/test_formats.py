"""Checkpoints of every format through from_pretrained, with no other framework at work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

import xlmr_tf
from tests.core.format_cases import WRITABLE, write
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.heads import HEADS
from xlmr_core.verification import compare


def same_model(one, other) -> None:
    assert one.parameter_table() == other.parameter_table()
    for name in one.parameter_table():
        np.testing.assert_array_equal(one.get_values(name), other.get_values(name), err_msg=name, strict=True)


@pytest.mark.parametrize("arguments", [{"use_safetensors": False}, {"from_tf": True}, {"from_flax": True}], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_recorded_checkpoints_load_as_the_same_model(head, arguments, shared: Path):
    folder = shared / "fixtures" / "hf" / head
    kind = getattr(xlmr_tf, f"TFXLMRoberta{head}")
    loaded = kind.from_pretrained(folder, **arguments)
    same_model(loaded, kind.from_pretrained(folder, use_safetensors=True))


@pytest.mark.parametrize("format", WRITABLE)
def test_a_folder_with_one_format_needs_no_word(format, tmp_path: Path):
    tensors = write(tmp_path, format)
    model = xlmr_tf.TFAutoModelForMaskedLM.from_pretrained(tmp_path)
    names = [name for name in model.parameter_table() if name in tensors]
    assert len(names) > 20
    for name in names:
        np.testing.assert_array_equal(model.get_values(name), tensors[name].to_numpy(), err_msg=name)


@pytest.mark.parametrize("archive", ["base_cfg", "xl_cfg"])
def test_fairseq_archives_need_no_config(archive, shared: Path):
    folder = shared / "fixtures" / "fairseq" / archive
    model = xlmr_tf.TFAutoModelForMaskedLM.from_pretrained(folder)
    expected = np.load(folder / "expected.npz")
    ids = expected["input_ids"][:2]
    logits = np.asarray(model(ids, attention_mask=(ids != 1).astype(np.int32)).logits)
    assert np.abs(logits - expected["logits"])[ids != 1].max() < 2e-5


def test_what_is_asked_for_and_not_there_is_said(tmp_path: Path):
    write(tmp_path, "safetensors")
    with pytest.raises(CheckpointError, match="expected tf_model.h5 in .*found model.safetensors"):
        xlmr_tf.TFXLMRobertaForMaskedLM.from_pretrained(tmp_path, from_tf=True)
    with pytest.raises(InputError, match="exclude each other"):
        xlmr_tf.TFXLMRobertaForMaskedLM.from_pretrained(tmp_path, from_tf=True, from_flax=True)


@pytest.mark.parametrize("head", HEADS)
def test_verify_compares_this_backend_with_the_reference(head, shared: Path):
    folder = shared / "fixtures" / "hf" / head
    found = compare(folder, folder, backends=("reference", "tf"))
    assert found.equal and found.outputs
    assert all(row.largest < 1e-4 for row in found.outputs)
