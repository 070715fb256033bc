"""Quantized models: recorded weights and outputs, files, graphs, Keras's own quantization, what is refused."""

from __future__ import annotations

import copy
import json
from functools import partial

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

import xlmr_tf  # noqa: E402
from tests.choice import chosen  # noqa: E402
from tests.core.test_encoder_decoder import IDS, MASK  # noqa: E402
from tests.core.test_encoder_decoder import config_of as pair_of  # noqa: E402
from tests.tf.models import Case, assert_close  # noqa: E402
from xlmr_core.checkpoint import open_checkpoint  # noqa: E402
from xlmr_core.conversion import convert  # noqa: E402
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, InputError  # noqa: E402
from xlmr_core.parameters import Init, Parameter, Role  # noqa: E402
from xlmr_core.quantization import scheme_with, widening  # noqa: E402
from xlmr_core.quantization.four_bit import Int4, Nf4  # noqa: E402
from xlmr_tf import BitsAndBytesConfig, bitsandbytes, four_bit, int8, quantize  # noqa: E402
from xlmr_tf.values import layer_at  # noqa: E402
from xlmr_tf.widening import QuantizedLayer  # noqa: E402

# NumPy about TensorFlow's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

OURS = ["int8", "int4", "nf4", "fp4"]
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
MASKED_LM, CLASSIFIER = Case("XLMRoberta", "ForMaskedLM"), Case("XLMRoberta", "ForSequenceClassification")
XL = Case("XLMRobertaXL", "ForMaskedLM")
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
INT8 = BitsAndBytesConfig(load_in_8bit=True)
DENSE = "roberta.encoder.layer.0.output.dense.weight"


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def logits_of(model, inputs):
    return model.set_packing("never")(inputs).logits


def layer_of(kind, out, into):
    """A layer of a scheme, the weight it was made of, and the bias."""
    scheme = scheme_with(kind, (), 32 if kind in OURS[1:] else None)
    row = Parameter("m.weight", (out, into), ("out", "into"), Role.LINEAR_WEIGHT, Init.NORMAL)
    file = {"int8": int8}.get(kind, four_bit if kind in OURS else bitsandbytes)
    weight, bias = normal(out, into) * 0.1, keras.Variable(normal(out, seed=1))
    layer = file.layer(scheme, row, file.encoded(scheme, tf.constant(weight)), bias, dtype="float32")
    decoded = scheme.decode(scheme.encode(weight), (out, into))
    return layer, decoded, bias.numpy()


# ---- What bitsandbytes wrote

CLASSES = {
    "MaskedLM": xlmr_tf.TFXLMRobertaForMaskedLM,
    "XLMaskedLM": xlmr_tf.TFXLMRobertaXLForMaskedLM,
    "SequenceClassification": xlmr_tf.TFXLMRobertaForSequenceClassification,
    "OddSizes": xlmr_tf.TFXLMRobertaForSequenceClassification,
}
RECORDED = [
    *(f"MaskedLM/{name}" for name in ("nf4_double", "nf4_single", "fp4_single", "int8", "nf4_skip_lm_head")),
    *(f"MaskedLM/nf4_double_{name}" for name in ("storage_bf16", "dtype_bf16")),
    *(f"SequenceClassification/nf4_{name}" for name in ("double", "skip_classifier", "double_dtype_fp16")),
    *("SequenceClassification/int8", "OddSizes/nf4_double", "OddSizes/fp4_double"),
    *(f"XLMaskedLM/{name}" for name in ("nf4_double", "nf4_skip_lm_head", "int8")),
]
SOME = chosen(
    RECORDED,
    [
        *("MaskedLM/nf4_double_storage_bf16", "MaskedLM/nf4_double_dtype_bf16", "MaskedLM/int8"),
        *("SequenceClassification/nf4_double", "OddSizes/fp4_double", "XLMaskedLM/nf4_skip_lm_head"),
    ],
)
# bitsandbytes rounds activations of int8 too.
OFF = {"bfloat16": 0.1, "float16": 0.005, "int8": 0.3}


@pytest.fixture
def recorded(shared):
    return shared / "quantized"


def inputs_of(expected):
    return {name: expected[name] for name in ("input_ids", "attention_mask")}


def same_tensors(one, other):
    with open_checkpoint(one) as ours, open_checkpoint(other) as theirs:
        assert set(ours.names) == set(theirs.names)
        for name in theirs.names:
            mine, wanted = ours.tensor(name), theirs.tensor(name)
            assert (mine.dtype, mine.shape, bytes(mine.data)) == (wanted.dtype, wanted.shape, bytes(wanted.data)), name


@pytest.mark.parametrize("name", SOME)
def test_recorded_weights_outputs_and_files(name, recorded, tmp_path):
    """Weights bit for bit, outputs at float32 compute to 1e-5 and as the file says as far as bitsandbytes itself was;
    saved as the same tensors.
    """
    expected, kind = np.load(recorded / name / "expected.npz"), CLASSES[name.partition("/")[0]]
    said = json.loads((recorded / name / "config.json").read_text())["quantization_config"]
    as_said = kind.from_pretrained(recorded / name, dtype="auto")
    as_said.save_pretrained(tmp_path)
    same_tensors(tmp_path, recorded / name)
    how = "int8" if said["load_in_8bit"] else said["bnb_4bit_compute_dtype"]
    found = tf.cast(logits_of(as_said, inputs_of(expected)), tf.float32)
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=OFF.get(how, 1e-5))
    model = kind.from_pretrained(recorded / name, quantization_config={**said, "bnb_4bit_compute_dtype": "float32"})
    assert model.is_quantized and model.is_loaded_in_8bit is not model.is_loaded_in_4bit
    exact = logits_of(model, inputs_of(expected))
    np.testing.assert_allclose(exact, expected["logits_dequantized_float32"], rtol=0, atol=1e-5)
    rows = model.published_rows()
    for module in (key.removeprefix("dequantized__") for key in expected if key.startswith("dequantized__")):
        layer = layer_at(model, rows[f"{module}.weight"])
        np.testing.assert_array_equal(tf.cast(layer.dequantize(), tf.float32), expected[f"dequantized__{module}"])


@pytest.mark.parametrize("name", ["SequenceClassification/int8", "OddSizes/fp4_double"])
def test_quantized_while_it_is_loaded(name, recorded):
    """The same model as that which bitsandbytes made, but for the last bit of an offset."""
    said = json.loads((recorded / name / "config.json").read_text())["quantization_config"]
    source, kind = recorded / name.partition("/")[0] / "source", CLASSES[name.partition("/")[0]]
    inputs = inputs_of(np.load(recorded / name / "expected.npz"))
    made, theirs = kind.from_pretrained(source, quantization_config=said), kind.from_pretrained(recorded / name)
    assert set(made.parameter_table()) == set(theirs.parameter_table())
    assert_close(logits_of(made, inputs), logits_of(theirs, inputs), tolerance=5e-6)


def test_older_names_of_the_arguments(recorded):
    load, source = CLASSES["MaskedLM"].from_pretrained, recorded / "MaskedLM/source"
    assert load(source, load_in_8bit=True).is_loaded_in_8bit
    with pytest.raises(InputError, match="expected quantization_config alone"):
        load(source, load_in_8bit=True, quantization_config=INT8)


# ---- Layers


@pytest.mark.parametrize("kind", [*OURS[1:], "bitsandbytes-nf4", "bitsandbytes-fp4", "bitsandbytes-int8"])
@pytest.mark.parametrize(("out", "into"), [(3, 32), (50, 96)])
def test_layers_multiply_by_the_weight_that_the_scheme_decodes(kind, out, into):
    layer, decoded, bias = layer_of(kind, out, into)
    np.testing.assert_array_equal(layer.dequantize(), decoded)
    for tokens in (1, 70):
        x = normal(tokens, 2, into, seed=2)
        assert_close(layer(x), x @ decoded.T + bias)
    assert not layer.trainable_variables or [*layer.trainable_variables] == [layer.bias]


@pytest.mark.parametrize("kind", OURS)
def test_tables_are_looked_up_and_multiplied(kind):
    layer, decoded, _ = layer_of(kind, 50, 96)
    parts = [getattr(layer, attribute).value for attribute in layer.kept]
    scheme = scheme_with(kind, (), None if kind == "int8" else 32)
    table = int8.Int8Embedding(*parts) if kind == "int8" else four_bit.FourBitEmbedding(scheme, *parts)
    assert (table.input_dim, table.output_dim) == (50, 96)
    ids, x = np.array([[2, 0, 49]]), normal(2, 3, 96, seed=2)
    np.testing.assert_array_equal(table(ids), decoded[ids])
    np.testing.assert_array_equal(tf.function(table, jit_compile=True)(ids), decoded[ids])
    wanted = x @ decoded.T
    off = np.linalg.norm(table.product(tf.constant(x)) - wanted) / np.linalg.norm(wanted)
    assert off < (0.01 if kind == "int8" else 1e-6)


def test_int8_rounds_tokens_as_specified():
    """q * scale + middle, from the least to the greatest value of a token."""
    layer, decoded, bias = layer_of("int8", 40, 96)
    x = np.abs(normal(70, 96, seed=3))
    middle = (x.min(1, keepdims=True) + x.max(1, keepdims=True)) / 2
    scale = np.abs(x - middle).max(1, keepdims=True) / 127
    assert_close(layer(x), (np.rint((x - middle) / scale) * scale + middle) @ decoded.T + bias)


@pytest.mark.parametrize("kind", [*OURS, "bitsandbytes-nf4", "bitsandbytes-int8"])
def test_a_large_weight_is_widened_in_blocks(kind, monkeypatch):
    layer, _, _ = layer_of(kind, 200, 45 if kind == "bitsandbytes-nf4" else 32)
    x = tf.constant(normal(5, layer.in_features, seed=3))

    def answers():
        if kind == "int8":
            return layer(x), x
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, x)

    whole = answers()
    monkeypatch.setattr(widening, "WHOLE", 1000)
    monkeypatch.setattr(widening, "BLOCK", 4 * 50 * layer.in_features)  # no whole blocks, if nobody looks
    assert len(widening.spans(200, layer.in_features, layer.alignment)) == 4
    for compiled in (answers, tf.function(answers)):
        for found, wanted in zip(compiled(), whole, strict=True):
            assert_close(found, wanted, tolerance=1e-6)


@pytest.mark.parametrize("kind", [*OURS[1:], "bitsandbytes-nf4", "bitsandbytes-int8"])
def test_gradients_reach_inputs(kind):
    layer, decoded, bias = layer_of(kind, 40, 32)
    x = tf.constant(normal(3, 2, 32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x) ** 2)
    assert_close(tape.gradient(loss, x), 2 * (x.numpy() @ decoded.T + bias) @ decoded)


def test_no_gradient_flows_through_int8_of_ours():
    layer, _, _ = layer_of("int8", 40, 32)
    x = tf.constant(normal(3, 32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    with pytest.raises(InputError, match="gradients do not flow through int8 layers; stop them with tf.stop_gradient"):
        tape.gradient(y, x)


# ---- Whole models

SCHEMES = {
    "int8": "int8",
    "int4": Int4(),
    "nf4 skip": Nf4(("query", "embeddings"), 32),
    "bnb nf4": NF4,
    "bnb fp4 bf16": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage="bfloat16"),
    "bnb int8": INT8,
}
SOME_SCHEMES = chosen(list(SCHEMES), ["int8", "nf4 skip", "bnb fp4 bf16", "bnb int8"])


def built(case=MASKED_LM, **changes):
    return case.build(**{**WIDE, **changes})


@pytest.mark.parametrize("name", SOME_SCHEMES)
def test_it_is_the_model_that_the_command_writes(name, tmp_path):
    """Byte for byte; loaded again it answers alike, as does the model of the values that the codes stand for."""
    scheme, model, inputs = SCHEMES[name], built(), MASKED_LM.inputs("right")
    model.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme)
    assert quantize(model, scheme) is model and quantize(model, model.quantization_scheme) is model
    model.save_pretrained(tmp_path / "saved")
    same_tensors(tmp_path / "saved", tmp_path / "small")
    said = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("small", "saved")]
    assert said[0]["quantization_config"] == said[1]["quantization_config"]
    found = logits_of(model, inputs)
    loaded = MASKED_LM.model_class.from_pretrained(tmp_path / "small")
    assert loaded.quantization_scheme.name == model.quantization_scheme.name
    np.testing.assert_array_equal(logits_of(loaded, inputs), found)
    convert(tmp_path / "small", tmp_path / "wide", "safetensors", dequantize=True)
    wide = logits_of(MASKED_LM.model_class.from_pretrained(tmp_path / "wide"), inputs)
    if scheme == "int8":  # rounds activations too
        assert 0 < np.linalg.norm(wide - found) / np.linalg.norm(wide) < 0.05
    else:
        assert_close(found, wide)
    held = [x for layer in loaded._flatten_layers() if isinstance(layer, QuantizedLayer) for x in layer.weights]
    assert len(held) > 10 and loaded.get_memory_footprint() < built().get_memory_footprint() / 1.2
    assert isinstance(scheme, BitsAndBytesConfig) or not loaded.trainable_variables


@pytest.mark.parametrize(
    ("scheme", "jits"),
    [("int8", [True]), (Nf4(group_size=32), [False]), (NF4, [False, True])],
    ids=["int8", "nf4", "bnb nf4"],
)
def test_in_graphs(scheme, jits):
    model, inputs = quantize(built(XL), scheme), XL.inputs("right")
    expected, tolerance = logits_of(model, inputs), 0.02 if scheme == "int8" else 2e-5
    given = {name: tf.constant(x, tf.int32) for name, x in inputs.items()}
    for jit in jits:
        compiled = tf.function(lambda x: logits_of(model, x), jit_compile=jit)
        assert_close(compiled(given), expected, tolerance=tolerance)
    assert_close(model.set_packing("always")(inputs).logits[0], expected[0], tolerance=tolerance)


@pytest.mark.parametrize(
    ("case", "scheme"),
    [(CLASSIFIER, Int4()), (MASKED_LM, SCHEMES["bnb fp4 bf16"])],
    ids=["int4", "bnb fp4 bf16"],
)
def test_keras_files_and_copies(case, scheme, tmp_path):
    model, inputs = quantize(built(case), scheme), case.inputs("right")
    expected = logits_of(model, inputs)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    other = quantize(built(case, seed=5), scheme)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for one in (again, other, copy.deepcopy(model)):
        np.testing.assert_array_equal(logits_of(one, inputs), expected)
        assert one.quantization_scheme.written() == model.quantization_scheme.written()
        assert len(one.trainable_variables) == len(model.trainable_variables)
    again.save_pretrained(tmp_path / "again")
    model.save_pretrained(tmp_path / "model")
    same_tensors(tmp_path / "again", tmp_path / "model")
    made = type(model).from_config(model.get_config())
    assert made.is_quantized and np.isfinite(logits_of(made, inputs)).all()


def test_a_head_is_trained_on_an_encoder_of_codes():
    model = quantize(built(CLASSIFIER), Nf4(group_size=32))
    inputs = {**CLASSIFIER.inputs("right"), "labels": np.array([0, 1, 0, 2])}
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(InputError, match="quantized as nf4 are codes, which take no gradient.*the head alone"):
        model.fit(inputs, verbose=0)
    model.classifier.trainable = True
    assert {variable.path.split("/")[-1] for variable in model.trainable_variables} == {"kernel", "bias"}
    before = model.classifier.out_proj.kernel.numpy()
    model.train_on_batch(inputs)
    assert (model.classifier.out_proj.kernel.numpy() != before).any()
    layer_at(model, model.published_rows()[DENSE]).weight.trainable = True
    with pytest.raises(InputError, match="take no gradient"):
        model.train_on_batch(inputs)


def test_the_rest_of_a_model_of_bitsandbytes_can_be_trained():
    model = quantize(built(CLASSIFIER), NF4)
    with tf.GradientTape() as tape:
        loss = model({**CLASSIFIER.inputs("right"), "labels": np.array([0, 1, 0, 2])}).loss
    names = DENSE.replace("weight", "bias"), "roberta.embeddings.word_embeddings.weight"
    variables = [model.get_parameter(name) for name in names]
    assert all(variable.trainable for variable in variables)
    assert all(gradient is not None for gradient in tape.gradient(loss, [x.value for x in variables]))


def test_other_dtypes_around(tmp_path):
    quantize(built(), "int8").save_pretrained(tmp_path / "int8")
    load = MASKED_LM.model_class.from_pretrained
    with pytest.raises(InputError, match="int8 model is float32 around its int8 weights, received dtype=bfloat16"):
        load(tmp_path / "int8", dtype="bfloat16")
    mixed = load(tmp_path / "int8", dtype="mixed_bfloat16")
    assert logits_of(mixed, MASKED_LM.inputs()).dtype == tf.bfloat16
    assert quantize(built(dtype="bfloat16"), Int4()).variable_dtype == "float32"
    built().save_pretrained(tmp_path / "plain")
    half = load(tmp_path / "plain", dtype="float16", quantization_config=NF4)
    assert half.variable_dtype == "float16"
    assert half.config.quantization_config["llm_int8_skip_modules"] == ["lm_head.decoder"]
    assert np.isfinite(logits_of(half, MASKED_LM.inputs())).all()


def test_a_fresh_projection_is_drawn_and_quantized(tmp_path):
    quantize(built(), Int4()).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="lm_head.decoder.weight.* fresh values"):
        model = MASKED_LM.model_class.from_pretrained(tmp_path, tie_word_embeddings=False)
    decoder = model.get_output_embeddings()
    assert isinstance(decoder, four_bit.FourBitLinear) and 0.01 < float(tf.math.reduce_std(decoder.dequantize())) < 0.03


@pytest.mark.parametrize("file", chosen(["checkpoint", "keras"], ["checkpoint"]))
def test_both_sides_of_an_encoder_decoder(file, tmp_path):
    model = quantize(xlmr_tf.TFEncoderDecoderModel(pair_of("base", "xl", width=24, initializer_range=0.3)), NF4)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": np.array([[0, 7, 9], [0, 5, 6]])}
    expected = model(inputs).logits
    assert model.encoder.is_quantized and model.decoder.is_quantized
    if file == "keras":
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    else:
        model.save_pretrained(tmp_path)
        again = xlmr_tf.TFEncoderDecoderModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(inputs).logits, expected)
    with pytest.raises(InputError, match="built of models with floating point weights.*as a whole"):
        xlmr_tf.TFEncoderDecoderModel(encoder=model.encoder, decoder=model.decoder)


# ---- Keras's own


@pytest.fixture
def collected_once(monkeypatch):
    """Keras collects garbage for each weight that it replaces, which takes most of the time here."""
    monkeypatch.setattr("gc.collect", lambda *generation: 0)


@pytest.mark.parametrize(
    ("case", "mode", "off"),
    [
        (MASKED_LM, "int8", 0.05),
        (MASKED_LM, "int4", 0.6),
        (Case("XLMRobertaXL", "ForSequenceClassification"), "int8", 0.1),
    ],
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


# ---- What is refused


CHANGES = {
    "stays in float32 around its quantized weights, received float16": lambda model: model.set_dtype("float16"),
    "resize_token_embeddings.*original model": lambda model: model.resize_token_embeddings(50),
    "prune_heads.*original model": lambda model: model.prune_heads({0: [0]}),
    "enable_lora.*original model": lambda model: model.enable_lora(2),
    "received one with .* weights; quantize the original model": lambda model: quantize(model, "int8"),
}


@pytest.mark.parametrize("scheme", [Nf4(group_size=32), NF4], ids=["nf4", "bnb nf4"])
def test_changes_are_refused_before_anything_changes(scheme):
    model, inputs = quantize(built(), scheme), MASKED_LM.inputs("right")
    expected = logits_of(model, inputs)
    for match, change in CHANGES.items():
        with pytest.raises(InputError, match=match):
            change(model)
        np.testing.assert_array_equal(logits_of(model, inputs), expected)


def test_settings_that_do_not_fit_change_nothing():
    model = built()
    before = [variable.path for variable in model.weights]
    for scheme, skip, match in (
        (Nf4(group_size=64), (), "groups of 64 .* divides 32"),
        ("int3", (), "scheme must be one of"),
        ({}, (), "asks for nothing"),
        ("int8", ("quary",), "skip must name modules"),
    ):
        with pytest.raises(ConfigError, match=match):
            quantize(model, scheme, skip=skip)
    adapted = built()
    adapted.enable_lora(2)
    with pytest.raises(InputError, match="query must be a plain layer to be quantized, received Linear; merge"):
        quantize(adapted, "int8")
    broken = built()
    broken.get_parameter("roberta.encoder.layer.0.output.dense.weight").assign(np.full((64, 32), np.nan))
    with pytest.raises(InputError, match="layer.0.output.dense.weight has values for which there is no scale"):
        quantize(broken, "int8")
    assert not broken.is_quantized
    assert not any(isinstance(layer, QuantizedLayer) for layer in broken._flatten_layers())
    assert not model.is_quantized and [variable.path for variable in model.weights] == before
    assert quantize(model, "int4", skip=("query",)).quantization_scheme == Int4(("query",))


def test_quantized_files_are_not_quantized_otherwise(recorded):
    load, folder = CLASSES["MaskedLM"].from_pretrained, recorded / "MaskedLM/nf4_single"
    with pytest.raises(InputError, match="has bitsandbytes weights already, received"):
        load(folder, quantization_config=INT8)
    with pytest.warns(ConfigWarning, match="only bnb_4bit_compute_dtype is used"):
        load(folder, quantization_config=NF4)


def test_a_quant_state_that_disagrees(recorded):
    source = recorded / "MaskedLM/nf4_single"
    config = xlmr_tf.XLMRobertaConfig.from_pretrained(source)
    model = xlmr_tf.TFXLMRobertaForMaskedLM.from_pretrained(source)
    values = {name: model.get_values(name) for name, row in model.parameter_table().items() if row.tied_to is None}
    load = partial(xlmr_tf.TFXLMRobertaForMaskedLM.from_pretrained, None, config=config)
    assert load(state_dict=values).is_loaded_in_4bit
    values[f"{DENSE}.absmax"] = values[f"{DENSE}.absmax"][:-1]
    with pytest.raises(CheckpointError, match=r"absmax must have the shape \(320,\), received \(319,\)"):
        load(state_dict=values)
