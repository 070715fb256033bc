"""Checkpoints of every format through from_pretrained, and files of torch.save in every shape that PyTorch
gives them.
"""

from __future__ import annotations

import argparse
import collections
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import xlmr_torch
from tests.core.format_cases import WRITABLE, write
from tests.core.small_models import config_of
from xlmr_core.checkpoints.found import open_checkpoint, read_config
from xlmr_core.checkpoints.load_plan import LoadWarning
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.errors import CheckpointError, ConfigError, InputError
from xlmr_core.heads import HEADS
from xlmr_torch.loading import to_raw, to_torch


def same_model(one: torch.nn.Module, other: torch.nn.Module) -> None:
    expected, actual = one.state_dict(), other.state_dict()
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


# from_pretrained


@pytest.mark.parametrize("arguments", [{"use_safetensors": False}, {"from_tf": True}, {"from_flax": True}], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_recorded_checkpoints_load_as_the_same_model(head: str, arguments: dict[str, bool], shared: Path) -> None:
    folder = shared / "fixtures" / "hf" / head
    kind = getattr(xlmr_torch, f"XLMRoberta{head}")
    loaded = kind.from_pretrained(folder, **arguments)
    same_model(loaded, kind.from_pretrained(folder, use_safetensors=True))
    same_model(getattr(xlmr_torch, HEADS[head].auto).from_pretrained(folder, **arguments), loaded)


@pytest.mark.parametrize("format", WRITABLE)
def test_a_folder_with_one_format_needs_no_word(format: str, tmp_path: Path) -> None:
    tensors = write(tmp_path, format)
    model = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path)
    for name, raw in tensors.items():
        if name in model.state_dict():
            assert torch.equal(model.state_dict()[name], to_torch(raw)), name
    (path,) = (path for path in tmp_path.iterdir() if path.name != "config.json")
    same_model(xlmr_torch.AutoModelForMaskedLM.from_pretrained(path), model)
    dtype = xlmr_torch.AutoModelForMaskedLM.from_pretrained(tmp_path, dtype="bfloat16").dtype
    assert dtype is torch.bfloat16


@pytest.mark.parametrize("archive", ["base_cfg", "xl_cfg"])
def test_fairseq_archives_need_no_config(archive: str, shared: Path) -> None:
    folder = shared / "fixtures" / "fairseq" / archive
    model = xlmr_torch.AutoModelForMaskedLM.from_pretrained(folder)
    assert type(model).__name__ == ("XLMRobertaXLForMaskedLM" if archive == "xl_cfg" else "XLMRobertaForMaskedLM")
    expected = np.load(folder / "expected.npz")
    ids = torch.tensor(expected["input_ids"][:2])
    with torch.no_grad():
        logits = model(ids, attention_mask=(ids != 1).long()).logits
    where = (ids != 1).numpy()
    assert np.abs(logits.numpy() - expected["logits"])[where].max() < 2e-5
    wrong = xlmr_torch.XLMRobertaXLForMaskedLM if archive == "base_cfg" else xlmr_torch.XLMRobertaForMaskedLM
    with pytest.raises(ConfigError, match="expects a config.json with model_type"):
        wrong.from_pretrained(folder)


def test_arguments_that_exclude_each_other_and_formats_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, "safetensors")
    kind = xlmr_torch.XLMRobertaForMaskedLM
    with pytest.raises(InputError, match="from_tf=True and from_flax=True exclude each other"):
        kind.from_pretrained(tmp_path, from_tf=True, from_flax=True)
    for arguments, file in (({"from_tf": True}, "tf_model.h5"), ({"use_safetensors": False}, "pytorch_model.bin")):
        with pytest.raises(CheckpointError, match=f"expected {file} in .*found model.safetensors; ask for that format"):
            kind.from_pretrained(tmp_path, **arguments)


# Training checkpoints


def lightning(path: Path, state: dict[str, torch.Tensor], **more: Any) -> None:
    torch.save(
        {
            "epoch": 3,
            "global_step": 70,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": collections.OrderedDict(state),
            "optimizer_states": [
                {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": []}
            ],
            "callbacks": {
                "ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5), "kth": float("inf")}
            },
            **more,
        },
        path,
    )


@pytest.mark.parametrize(
    ("prefix", "head", "own"),
    [
        ("model.", "ForSequenceClassification", {}),
        ("net.model.", "ForMaskedLM", {}),
        ("encoder.", "Model", {"layerwise_attention.gamma": torch.zeros(1)}),
        ("model.encoder.model.", "Model", {"estimator.ff.0.weight": torch.zeros(2, 2)}),
    ],
)
def test_the_prefix_of_a_training_checkpoint_is_found(
    prefix: str, head: str, own: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    model = getattr(xlmr_torch, f"XLMRoberta{head}")(config_of("base", head))
    lightning(tmp_path / "epoch=3.ckpt", {**{prefix + name: x for name, x in model.state_dict().items()}, **own})
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "lightning"
        assert set(own) <= set(checkpoint.names)
    if own:
        with pytest.warns(LoadWarning, match=next(iter(own))):
            loaded = type(model).from_pretrained(tmp_path)
    else:
        loaded = type(model).from_pretrained(tmp_path)
    same_model(loaded, model)


def test_of_several_encoders_one_is_chosen(tmp_path: Path) -> None:
    models = {part: xlmr_torch.XLMRobertaModel(config_of("base", "Model")) for part in ("teacher.", "student.")}
    state = {part + name: x for part, model in models.items() for name, x in model.state_dict().items()}
    lightning(tmp_path / "a.ckpt", state)
    with pytest.raises(
        CheckpointError, match=r"holds several encoders, under teacher\., student\.; choose one of them with part="
    ):
        open_checkpoint(tmp_path)
    with open_checkpoint(tmp_path, part="student.") as checkpoint:
        words = to_torch(checkpoint.tensor("embeddings.word_embeddings.weight"))
        assert torch.equal(words, models["student."].get_input_embeddings().weight)
    with pytest.raises(CheckpointError, match=r"has no part 'model\.'; it has teacher\., student\."):
        open_checkpoint(tmp_path, part="model.")


def test_the_config_of_a_training_checkpoint(tmp_path: Path) -> None:
    model = xlmr_torch.XLMRobertaForSequenceClassification(config_of("base", "ForSequenceClassification"))
    state = {f"model.{name}": x for name, x in model.state_dict().items()}
    path = tmp_path / "a.ckpt"
    lightning(path, state, hyper_parameters=argparse.Namespace(lr=1e-3, num_attention_heads=2))
    config = read_config(tmp_path)
    sizes = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "max_position_embeddings",
        "num_labels",
    )
    for key in (*sizes, "num_attention_heads", "type_vocab_size"):
        assert getattr(config, key) == getattr(model.config, key), key
    lightning(path, state, hyper_parameters={"lr": 1e-3, "config": model.config.to_dict()})
    assert read_config(tmp_path) == model.config
    lightning(path, state, hyper_parameters={"lr": 1e-3})
    with pytest.raises(
        CheckpointError, match="nothing else tells the number of attention heads of an encoder of hidden size 16"
    ):
        read_config(tmp_path)


def test_a_data_parallel_state_dict_loads(tmp_path: Path) -> None:
    model = xlmr_torch.XLMRobertaForMaskedLM(config_of("base", "ForMaskedLM"))
    torch.save({f"module.{name}": x for name, x in model.state_dict().items()}, tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    same_model(xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_fsdp_wrapped_module."])
def test_the_state_dict_of_a_wrapper_is_saved_under_published_names(prefix: str, tmp_path: Path) -> None:
    model = xlmr_torch.XLMRobertaForMaskedLM(config_of("base", "ForMaskedLM"))
    model.save_pretrained(tmp_path, state_dict={prefix + name: x for name, x in model.state_dict().items()})
    with open_checkpoint(tmp_path) as checkpoint:
        assert "roberta.embeddings.word_embeddings.weight" in checkpoint.names
    same_model(xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path), model)


class Wrapped(xlmr_torch.XLMRobertaPreTrainedModel):
    """A class with wrappers, and with names that wrappers use."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.roberta = xlmr_torch.XLMRobertaModel(config)
        self.roberta.encoder.layer[1] = checkpoint_wrapper(self.roberta.encoder.layer[1])
        self.teacher = xlmr_torch.XLMRobertaModel(config)
        self.classifier = torch.nn.DataParallel(torch.nn.Linear(16, 3))
        self.module = torch.nn.Linear(16, 3)
        self.model = torch.nn.ModuleDict({"module": torch.nn.Linear(3, 3), "net": torch.nn.Linear(2, 2)})
        self.optimizer_state = torch.nn.Linear(2, 2)
        self.register_buffer("step", torch.tensor(3))
        self.post_init()


@pytest.mark.parametrize("size", ["5GB", "10KB"])
def test_what_a_class_with_wrappers_saves_it_loads(size: str, tmp_path: Path) -> None:
    model = Wrapped(config_of("base", "ForTokenClassification"))
    model.save_pretrained(tmp_path / "a", max_shard_size=size)
    same_model(Wrapped.from_pretrained(tmp_path / "a"), model)
    encoder = xlmr_torch.XLMRobertaModel.from_pretrained(tmp_path / "a", part="teacher.", add_pooling_layer=True)
    same_model(encoder, model.teacher)
    for content in (model.state_dict(), {"model": {f"module.{name}": x for name, x in model.state_dict().items()}}):
        torch.save(content, tmp_path / "a" / "best.pth")
        same_model(Wrapped.from_pretrained(tmp_path / "a" / "best.pth"), model)


def test_placeholders_are_not_saved(tmp_path: Path) -> None:
    model = xlmr_torch.XLMRobertaForMaskedLM(config_of("base", "ForMaskedLM"))
    whole = {name: x.clone() for name, x in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    with pytest.raises(InputError, match="is a placeholder without values, as DeepSpeed ZeRO-3 and FSDP leave them"):
        model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, state_dict=whole)
    loaded = xlmr_torch.XLMRobertaForMaskedLM.from_pretrained(tmp_path)
    assert all(torch.equal(x, whole[name]) for name, x in loaded.state_dict().items())


# Files of torch.save


def tensors() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 4)
    return {
        "base": base,
        "transposed": base.t(),
        "rows": base[1:3],
        "columns": base[:, 1:3],
        "every other": base[::2, 3],
        "expanded": torch.tensor([1.5]).expand(3),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3, 2).bfloat16(),
        "double": torch.randn(2).double(),
        "integers": torch.arange(5),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "bools": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_every_kind_of_tensor_is_read_and_written(new: bool, tmp_path: Path) -> None:
    expected = tensors()
    torch.save(expected, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.names) == set(expected)
        for name, x in expected.items():
            raw = checkpoint.tensor(name)
            assert torch.equal(to_torch(raw), x), name
            assert bytes(checkpoint.stream(name).read().data) == bytes(raw.data)
        streams = {name: checkpoint.stream(name) for name in checkpoint.names}
        save_checkpoint(tmp_path / "again", "torch", streams, config_of("base", "Model"), "Model")
    for options in ({}, {"mmap": True}, {"weights_only": False}):
        found = torch.load(tmp_path / "again" / "pytorch_model.bin", **options)
        assert list(found) == list(expected)
        for name, x in expected.items():
            assert found[name].dtype is x.dtype
            assert torch.equal(found[name], x), name
    archive = torch.load(tmp_path / "again" / "pytorch_model.bin", mmap=True)
    assert all(x.data_ptr() % 64 == 0 for x in archive.values() if x.numel())


def test_a_model_that_was_saved_whole_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds torch\.nn\.modules\.linear\.Linear; only tensors"):
        open_checkpoint(tmp_path)
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds no state dict: expected tensors by name, found list"):
        open_checkpoint(tmp_path)
    torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="ComplexFloatStorage"):
        open_checkpoint(tmp_path)


def test_what_no_pickle_of_torch_holds_is_refused_before_it_is_written(tmp_path: Path) -> None:
    from xlmr_core.formats.tensors import RawTensor

    with pytest.raises(CheckpointError, match="PyTorch pickles hold .* received a tensor of U32"):
        save_checkpoint(
            tmp_path, "torch", {"a": RawTensor.from_numpy(np.zeros(2, np.uint32))}, config_of("base", "Model"), "Model"
        )
    assert list(tmp_path.iterdir()) == []


def test_sentence_transformers_folders_load_their_transformer(shared: Path, tmp_path: Path) -> None:
    source = shared / "fixtures" / "tasks" / "st_saved_by_6"
    (tmp_path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, tmp_path / "0_Transformer" / name)
    (tmp_path / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}])
    )
    kind = xlmr_torch.XLMRobertaModel
    same_model(kind.from_pretrained(tmp_path), kind.from_pretrained(source))


def test_raw_tensors_go_through_torch_unchanged() -> None:
    for name, x in tensors().items():
        assert torch.equal(to_torch(to_raw(x)), x), name
