"""Models served without this package: SavedModel with ids or with texts, LiteRT."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.tf import tiny  # noqa: E402
from xlmr_core.errors import InputError, MissingBackendError  # noqa: E402

HEADS = (
    "XLMRobertaModel",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForTokenClassification",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaXLForMaskedLM",
)


def compare(served, called, *, atol=1e-5):
    assert type(served) is dict and set(served) == set(called)
    for name, expected in called.items():
        np.testing.assert_allclose(served[name], expected, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_model_of_any_size(name, tmp_path):
    model = tiny.build(name)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    rank = 3 if name.endswith("MultipleChoice") else 2
    _, signature = served.signatures["serving_default"].structured_input_signature
    assert {key: (spec.shape.as_list(), spec.dtype) for key, spec in signature.items()} == {
        key: ([None] * rank, tf.int32) for key in ("input_ids", "attention_mask")
    }
    for rows, length in ((4, 6), (3, 9)):
        given = tiny.inputs(name, rows=rows, length=length, seed=rows)
        called = model(**given)
        compare(served.serve(given), called)
        compare(served.signatures["serving_default"](**{key: tf.constant(x) for key, x in given.items()}), called)


def test_token_types_are_an_input_where_there_are_several(tmp_path):
    model = tiny.build("XLMRobertaForSequenceClassification", type_vocab_size=2)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    given = {**tiny.inputs(), "token_type_ids": np.tile(np.array([[0, 0, 1, 1, 1, 1]], np.int32), (4, 1))}
    compare(served.serve(given), model(**given))


def test_states_of_all_layers_are_served_flat(tmp_path):
    model = tiny.build("XLMRobertaModel", output_hidden_states=True)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    found = served.serve(tiny.inputs())
    called = model(**tiny.inputs())
    assert set(found) == {"last_hidden_state", "pooler_output", "hidden_states_0", "hidden_states_1"}
    for number, states in enumerate(called.hidden_states):
        np.testing.assert_allclose(found[f"hidden_states_{number}"], states, atol=2e-6)


def test_a_signature_of_ones_own(tmp_path):
    model = tiny.build("XLMRobertaForSequenceClassification")
    ids = tf.TensorSpec((None, 6), tf.int64, "input_ids")
    model.export(tmp_path / "served", verbose=False, input_signature=[{"input_ids": ids}])
    _, signature = tf.saved_model.load(tmp_path / "served").signatures["serving_default"].structured_input_signature
    assert signature == {"input_ids": ids}


def test_tensorflow_alone_serves_it(tmp_path):
    """In a process that never sees this package; what came before the export, packing included, is in the file."""
    name = "XLMRobertaForTokenClassification"
    model = tiny.build(name)
    model.export(tmp_path / "served", verbose=False)
    given = tiny.inputs(name)
    np.savez(tmp_path / "inputs.npz", **given)
    code = (
        "import sys, numpy, tensorflow as tf\n"
        f"served = tf.saved_model.load({str(tmp_path / 'served')!r})\n"
        f"inputs = dict(numpy.load({str(tmp_path / 'inputs.npz')!r}))\n"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, served.serve(inputs)['logits'])\n"
        "assert not {'xlmr_tf', 'xlmr_core'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"TF_CPP_MIN_LOG_LEVEL": "2"})
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(given).logits, atol=2e-6)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize("name", ["XLMRobertaModel", "XLMRobertaXLModel"])
def test_a_lite_encoder(name, tmp_path):
    model = tiny.build(name)
    model.export(tmp_path / "encoder.tflite", format="litert", verbose=False)
    assert model.packing == "auto"
    interpreter = tf.lite.Interpreter(model_path=str(tmp_path / "encoder.tflite"))
    runner = interpreter.get_signature_runner()
    for rows, length in ((4, 6), (2, 9)):
        given = tiny.inputs(rows=rows, length=length, seed=rows)
        found = runner(**given)
        called = model.set_packing("never")(**given)
        assert set(found) == set(called)
        for key, expected in called.items():
            np.testing.assert_allclose(found[key], expected, atol=1e-5, err_msg=key)
        model.set_packing("auto")
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert not {name for name in operators if name.startswith("Flex")}, "a phone has only the built-in operators"


@pytest.fixture(scope="module")
def tokenizer():
    from xlmr_core.tokenization import AutoTokenizer

    return AutoTokenizer.from_pretrained("xlmr-mini")


def test_texts_are_tokenized_inside(tokenizer, tmp_path):
    pytest.importorskip("tensorflow_text")
    model = tiny.build("XLMRobertaForSequenceClassification", vocab_size=len(tokenizer), max_position_embeddings=34)
    model.export(tmp_path / "served", verbose=False, tokenizer=tokenizer)
    served = tf.saved_model.load(tmp_path / "served")
    texts = ["Plants create energy.", "", "Ein  Satz mit ﬁ und\u3000Leerzeichen 𓀀𓀀", "Bonjour " * 40]
    given = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="np")
    compare(served.serve_text(tf.constant(texts)), model(**given))
    ids = {name: values.astype(np.int32) for name, values in given.items()}
    compare(served.serve(ids), model(**given))


def test_a_tokenizer_that_cannot_go_inside_is_refused(tokenizer, tmp_path, monkeypatch):
    model = tiny.build("XLMRobertaForSequenceClassification")
    with pytest.raises(InputError, match="a tokenizer can be part of a tf_saved_model only, received format='litert'"):
        model.export(tmp_path / "model.tflite", format="litert", tokenizer=tokenizer)
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(MissingBackendError, match="pip install tensorflow-text, or tokenize before the call"):
        model.export(tmp_path / "served", tokenizer=tokenizer)
    tokenizer.save_pretrained(tmp_path / "json", legacy_format=False)
    alone = type(tokenizer).from_pretrained(tmp_path / "json")
    with pytest.raises(InputError, match="received one that was read from tokenizer.json alone"):
        model.export(tmp_path / "served", tokenizer=alone)
    assert not (tmp_path / "served").exists() and not (tmp_path / "model.tflite").exists()
