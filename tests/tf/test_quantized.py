"""Quantized models: recorded weights and outputs, files, graphs, Keras's own quantization, what is refused."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

import xlmr_tf  # noqa: E402
from tests.choice import chosen, in_turn  # noqa: E402
from tests.core.test_encoder_decoder import IDS, MASK  # noqa: E402
from tests.core.test_encoder_decoder import config_of as pair_of  # noqa: E402
from tests.tf.models import assert_close  # noqa: E402
from tests.tf.quantized_models import (  # noqa: E402
    CLASSIFIER,
    DENSE,
    INT8,
    MASKED_LM,
    NF4,
    OURS,
    SCHEMES,
    XL,
    built,
    kept,
    logits_of,
    plain,
    same_tensors,
)
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


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


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
    model, exact = as_said, found
    if {said["bnb_4bit_compute_dtype"], as_said.variable_dtype} != {"float32"}:
        wide = {**said, "bnb_4bit_compute_dtype": "float32"}
        model = kind.from_pretrained(recorded / name, quantization_config=wide)
        exact = logits_of(model, inputs_of(expected))
    assert model.is_quantized and model.is_loaded_in_8bit is not model.is_loaded_in_4bit
    np.testing.assert_allclose(exact, expected["logits_dequantized_float32"], rtol=0, atol=1e-5)
    rows = model.published_rows()
    for module in (key.removeprefix("dequantized__") for key in expected if key.startswith("dequantized__")):
        layer = layer_at(model, rows[f"{module}.weight"])
        np.testing.assert_array_equal(tf.cast(layer.dequantize(), tf.float32), expected[f"dequantized__{module}"])


MADE = ["SequenceClassification/int8", "OddSizes/fp4_double"]


@pytest.mark.parametrize("name", chosen(MADE, MADE[1:]))
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


SIZES = {"3x32": (3, 32), "50x96": (50, 96)}
KINDS = [*OURS[1:], "bitsandbytes-nf4", "bitsandbytes-fp4", "bitsandbytes-int8"]
SIZED = [(kind, *SIZES[size]) for size, kind in in_turn(list(SIZES), KINDS)]


@pytest.mark.parametrize(("kind", "out", "into"), SIZED)
def test_layers_multiply_by_the_weight_that_the_scheme_decodes(kind, out, into):
    layer, decoded, bias = layer_of(kind, out, into)
    np.testing.assert_array_equal(layer.dequantize(), decoded)
    for tokens in (1, 70):
        x = normal(tokens, 2, into, seed=2)
        assert_close(layer(x), x @ decoded.T + bias)
    assert not layer.trainable_variables or [*layer.trainable_variables] == [layer.bias]


@pytest.mark.parametrize("kind", chosen(OURS, ["int8", "int4"]))  # what tables are in every scheme
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


IN_BLOCKS = [*OURS, "bitsandbytes-nf4", "bitsandbytes-int8"]


@pytest.mark.parametrize("kind", chosen(IN_BLOCKS, ["int8", "int4", "bitsandbytes-nf4"]))
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


@pytest.mark.parametrize("kind", chosen(IN_BLOCKS[1:], ["int4", "bitsandbytes-nf4", "bitsandbytes-int8"]))
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

SOME_SCHEMES = chosen(list(SCHEMES), ["int8", "nf4 skip", "bnb fp4 bf16", "bnb int8"])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of that one."""
    folder = tmp_path_factory.mktemp("plain")
    plain().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", SOME_SCHEMES)
def test_it_is_the_model_that_the_command_writes(name, source, tmp_path):
    """Byte for byte; loaded again it answers alike."""
    scheme, model, inputs = SCHEMES[name], kept(name), MASKED_LM.inputs("right")
    assert quantize(model, scheme) is model and quantize(model, model.quantization_scheme) is model
    convert(source, tmp_path / "small", "safetensors", scheme=scheme)
    model.save_pretrained(tmp_path / "saved")
    same_tensors(tmp_path / "saved", tmp_path / "small")
    said = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("small", "saved")]
    assert said[0]["quantization_config"] == said[1]["quantization_config"]
    loaded = MASKED_LM.model_class.from_pretrained(tmp_path / "small")
    assert loaded.quantization_scheme.name == model.quantization_scheme.name
    np.testing.assert_array_equal(logits_of(loaded, inputs), logits_of(model, inputs))
    held = [x for layer in loaded._flatten_layers() if isinstance(layer, QuantizedLayer) for x in layer.weights]
    assert len(held) > 10 and loaded.get_memory_footprint() < plain().get_memory_footprint() / 1.2
    assert isinstance(scheme, BitsAndBytesConfig) or not loaded.trainable_variables


@pytest.mark.parametrize("name", chosen(list(SCHEMES), ["int8", "nf4 skip"]))
def test_it_answers_as_the_values_that_its_codes_stand_for(name, source, tmp_path):
    convert(source, tmp_path / "small", "safetensors", scheme=SCHEMES[name])
    convert(tmp_path / "small", tmp_path / "wide", "safetensors", dequantize=True)
    inputs = MASKED_LM.inputs("right")
    found, wide = logits_of(kept(name), inputs), MASKED_LM.model_class.from_pretrained(tmp_path / "wide")
    wanted = logits_of(wide, inputs)
    if name == "int8":  # rounds activations too
        assert 0 < np.linalg.norm(wanted - found) / np.linalg.norm(wanted) < 0.05
    else:
        assert_close(found, wanted)


@pytest.mark.parametrize(
    ("name", "jit"),
    chosen(
        [(name, jit) for name in SCHEMES for jit in (False, True)],
        [("int8", True), ("int4", False), ("bnb nf4", True)],
    ),
)
def test_in_graphs(name, jit):
    model, inputs = kept(name, XL), XL.inputs("right")
    expected, tolerance = logits_of(model, inputs), 0.02 if name == "int8" else 2e-5
    given = {key: tf.constant(x, tf.int32) for key, x in inputs.items()}
    compiled = tf.function(lambda x: logits_of(model, x), jit_compile=jit)
    assert_close(compiled(given), expected, tolerance=tolerance)
    assert_close(model.set_packing("always")(inputs).logits[0], expected[0], tolerance=tolerance)


def test_a_head_is_trained_on_an_encoder_of_codes():
    model = quantize(built(CLASSIFIER), "nf4", skip=("key",))
    assert model.quantization_scheme == Nf4(("key",))
    inputs = {**CLASSIFIER.inputs("right"), "labels": np.array([0, 1, 0, 2])}
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(InputError, match="quantized as nf4 are codes, which take no gradient.*the head alone"):
        model.fit(inputs, verbose=0)
    model.classifier.trainable = True
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
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


def test_other_dtypes_around(source, tmp_path):
    kept("int8").save_pretrained(tmp_path / "int8")
    load = MASKED_LM.model_class.from_pretrained
    with pytest.raises(InputError, match="int8 model is float32 around its int8 weights, received dtype=bfloat16"):
        load(tmp_path / "int8", dtype="bfloat16")
    mixed = load(tmp_path / "int8", dtype="mixed_bfloat16")
    assert logits_of(mixed, MASKED_LM.inputs()).dtype == tf.bfloat16
    assert quantize(built(dtype="bfloat16"), Int4()).variable_dtype == "float32"
    half = load(source, dtype="float16", quantization_config=NF4)
    assert half.variable_dtype == "float16"
    assert half.config.quantization_config["llm_int8_skip_modules"] == ["lm_head.decoder"]
    assert np.isfinite(logits_of(half, MASKED_LM.inputs())).all()


def test_a_fresh_projection_is_drawn_and_quantized(tmp_path):
    kept("int4").save_pretrained(tmp_path)
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


# ---- What is refused


CHANGES = {
    "stays in float32 around its quantized weights, received float16": lambda model: model.set_dtype("float16"),
    "resize_token_embeddings.*original model": lambda model: model.resize_token_embeddings(50),
    "prune_heads.*original model": lambda model: model.prune_heads({0: [0]}),
    "enable_lora.*original model": lambda model: model.enable_lora(2),
    "received one with .* weights; quantize the original model": lambda model: quantize(model, "int8"),
}


@pytest.mark.parametrize("name", ["nf4 skip", "bnb nf4"])
def test_changes_are_refused_before_anything_changes(name):
    model, inputs = kept(name), MASKED_LM.inputs("right")
    expected = logits_of(model, inputs)
    before = [(variable.path, variable.dtype, variable.numpy().tobytes()) for variable in model.weights]
    for match, change in CHANGES.items():
        with pytest.raises(InputError, match=match):
            change(model)
        assert before == [(variable.path, variable.dtype, variable.numpy().tobytes()) for variable in model.weights]
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
    dense = model.get_parameter(DENSE)
    values = dense.numpy()
    dense.assign(np.full((64, 32), np.nan))
    with pytest.raises(InputError, match="layer.0.output.dense.weight has values for which there is no scale"):
        quantize(model, "int8")
    dense.assign(values)
    assert not any(isinstance(layer, QuantizedLayer) for layer in model._flatten_layers())
    assert not model.is_quantized and [variable.path for variable in model.weights] == before
    model.enable_lora(2)
    with pytest.raises(InputError, match="query must be a plain layer to be quantized, received Linear; merge"):
        quantize(model, "int8")


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
