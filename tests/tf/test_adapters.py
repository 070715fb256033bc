"""An adapter of PEFT in place of a model: recorded answers of its sum with the base."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

import xlmr_tf

# By class: the base on whose weights of four bits it was trained.
ADAPTERS = {
    "MaskedLM": (xlmr_tf.TFXLMRobertaForMaskedLM, "nf4_single"),
    "SequenceClassification": (xlmr_tf.TFXLMRobertaForSequenceClassification, "nf4_skip_classifier"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_loads_over_its_base(name, shared, monkeypatch):
    """Without PEFT, as a plain float32 model."""
    monkeypatch.chdir(shared / "quantized")  # from where its base was named
    kind, base = ADAPTERS[name]
    folder = shared / "quantized" / name / f"lora_on_{base}"
    expected = np.load(folder / "expected.npz")
    model = kind.from_pretrained(folder)
    assert not model.is_quantized
    inputs = {key: expected[key] for key in ("input_ids", "attention_mask")}
    logits = np.asarray(model(**inputs)["logits"])
    masked = inputs["attention_mask"] == 1 if name == "MaskedLM" else np.ones(len(logits), bool)
    np.testing.assert_allclose(logits[masked], expected["logits_dequantized_float32"][masked], rtol=0, atol=1e-5)
