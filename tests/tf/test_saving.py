"""Keras's own files: ``.keras`` with the optimizer, ``.weights.h5``, configurations by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

import xlmr_tf  # noqa: E402
from tests.choice import chosen, in_turn  # noqa: E402
from tests.tf import tiny  # noqa: E402
from xlmr_core.heads import FAMILIES, HEADS  # noqa: E402

# NumPy about TensorFlow's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

EACH = [(family, head) for family in FAMILIES for head in HEADS]
CLASSES = [family + head for family, head in chosen(EACH, in_turn(list(FAMILIES), list(HEADS)))]


@pytest.mark.parametrize("name", CLASSES)
def test_a_keras_file_holds_the_whole_model(name, tmp_path):
    model = tiny.build(name)
    model.set_packing("never").set_attn_implementation("eager")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert again.config == model.config
    assert (again.packing, again.attn_implementation) == ("never", "eager")
    tiny.same_values(again, model)
    given = tiny.inputs(name)
    for ours, theirs in zip(again(**given).to_tuple(), model(**given).to_tuple(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_goes_on_where_it_was_saved(tmp_path):
    name = "XLMRobertaForSequenceClassification"
    given = tiny.inputs(name)
    batch = {**given, **tiny.labels(name, given)}
    model = tiny.build(name)
    model.compile(keras.optimizers.AdamW(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(given, batch["labels"], batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 2
    assert len(again.optimizer.variables) == len(model.optimizer.variables) > 4
    for ours, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=theirs.path)
    ours, theirs = (x.fit(given, batch["labels"], batch_size=4, epochs=2, verbose=0).history for x in (again, model))
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["XLMRobertaForMaskedLM", "XLMRobertaXLForTokenClassification"])
def test_a_weights_file(name, tmp_path):
    model, other = tiny.build(name), tiny.build(name, seed=1)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    tiny.same_values(other, model)


@pytest.mark.parametrize("name", ["XLMRobertaModel", "XLMRobertaXLForQuestionAnswering"])
def test_a_configuration_is_plain_and_found_by_name(name):
    model = tiny.build(name, dtype="mixed_bfloat16")
    written = keras.saving.serialize_keras_object(model)
    assert written["registered_name"] == f"xlmr_tf>TF{name}"
    again = keras.saving.deserialize_keras_object(written)
    assert type(again) is type(model)
    assert again.config == model.config
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert type(model).from_config(model.get_config()).config == model.config


def test_a_bare_model_without_a_pooler(tmp_path):
    config = tiny.build("XLMRobertaModel").config
    model = xlmr_tf.TFXLMRobertaModel(config, add_pooling_layer=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.pooler is None
    tiny.same_values(again, model)


def test_a_new_process_needs_only_the_import(tmp_path):
    name = "XLMRobertaForSequenceClassification"
    model = tiny.build(name)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", **tiny.inputs(name))
    code = (
        "import keras, numpy, xlmr_tf\n"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r})\n"
        f"inputs = dict(numpy.load({str(tmp_path / 'inputs.npz')!r}))\n"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, model(inputs).logits)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(tiny.inputs(name)).logits, atol=1e-6)
