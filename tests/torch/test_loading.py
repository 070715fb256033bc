"""from_pretrained and save_pretrained: what is saved comes back bit by bit, whatever the head, the shards, the dtype
and the class.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xlmr_torch
from tests.torch.models import CASES, Case, each_case, each_family
from xlmr_core.checkpoints.load_plan import LoadReport, LoadWarning
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, ConfigError, InputError, ModelNotFoundError, XLMRError
from xlmr_core.formats.tensors import MappedFile
from xlmr_core.heads import HEADS


def values(model: Any) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def assert_same(model: Any, expected: dict[str, torch.Tensor]) -> None:
    """The same keys, dtypes and bits."""
    actual = model.state_dict()
    assert list(actual) == list(expected)
    for name in expected:
        assert actual[name].dtype is expected[name].dtype, name
        assert torch.equal(actual[name], expected[name]), name


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Any, Path]:
    """A masked language model and the folder it was saved to."""
    model = Case("XLMRoberta", "ForMaskedLM").build()
    model.save_pretrained(tmp_path)
    return model, tmp_path


# ---- Round trips


@each_case
@pytest.mark.parametrize(("size", "files"), [("5GB", 1), (3000, None)])
def test_round_trip(case: Case, tmp_path: Path, size: int | str, files: int | None) -> None:
    model = case.build()
    model.config.my_own_key = {"kept": True}
    model.save_pretrained(tmp_path, max_shard_size=size)
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) == files or (files is None and len(shards) > 3)
    assert (tmp_path / "model.safetensors.index.json").exists() == (files is None)
    loaded = case.model_class.from_pretrained(tmp_path)
    assert type(loaded) is case.model_class and not loaded.training
    assert_same(loaded, values(model))
    assert loaded.config.my_own_key == {"kept": True}
    assert loaded.config.architectures == [str(case)]
    inputs = case.inputs("right")
    expected, actual = model(**inputs), loaded(**inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.parameters())


@each_family
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_of_dtypes(family: str, dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    case = Case(family, "ForMaskedLM")
    model = case.build(tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path, dtype="auto")
    assert_same(loaded, values(model))
    assert (loaded.lm_head.decoder.weight is loaded.roberta.embeddings.word_embeddings.weight) == tied
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.bfloat16),
        ({"dtype": torch.float16}, torch.float16),
        ({"dtype": "float16"}, torch.float16),
        ({"dtype": "torch.float64"}, torch.float64),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": "auto"}, torch.bfloat16),
        ({"dtype": "float32", "torch_dtype": "float16"}, torch.float32),
    ],
)
def test_dtype(tmp_path: Path, arguments: dict[str, Any], dtype: torch.dtype) -> None:
    case = Case("XLMRoberta", "ForTokenClassification")
    model = case.build().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path, **arguments)
    assert {x.dtype for x in loaded.parameters()} == {dtype} and loaded.dtype is dtype
    assert_same(loaded, values(model.to(dtype)))
    assert loaded.config.dtype == str(dtype).removeprefix("torch.")
    assert loaded.config.torch_dtype == loaded.config.dtype


def test_dtype_auto_without_a_word_in_the_config(tmp_path: Path) -> None:
    case = Case("XLMRoberta", "ForTokenClassification")
    case.build().half().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert case.model_class.from_pretrained(tmp_path, dtype="auto").dtype is torch.float16


@pytest.mark.parametrize("dtype", ["int8", torch.int64, "float33", 16])
def test_unknown_dtype(saved: tuple[Any, Path], dtype: Any) -> None:
    with pytest.raises(InputError, match=r"dtype must be .*received "):
        xlmr_torch.XLMRobertaModel.from_pretrained(saved[1], dtype=dtype)


# ---- Where to


@pytest.mark.parametrize(
    "arguments",
    [
        {"device": "cpu"},
        {"device": torch.device("cpu")},
        {"device": -1},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"device_map": {"roberta": "cpu", "lm_head": "cpu"}},
        {"device_map": torch.device("cpu")},
    ],
)
def test_device(saved: tuple[Any, Path], arguments: dict[str, Any]) -> None:
    model, folder = saved
    assert_same(type(model).from_pretrained(folder, **arguments), values(model))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda"}, r"device 'cuda' asks for a CUDA GPU, PyTorch sees none here; pass device='cpu'"),
        ({"device": 0}, r"device 'cuda:0' asks for a CUDA GPU"),
        ({"device_map": {"": 0}}, r"device 'cuda:0' asks for a CUDA GPU"),
        ({"device": "warp"}, r"device must be .*received 'warp'"),
        ({"device_map": {"a": "cpu", "b": "disk"}}, r"device_map must put the whole model on one device"),
        ({"device_map": {}}, r"device_map must put the whole model on one device"),
    ],
)
def test_devices_that_are_not_there(saved: tuple[Any, Path], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        type(saved[0]).from_pretrained(saved[1], **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("name", ["auto", "balanced", "sequential"])
def test_device_map_auto_is_the_cpu_without_a_gpu(saved: tuple[Any, Path], name: str) -> None:
    assert type(saved[0]).from_pretrained(saved[1], device_map=name).device == torch.device("cpu")


def test_kernel_and_packing(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    loaded = type(model).from_pretrained(folder, attn_implementation="eager", packing="never")
    assert (loaded.attn_implementation, loaded.packing) == ("eager", "never")
    plain = type(model).from_pretrained(folder)
    assert (plain.attn_implementation, plain.packing) == ("sdpa", "auto")
    flash = type(model).from_pretrained(folder, attn_implementation="flash_attention_2")
    assert (flash.attn_implementation, flash.packing) == ("sdpa", "always")
    assert flash.config._attn_implementation == "flash_attention_2"
    assert flash.set_packing("never").set_attn_implementation("flex_attention").packing == "never"
    with pytest.raises(
        InputError, match=r"attn_implementation must be one of 'sdpa', 'eager', .*received 'flash_attention_9'"
    ):
        type(model).from_pretrained(folder, attn_implementation="flash_attention_9")
    with pytest.raises(InputError, match=r"packing must be one of .*received 'maybe'"):
        type(model).from_pretrained(folder, packing="maybe")


# ---- Values of the config


def test_config_values_by_keyword(saved: tuple[Any, Path]) -> None:
    _, folder = saved
    with pytest.warns(LoadWarning, match="classifier"):
        model = xlmr_torch.XLMRobertaForSequenceClassification.from_pretrained(
            folder, num_labels=5, output_attentions=True, hidden_dropout_prob=0.25, problem_type="regression"
        )
    assert model.config.num_labels == 5 and model.classifier.out_proj.out_features == 5
    assert model.config.output_attentions and model.config.problem_type == "regression"
    assert model.base_model.embeddings.dropout.p == 0.25
    labels = {0: "no", 1: "yes", 2: "maybe"}
    with pytest.warns(LoadWarning, match="classifier"):
        model = xlmr_torch.XLMRobertaForTokenClassification.from_pretrained(folder, id2label=labels)
    assert model.config.id2label == labels and model.config.label2id["maybe"] == 2
    assert model.classifier.out_features == 3


def test_unknown_keyword(saved: tuple[Any, Path]) -> None:
    with pytest.raises(TypeError, match=r"XLMRobertaModel.from_pretrained\(\) does not know the argument 'num_lables'"):
        xlmr_torch.XLMRobertaModel.from_pretrained(saved[1], num_lables=3)
    with pytest.raises(TypeError, match="the argument 'max_shard_sise'; did you mean 'max_shard_size'"):
        saved[0].save_pretrained(saved[1], max_shard_sise=3)


def test_a_config_in_place_of_the_checkpoints(
    saved: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, folder = saved
    config = XLMRobertaConfig.from_pretrained(folder, is_decoder=True)
    before = config.to_dict()
    loaded = xlmr_torch.XLMRobertaForCausalLM.from_pretrained(folder, config=config, dtype="bfloat16")
    assert loaded.config.is_decoder and loaded.config is not config
    assert config.to_dict() == before, "the caller's config was changed"
    elsewhere = tmp_path_factory.mktemp("config")
    config.save_pretrained(elsewhere)
    for path in (elsewhere, str(elsewhere), elsewhere / "config.json"):
        assert xlmr_torch.XLMRobertaForCausalLM.from_pretrained(folder, config=path).config.is_decoder
    changed = xlmr_torch.XLMRobertaForCausalLM.from_pretrained(folder, config=config, is_decoder=False)
    assert not changed.config.is_decoder and config.is_decoder
    assert_same(type(model).from_pretrained(folder, config=model.config), values(model))


def test_a_state_dict_in_place_of_the_files(saved: tuple[Any, Path]) -> None:
    _, folder = saved
    case = Case("XLMRoberta", "ForMaskedLM")
    source = case.build(seed=9)
    before = values(source)
    loaded = case.model_class.from_pretrained(folder, state_dict=source.state_dict())
    assert_same(loaded, before)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert_same(source, before)
    half = case.model_class.from_pretrained(folder, state_dict=source.half().state_dict(), dtype="auto")
    assert half.dtype is torch.float32, "auto asks the folder's config first"


# ---- From one head to another


@each_case
def test_a_bare_checkpoint_into_every_head(case: Case, tmp_path: Path) -> None:
    base = Case(case.family, "Model").build()
    base.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = case.model_class.from_pretrained(tmp_path, num_labels=case.config().num_labels)
    fresh = [name for name in loaded.state_dict() if not name.startswith("roberta.")] if case.head != "Model" else []
    assert [warning.category for warning in caught] == [LoadWarning] * bool(fresh)
    if fresh:
        message = str(caught[0].message)
        assert "train the model before use" in message
        assert all(name in message for name in fresh if "decoder" not in name), message
        assert caught[0].filename == __file__
    expected = base.state_dict()
    for name, x in loaded.base_model.state_dict().items():
        assert torch.equal(x, expected[name]), name
    assert all(x.isfinite().all() for x in loaded.state_dict().values())


@each_case
def test_every_head_into_the_bare_model_is_silent(case: Case, tmp_path: Path) -> None:
    model = case.build()
    model.save_pretrained(tmp_path)
    bare = Case(case.family, "Model").model_class
    loaded = bare.from_pretrained(tmp_path, add_pooling_layer=model.base_model.pooler is not None)
    expected = model.base_model.state_dict()
    assert set(loaded.state_dict()) == set(expected)
    assert all(torch.equal(x, expected[name]) for name, x in loaded.state_dict().items())


@each_family
def test_masked_language_model_into_a_classifier(family: str, tmp_path: Path) -> None:
    Case(family, "ForMaskedLM").build().save_pretrained(tmp_path)
    classifier = Case(family, "ForSequenceClassification").model_class

    def load(seed: int) -> Any:
        torch.manual_seed(seed)
        with pytest.warns(LoadWarning, match=r"classifier.dense.weight.*classifier.out_proj.bias") as caught:
            model, info = classifier.from_pretrained(tmp_path, output_loading_info=True)
        assert len(caught) == 1 and "lm_head" not in str(caught[0].message)
        names = [
            "classifier.dense.weight",
            "classifier.dense.bias",
            "classifier.out_proj.weight",
            "classifier.out_proj.bias",
        ]
        assert info["missing_keys"] == names and info["mismatched_keys"] == []
        unused = [
            "lm_head.bias",
            *(f"lm_head.{part}.{kind}" for part in ("dense", "layer_norm") for kind in ("weight", "bias")),
        ]
        assert sorted(info["unexpected_keys"]) == sorted(unused)
        assert isinstance(info["report"], LoadReport) and info["report"].unexpected == ()
        return model

    first, again, other = load(3), load(3), load(4)
    assert_same(again, values(first))
    assert not torch.equal(first.classifier.dense.weight, other.classifier.dense.weight)
    assert first.classifier.dense.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not first.classifier.dense.bias.any()


@each_family
def test_mismatched_sizes(family: str, tmp_path: Path) -> None:
    case = Case(family, "ForTokenClassification")
    case.build().save_pretrained(tmp_path)
    shapes = r"must have the shape \(7, 16\), received \(3, 16\)"
    message = rf"classifier.weight {shapes} .*num_labels.*ignore_mismatched_sizes=True"
    with pytest.raises(CheckpointError, match=message):
        case.model_class.from_pretrained(tmp_path, num_labels=7)
    with pytest.warns(LoadWarning, match=r"classifier.weight has the shape \(3, 16\) .*not \(7, 16\)"):
        model, info = case.model_class.from_pretrained(
            tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
        )
    assert info["mismatched_keys"] == [("classifier.weight", (3, 16), (7, 16)), ("classifier.bias", (3,), (7,))]
    assert model.classifier.weight.any() and not model.classifier.bias.any()
    assert model(**case.inputs("right")).logits.shape == (4, 6, 7)


@each_case
def test_the_other_family_is_refused(case: Case, tmp_path: Path) -> None:
    other = "XLMRobertaXL" if case.family == "XLMRoberta" else "XLMRoberta"
    Case(other, case.head).build().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=rf"{case.family}Config expects .*load it with {other}Config"):
        case.model_class.from_pretrained(tmp_path)


@each_family
def test_other_names_of_the_architecture(family: str, tmp_path: Path) -> None:
    case = Case(family, "ForMaskedLM")
    model = case.build()
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for name in ("roberta", "camembert", "bert"):
        (tmp_path / "config.json").write_text(json.dumps({**content, "model_type": name}))
        if family == "XLMRoberta" and name != "bert":
            assert_same(case.model_class.from_pretrained(tmp_path), values(model))
            assert type(xlmr_torch.AutoModelForMaskedLM.from_pretrained(tmp_path)) is case.model_class
        else:
            with pytest.raises(ConfigError, match=rf"received '{name}'"):
                case.model_class.from_pretrained(tmp_path)


# ---- Auto classes


@each_case
def test_auto_classes(case: Case, tmp_path: Path) -> None:
    auto = getattr(xlmr_torch, HEADS[case.head].auto)
    model = case.build()
    model.save_pretrained(tmp_path)
    for config in (None, model.config, tmp_path, str(tmp_path)):
        loaded = auto.from_pretrained(tmp_path, **({} if config is None else {"config": config}))
        assert type(loaded) is case.model_class
        assert_same(loaded, values(model))
    loaded, info = auto.from_pretrained(tmp_path, dtype="float16", output_hidden_states=True, output_loading_info=True)
    assert loaded.dtype is torch.float16 and loaded.config.output_hidden_states and info["missing_keys"] == []
    built = auto.from_config(case.config())
    assert type(built) is case.model_class
    assert set(built.state_dict()) == set(model.state_dict())
    with pytest.raises(XLMRError, match=rf"{auto.__name__} is not built itself; use its from_pretrained"):
        auto()


def test_auto_model_without_a_pooler(saved: tuple[Any, Path]) -> None:
    assert xlmr_torch.AutoModel.from_pretrained(saved[1], add_pooling_layer=False).pooler is None
    assert xlmr_torch.AutoModel.from_config(saved[0].config, add_pooling_layer=False).pooler is None
    with pytest.warns(LoadWarning, match="pooler.dense.weight, pooler.dense.bias are not in"):
        assert xlmr_torch.AutoModel.from_pretrained(saved[1]).pooler is not None


# ---- Memory


def test_loaded_values_are_the_mapped_file(saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied on the way: every parameter lies in the memory map, which is what makes the peak the model
    once.
    """
    model, folder = saved
    spans: list[tuple[int, int]] = []
    original = MappedFile.__init__

    def watched(self: Any, path: Path, file: Any) -> None:
        original(self, path, file)
        whole = np.frombuffer(self.map, np.uint8)
        spans.append((whole.ctypes.data, whole.ctypes.data + len(whole)))

    monkeypatch.setattr(MappedFile, "__init__", watched)
    loaded = type(model).from_pretrained(folder)
    ((start, end),) = spans
    assert all(start <= x.data_ptr() < end for x in loaded.parameters())
    assert all(x.data_ptr() % x.element_size() == 0 for x in loaded.parameters())


def test_changing_a_loaded_model_leaves_the_file_alone(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    content = (folder / "model.safetensors").read_bytes()
    loaded = type(model).from_pretrained(folder)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.fill_(3.0)
    assert all((x == 3.0).all() for x in loaded.parameters())
    assert (folder / "model.safetensors").read_bytes() == content
    assert_same(type(model).from_pretrained(folder), values(model))


@pytest.mark.parametrize("size", ["5GB", 3000])
def test_saving_to_the_folder_it_was_loaded_from(saved: tuple[Any, Path], size: int | str) -> None:
    model, folder = saved
    loaded = type(model).from_pretrained(folder)
    with torch.no_grad():
        loaded.lm_head.bias.add_(1)
    expected = values(loaded)
    for _ in range(2):
        loaded.save_pretrained(folder, max_shard_size=size)
        assert_same(loaded, expected)
        assert_same(type(model).from_pretrained(folder), expected)


# ---- Where new tensors hold no values


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def init_empty_weights() -> Iterator[None]:
    """As accelerate's: parameters go to the meta device as they are registered."""
    register = torch.nn.Module.register_parameter

    def on_meta(module: Any, name: str, parameter: Any) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    torch.nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


EMPTY: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "torch.device": lambda: torch.device("meta"),
    "set_default_device": default_device,
    "init_empty_weights": init_empty_weights,
}


@pytest.mark.parametrize("context", EMPTY)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_model_without_values_is_never_loaded(saved: tuple[Any, Path], context: str, device: str | None) -> None:
    model, folder = saved
    with EMPTY[context](), pytest.raises(InputError, match="on the meta device, which holds none; load out") as refused:
        xlmr_torch.AutoModelForMaskedLM.from_pretrained(folder, device=device)
    assert isinstance(refused.value, RuntimeError), "as the original library's"
    assert_same(type(model).from_pretrained(folder), values(model))


@pytest.mark.parametrize("context", EMPTY)
@pytest.mark.parametrize("assign", [True, False])
def test_a_model_built_without_values_takes_a_state_dict(saved: tuple[Any, Path], context: str, assign: bool) -> None:
    model, _ = saved
    with EMPTY[context]():
        empty = xlmr_torch.AutoModelForMaskedLM.from_config(model.config)
    assert all(parameter.is_meta for parameter in empty.parameters())
    if not assign:
        empty.to_empty(device="cpu")
    empty.load_state_dict(model.state_dict(), assign=assign)
    assert_same(empty, values(model))
    inputs = Case("XLMRoberta", "ForMaskedLM").inputs()
    assert torch.equal(empty.eval()(**inputs).logits, model(**inputs).logits)


# ---- Saving that fails


def test_saving_a_model_on_meta(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = Case("XLMRoberta", "Model").build()
    with pytest.raises(
        InputError, match=r"embeddings.word_embeddings.weight is on the meta device and holds no values"
    ):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_saved_leaves_nothing(tmp_path: Path) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model = case.build(hidden_act=torch.nn.functional.silu)
    with pytest.raises(ConfigError, match=r"hidden_act is the callable .*config.json cannot hold"):
        model.save_pretrained(tmp_path / "new")
    model = case.build()
    with pytest.raises(InputError, match="safe_serialization=False would write a pickle"):
        model.save_pretrained(tmp_path / "new", safe_serialization=False)
    with pytest.raises(InputError, match="the state_dict passed lacks roberta.embeddings.word_embeddings.weight"):
        model.save_pretrained(tmp_path / "new", state_dict={})
    model.save_pretrained(tmp_path / "new", is_main_process=False)
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="max_shard_size must be"):
        model.save_pretrained(tmp_path / "new", max_shard_size="many")
    (tmp_path / "file").touch()
    with pytest.raises(XLMRError, match="expected a folder|expects a folder"):
        model.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("old", ["5GB", 3000])
@pytest.mark.parametrize("new", ["5GB", 3000])
@pytest.mark.parametrize("after", [0, 5])
def test_an_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, old: int | str, new: int | str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    first, second = case.build(seed=1), case.build(seed=2)
    first.save_pretrained(tmp_path, max_shard_size=old)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # Every tensor is asked for once for its shape, and again for its values.
    left = sum(row.tied_to is None for row in second.parameter_table().values()) + after
    original = xlmr_torch.loading.to_raw

    def failing(tensor: torch.Tensor) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return original(tensor)

    monkeypatch.setattr("xlmr_torch.loading.to_raw", failing)
    with pytest.raises(KeyboardInterrupt):
        second.save_pretrained(tmp_path, max_shard_size=new)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same(case.model_class.from_pretrained(tmp_path), values(first))


def test_a_disk_that_refuses(saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = saved
    expected = values(model)
    with torch.no_grad():
        model.lm_head.bias.add_(1)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        model.save_pretrained(folder)
    assert_same(type(model).from_pretrained(folder), expected)
    assert not list(folder.glob(".*tmp"))


@pytest.mark.parametrize("size", ["5GB", 3000])
def test_saving_replaces_the_old_files(tmp_path: Path, size: int | str) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    case.build(seed=1).save_pretrained(tmp_path, max_shard_size=2000)
    model = case.build(seed=2)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert_same(case.model_class.from_pretrained(tmp_path), values(model))
    named = (
        set(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values())
        if size == 3000
        else {"model.safetensors"}
    )
    assert {path.name for path in tmp_path.glob("*.safetensors")} == named


# ---- Damaged files


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def header_changed(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F64"', 1))


def header_length_changed(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[0:8] = (2**40).to_bytes(8, "little")
    path.write_bytes(content)


def emptied(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def renamed_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(
        path.read_bytes().replace(b"layer.1.attention.self.query.weight", b"layer.1.attention.self.quarry.weigh")
    )


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def not_what_its_name_says(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_cut_short(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:-9])


def config_of_another_size(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "intermediate_size": 25}))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (cut_short, r"model.safetensors .* is not a whole safetensors file"),
    (header_changed, r"model.safetensors .* is not a whole safetensors file"),
    (header_length_changed, r"model.safetensors .* is not a whole safetensors file"),
    (emptied, r"model.safetensors is empty"),
    (renamed_tensor, r"expected the encoder weight roberta.encoder.layer.1.attention.self.query.weight .*quarry"),
    (no_weights, r"expected model.safetensors or pytorch_model.bin or .*found no weights"),
    (not_what_its_name_says, r"pytorch_model.bin .* is not a whole PyTorch file"),
    (no_config, r"expected a config.json at"),
    (config_cut_short, r"config.json is not valid JSON"),
    (config_of_another_size, r"must have the shape \(25, 16\), received \(24, 16\) .*intermediate_size"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damaged_checkpoints(saved: tuple[Any, Path], damage: Callable[[Path], None], message: str) -> None:
    damage(saved[1])
    with pytest.raises(CheckpointError, match=message):
        type(saved[0]).from_pretrained(saved[1])


def test_a_missing_shard(tmp_path: Path) -> None:
    case = CASES[1]
    case.build().save_pretrained(tmp_path, max_shard_size=3000)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"names the shard {shard.name}, which is not in"):
        case.model_class.from_pretrained(tmp_path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="found nothing there"):
        xlmr_torch.XLMRobertaModel.from_pretrained(tmp_path / "missing")
