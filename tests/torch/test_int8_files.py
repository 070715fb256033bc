"""Int8 models: checkpoints that come back bit by bit, old ones too, and clear words for what cannot be done."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import xlmr_torch
from tests.torch.models import Case, assert_close, each_case, each_family, is_exactly_int8
from xlmr_core.checkpoints.found import open_checkpoint
from xlmr_core.checkpoints.load_plan import LoadWarning
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, ConfigError, InputError
from xlmr_core.parameters import stored_names
from xlmr_core.quantization.int8 import INT8, Int8
from xlmr_torch import int8
from xlmr_torch.int8 import Int8Linear, quantize, quantize_rows

MASKED_LM = Case("XLMRoberta", "ForMaskedLM")
CLASSIFIER = Case("XLMRoberta", "ForSequenceClassification")
VERSION_1 = {"quant_method": "xlmr-int8", "version": 1}
RECORDED = Path(__file__).parents[1] / "core" / "recorded" / "int8-v1"


def test_a_recorded_checkpoint_of_version_1(tmp_path: Path) -> None:
    """Written before there were schemes: the same bits, the same answer, and the same files when it is saved again."""
    expected = np.load(RECORDED / "expected.npz")
    model = MASKED_LM.model_class.from_pretrained(RECORDED)
    is_exactly_int8(model)
    assert model.quantization_scheme == INT8
    with open_checkpoint(RECORDED) as checkpoint:
        for name in checkpoint.names:
            np.testing.assert_array_equal(model.state_dict()[name].numpy(), checkpoint.tensor(name).to_numpy())
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(expected[name]) for name in ("input_ids", "attention_mask")}).logits
    assert_close(logits, torch.from_numpy(expected["logits"]), tolerance=1e-6)
    model.save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (RECORDED / name).read_bytes(), name


# ---- Files


@each_case
@pytest.mark.parametrize("shards", [1, 4])
def test_what_is_saved_comes_back(case: Case, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = quantize(case.build()), case.inputs("right")
    model.save_pretrained(tmp_path, max_shard_size=10**9 if shards == 1 else model.get_memory_footprint() // 3)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) is (shards > 1)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == VERSION_1
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


def test_a_saved_pipeline(tmp_path: Path) -> None:
    mini = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained("xlmr-mini")
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
        (FOREIGN, CheckpointError, "quantized by bitsandbytes, and none of its weights is; remove quantization_config"),
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
    rewrite(tmp_path, quantization_config=VERSION_1)
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
    return type(config).from_dict({**config.to_dict(), "quantization_config": VERSION_1})


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
        ("prune_heads", lambda model: model.base_model.prune_heads({0: [0]})),
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


def test_a_model_that_is_quantized_otherwise_is_refused() -> None:
    class Other(Int8):
        name = "other"

    model = quantize(MASKED_LM.build())
    with pytest.raises(InputError, match="own weights to make other ones of, received one with int8 weights"):
        quantize(model, Other())


@pytest.mark.parametrize("argument", [{"load_in_8bit": True}, {"quantization_config": FOREIGN}])
def test_what_is_quantized_is_not_quantized_again(saved: Path, argument: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has int8 weights already, received quantization_config=.*load_in_8bit"):
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
