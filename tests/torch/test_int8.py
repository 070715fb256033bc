"""Int8 models: exact integer arithmetic, small errors, checkpoints that come back bit by bit, clear words for what cannot be done."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import xlmr_torch
from tests.torch.models import CASES, Case, assert_close, each_case, each_family
from xlmr_core.checkpoint import LoadWarning, open_checkpoint
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, ConfigError, InputError
from xlmr_core.parameters import Role, parameters, stored_names
from xlmr_core.quantization import INT8
from xlmr_torch import int8
from xlmr_torch.int8 import Int8Embedding, Int8Linear, int8_linear, quantize, quantize_rows, quantize_tokens

MASKED_LM = Case("XLMRoberta", "ForMaskedLM")
CLASSIFIER = Case("XLMRoberta", "ForSequenceClassification")


@pytest.fixture(params=[pytest.param(True, id="int8 product"), pytest.param(False, id="float product")])
def product(request: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both products, where the machine has both."""
    if request.param and not int8.HAS_FAST_PRODUCT:
        pytest.skip("this CPU has no exact int8 product")
    monkeypatch.setattr(int8, "HAS_FAST_PRODUCT", request.param)
    return bool(request.param)


def integers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(seed)).to(torch.int8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_layer(into: int, out: int) -> Int8Linear:
    return Int8Linear(*quantize_rows(normal(out, into, seed=1)), normal(out, seed=2))


# ---- The arithmetic


@pytest.mark.parametrize(("n", "into", "out"), [(1, 1, 1), (3, 17, 5), (2, 3072, 33), (40, 64, 130)])
def test_products_are_exact(product: bool, n: int, into: int, out: int) -> None:
    """Also with nothing but the largest values, where arithmetic in int16 overflows."""
    q, weight = integers(n, into), integers(out, into, seed=1)
    q[0], weight[0] = 127, -127
    sums = int8._product(q, weight)
    expected = q.numpy().astype(np.int32) @ weight.numpy().astype(np.int32).T
    if product:
        assert sums.dtype is torch.int32
        np.testing.assert_array_equal(sums.numpy(), expected)
    else:
        np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-6, atol=2)
    assert expected[0, 0] == -(127**2) * into


@pytest.mark.parametrize(("n", "into", "out"), [(1, 8, 3), (7, 768, 20), (5, 3072, 9)])
def test_a_linear_layer_is_the_formula_over_integers(product: bool, n: int, into: int, out: int) -> None:
    x, layer = normal(n, into) + 0.5, random_layer(into, out)
    q, scale, middle = (part.numpy() for part in quantize_tokens(x))
    rows = layer.weight.numpy().astype(np.int64)
    values = (q.astype(np.int64) @ rows.T) * scale.astype(np.float64) + middle.astype(np.float64) * rows.sum(1)
    expected = values * layer.weight_scale.numpy().astype(np.float64) + layer.bias.numpy()
    assert_close(layer(x), torch.from_numpy(expected).float(), tolerance=2e-6)


def test_rows_are_halved_steps_from_their_values() -> None:
    weight = normal(5000, 24)  # more rows than are taken at once
    weight[1], weight[2], weight[3] = 0, 1e-30, 3.0
    kept = weight.clone()
    rows, scale = quantize_rows(weight)
    assert torch.equal(weight, kept)
    assert rows.dtype is torch.int8 and scale.dtype is torch.float32 and rows.min() >= -127
    assert ((rows * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()
    assert (rows.abs().amax(1) == 127).logical_or(weight.abs().amax(1) == 0).all()
    assert not rows[1].any() and (rows[3] == 127).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_another_dtype_and_layout(dtype: torch.dtype) -> None:
    weight = normal(24, 30).to(dtype)
    expected = quantize_rows(weight.float().t().contiguous())
    for actual, part in zip(quantize_rows(weight.t()), expected, strict=True):
        assert actual.is_contiguous() and torch.equal(actual, part)


TOKENS = {
    "normal": normal(4, 64),
    "one-sided": torch.nn.functional.gelu(normal(4, 64)),
    "far from zero": normal(4, 64) + 1e6,
    "next to each other": torch.tensor([[1.0, 1.0 + 2**-23] * 8, [-1.0 - 2**-23, -1.0] * 8]),
    "constant": torch.full((2, 16), 3.7),
    "zero": torch.zeros(2, 16),
    "tiny": normal(2, 16) * 1e-40,
    "huge": normal(2, 16).clamp(-1, 1) * 1e38,
    "an outlier": torch.cat((normal(2, 16) * 1e-3, torch.full((2, 1), 100.0)), 1),
}


@pytest.mark.parametrize("x", TOKENS.values(), ids=TOKENS)
def test_tokens_are_halved_steps_from_their_values(x: Tensor) -> None:
    q, scale, middle = quantize_tokens(x)
    assert q.dtype is torch.int8 and scale.shape == middle.shape == (len(x), 1)
    restored = q.double() * scale + middle
    rounding = x.abs().double() * 2**-23  # of float32 itself
    assert ((restored - x).abs() <= scale * 0.501 + rounding).all()
    # In absolute terms: a step is the 254th part of the range, not of twice the largest magnitude.
    assert (scale.squeeze(1) * 254 <= (x.amax(1) - x.amin(1)) * 1.001 + x.abs().amax(1) * 2**-22 + 1e-35).all()


def test_a_token_does_not_depend_on_its_neighbours(product: bool) -> None:
    x, layer = normal(9, 64), random_layer(64, 40)
    x[4] = math.nan
    x[5] *= 1e4
    together = layer(x)
    for row in range(9):
        torch.testing.assert_close(together[row : row + 1], layer(x[row : row + 1]), rtol=1e-6, atol=0, equal_nan=True)
    assert together[4].isnan().all() and together[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_shapes_dtypes_and_modes(product: bool, shape: tuple[int, ...], dtype: torch.dtype, mode: Any) -> None:
    layer, x = random_layer(16, 8), normal(*shape, 16).to(dtype)
    kept = x.clone()
    with mode():
        y = layer(x)
    assert y.shape == (*shape, 8) and y.dtype is dtype and not y.requires_grad
    assert torch.equal(x, kept)
    flat = int8_linear(x.reshape(-1, 16).float(), layer.weight, layer.weight_scale, layer.bias)
    assert torch.equal(y, flat.to(dtype).view(y.shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embedding(dtype: torch.dtype) -> None:
    table = normal(10, 6)
    layer = Int8Embedding(*quantize_rows(table))
    ids = torch.tensor([[1, 2], [9, 0]], dtype=dtype)
    x = layer(ids)
    assert x.dtype is torch.float32
    assert torch.equal(x, (layer.weight * layer.weight_scale[:, None])[ids.long()])
    assert (x - table[ids.long()]).abs().max() <= layer.weight_scale.max() * 0.5001


# ---- Models


def is_exactly_int8(model: Any) -> None:
    """Every weight that the table calls int8 is, everything else is float32, nothing is trained, and ties hold."""
    rows, values = model.parameter_table(), dict(model.named_parameters(remove_duplicate=False))
    assert list(model.state_dict()) == [*values] and set(rows) == set(values)
    for name, row in rows.items():
        assert values[name].dtype is (torch.int8 if row.dtype == "I8" else torch.float32), name
        assert values[name].shape == row.shape and not values[name].requires_grad, name
        if row.tied_to is not None:
            assert values[name] is values[row.tied_to]


@each_case
def test_quantized_models(case: Case, product: bool) -> None:
    """The outputs are those of a float model with the restored weights, and activations restored before each layer."""
    model, inputs = case.build(), case.inputs("right")
    expected_model = copy.deepcopy(model)
    assert not model.is_quantized and quantize(model) is model and model.is_quantized
    is_exactly_int8(model)
    int8_layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "weight_scale")}
    linears = [name for name, layer in int8_layers.items() if isinstance(layer, Int8Linear)]
    assert len(linears) == 6 * 2 + ("LM" in case.head)
    for name, layer in int8_layers.items():
        other = expected_model.get_submodule(name)
        other.weight.data = layer.weight * layer.weight_scale[:, None]
        if isinstance(layer, Int8Linear):
            other.register_forward_pre_hook(restore)
    with torch.no_grad():
        expected, actual = expected_model(**inputs), model(**inputs)
    for name in expected:
        # A value that falls between two steps may go either way.
        assert (actual[name] - expected[name]).abs().mean() <= 2e-3 * expected[name].abs().mean(), name
    before = model.state_dict()
    assert quantize(model) is model and all(
        x is before[name] or torch.equal(x, before[name]) for name, x in before.items()
    )


def restore(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
    q, scale, middle = quantize_tokens(inputs[0].flatten(0, -2))
    return ((q * scale + middle).view(inputs[0].shape),)


@each_case
@pytest.mark.parametrize("mask", ["right", "left", "inside"])
def test_packed_equals_padded(case: Case, mask: str) -> None:
    model, inputs = quantize(case.build()), case.inputs(mask)
    with torch.no_grad():
        packed = model.set_packing("always")(**inputs)
        padded = model.set_packing("never")(**inputs)
    for name in padded:
        keep = inputs["attention_mask"].bool() if packed[name].shape[:2] == inputs["attention_mask"].shape else ...
        error = (packed[name] - padded[name])[keep].abs().mean()
        assert error <= 2e-3 * padded[name][keep].abs().mean(), name


@pytest.mark.parametrize(
    "changes", [{"tie_word_embeddings": False}, {"pruned_heads": {0: [1]}}, {"add_cross_attention": True}]
)
def test_other_graphs(changes: dict[str, Any]) -> None:
    case = Case("XLMRoberta", "ForCausalLM")
    model, inputs = case.build(**changes), case.inputs("right")
    if "add_cross_attention" in changes:
        inputs["encoder_hidden_states"] = normal(4, 3, 16)
    with torch.no_grad():
        expected = model(**inputs).logits
        actual = quantize(model)(**inputs).logits
    is_exactly_int8(model)
    shared = model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert shared is changes.get("tie_word_embeddings", True)
    assert 0 < (actual - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_half_precision_models_become_float32_around() -> None:
    model = MASKED_LM.build()
    rounded = quantize(copy.deepcopy(model).bfloat16())
    is_exactly_int8(rounded)
    assert torch.equal(
        rounded.roberta.embeddings.word_embeddings.weight,
        quantize_rows(model.roberta.embeddings.word_embeddings.weight.bfloat16())[0],
    )


@pytest.fixture(scope="module")
def mini() -> Any:
    return xlmr_torch.XLMRobertaForMaskedLM.from_pretrained("xlmr-mini")


TEXTS = [
    "The capital of France is Paris, and many people live there.",
    "Das Wetter ist heute schön, wir gehen in den Park.",
    "El perro come la carne que está en la mesa.",
    "Москва является столицей России.",
    "今天天气很好，我们去公园吧。",
    "यह एक अच्छी किताब है।",
]


def test_trained_weights(mini: Any, tmp_path: Path) -> None:
    """The built-in checkpoint: the states move by 2 % (1.8 were seen), and the best guess for a masked token stays in nine of ten."""
    batch = xlmr_torch.AutoTokenizer.from_pretrained("xlmr-mini")(TEXTS, return_tensors="pt", padding=True)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    keep = inputs["attention_mask"].bool()
    model = quantize(copy.deepcopy(mini))
    with torch.inference_mode():
        expected = mini(**inputs, output_hidden_states=True)
        actual = model(**inputs, output_hidden_states=True)
        states, restored = expected.hidden_states[-1][keep], actual.hidden_states[-1][keep]
        assert 0 < (restored - states).abs().mean() < 0.025 * states.abs().mean()
        # Each token masked in turn.
        rows, columns = (keep & (inputs["input_ids"] > 3)).nonzero(as_tuple=True)
        ids = inputs["input_ids"][rows].scatter(1, columns[:, None], mini.config.vocab_size - 1)
        masked = {
            "input_ids": ids,
            "attention_mask": inputs["attention_mask"][rows],
            "masked_positions": columns[:, None],
        }
        same = model(**masked).logits.argmax(-1) == mini(**masked).logits.argmax(-1)
    assert len(same) > 50 and same.float().mean() >= 0.9
    mini.save_pretrained(tmp_path / "float")
    model.save_pretrained(tmp_path / "int8")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("float", "int8")]
    assert sizes[1] < 0.28 * sizes[0]


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_a_quarter_of_the_size(head: str) -> None:
    def size(int8: bool) -> int:
        rows = parameters(XLMRobertaConfig.base(), head, int8=int8)
        return sum(math.prod(rows[name].shape) * (1 if rows[name].dtype == "I8" else 4) for name in stored_names(rows))

    assert 0.25 < size(True) / size(False) < 0.258


# ---- Files


@each_case
@pytest.mark.parametrize("shards", [1, 4])
def test_what_is_saved_comes_back(case: Case, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = quantize(case.build()), case.inputs("right")
    model.save_pretrained(tmp_path, max_shard_size=10**9 if shards == 1 else model.get_memory_footprint() // 3)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) is (shards > 1)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == INT8
    assert set(open_checkpoint(tmp_path).names) == set(stored_names(model.parameter_table()))

    monkeypatch.setattr(int8, "quantize_rows", only_meta)
    loaded, info = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    is_exactly_int8(loaded)
    assert loaded.is_quantized and not loaded.training
    assert set(info["report"].loaded) == set(stored_names(model.parameter_table()))
    assert not info["report"].message
    expected = model.state_dict()
    for name, x in loaded.state_dict().items():
        assert x.dtype is expected[name].dtype and torch.equal(x, expected[name]), name
    with torch.no_grad():
        for x, y in zip(loaded(**inputs).values(), model(**inputs).values(), strict=True):
            assert torch.equal(x, y)


def only_meta(weight: Tensor) -> tuple[Tensor, Tensor]:
    """No float weight is ever made while an int8 checkpoint loads."""
    assert weight.is_meta
    return quantize_rows(weight)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    quantize(MASKED_LM.build()).save_pretrained(tmp_path)
    return tmp_path


def test_auto_classes_pipelines_and_dtypes(saved: Path) -> None:
    expected = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(saved).state_dict()
    for dtype in ("auto", "float32", torch.float32):
        loaded = xlmr_torch.AutoModelForMaskedLM.from_pretrained(saved, dtype=dtype, device="cpu")
        assert all(torch.equal(x, expected[name]) for name, x in loaded.state_dict().items())
    config = xlmr_torch.AutoConfig.from_pretrained(saved)
    loaded = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(None, config=config, state_dict=expected)
    assert all(torch.equal(x, expected[name]) for name, x in loaded.state_dict().items())


def test_a_saved_pipeline(mini: Any, tmp_path: Path) -> None:
    quantize(copy.deepcopy(mini)).save_pretrained(tmp_path)
    tokenizer = xlmr_torch.AutoTokenizer.from_pretrained("xlmr-mini")
    tokenizer.save_pretrained(tmp_path)
    text = f"The capital of France is {tokenizer.mask_token}."
    from_folder = xlmr_torch.pipeline("fill-mask", str(tmp_path))
    assert from_folder.model.is_quantized
    ours, original = from_folder(text), xlmr_torch.pipeline("fill-mask", mini, tokenizer=tokenizer)(text)
    assert ours[0]["token"] in [guess["token"] for guess in original[:3]]
    assert ours[0]["score"] == pytest.approx(original[0]["score"], rel=0.3)


def test_another_head_starts_in_float32_and_can_be_trained(saved: Path) -> None:
    with pytest.warns(LoadWarning, match=r"classifier\.dense\.weight.*train"):
        model = CLASSIFIER.model_class.from_pretrained(saved, num_labels=3)
    is_exactly_int8(model)
    assert 0 < model.classifier.dense.weight.std() < 0.1
    model.classifier.requires_grad_(True)
    inputs = CLASSIFIER.inputs("right")
    model.train()(**inputs, **CLASSIFIER.labels(inputs)).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.classifier.parameters())
    assert model.roberta.encoder.layer[0].output.LayerNorm.weight.grad is None


def test_a_fresh_vocabulary_projection_is_drawn_and_quantized(tmp_path: Path) -> None:
    quantize(Case("XLMRoberta", "Model").build(tie_word_embeddings=False)).save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"lm_head\.decoder\.weight, lm_head\.decoder\.weight_scale"):
        model = MASKED_LM.model_class.from_pretrained(tmp_path)
    is_exactly_int8(model)
    decoder = model.lm_head.decoder
    assert (decoder.weight.abs().amax(1) == 127).all()
    assert 0.01 < (decoder.weight * decoder.weight_scale[:, None]).std() < 0.03
    assert not decoder.bias.any()


def test_a_resized_table_starts_with_a_zero_padding_row(saved: Path) -> None:
    with pytest.warns(LoadWarning, match="word_embeddings"):
        model = MASKED_LM.model_class.from_pretrained(saved, vocab_size=50, ignore_mismatched_sizes=True)
    table = model.roberta.embeddings.word_embeddings
    assert table.weight.shape == (50, 16) and not table.weight[1].any() and table.weight[0].any()
    assert model.lm_head.decoder.weight is table.weight


def test_a_float_model_saved_from_the_same_config_is_a_float_checkpoint(saved: Path, tmp_path: Path) -> None:
    config = XLMRobertaConfig.from_pretrained(saved)
    MASKED_LM.model_class(config).save_pretrained(tmp_path / "float")
    assert "quantization_config" not in json.loads((tmp_path / "float" / "config.json").read_text())
    assert not MASKED_LM.model_class.from_pretrained(tmp_path / "float").is_quantized


FOREIGN = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def rewrite(folder: Path, **changes: Any) -> None:
    """Change config.json; ``None`` removes a key."""
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    values = {key: value for key, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (FOREIGN, ConfigError, "another library.*bitsandbytes"),
        ("gptq", ConfigError, "another library.*gptq"),
        ({"quant_method": "xlmr-int8", "version": 2}, ConfigError, "another release"),
        (None, CheckpointError, r"dtype I8.*expected F16 or .*quantized weights load only beside"),
    ],
)
def test_configs_that_do_not_say_what_the_weights_are(
    saved: Path, said: Any, error: type[Exception], match: str
) -> None:
    rewrite(saved, quantization_config=said)
    for loader in (MASKED_LM.model_class, xlmr_torch.AutoModelForMaskedLM):
        with pytest.raises(error, match=match):
            loader.from_pretrained(saved)


def test_float_weights_beside_an_int8_config(tmp_path: Path) -> None:
    MASKED_LM.build().save_pretrained(tmp_path)
    rewrite(tmp_path, quantization_config=INT8)
    with pytest.raises(CheckpointError, match=r"dtype F32, expected I8; config\.json says"):
        MASKED_LM.model_class.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("gone", "match"),
    [
        ("roberta.encoder.layer.1.output.dense.weight", "expected the encoder weight .*output.dense.weight"),
        ("roberta.encoder.layer.1.output.dense.weight_scale", "expected the scale .*output.dense.weight_scale"),
        ("lm_head.decoder.weight_scale", "expected the scale lm_head.decoder.weight_scale"),
    ],
)
def test_damaged_checkpoints(gone: str, match: str, tmp_path: Path) -> None:
    model = quantize(MASKED_LM.build(tie_word_embeddings=False))
    values = {name: x for name, x in model.state_dict().items() if name != gone}
    with pytest.raises(CheckpointError, match=re.sub(r"\.", r"\\.", match).replace(r"\.*", ".*")):
        MASKED_LM.model_class.from_pretrained(None, config=with_int8(model.config), state_dict=values)


def with_int8(config: XLMRobertaConfig) -> XLMRobertaConfig:
    return type(config).from_dict({**config.to_dict(), "quantization_config": INT8})


# ---- What int8 models do not do, and what they do like all others


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", torch.float64])
def test_loading_in_another_dtype_is_refused(saved: Path, dtype: Any) -> None:
    with pytest.raises(InputError, match="float32 around"):
        MASKED_LM.model_class.from_pretrained(saved, dtype=dtype)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
@each_family
def test_changing_the_dtype_is_refused_before_anything_changes(family: str, change: str) -> None:
    model = quantize(Case(family, "ForMaskedLM").build())
    with pytest.raises(InputError, match="float32 around"):
        getattr(model, change)()
    is_exactly_int8(model)
    assert model.float() is model and model.to("cpu", torch.float32) is model
    is_exactly_int8(model)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("resize_token_embeddings", lambda model: model.resize_token_embeddings(50)),
        ("prune_heads", lambda model: model.prune_heads({0: [0]})),
    ],
)
def test_changing_the_shape_is_refused(what: str, change: Any) -> None:
    model = quantize(MASKED_LM.build())
    with pytest.raises(InputError, match=f"{what}.*original model"):
        change(model)
    is_exactly_int8(model)


def test_gradients_are_refused() -> None:
    model, inputs = quantize(MASKED_LM.build()), MASKED_LM.inputs("right")
    embeds = model.roberta.embeddings.word_embeddings(inputs.pop("input_ids")).requires_grad_(True)
    with pytest.raises(InputError, match="gradients do not flow"):
        model(inputs_embeds=embeds, **inputs)
    with torch.no_grad():
        assert model(inputs_embeds=embeds, **inputs).logits.isfinite().all()


def test_layers_that_are_no_plain_ones_are_refused_before_anything_changes() -> None:
    class Adapter(torch.nn.Linear):
        pass

    model = MASKED_LM.build()
    model.roberta.encoder.layer[1].output.dense.__class__ = Adapter
    with pytest.raises(InputError, match=r"layer\.1\.output\.dense must be a plain layer.*Adapter"):
        quantize(model)
    assert not model.is_quantized and not any(isinstance(module, Int8Linear) for module in model.modules())


@pytest.mark.parametrize("argument", [{"load_in_8bit": True}, {"quantization_config": FOREIGN}])
def test_asking_the_loader_to_quantize_names_the_way(saved: Path, argument: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"optimize_for_inference\(model, dtype='int8'\)"):
        MASKED_LM.model_class.from_pretrained(saved, **argument)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "to": lambda model: model.to("cpu"),
    "load_state_dict": lambda model: loaded(model, assign=False),
    "load_state_dict(assign=True)": lambda model: loaded(model, assign=True),
}


def loaded(model: Any, **how: Any) -> Any:
    other = quantize(MASKED_LM.build(seed=5))
    other.load_state_dict(model.state_dict(), **how)
    return other


@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_copies(way: Any) -> None:
    model, inputs = quantize(MASKED_LM.build()), MASKED_LM.inputs("right")
    other = way(model)
    assert other.is_quantized
    assert {name: x.dtype for name, x in other.state_dict().items()} == {
        name: x.dtype for name, x in model.state_dict().items()
    }
    assert other.lm_head.decoder.weight is other.roberta.embeddings.word_embeddings.weight
    assert other.lm_head.decoder.weight_scale is other.roberta.embeddings.word_embeddings.weight_scale
    with torch.no_grad():
        assert torch.equal(other(**inputs).logits, model(**inputs).logits)


def test_counts() -> None:
    model = MASKED_LM.build()
    values, embeddings = model.num_parameters(), model.roberta.embeddings
    tables = sum(
        table.weight.numel()
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    )
    quantize(model)
    scales = sum(p.numel() for name, p in model.named_parameters() if name.endswith("_scale"))
    assert model.num_parameters() == values + scales
    assert model.num_parameters(exclude_embeddings=True) == values + scales - tables
    assert model.num_parameters(only_trainable=True) == 0
    assert model.dtype is torch.float32


def test_the_table_of_an_int8_model_is_that_of_the_float_one_and_scales() -> None:
    for case in CASES:
        rows, floats = parameters(case.config(), case.head, int8=True), parameters(case.config(), case.head)
        scales = {name for name, row in rows.items() if row.role is Role.INT8_SCALE}
        assert {*rows} - scales == {*floats}
        assert scales == {name + "_scale" for name, row in rows.items() if row.dtype == "I8"}
        assert all(rows[name].shape == (rows[name.removesuffix("_scale")].shape[0],) for name in scales)


# ---- A compiler


def compiling(test: Any) -> Any:
    """A test that compiles, with PyTorch's own deprecations left out."""
    for category in ("DeprecationWarning", "FutureWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}:torch.*")(test)
    return pytest.mark.slow(pytest.mark.usefixtures("fresh_compiler")(test))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@compiling
@each_family
def test_one_graph_whatever_the_shape(family: str) -> None:
    case = Case(family, "Model")
    model = quantize(case.build(num_hidden_layers=1)).set_packing("never")
    fast = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for mask in (torch.ones(6, 9).long(), "right", "inside", torch.ones(8, 22).long()):
            inputs = case.inputs(mask)
            with torch.no_grad():
                expected, actual = model(**inputs).last_hidden_state, fast(**inputs).last_hidden_state
            assert (actual - expected).abs().mean() <= 2e-3 * expected.abs().mean()


@compiling
@each_family
def test_one_graph_whatever_the_number_of_packed_tokens(family: str) -> None:
    case = Case(family, "Model")
    model = quantize(case.build(num_hidden_layers=1)).set_packing("always")
    with torch.no_grad():
        expected = {mask: model(**case.inputs(mask)).last_hidden_state for mask in ("right", "inside")}
        model.encoder.compile(backend="aot_eager", fullgraph=True, dynamic=True)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for mask in expected:
                actual = model(**case.inputs(mask)).last_hidden_state
                assert (actual - expected[mask]).abs().mean() <= 2e-3 * expected[mask].abs().mean()


@compiling
def test_the_default_compiler(product: bool) -> None:
    layers = torch.nn.Sequential(random_layer(64, 128), torch.nn.GELU(), random_layer(128, 64), torch.nn.LayerNorm(64))
    layers.requires_grad_(False)
    fast = torch.compile(layers, fullgraph=True, dynamic=True)
    for tokens in (40, 7, 1):
        x = normal(tokens, 64, seed=tokens)
        with torch.inference_mode():
            expected, actual = layers(x), fast(x)
        assert (actual - expected).abs().mean() <= 2e-3 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_integers(product: bool, dtype: torch.dtype) -> None:
    layer, x = random_layer(20, 6), normal(3, 20)
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        assert torch.equal(layer(x), expected)
