"""Int8 layers and models: exact integers, the bits that the core specifies, small errors, one graph for a compiler."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import xlmr_torch
from tests.torch.models import Case, assert_close, each_case, each_family, is_exactly_int8
from xlmr_core.quantization import INT8
from xlmr_torch import int8
from xlmr_torch.int8 import Int8Embedding, Int8Linear, int8_linear, quantize, quantize_rows, quantize_tokens

MASKED_LM = Case("XLMRoberta", "ForMaskedLM")


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rows_are_bit_for_bit_what_the_core_specifies(dtype: torch.dtype) -> None:
    weight = (normal(5000, 24) * torch.logspace(-30, 4, 5000)[:, None]).to(dtype)
    weight[1], weight[2, ::2] = 0, 0.5
    # NumPy has no bfloat16; its values are those of float32.
    expected = INT8.encode((weight.float() if dtype is torch.bfloat16 else weight).numpy())
    rows, scale = quantize_rows(weight)
    assert rows.numpy().dtype == expected[""].dtype and scale.numpy().dtype == expected["_scale"].dtype
    np.testing.assert_array_equal(rows.numpy(), expected[""])
    np.testing.assert_array_equal(scale.numpy(), expected["_scale"])
    looked_up = Int8Embedding(rows, scale)(torch.arange(5000))
    np.testing.assert_array_equal(looked_up.numpy(), INT8.decode(expected, (5000, 24)))


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


def written_over(layer: Int8Linear, new: Int8Linear) -> Int8Linear:
    layer.load_state_dict(new.state_dict())
    return layer


def replaced(layer: Int8Linear, new: Int8Linear) -> Int8Linear:
    layer.weight, layer.weight_scale, layer.bias = new.weight, new.weight_scale, new.bias
    return layer


def requantized(layer: Int8Linear, new: Int8Linear) -> Int8Linear:
    layer.set_values(new.weight * new.weight_scale[:, None])
    layer.bias = new.bias
    return layer


@pytest.mark.parametrize("change", [written_over, replaced, requantized])
@pytest.mark.parametrize("copied", [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_weights_that_change_between_calls(product: bool, change: Any, copied: Any) -> None:
    """What is known of the weights beside them, the sums of their rows, follows."""
    x = normal(3, 64) + 0.5
    layer, new = random_layer(64, 40), Int8Linear(*quantize_rows(normal(40, 64, seed=3)), normal(40, seed=4))
    layer(x)
    changed = copied(change(layer, new))
    torch.testing.assert_close(changed(x), new(x), rtol=1e-5, atol=1e-5)
    expected = int8_linear(x, new.weight, new.weight_scale, new.bias)
    torch.testing.assert_close(changed(x), expected, rtol=1e-6, atol=1e-6)
    assert set(changed.state_dict()) == {"weight", "weight_scale", "bias"}


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
            # By no hook, because a call that hooks look on is not packed.
            other.forward = functools.partial(after_restoring, other.forward)
    with torch.no_grad():
        expected, actual = expected_model(**inputs), model(**inputs)
    for name in expected:
        # A value that falls between two steps may go either way.
        assert (actual[name] - expected[name]).abs().mean() <= 2e-3 * expected[name].abs().mean(), name
    before = model.state_dict()
    assert quantize(model) is model and all(
        x is before[name] or torch.equal(x, before[name]) for name, x in before.items()
    )


def after_restoring(forward: Any, x: Tensor) -> Tensor:
    q, scale, middle = quantize_tokens(x.flatten(0, -2))
    result: Tensor = forward((q * scale + middle).view(x.shape))
    return result


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
    """The built-in checkpoint: states move by 2 % (1.8 were seen), nine of ten best guesses for a masked token stay."""
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
