"""Checkpoints that bitsandbytes wrote, read bit for bit and written with the same codes; what a user may ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, InputError
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.parameters import parameters, parts_of
from xlmr_core.quantization import BitsAndBytes, BitsAndBytesConfig, find_scheme, scheme_with
from xlmr_core.quantization.asked import asked_while_loading, loaded_as_asked, scheme_to_apply
from xlmr_core.quantization.bitsandbytes import ABSMAX, NESTED_ABSMAX, STATE, state_of
from xlmr_core.quantization.bitsandbytes_config import _said
from xlmr_core.quantization.four_bit import Nf4

FOUR_BITS = ["nf4_double", "nf4_single", "fp4_single", "nf4_double_storage_bf16", "nf4_double_dtype_bf16"]
RECORDED = [
    *(f"MaskedLM/{variant}" for variant in (*FOUR_BITS, "nf4_skip_lm_head", "int8")),
    *(f"SequenceClassification/{variant}" for variant in ("nf4_double", "nf4_skip_classifier", "int8")),
    *("SequenceClassification/nf4_double_dtype_fp16", "OddSizes/nf4_double", "OddSizes/fp4_double"),
    *(f"XLMaskedLM/{variant}" for variant in ("nf4_double", "nf4_skip_lm_head", "int8")),
]


@pytest.fixture
def quantized(shared: Path) -> Path:
    return shared / "quantized"


def parts_in(files: ModelFiles, weight: str) -> dict[str, np.ndarray]:
    """The tensors of a weight; bfloat16, which NumPy has not, as bits."""
    rows = parts_of(weight, files.rows)
    raw = {suffix: files.checkpoint.tensor(files.plan.sources[row.name]) for suffix, row in rows.items()}
    return {suffix: tensor.bits() if tensor.dtype == "BF16" else tensor.to_numpy() for suffix, tensor in raw.items()}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_weights_are_read_bit_for_bit_and_written_with_the_same_codes(name: str, quantized: Path) -> None:
    expected = np.load(quantized / name / "expected.npz")
    sums = dict(zip(expected["quantized_modules"], expected["dequantized_sum"], strict=True))
    source = quantized / name.partition("/")[0] / "source"
    with open_model(quantized / name) as files, open_checkpoint(source) as plain:
        assert isinstance(files.scheme, BitsAndBytes) and files.plan.report.message == ""
        weights = {row.quantized.weight for row in files.rows.values() if row.quantized}
        assert weights == {f"{module}.weight" for module in sums}
        writer = files.scheme.of_dtype({"bfloat16": "BF16", "float16": "F16"}.get(str(files.config.dtype), "F32"))
        for weight in weights:
            parts, module = parts_in(files, weight), weight.removesuffix(".weight")
            values = plain.tensor(weight).to_numpy()
            decoded = files.scheme.decode(parts, values.shape)
            assert decoded.dtype == np.float32 and decoded.sum(dtype=np.float64) == sums[module]
            if f"dequantized__{module}" in expected:
                np.testing.assert_array_equal(decoded, expected[f"dequantized__{module}"])
            same_parts(writer.encode(values), parts)


def same_parts(written: dict[str, np.ndarray], recorded: dict[str, np.ndarray]) -> None:
    """The offset of nested scales is the mean of thousands, which PyTorch adds up in an order of its own."""
    assert set(written) == set(recorded)
    for suffix, values in recorded.items():
        if suffix.startswith(STATE):
            one, other = (json.loads(x[suffix].tobytes()) for x in (written, recorded))
            assert one.pop("nested_offset", 0.0) == pytest.approx(other.pop("nested_offset", 0.0), rel=3e-7)
            assert list(one.items()) == list(other.items())
            continue
        assert written[suffix].dtype == values.dtype and written[suffix].shape == values.shape
        if suffix == ABSMAX and values.dtype == np.uint8:
            assert np.abs(written[suffix].astype(int) - values).max() <= 1
        elif suffix == NESTED_ABSMAX:
            np.testing.assert_allclose(written[suffix], values, rtol=1e-6)
        else:
            assert written[suffix].tobytes() == values.tobytes(), suffix  # 0 is not -0


# ---- Which weights


@pytest.mark.parametrize(
    ("head", "skip", "wide"),
    [
        ("ForMaskedLM", None, ("lm_head.decoder",)),
        ("ForMaskedLM", ["lm_head.dense"], ("lm_head.dense", "lm_head.decoder")),  # tied, so never quantized
        ("ForMaskedLM", [r"roberta\.encoder\.layer\.0"], None),
        ("ForMaskedLM", [r"roberta\.encoder\.layer\.(0|10)"], None),  # and not layer 1
        ("ForSequenceClassification", None, ()),
        ("ForSequenceClassification", ["out_proj"], ("classifier.out_proj",)),
        ("ForTokenClassification", ["classifier"], ("classifier",)),
    ],
)
def test_what_transformers_would_quantize(head: str, skip: Any, wide: tuple[str, ...] | None) -> None:
    rows = parameters(XLMRobertaConfig(num_hidden_layers=2), head)
    planned = BitsAndBytes(BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skip)).planned(rows)
    said = planned.written()["llm_int8_skip_modules"] or []
    if wide is None:
        assert len(said) == 7 and said[-1] == "lm_head.decoder"
    else:
        assert tuple(said) == wide
    assert not planned.takes(rows["roberta.embeddings.word_embeddings.weight"])
    assert planned.takes(rows["roberta.encoder.layer.1.output.dense.weight"])


def test_skipped_modules_are_left_beside_those_that_are_left_anyway() -> None:
    """By steps of their names, as in schemes of ours; they come to the list as whole names."""
    rows = parameters(XLMRobertaConfig(num_hidden_layers=2), "ForMaskedLM")
    config = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["lm_head"])
    for asked, wide in ((config, {"lm_head.dense", "lm_head.decoder"}), ("bitsandbytes-nf4", {"lm_head.decoder"})):
        said = scheme_with(find_scheme(asked), ["encoder.layer.0.output"]).planned(rows).written()
        assert set(said["llm_int8_skip_modules"]) == wide | {"roberta.encoder.layer.0.output.dense"}
    with pytest.raises(ConfigError, match=r"modules with weights that nf4 takes, such as .*received 'layer.00'"):
        scheme_with("bitsandbytes-nf4", ["layer.00"]).planned(rows)
    assert scheme_with(Nf4(("query",)), ["key"]) == Nf4(("query", "key"))


def test_a_model_that_is_quantized_so_already() -> None:
    rows = parameters(XLMRobertaConfig(num_hidden_layers=1), "ForMaskedLM")
    asked = BitsAndBytesConfig(load_in_4bit=True)
    own = find_scheme(asked).planned(rows)
    assert scheme_to_apply(asked, own) is None
    for other, skip in ((BitsAndBytesConfig(load_in_8bit=True), ()), (asked, ["query"]), ("nf4", ())):
        with pytest.raises(InputError, match="expected a model with its own weights"):
            scheme_to_apply(other, own, skip)


def test_an_untied_decoder_is_quantized_where_the_list_leaves_it_out() -> None:
    rows = parameters(XLMRobertaConfig(num_hidden_layers=1, tie_word_embeddings=False), "ForMaskedLM")
    decoder = rows["lm_head.decoder.weight"]
    assert not find_scheme("bitsandbytes-nf4").takes(decoder)
    assert find_scheme(BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["dense"])).takes(decoder)


# ---- What a user may ask for


def test_a_config_of_another_library_and_a_dictionary() -> None:
    asked = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="torch.bfloat16")
    said = asked.to_dict()
    assert said["bnb_4bit_compute_dtype"] == "bfloat16" and said["bnb_4bit_quant_storage"] == "uint8"
    for other in (
        asked,
        said,
        SimpleNamespace(to_dict=lambda: {**said, "quant_method": SimpleNamespace(value=said["quant_method"])}),
    ):
        assert BitsAndBytesConfig.of(other) == asked
    assert find_scheme(said) == BitsAndBytes(asked)  # type: ignore[arg-type]
    assert asked.to_diff_dict()["load_in_4bit"] is True and "llm_int8_threshold" not in asked.to_diff_dict()


def test_a_dictionary_and_what_is_no_field_of_it() -> None:
    """As published; what is not asked back is refused."""
    said = {**BitsAndBytesConfig(load_in_4bit=True).to_dict(), "bnb_4bit_quant_type": "nf4"}
    config, unused = BitsAndBytesConfig.from_dict(said, True, bnb_4bit_use_double_quant=True, device_map="auto")
    assert unused == {"device_map": "auto"}
    asked = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    assert config == BitsAndBytesConfig(**asked)
    assert BitsAndBytesConfig.from_dict(said, bnb_4bit_use_double_quant=True) == config
    with pytest.raises(TypeError, match="does not know the argument 'bnb_4bit_use_double'; did you mean"):
        BitsAndBytesConfig.from_dict(said, bnb_4bit_use_double=True)
    with pytest.raises(TypeError, match="did you mean 'load_in_4bit'"):
        BitsAndBytesConfig.from_dict({"load_in_4bits": True}, return_unused_kwargs=True)


def test_a_quantized_checkpoint_keeps_its_dtype_of_products_unless_one_is_asked_for() -> None:
    def of_another_library(**said: Any) -> Any:
        whole = BitsAndBytesConfig(load_in_4bit=True, **said)
        return SimpleNamespace(to_dict=whole.to_dict, to_diff_dict=whole.to_diff_dict)

    half = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype="bfloat16")
    scheme = BitsAndBytes(half)
    for asked, dtype in (
        (BitsAndBytesConfig(load_in_4bit=True), "bfloat16"),
        ({"load_in_4bit": True}, "bfloat16"),
        (of_another_library(), "bfloat16"),
        (BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype="float32"), "float32"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}, "float32"),
        (of_another_library(bnb_4bit_compute_dtype="float16"), "float16"),
    ):
        found = loaded_as_asked(BitsAndBytesConfig.of(asked), scheme)
        assert found == BitsAndBytes(half.with_values(bnb_4bit_compute_dtype=dtype))
    asked_so = asked_while_loading(None, load_in_8bit=False, load_in_4bit=True)
    assert asked_so is not None and loaded_as_asked(asked_so, scheme) == scheme


def test_the_config_beside_recorded_weights_is_what_is_written(quantized: Path) -> None:
    said = json.loads((quantized / "MaskedLM/nf4_double/config.json").read_text())["quantization_config"]
    assert BitsAndBytes().read(said).written() == said


def test_a_field_that_asks_for_nothing_says_so_once() -> None:
    _said.clear()
    asked = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=4.0)
    with pytest.warns(ConfigWarning, match="llm_int8_threshold=4.0 asks for nothing here: activations are not rounded"):
        BitsAndBytesConfig.of(asked)
    BitsAndBytesConfig.of(asked)


@pytest.mark.parametrize(
    ("ask", "error", "match"),
    [
        (lambda: BitsAndBytesConfig(load_in_4bit=True, load_in_8bit=True), ConfigError, "both True"),
        (lambda: BitsAndBytesConfig(bnb_4bit_quant_type="nf3"), ConfigError, "nf4 or fp4, received 'nf3'"),
        (lambda: BitsAndBytesConfig(bnb_4bit_compute_dtype="int8"), ConfigError, "compute_dtype must be one of"),
        (lambda: BitsAndBytesConfig(load_in_4bit=1), ConfigError, "load_in_4bit must be True or False"),  # type: ignore[arg-type]
        (lambda: BitsAndBytesConfig(llm_int8_skip_modules="lm_head"), ConfigError, "must be a list of names"),  # type: ignore[arg-type]
        (lambda: BitsAndBytesConfig.of({}), ConfigError, "asks for nothing, expected load_in_4bit=True or"),
        (lambda: BitsAndBytesConfig.of({"quant_method": "gptq"}), ConfigError, "quant_method 'bitsandbytes', received"),
        (lambda: BitsAndBytesConfig.of({"load_in_4bits": True}), TypeError, "did you mean 'load_in_4bit'"),
        (lambda: BitsAndBytesConfig.of(4), ConfigError, "must be a BitsAndBytesConfig or a dict, received 4"),
        (lambda: find_scheme("int3"), ConfigError, "scheme must be one of int8, int4, nf4, fp4, .*received 'int3'"),
    ],
)
def test_what_cannot_be_served(ask: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ask()


# ---- Damaged files


class Tampered:
    """An open checkpoint with other tensors in place of some."""

    def __init__(self, checkpoint: Any, changes: dict[str, np.ndarray | None]) -> None:
        self.path, self._own = checkpoint.path, checkpoint
        self._changes = {name: None if x is None else RawTensor.from_numpy(x) for name, x in changes.items()}
        self.names = tuple(name for name in checkpoint.names if self._changes.get(name, name) is not None)

    def info(self, name: str) -> Any:
        return self._changes.get(name) or self._own.info(name)

    def tensor(self, name: str) -> Any:
        return self._changes.get(name) or self._own.tensor(name)


WEIGHT = "roberta.encoder.layer.0.output.dense.weight"
TEXT = f"{WEIGHT}{STATE}nf4"


def text(**changes: Any) -> np.ndarray:
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 320], **changes}
    return np.frombuffer(json.dumps(said).encode(), np.uint8)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({WEIGHT + ABSMAX: np.ones(319, np.float32)}, r"absmax must have the shape \(320,\), received \(319,\)"),
        ({WEIGHT + ABSMAX: None}, f"expected the absmax {WEIGHT}.absmax of shape"),
        ({TEXT: None}, f"{WEIGHT} in .* has no {WEIGHT}.quant_state.bitsandbytes__nf4 or fp4, which says how"),
        ({TEXT: text(shape=[320, 64])}, r"quant_state of .* shape \(320, 64\), and the config that it has \(64, 320\)"),
        ({TEXT: text(blocksize=65)}, "must be JSON with quant_type nf4 or fp4, .*received"),
        ({TEXT: text(blocksize=0)}, "must be JSON with quant_type nf4 or fp4, .*received"),
        ({TEXT: text(blocksize=32)}, r"absmax must have the shape \(640,\), received \(320,\)"),
        ({TEXT: text(quant_type="nf3")}, "must be JSON with"),
        ({TEXT: np.frombuffer(b"\xff{", np.uint8)}, "must be JSON with"),
        ({WEIGHT: np.zeros((3, 1), np.uint8)}, r"must have the shape \(10240, 1\), received \(3, 1\)"),
    ],
)
def test_a_damaged_weight_is_refused(changes: dict[str, Any], match: str, quantized: Path) -> None:
    with open_model(quantized / "MaskedLM/nf4_single") as files:
        tampered = ModelFiles(files.name, Tampered(files.checkpoint, changes), files.config, files.head, files.pooler)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match=match):
            tampered.plan  # noqa: B018


def test_a_config_that_speaks_of_weights_that_are_not_there(quantized: Path) -> None:
    with (
        open_checkpoint(quantized / "MaskedLM/source") as plain,
        pytest.raises(CheckpointError, match="none of its weights is; remove"),
    ):
        find_scheme("bitsandbytes-nf4").in_file(plain)


def test_a_state_without_nested_scales() -> None:
    state = state_of(text().tobytes(), "m.weight")
    assert (state.kind, state.shape, state.nested_block, state.nested_offset) == ("nf4", (64, 320), 0, 0.0)
