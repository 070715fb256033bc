"""Quantized models in Keras's own files, and Keras's own quantization of our layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.choice import chosen  # noqa: E402
from tests.tf.models import Case, assert_close  # noqa: E402
from tests.tf.quantized_models import (  # noqa: E402
    CLASSIFIER,
    DENSE,
    MASKED_LM,
    SCHEMES,
    built,
    kept,
    logits_of,
    same_tensors,
)
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_core.parameters import Init, Parameter, Role  # noqa: E402
from xlmr_core.quantization import widening  # noqa: E402
from xlmr_tf import quantize  # noqa: E402
from xlmr_tf.values import layer_at  # noqa: E402

# NumPy about TensorFlow's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

IN_FILES = [("int4", CLASSIFIER), ("nf4 skip", MASKED_LM), ("bnb fp4 bf16", MASKED_LM)]


@pytest.mark.parametrize(("name", "case"), chosen(IN_FILES, IN_FILES[1:2]))
def test_keras_files(name, case, tmp_path):
    model, inputs = kept(name, case), case.inputs("right")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits_of(again, inputs), logits_of(model, inputs))
    assert again.quantization_scheme.written() == model.quantization_scheme.written()


@pytest.mark.parametrize(("name", "case"), chosen(IN_FILES, IN_FILES[2:]))
def test_keras_weights_and_copies(name, case, tmp_path):
    scheme, model, inputs = SCHEMES[name], kept(name, case), case.inputs("right")
    expected = logits_of(model, inputs)
    other = quantize(built(case, seed=5), scheme)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for one in (other, copy.deepcopy(model)):
        np.testing.assert_array_equal(logits_of(one, inputs), expected)
        assert one.quantization_scheme.written() == model.quantization_scheme.written()
        assert len(one.trainable_variables) == len(model.trainable_variables)
    other.save_pretrained(tmp_path / "other")
    model.save_pretrained(tmp_path / "model")
    same_tensors(tmp_path / "other", tmp_path / "model")
    made = type(model).from_config(model.get_config())
    assert made.is_quantized and np.isfinite(logits_of(made, inputs)).all()


# ---- Keras's own


@pytest.fixture
def collected_once(monkeypatch):
    """Keras collects garbage for each weight that it replaces, which takes most of the time here."""
    monkeypatch.setattr("gc.collect", lambda *generation: 0)


KERAS = [
    (MASKED_LM, "int8", 0.05),
    (MASKED_LM, "int4", 0.6),
    (Case("XLMRobertaXL", "ForSequenceClassification"), "int8", 0.1),
]


@pytest.mark.parametrize(
    ("case", "mode", "off"),
    chosen(KERAS, KERAS[1:]),
    ids=str,
)
def test_keras_quantizes(case, mode, off, tmp_path, collected_once):
    model, inputs = built(case), case.inputs("right")
    plain = logits_of(model, inputs)
    model.quantize(mode)
    found = logits_of(model, inputs)
    assert 0 < np.linalg.norm(found - plain) / np.linalg.norm(plain) < off
    dense = layer_at(model, Parameter(DENSE, (), (), Role.LINEAR_WEIGHT, Init.NORMAL))
    assert model.is_quantized and dense._kernel.dtype == "int8"
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits_of(again, inputs), found)
    with pytest.raises(InputError, match=rf"one that quantize\('{mode}'\) of Keras has changed.*model.save\("):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    for change in (
        lambda: model.resize_token_embeddings(50),
        lambda: model.prune_heads({0: [0]}),
        lambda: model.set_dtype("mixed_bfloat16"),
    ):
        with pytest.raises(InputError, match="which a quantized model does not allow"):
            change()
    with pytest.raises(InputError, match="of Keras has changed"):
        quantize(model, "int8")
    np.testing.assert_array_equal(logits_of(model, inputs), found)


def test_keras_quantizes_with_settings_and_some_layers(tmp_path, monkeypatch, collected_once):
    model, inputs = built(), MASKED_LM.inputs("right")
    config = keras.quantizers.Int4QuantizationConfig(block_size=8)
    model.quantize(config=config, filters=lambda layer: isinstance(layer, keras.layers.Embedding))
    found = logits_of(model, inputs)
    monkeypatch.setattr(widening, "WHOLE", 1000)
    monkeypatch.setattr(widening, "BLOCK", 4 * 10 * 32)
    assert_close(logits_of(model, inputs), found, tolerance=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits_of(again, inputs), logits_of(model, inputs))
    with pytest.raises(InputError, match="quantize of Keras takes a model with weights of floating point"):
        quantize(built(), "int8").quantize("int8")
