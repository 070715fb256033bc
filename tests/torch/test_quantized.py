"""Models of four bits, and as bitsandbytes has them: recorded outputs, files, gradients, compilers, what is refused."""

from __future__ import annotations

import copy
import io
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xlmr_torch
from tests.choice import chosen
from tests.torch.models import Case, assert_close
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.conversion import convert
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, InputError
from xlmr_core.parameters import Init, Parameter, Role
from xlmr_core.quantization import Scheme, scheme_with, widening
from xlmr_core.quantization.bitsandbytes import ABSMAX, STATE
from xlmr_core.quantization.four_bit import Int4, Nf4
from xlmr_torch import (
    BitsAndBytesConfig,
    bitsandbytes,
    cuda_four_bit,
    four_bit,
    optimize_for_inference,
    quantize,
)
from xlmr_torch.bitsandbytes import Linear4bit, Linear8bitLt, Params4bit
from xlmr_torch.four_bit import FourBitEmbedding, FourBitLinear

OURS = ["int4", "nf4", "fp4"]
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
MASKED_LM, CLASSIFIER = Case("XLMRoberta", "ForMaskedLM"), Case("XLMRoberta", "ForSequenceClassification")
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
INT8 = BitsAndBytesConfig(load_in_8bit=True)
DENSE = "roberta.encoder.layer.0.output.dense"


def scheme_of_group(name: str, size: int = 32) -> Scheme:
    return scheme_with(name, (), size)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def logits_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.set_packing("never")(**inputs).logits
    return found


# ---- What bitsandbytes wrote

CLASSES = {
    "MaskedLM": xlmr_torch.XLMRobertaForMaskedLM,
    "XLMaskedLM": xlmr_torch.XLMRobertaXLForMaskedLM,
    "SequenceClassification": xlmr_torch.XLMRobertaForSequenceClassification,
    "OddSizes": xlmr_torch.XLMRobertaForSequenceClassification,
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
def recorded(shared: Path) -> Path:
    return shared / "quantized"


def inputs_of(expected: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(expected[name]) for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_outputs_and_files(name: str, recorded: Path, tmp_path: Path) -> None:
    """At float32 compute to 1e-5; as the file says, as far as bitsandbytes itself was; saved as the same tensors."""
    expected, kind = np.load(recorded / name / "expected.npz"), CLASSES[name.partition("/")[0]]
    said = json.loads((recorded / name / "config.json").read_text())["quantization_config"]
    wide = {**said, "bnb_4bit_compute_dtype": "float32"}
    model, inputs = kind.from_pretrained(recorded / name, quantization_config=wide), inputs_of(expected)
    assert model.is_quantized and model.is_loaded_in_8bit is not model.is_loaded_in_4bit
    exact = logits_of(model, inputs)
    np.testing.assert_allclose(exact.numpy(), expected["logits_dequantized_float32"], rtol=0, atol=1e-5)
    as_said = logits_of(kind.from_pretrained(recorded / name, dtype="auto"), inputs).float().numpy()
    how = "int8" if said["load_in_8bit"] else said["bnb_4bit_compute_dtype"]
    np.testing.assert_allclose(as_said, expected["logits"], rtol=0, atol=OFF.get(how, 1e-5))
    kind.from_pretrained(recorded / name, dtype="auto").save_pretrained(tmp_path)
    with open_checkpoint(recorded / name) as theirs, open_checkpoint(tmp_path) as ours:
        assert set(ours.names) == set(theirs.names)
        for tensor in theirs.names:
            one, other = ours.tensor(tensor), theirs.tensor(tensor)
            assert (one.dtype, one.shape, bytes(one.data)) == (other.dtype, other.shape, bytes(other.data)), tensor


@pytest.mark.parametrize("name", ["MaskedLM/nf4_single", "SequenceClassification/int8", "OddSizes/fp4_double"])
def test_quantized_while_it_is_loaded(name: str, recorded: Path) -> None:
    """The same model as that which bitsandbytes made, but for the last bit of an offset."""
    said = json.loads((recorded / name / "config.json").read_text())["quantization_config"]
    source, kind = recorded / name.partition("/")[0] / "source", CLASSES[name.partition("/")[0]]
    inputs = inputs_of(np.load(recorded / name / "expected.npz"))
    made, theirs = kind.from_pretrained(source, quantization_config=said), kind.from_pretrained(recorded / name)
    assert set(made.state_dict()) == set(theirs.state_dict())
    assert_close(logits_of(made, inputs), logits_of(theirs, inputs), tolerance=5e-6)


# ---- Layers


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("out", "into"), [(3, 32), (48, 64), (50, 96)])
def test_layers_are_the_weight_that_the_scheme_decodes(name: str, out: int, into: int) -> None:
    """Few tokens by PyTorch's int4 kernel, many by widening; outputs that are no sixteens too."""
    scheme, weight, bias = scheme_of_group(name), normal(out, into) * 0.1, normal(out, seed=1)
    parts = four_bit.encoded(scheme, weight)
    layer = FourBitLinear(scheme, bias, *parts.values())  # type: ignore[arg-type]
    decoded = scheme.decode(scheme.encode(weight.numpy()), (out, into))
    np.testing.assert_array_equal(layer.dequantize().numpy(), decoded)
    for tokens, tolerance in ((2, 0.01), (four_bit.FEW + 1, 1e-5 if not four_bit.HAS_FAST_BFLOAT16 else 0.01)):
        x = normal(tokens, 1, into, seed=2)
        expected = x @ torch.from_numpy(decoded).t() + bias
        with torch.no_grad():
            found = layer(x)
        assert float((found - expected).norm() / (expected - bias).norm()) < tolerance
    table, ids = FourBitEmbedding(scheme, *parts.values()), torch.tensor([[2, 0, 1]])  # type: ignore[arg-type]
    assert torch.equal(table(ids), torch.from_numpy(decoded)[ids])
    assert (table.num_embeddings, table.embedding_dim) == (out, into)


@pytest.mark.parametrize("out", [3, 250_002])
def test_rows_are_sixteens_for_the_kernel_and_in_memory_only(out: int) -> None:
    """Three, and the vocabulary of the published models, neither of which is a multiple."""
    scheme, x = Int4(), normal(2, 32, seed=2)
    parts = four_bit.encoded(scheme, normal(out, 32) * 0.1)
    layer = FourBitLinear(scheme, normal(out, seed=1), *parts.values())
    with torch.no_grad():
        found = layer(x)
        expected = x @ layer.dequantize().t() + layer.bias
    ordered, zeros = layer.in_order()  # the kernel was taken, and has its codes in order
    assert ordered.shape[0] == zeros.shape[1] == out + -out % 16
    assert found.shape == (2, out)
    for rows in (slice(None), slice(-3, None)):
        off = (found - expected)[:, rows].norm() / (expected - layer.bias)[:, rows].norm()
        assert float(off) < 0.01  # its scales and products are bfloat16
    assert {name: x.shape for name, x in layer.state_dict().items()} == {
        "bias": (out,),
        **{f"weight{suffix}": part.shape for suffix, part in parts.items()},
    }


@pytest.mark.parametrize(
    ("kind", "into"),
    [
        *((kind, 32) for kind in OURS),
        ("bitsandbytes-nf4", 45),
        ("bitsandbytes-nf4 in 128", 45),
        ("bitsandbytes-int8", 32),
    ],
)
def test_a_large_weight_is_widened_in_blocks(kind: str, into: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit, "FEW", 0)
    layer = layer_of(kind, 300, into)
    x = normal(5, layer.in_features, seed=3).requires_grad_(True)
    whole = layer(x)
    (gradient,) = torch.autograd.grad(whole.sum(), x)
    monkeypatch.setattr(widening, "WHOLE", 1000)
    # No whole blocks, if nobody looks.
    monkeypatch.setattr(widening, "BLOCK", 4 * 70 * layer.in_features)
    assert len(layer._spans()) == (3 if "128" in kind else 5)
    assert_close(layer(x), whole, tolerance=1e-6)
    assert_close(torch.autograd.grad(layer(x).sum(), x)[0], gradient, tolerance=1e-6)


def layer_of(kind: str, out: int, into: int, group: int = 32) -> Any:
    model = nn.Sequential(nn.Linear(into, out))
    kind, _, block = kind.partition(" in ")
    scheme = scheme_of_group(kind, group) if kind in OURS else scheme_with(kind)
    row = Parameter("m.weight", (out, into), ("out", "into"), Role.LINEAR_WEIGHT, Init.NORMAL)
    file = four_bit if kind in OURS else bitsandbytes
    parts = file.encoded(scheme, model[0].weight)  # type: ignore[arg-type,operator]
    if block:  # as nobody writes it here, and somebody may
        (name,) = (suffix for suffix in parts if suffix.startswith(STATE))
        text = json.dumps({**json.loads(parts[name].numpy().tobytes()), "blocksize": int(block)})
        parts[name] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        parts[ABSMAX] = parts[ABSMAX][:: int(block) // 64]
    return file.layer(scheme, row, parts, model[0].bias)  # type: ignore[arg-type,operator]


@pytest.mark.parametrize("kind", ["nf4", "fp4", "bitsandbytes-nf4", "bitsandbytes-fp4"])
def test_what_the_kernel_of_bitsandbytes_is_given(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA; that it is the weight which widening gives, and that an odd number of values is widened."""
    given: list[Any] = []

    class Functional:
        QuantState = SimpleNamespace

    class Library:
        functional = Functional

        @staticmethod
        def matmul_4bit(x: Tensor, codes: Tensor, quant_state: Any) -> Tensor:
            given.append(quant_state)
            pairs = codes.reshape(-1)
            values = quant_state.code[torch.stack([pairs >> 4, pairs & 15], 1).reshape(-1).int()]
            weight = values * quant_state.absmax.repeat_interleave(quant_state.blocksize)
            return x @ weight.view(quant_state.shape).to(quant_state.dtype).to(x.dtype).t()

    monkeypatch.setitem(sys.modules, "bitsandbytes", Library)  # type: ignore[arg-type]
    layer, odd, x = layer_of(kind, 40, 64, 64), layer_of("bitsandbytes-nf4", 3, 45), normal(3, 64)
    expected, unchanged = layer(x), odd(normal(2, 45))
    for file in (four_bit, bitsandbytes):
        monkeypatch.setattr(file, "has_kernel", lambda x, block: block in cuda_four_bit.BLOCKS)
    assert_close(layer(x), expected, tolerance=1e-5)
    assert [(state.quant_type, state.blocksize) for state in given] == [(kind.removeprefix("bitsandbytes-"), 64)]
    assert torch.equal(odd(normal(2, 45)), unchanged) and len(given) == 1


@pytest.mark.parametrize("kind", [*OURS, "bitsandbytes-nf4", "bitsandbytes-int8"])
def test_gradients_reach_inputs_and_keep_nothing_wide(kind: str) -> None:
    layer, x = layer_of(kind, 40, 32), normal(3, 32).requires_grad_(True)
    y = layer(x)
    assert isinstance(layer, nn.Linear) and not layer.weight.requires_grad
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    expected = 2 * (x.detach() @ layer.dequantize().t() + layer.bias.detach()) @ layer.dequantize()
    tolerance = 1e-5 if not four_bit.HAS_FAST_BFLOAT16 else 0.02
    assert float((gradient - expected).norm() / expected.norm()) < tolerance


# ---- Whole models


def quantized(scheme: Any, case: Case = MASKED_LM, **changes: Any) -> Any:
    return quantize(case.build(**{**WIDE, **changes}), scheme)


SCHEMES = {
    "int4": Int4(),
    "nf4": Nf4(group_size=32),
    "nf4 skip": Nf4(("query", "embeddings"), 32),
    "bnb nf4": NF4,
    "bnb fp4 bf16": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16),
    "bnb int8": INT8,
}
each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


@each_scheme
@pytest.mark.parametrize("case", [MASKED_LM, Case("XLMRobertaXL", "ForSequenceClassification")], ids=str)
def test_saved_and_loaded(scheme: Any, case: Case, tmp_path: Path) -> None:
    model, inputs = quantized(scheme, case), case.inputs("right")
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path)
    assert loaded.is_quantized and type(loaded.quantization_scheme) is type(model.quantization_scheme)
    assert {name: (x.dtype, x.shape) for name, x in loaded.state_dict().items()} == {
        name: (x.dtype, x.shape) for name, x in model.state_dict().items()
    }
    assert torch.equal(logits_of(loaded, inputs), logits_of(model, inputs))
    if not isinstance(scheme, BitsAndBytesConfig):
        assert not any(x.requires_grad for x in loaded.parameters())
        assert loaded.dtype is torch.float32


@each_scheme
def test_it_is_the_model_that_the_command_writes(scheme: Any, tmp_path: Path) -> None:
    model, inputs = MASKED_LM.build(**WIDE), MASKED_LM.inputs("right")
    model.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme)
    quantize(model, scheme).save_pretrained(tmp_path / "saved")
    with open_checkpoint(tmp_path / "small") as one, open_checkpoint(tmp_path / "saved") as other:
        assert set(one.names) == set(other.names)
        assert all(bytes(one.tensor(name).data) == bytes(other.tensor(name).data) for name in one.names)
    said = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("small", "saved")]
    assert said[0]["quantization_config"] == said[1]["quantization_config"]
    loaded = MASKED_LM.model_class.from_pretrained(tmp_path / "small")
    assert torch.equal(logits_of(loaded, inputs), logits_of(model, inputs))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says which files are mapped")
@pytest.mark.parametrize(
    "change",
    [
        *(pytest.param(lambda model, name=name: quantize(model, name), id=name) for name in ("int8", *OURS)),
        pytest.param(lambda model: quantize(model, NF4), id="bitsandbytes"),
        pytest.param(lambda model: optimize_for_inference(model, "bfloat16", compile=False), id="bfloat16"),
    ],
)
def test_the_file_of_the_wide_values_does_not_stay_mapped(change: Any, tmp_path: Path) -> None:
    """It would count as memory of the process, several times what the small values take."""
    CLASSIFIER.build(**WIDE).save_pretrained(tmp_path)
    model = xlmr_torch.XLMRobertaForSequenceClassification.from_pretrained(tmp_path)
    inputs, maps = CLASSIFIER.inputs(), Path("/proc/self/maps")
    assert str(tmp_path) in maps.read_text()
    change(model)
    assert str(tmp_path) not in maps.read_text()
    assert logits_of(model, inputs).isfinite().all()


@each_scheme
def test_copies(scheme: Any) -> None:
    model, inputs = quantized(scheme), MASKED_LM.inputs("right")
    expected = logits_of(model, inputs)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = quantized(scheme, seed=5)
    other.load_state_dict(torch.load(buffer))
    assigned = quantized(scheme)
    assigned.load_state_dict(model.state_dict(), assign=True)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("cpu"), other, assigned):
        assert torch.equal(logits_of(copied, inputs), expected)
        decoder, table = copied.lm_head.decoder, copied.roberta.embeddings.word_embeddings
        assert decoder.weight is table.weight


ONE_GRAPH = ["int4", "nf4", "bnb nf4", "bnb int8", "fp4", "bnb fp4 bf16"]  # the last two are the code of nf4


@pytest.mark.parametrize("name", chosen(ONE_GRAPH, ONE_GRAPH[:4]))
def test_one_graph(name: str) -> None:
    scheme = {**SCHEMES, "fp4": scheme_of_group("fp4")}[name]
    model = quantized(scheme)
    inputs = MASKED_LM.inputs("right")
    longer = {"input_ids": torch.randint(3, 30, (2, 11)), "attention_mask": torch.ones(2, 11, dtype=torch.int64)}
    batches = (inputs, longer) if isinstance(scheme, Int4) else (inputs,)
    expected = [logits_of(model, batch) for batch in batches]
    if isinstance(scheme, Int4):
        optimize_for_inference(model, compile=False)  # the kernel's order of codes is there before the compiler looks
    torch.compiler.reset()  # only so many graphs of a function are kept
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=len(batches) > 1)
    with torch.no_grad():
        for batch, wanted in zip(batches, expected, strict=True):
            assert_close(compiled(**batch).logits, wanted, tolerance=2e-5)


@pytest.mark.parametrize("name", OURS)
def test_optimized(name: str) -> None:
    model, inputs = MASKED_LM.build(**{**WIDE, "hidden_size": 64, "intermediate_size": 64}), MASKED_LM.inputs("right")
    plain = logits_of(model, inputs)
    fast = optimize_for_inference(model, name, compile=False)
    assert fast.quantization_scheme is not None and fast.quantization_scheme.name == name
    found = logits_of(fast, inputs)
    assert float((found - plain).norm() / plain.norm()) < 0.5


def test_the_published_example(tmp_path: Path) -> None:
    MASKED_LM.build(**WIDE).save_pretrained(tmp_path)
    model = xlmr_torch.AutoModelForMaskedLM.from_pretrained(
        tmp_path,
        dtype=torch.float16,
        device_map="cpu",
        attn_implementation="flash_attention_2",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
        ),
    )
    assert model.dtype is torch.float16 and model.is_loaded_in_4bit and model.packing == "always"
    assert type(model.get_submodule(DENSE)) is Linear4bit and type(model.get_submodule(DENSE).weight) is Params4bit
    assert model.get_submodule(DENSE).compute_dtype is torch.bfloat16  # PEFT reads it
    assert model.config.quantization_config["llm_int8_skip_modules"] == ["lm_head.decoder"]
    with torch.no_grad():
        assert model(**MASKED_LM.inputs("right")).logits.isfinite().all()


def test_the_rest_of_a_model_of_bitsandbytes_can_be_trained() -> None:
    model = quantized(NF4, CLASSIFIER)
    inputs = {
        **CLASSIFIER.inputs("right"),
        "labels": torch.tensor([0, 1, 0, 2]),
    }
    model(**inputs).loss.backward()
    assert model.roberta.embeddings.word_embeddings.weight.grad is not None
    assert model.get_submodule(DENSE).bias.grad is not None and model.get_submodule(DENSE).weight.grad is None


def test_older_names_of_the_arguments(tmp_path: Path) -> None:
    MASKED_LM.build(**WIDE).save_pretrained(tmp_path)
    model = MASKED_LM.model_class.from_pretrained(tmp_path, load_in_8bit=True)
    assert model.is_loaded_in_8bit and type(model.get_submodule(DENSE)) is Linear8bitLt


# ---- What is refused


@pytest.mark.parametrize("scheme", [Nf4(group_size=32), NF4], ids=["nf4", "bnb nf4"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: model.half(), "received torch.float16; leave its dtype"),
        (lambda model: model.to(torch.bfloat16), "received torch.bfloat16"),
        (lambda model: model.resize_token_embeddings(50), "resize_token_embeddings.*original model"),
        (lambda model: model.prune_heads({0: [0]}), "prune_heads.*original model"),
        (lambda model: quantize(model, "int8"), "received one with .* weights; quantize the original model"),
    ],
)
def test_changes_are_refused_before_anything_changes(change: Any, match: str, scheme: Any) -> None:
    model, inputs = quantized(scheme), MASKED_LM.inputs("right")
    expected = logits_of(model, inputs)
    with pytest.raises(InputError, match=match):
        change(model)
    assert torch.equal(logits_of(model, inputs), expected)
    assert model.float() is model and model.get_submodule(DENSE).weight.dtype is torch.uint8
    assert torch.equal(logits_of(model, inputs), expected)


def test_values_without_a_scale_change_nothing() -> None:
    for scheme in ("int8", Nf4(group_size=32), NF4):
        for value in (float("nan"), float("inf")):
            model = MASKED_LM.build(**WIDE)
            model.get_submodule(DENSE).weight.data[1, 2] = value
            with pytest.raises(InputError, match=f"{DENSE}.weight has values for which there is no scale"):
                quantize(model, scheme)
            assert not model.is_quantized and type(model.get_submodule(DENSE)) is type(
                MASKED_LM.build().get_submodule(DENSE)
            )


def test_settings_that_do_not_fit_change_nothing() -> None:
    model = MASKED_LM.build(**WIDE)
    for scheme, match in (
        (Nf4(group_size=64), "groups of 64 .* divides 32"),
        ("int3", "scheme must be one of"),
        ({}, "asks for nothing"),
        (None, "scheme must be one of .*BitsAndBytesConfig, received None"),
    ):
        with pytest.raises(ConfigError, match=match):
            quantize(model, scheme)  # type: ignore[arg-type]
    assert not model.is_quantized and type(model.get_submodule(DENSE).weight) is nn.Parameter


@each_scheme
def test_codes_take_no_gradient(scheme: Any) -> None:
    model = quantized(scheme)
    before = {name: x.requires_grad for name, x in model.named_parameters()}
    with pytest.raises(InputError, match="codes, which take no gradient; train adapters"):
        model.requires_grad_(True)
    assert {name: x.requires_grad for name, x in model.named_parameters()} == before
    if isinstance(scheme, BitsAndBytesConfig) and scheme.load_in_4bit:
        with pytest.raises(InputError, match="codes, which take no gradient"):
            model.get_submodule(DENSE).weight.requires_grad_(True)


def test_quantized_files_are_not_quantized_otherwise(recorded: Path) -> None:
    load, folder = CLASSES["MaskedLM"].from_pretrained, recorded / "MaskedLM/nf4_single"
    with pytest.raises(InputError, match="has bitsandbytes weights already, received"):
        load(folder, quantization_config=INT8)
    with pytest.raises(InputError, match="expected quantization_config alone"):
        load(folder, quantization_config=INT8, load_in_8bit=True)
    with pytest.warns(ConfigWarning, match="only bnb_4bit_compute_dtype is used"):
        load(folder, quantization_config=NF4)


def test_products_are_of_the_dtype_that_the_file_says(recorded: Path) -> None:
    """Unless another one is asked for."""
    load, folder = CLASSES["MaskedLM"].from_pretrained, recorded / "MaskedLM/nf4_double"
    asked: list[tuple[dict[str, Any], torch.dtype]] = [
        ({}, torch.bfloat16),
        ({"quantization_config": NF4}, torch.bfloat16),
        ({"quantization_config": NF4.with_values(bnb_4bit_compute_dtype="float32")}, torch.float32),
    ]
    for how, dtype in asked:
        assert load(folder, **how).get_submodule(DENSE).compute_dtype is dtype


def test_a_quant_state_that_disagrees(recorded: Path) -> None:
    source = recorded / "MaskedLM/nf4_single"
    config = xlmr_torch.XLMRobertaConfig.from_pretrained(source)
    values = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(source).state_dict()
    values[f"{DENSE}.weight.absmax"] = values[f"{DENSE}.weight.absmax"][:-1]
    match = r"absmax must have the shape \(320,\), received \(319,\).*or fetch or save the checkpoint again"
    for how in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(CheckpointError, match=match):
            xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(None, config=config, state_dict=values, **how)
