"""What the TensorFlow classes of transformers 4.57.6 gave for the recorded calls, beside ours: the same, but for three
things.

They returned the loss of each example where PyTorch returns the mean, hard-coded the padding id 1, and dropped an
untied decoder.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

import xlmr_tf
from tests.parity import recorded, tolerances
from tests.parity.compare import difference
from xlmr_core.heads import model_class_name

# Folders in which the original's outputs are those of PyTorch; its loss, and whether it was one number an example.
LOSSES = {
    "hf/ForCausalLM": False,
    "hf/ForCausalLM_cross": False,
    "hf/ForMaskedLM": False,
    "hf/ForMultipleChoice": True,
    "hf/ForQuestionAnswering": True,
    "hf/ForSequenceClassification": True,
    "hf/ForTokenClassification": False,
    "hf_variants/ForMaskedLM_small": False,
    "hf_variants/ForSequenceClassification_1label": True,
}


def ours_and_theirs(folder):
    call = recorded.read_call(folder, "")
    model = getattr(xlmr_tf, "TF" + model_class_name(call.config, call.head)).from_pretrained(folder)
    with np.load(folder / "expected_tf.npz") as file:
        return model(**call.inputs), dict(file), call.expected


@pytest.mark.parametrize("name", LOSSES)
def test_our_loss_is_the_mean_of_theirs(name, shared):
    output, theirs, expected = ours_and_theirs(shared / "fixtures" / name)
    assert theirs["loss"].shape == ((len(next(iter(output.to_tuple()[1:]))),) if LOSSES[name] else (1,))
    assert difference(output.loss, theirs["loss"].mean()) <= tolerances.FLOAT32
    assert difference(output.loss, expected["loss"]) <= tolerances.FLOAT32


@pytest.mark.parametrize(
    ("name", "field"),
    [("hf_variants/ForMaskedLM_untied", "logits"), ("hf_variants/Model_typevocab2_pad3", "last_hidden_state")],
)
@pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning")
def test_where_they_were_wrong_we_are_as_pytorch(name, field, shared):
    output, theirs, expected = ours_and_theirs(shared / "fixtures" / name)
    assert difference(theirs[field], expected[field]) > 0.1, "the recording shows the original's mistake"
    mask = recorded.read_call(shared / "fixtures" / name, "").inputs["attention_mask"]
    at = mask == 1 if mask.ndim == 2 else ...
    assert difference(np.asarray(output[field])[at], expected[field][at]) <= tolerances.FLOAT32
