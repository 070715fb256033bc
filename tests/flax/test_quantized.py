"""Models of four and eight bits, ours and as bitsandbytes has them: recorded weights and outputs, files, gradients,
what goes through JAX's transformations, what is refused.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402

import xlmr_flax  # noqa: E402
from tests.choice import chosen, in_turn  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.checkpoint import open_checkpoint  # noqa: E402
from xlmr_core.conversion import convert  # noqa: E402
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, InputError  # noqa: E402
from xlmr_core.parameters import Init, Parameter, Role  # noqa: E402
from xlmr_core.quantization import scheme_with, widening  # noqa: E402
from xlmr_core.quantization.four_bit import Int4, Nf4  # noqa: E402
from xlmr_flax import BitsAndBytesConfig, bitsandbytes, four_bit, int8, quantize  # noqa: E402
from xlmr_flax.functional import compiled, flatten  # noqa: E402
from xlmr_flax.quantized import _encoded  # noqa: E402
from xlmr_flax.widening import QuantizedLayer  # noqa: E402

OURS = ["int8", "int4", "nf4", "fp4"]
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
INT8 = BitsAndBytesConfig(load_in_8bit=True)
EVERY = {
    "int8": "int8",
    "int4": Int4(),
    "nf4": Nf4(group_size=32),
    "nf4 skip": Nf4(("query", "embeddings"), 16),
    "bnb nf4": NF4,
    "bnb fp4 bf16": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage="bfloat16"),
    "bnb int8": INT8,
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def logits_of(model, inputs=None):
    return np.asarray(model.set_packing("never")(**(models.batch() if inputs is None else inputs)).logits, np.float32)


def quantized(scheme, head="ForMaskedLM", **changes):
    return quantize(models.model(head, **{**WIDE, **changes}), scheme)


@cache
def kept(name):
    """A quantized model, built once; for tests that leave it as it is."""
    return quantized(EVERY[name])


def assert_same(one, other):
    """Trees of the same bits; codes that are called bfloat16 may be no numbers."""
    one, other = flatten(one), flatten(other)
    assert one.keys() == other.keys()
    for path, x in one.items():
        assert (x.dtype, x.shape) == (other[path].dtype, other[path].shape), path
        assert np.asarray(x).tobytes() == np.asarray(other[path]).tobytes(), path


def layers_of(model):
    return {path: node for path, node in nnx.iter_graph(model) if isinstance(node, QuantizedLayer)}


# ---- What bitsandbytes wrote

CLASSES = {
    "MaskedLM": xlmr_flax.FlaxXLMRobertaForMaskedLM,
    "XLMaskedLM": xlmr_flax.FlaxXLMRobertaXLForMaskedLM,
    "SequenceClassification": xlmr_flax.FlaxXLMRobertaForSequenceClassification,
    "OddSizes": xlmr_flax.FlaxXLMRobertaForSequenceClassification,
}
RECORDED = [
    *(f"MaskedLM/{name}" for name in ("nf4_double", "nf4_single", "fp4_single", "int8", "nf4_skip_lm_head")),
    *(f"MaskedLM/nf4_double_{name}" for name in ("storage_bf16", "dtype_bf16")),
    *(f"SequenceClassification/nf4_{name}" for name in ("double", "skip_classifier", "double_dtype_fp16")),
    *("SequenceClassification/int8", "OddSizes/nf4_double", "OddSizes/fp4_double"),
    *(f"XLMaskedLM/{name}" for name in ("nf4_double", "nf4_skip_lm_head", "int8")),
]
# bitsandbytes rounds activations of int8 too.
OFF = {"bfloat16": 0.1, "float16": 0.005, "int8": 0.3}


@pytest.fixture
def recorded(shared):
    return shared / "quantized"


def inputs_of(expected):
    return {name: expected[name] for name in ("input_ids", "attention_mask")}


# Each class and each kind once, and one in half precision.
SOME = ("MaskedLM/int8", "OddSizes/fp4_double", "XLMaskedLM/nf4_double", "SequenceClassification/nf4_double_dtype_fp16")


@pytest.mark.parametrize("name", chosen(RECORDED, SOME))
def test_recorded_weights_outputs_and_files(name, recorded, tmp_path):
    """Weights bit for bit, logits at float32 to 1e-5, as the file says as far as bitsandbytes itself was."""
    expected, kind = np.load(recorded / name / "expected.npz"), CLASSES[name.partition("/")[0]]
    said = json.loads((recorded / name / "config.json").read_text())["quantization_config"]
    model = kind.from_pretrained(recorded / name, param_dtype="auto")
    assert model.is_quantized and model.is_loaded_in_8bit is not model.is_loaded_in_4bit
    weights = jax.jit(lambda model: {path: layer.dequantize() for path, layer in layers_of(model).items()})(model)
    weights = {".".join(map(str, path)): np.asarray(x, np.float32) for path, x in weights.items()}
    assert set(weights) == set(expected["quantized_modules"])
    for module in weights:
        if f"dequantized__{module}" in expected:
            np.testing.assert_array_equal(weights[module], expected[f"dequantized__{module}"], module)
    sums = [weights[module].astype(np.float64).sum() for module in expected["quantized_modules"]]
    np.testing.assert_allclose(sums, expected["dequantized_sum"], rtol=1e-12)

    as_said = exact = logits_of(model, inputs_of(expected))
    if said["bnb_4bit_compute_dtype"] != "float32":
        wide = {**said, "bnb_4bit_compute_dtype": "float32"}
        exact = logits_of(kind.from_pretrained(recorded / name, quantization_config=wide), inputs_of(expected))
    np.testing.assert_allclose(exact, expected["logits_dequantized_float32"], rtol=0, atol=1e-5)
    how = "int8" if said["load_in_8bit"] else said["bnb_4bit_compute_dtype"]
    np.testing.assert_allclose(as_said, expected["logits"], rtol=0, atol=OFF.get(how, 1e-5))

    model.save_pretrained(tmp_path)
    with open_checkpoint(recorded / name) as theirs, open_checkpoint(tmp_path) as ours:
        assert set(ours.names) == set(theirs.names)
        for tensor in theirs.names:
            one, other = ours.tensor(tensor), theirs.tensor(tensor)
            assert (one.dtype, one.shape, bytes(one.data)) == (other.dtype, other.shape, bytes(other.data)), tensor


MADE = ["SequenceClassification/int8", "OddSizes/fp4_double"]


@pytest.mark.parametrize("name", chosen(MADE, MADE[1:]))
def test_quantized_while_it_is_loaded(name, recorded):
    """The same model as that which bitsandbytes made, but for the last bit of an offset."""
    said = json.loads((recorded / name / "config.json").read_text())["quantization_config"]
    source, kind = recorded / name.partition("/")[0] / "source", CLASSES[name.partition("/")[0]]
    inputs = inputs_of(np.load(recorded / name / "expected.npz"))
    made, theirs = kind.from_pretrained(source, quantization_config=said), kind.from_pretrained(recorded / name)
    assert {path: x.dtype for path, x in flatten(made.codes).items()} == {
        path: x.dtype for path, x in flatten(theirs.codes).items()
    }
    np.testing.assert_allclose(logits_of(made, inputs), logits_of(theirs, inputs), atol=5e-6)


# ---- Layers


def layer_of(kind, out, into, seed=0):
    """A layer, and its bias."""
    scheme = scheme_with(kind, (), 32 if kind in ("int4", "nf4", "fp4") else None)
    row = Parameter("m.weight", (out, into), ("out", "into"), Role.LINEAR_WEIGHT, Init.NORMAL)
    bias = normal(out, seed=1)
    file = int8 if kind == "int8" else four_bit if kind in OURS else bitsandbytes
    parts = _encoded(scheme, row, normal(out, into, seed=seed) * np.float32(0.1))
    if file is bitsandbytes:
        scheme = scheme.known({"m.weight": bitsandbytes.state_in(parts)})
    parts = {suffix: jnp.asarray(part) for suffix, part in parts.items()}
    return file.layer(scheme, row, parts, nnx.Param(jnp.asarray(bias))), bias


SIZES = {"3x32": (3, 32), "50x96": (50, 96)}
SIZED = [(name, *SIZES[size]) for size, name in in_turn(list(SIZES), OURS)]


@pytest.mark.parametrize(("name", "out", "into"), SIZED)
def test_layers_are_the_weight_that_the_scheme_decodes(name, out, into):
    scheme, weight = scheme_with(name, (), None if name == "int8" else 32), normal(out, into) * np.float32(0.1)
    layer, bias = layer_of(name, out, into)
    decoded = scheme.decode(scheme.encode(weight), (out, into))
    np.testing.assert_array_equal(compiled(layer, "dequantize"), decoded)
    for tokens in (1, 70):
        x = normal(tokens, 1, into, seed=2)
        expected = x @ decoded.T
        off = np.asarray(compiled(layer, "__call__", x)) - bias - expected
        # Of int8 what comes in is rounded too.
        assert np.linalg.norm(off) / np.linalg.norm(expected) < (0.01 if name == "int8" else 1e-6)
    row = Parameter("m.weight", (out, into), ("vocab", "hidden"), Role.EMBEDDING, Init.NORMAL)
    parts = {suffix: jnp.asarray(part) for suffix, part in scheme.encode(weight).items()}
    table = (int8 if name == "int8" else four_bit).layer(scheme, row, parts, None)
    found = np.asarray(compiled(table, "__call__", np.array([[2, 0, 1, out]])))
    np.testing.assert_array_equal(found[0, :3], decoded[[2, 0, 1]])
    assert np.isnan(found[0, 3]).all()  # as outside of a table of floats


LAYERS = [*OURS, "bitsandbytes-nf4", "bitsandbytes-int8"]


@pytest.mark.parametrize("kind", chosen(LAYERS, ("int8", "bitsandbytes-nf4")))
def test_a_large_weight_is_widened_in_blocks(kind, monkeypatch):
    layer, _ = layer_of(kind, 200, 45 if kind == "bitsandbytes-nf4" else 32)
    x = normal(5, layer.in_features, seed=3)

    def both():
        def of(x):
            if kind == "int8":
                return layer(x), layer(x)
            return jax.value_and_grad(lambda x: jnp.square(layer(x)).sum())(x)

        return jax.jit(of)(x)

    whole = both()
    monkeypatch.setattr(widening, "WHOLE", 1000)
    monkeypatch.setattr(widening, "BLOCK", 4 * 64 * layer.in_features)
    assert len(widening.spans(layer.out_features, layer.in_features, layer.alignment)) == 4
    for one, other in zip(both(), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", chosen(LAYERS, ("int8", "bitsandbytes-nf4")))
def test_one_layer_is_wide_at_a_time(kind):
    """XLA would widen all of them first. Inputs side by side share a weight that is widened."""
    layers, x = [layer_of(kind, 64, 64, seed)[0] for seed in range(4)], normal(2, 64)

    def run(x, layers):
        for layer in layers:
            x = jnp.tanh(layer(x))
        return x

    program = jax.jit(run).lower(x, layers).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2 * 64 * 64 * 4
    each = jax.jit(jax.vmap(run, (0, None))).lower(np.stack([x] * 8), layers).compile()
    assert each.memory_analysis().temp_size_in_bytes < 3 * 64 * 64 * 4


@pytest.mark.parametrize("kind", chosen(LAYERS[1:], ("int4", "bitsandbytes-nf4")))
def test_gradients_reach_inputs_and_keep_nothing_wide(kind):
    layer, bias = layer_of(kind, 40, 32)
    x, weight = normal(3, 32), np.asarray(layer.dequantize())
    y, backward = jax.vjp(jax.jit(lambda x: layer(x)), x)
    kept = [part.shape for part in jax.tree.leaves(backward) if part.dtype == jnp.float32]
    assert weight.shape not in kept and weight.T.shape not in kept
    expected = 2 * (x @ weight.T + bias) @ weight
    np.testing.assert_allclose(backward(2 * y)[0], expected, rtol=1e-4, atol=1e-4)


# ---- Whole models


IN_TURN = [(name, family) for family, name in in_turn(list(models.FAMILIES), list(EVERY))]
SAVED = chosen(IN_TURN, [pair for pair in IN_TURN if pair[0] in ("nf4 skip", "bnb fp4 bf16")])


@pytest.mark.parametrize(("name", "family"), SAVED, ids=[name for name, _ in SAVED])
def test_saved_and_loaded_and_as_the_command_writes(name, family, tmp_path):
    scheme = EVERY[name]
    model = models.model("ForMaskedLM", family, tie_word_embeddings=scheme in (NF4, "int8"), **WIDE)
    whole = model.get_memory_footprint()
    model.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme)
    quantize(model, scheme).save_pretrained(tmp_path / "saved")
    with open_checkpoint(tmp_path / "small") as one, open_checkpoint(tmp_path / "saved") as other:
        assert set(one.names) == set(other.names)
        assert all(bytes(one.tensor(tensor).data) == bytes(other.tensor(tensor).data) for tensor in one.names)
    said = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("small", "saved")]
    assert said[0]["quantization_config"] == said[1]["quantization_config"]

    loaded = type(model).from_pretrained(tmp_path / "saved")
    assert loaded.is_quantized and loaded.quantization_scheme == model.quantization_scheme
    assert_same(model.params, loaded.params)
    assert_same(model.codes, loaded.codes)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(loaded.params))
    if name == "nf4 skip":  # of the same bits: one with settings of its own is asked for answers too
        np.testing.assert_array_equal(logits_of(loaded), logits_of(model))
    assert loaded.get_memory_footprint() == model.get_memory_footprint() < whole


def test_an_int8_checkpoint_of_version_1():
    model = xlmr_flax.FlaxAutoModelForMaskedLM.from_pretrained(ROOT / "tests" / "core" / "recorded" / "int8-v1")
    assert model.quantization_scheme.name == "int8" and {x.dtype.name for x in jax.tree.leaves(model.codes)} == {
        "int8",
        "float32",
    }


def test_codes_go_through_transformations():
    """In with the model, or beside the parameters; each device has its own."""
    model, inputs = kept("int4"), models.batch((4, 4))
    expected, variables = logits_of(model, inputs), {"params": model.params, "codes": model.codes}
    assert not any(jnp.issubdtype(x.dtype, jnp.integer) for x in jax.tree.leaves(variables["params"]))
    assert any(x.dtype == jnp.uint8 for x in jax.tree.leaves(variables["codes"]))
    on_each = jax.pmap(lambda variables, inputs: model.apply(variables, **inputs).logits, in_axes=(None, 0))
    found = on_each(variables, {name: x[:, None] for name, x in inputs.items()})[:, 0]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    codes = model.codes
    model.codes = jax.tree.map(jnp.zeros_like, codes)
    assert not np.allclose(logits_of(model, inputs), expected)
    model.codes = codes
    np.testing.assert_array_equal(logits_of(model, inputs), expected)


@pytest.mark.parametrize("name", chosen(["int4", "bnb nf4"], ["bnb nf4"]))
def test_layers_of_codes_may_be_one_program(name):
    """Of bitsandbytes with a text in each, which may be longer in one than in the next."""
    model, inputs = quantized(EVERY[name], num_hidden_layers=2), models.batch((4, 4))
    found = logits_of(nnx.clone(model).set_scan_layers(True), inputs)
    np.testing.assert_allclose(found, logits_of(model, inputs), atol=2e-5)


def test_an_optimizer_trains_what_is_left_and_no_codes():
    model = quantized(NF4, "ForSequenceClassification", num_labels=2)
    inputs = models.labelled("ForSequenceClassification", models.batch())
    before, codes = model.params, jax.tree.map(np.asarray, model.codes)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradients = nnx.value_and_grad(lambda model: model(**inputs).loss)(model)
        optimizer.update(model, gradients)
        return loss

    first = step(model, optimizer)
    assert step(model, optimizer) < first
    assert_same(model.codes, codes)
    moved = {path for path, x in flatten(model.params).items() if not np.array_equal(x, flatten(before)[path])}
    assert {("roberta", "embeddings", "word_embeddings", "embedding"), ("classifier", "out_proj", "bias")} <= moved


def test_a_head_is_trained_on_int8():
    """The rest is not asked for: through these layers there is no gradient, which is said."""
    model = quantized("int8", "ForSequenceClassification", num_labels=2)
    inputs, params = models.labelled("ForSequenceClassification", models.batch()), model.params

    def loss_of(some):
        return model(**inputs, params={**params, **some}).loss

    gradients = jax.grad(loss_of)({"classifier": params["classifier"]})
    assert all(np.abs(x).sum() > 0 for x in jax.tree.leaves(gradients))
    with pytest.raises(InputError, match="do not flow through int8 layers; differentiate by"):
        jax.grad(loss_of)(params)
    with pytest.raises(TypeError, match="real- or complex-valued inputs"):
        jax.grad(lambda codes: model.apply({"params": params, "codes": codes}, **inputs).loss)(model.codes)


def test_an_encoder_and_a_decoder_are_quantized_as_one(tmp_path):
    ids = np.array([[0, 5, 6]])
    sides = models.config(**WIDE), models.config(is_decoder=True, add_cross_attention=True, **WIDE)
    both = xlmr_flax.FlaxEncoderDecoderModel(xlmr_flax.EncoderDecoderConfig.from_encoder_decoder_configs(*sides))
    inputs = {"input_ids": ids, "decoder_input_ids": ids}
    quantize(both, Nf4(group_size=32)).save_pretrained(tmp_path)
    loaded = xlmr_flax.FlaxEncoderDecoderModel.from_pretrained(tmp_path)
    assert loaded.decoder.is_quantized and loaded.encoder.is_quantized
    np.testing.assert_array_equal(logits_of(loaded, inputs), logits_of(both, inputs))


def test_a_model_that_holds_no_parameters(tmp_path):
    models.model(**WIDE).save_pretrained(tmp_path)
    kind = xlmr_flax.FlaxXLMRobertaForMaskedLM
    model, params = kind.from_pretrained(tmp_path, quantization_config=NF4, _do_init=False)
    with pytest.raises(InputError, match="holds no parameters"):
        model(**models.batch())
    whole = kind.from_pretrained(tmp_path, quantization_config=NF4)
    np.testing.assert_array_equal(model(**models.batch(), params=params).logits, whole(**models.batch()).logits)


def test_the_published_example(tmp_path):
    models.model(**WIDE).save_pretrained(tmp_path)
    model = xlmr_flax.FlaxAutoModelForMaskedLM.from_pretrained(
        tmp_path,
        dtype=jnp.float16,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=jnp.bfloat16,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
        ),
    )
    assert model.dtype == jnp.float16 and model.is_loaded_in_4bit
    assert model.config.quantization_config["llm_int8_skip_modules"] == ["lm_head.decoder"]
    logits = model(**models.batch()).logits
    assert logits.dtype == jnp.float16 and np.isfinite(logits).all()
    assert xlmr_flax.FlaxAutoModelForMaskedLM.from_pretrained(tmp_path, load_in_8bit=True).is_loaded_in_8bit


# ---- What is refused


CHANGES = {
    "stays in float32 .* received bfloat16; leave its dtype": lambda model: model.to_bf16(model.params),
    "received float16": lambda model: model.to_fp16(model.params),
    "resize_token_embeddings.*original model": lambda model: model.resize_token_embeddings(50),
    "prune_heads.*original model": lambda model: model.prune_heads({0: [0]}),
    "received one with .* weights; quantize the original model": lambda model: quantize(model, "int8"),
    "writes floating point weights": lambda model: model.save_pretrained("nowhere", safe_serialization=False),
    "quantized .* lack": lambda model: model.apply({"params": model.params, "codes": {}}, **models.batch()),
}


@pytest.mark.parametrize("name", ["nf4", "bnb nf4"])
def test_changes_are_refused_before_anything_changes(name):
    model = kept(name)
    params, codes = model.params, model.codes
    for match, change in CHANGES.items():
        with pytest.raises(InputError, match=match):
            change(model)
        assert_same(model.params, params)
        assert_same(model.codes, codes)
    assert model.to_fp32(model.params).keys() == params.keys()


def test_settings_and_values_that_do_not_fit_change_nothing():
    model = models.model(**WIDE)
    for scheme, match in (
        (Nf4(group_size=64), "groups of 64 .* divides 32"),
        ("int3", "scheme must be one of"),
        ({}, "asks for nothing"),
    ):
        with pytest.raises(ConfigError, match=match):
            quantize(model, scheme)
    with pytest.raises(ConfigError, match="skip must name modules"):
        quantize(model, "int8", skip=["nothing"])
    model.roberta.encoder.layer["0"].output.dense.kernel[0, 0] = np.nan
    with pytest.raises(InputError, match="output.dense.weight has values for which there is no scale"):
        quantize(model, "int8")
    assert not model.is_quantized and not layers_of(model)
    assert quantize(model, "int8", skip=["output.dense"]).is_quantized
    with pytest.raises(InputError, match="holds no parameters"):
        quantize(models.model(_do_init=False, **WIDE), "int8")


def test_layers_that_differ_are_not_scanned():
    model = quantized(Nf4(("encoder.layer.0",), 32), num_hidden_layers=2)
    with pytest.raises(InputError, match="quantized otherwise than each other cannot be scanned"):
        model.set_scan_layers(True)(**models.batch())


def test_quantized_files_are_not_quantized_otherwise(recorded):
    load, folder = CLASSES["MaskedLM"].from_pretrained, recorded / "MaskedLM/nf4_single"
    with pytest.raises(InputError, match="has bitsandbytes weights already, received"):
        load(folder, quantization_config=INT8)
    with pytest.raises(InputError, match="expected quantization_config alone"):
        load(folder, quantization_config=INT8, load_in_8bit=True)
    with pytest.warns(ConfigWarning, match="only bnb_4bit_compute_dtype is used"):
        load(folder, quantization_config=NF4)
    with pytest.raises(InputError, match="float32 around its int8 weights, received dtype=bfloat16"):
        load(ROOT / "tests" / "core" / "recorded" / "int8-v1", param_dtype="bfloat16")


def test_a_quant_state_that_disagrees(recorded, tmp_path):
    source = recorded / "MaskedLM/nf4_single"
    config = xlmr_flax.XLMRobertaConfig.from_pretrained(source)
    with open_checkpoint(source) as file:
        values = {name: file.tensor(name).to_numpy() for name in file.names}
    name = "roberta.encoder.layer.0.output.dense.weight.absmax"
    values[name] = values[name][:-1]
    with pytest.raises(CheckpointError, match=r"absmax must have the shape \(320,\), received \(319,\)"):
        CLASSES["MaskedLM"].from_pretrained(None, config=config, state_dict=values)
