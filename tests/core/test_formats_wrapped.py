"""A model is found wherever wrappers and training programs put it: in every format, in a file and in its folder."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.core.format_cases import Contents, plain
from tests.core.test_formats_hostile import tensor_pickle, torch_zip
from tests.core.wrapped import (
    CONFIG,
    HEAD,
    KEYS,
    SUFFIXES,
    Wrapped,
    bare,
    beside,
    draw,
    one,
    small,
    stored,
    with_wrappers,
)
from xlmr_core.checkpoints.found import find, open_checkpoint
from xlmr_core.checkpoints.load_plan import LoadWarning, plan_load
from xlmr_core.errors import CheckpointError, MismatchError
from xlmr_core.formats.parts import WRAPPERS, names_of_model, plain_name
from xlmr_core.formats.torch_writer import write_torch
from xlmr_core.loading import StateDict

EXPECTED = bare(plain(small()))
STATE = stored("torch", small())
OTHER = stored("torch", small(1))


def read(path: Path, part: str | None = None) -> Contents:
    with open_checkpoint(path, part=part) as checkpoint:
        raws = {name: checkpoint.tensor(name) for name in checkpoint.names}
    return bare(plain(raws))


def behind(beginning: str, state: Mapping[str, Any] = STATE) -> dict[str, Any]:
    return {beginning + name: value for name, value in state.items()}


# Names


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("where", ["", "roberta.", "roberta.encoder.layer.1.", "roberta.embeddings.", "classifier."])
def test_a_wrapper_anywhere_in_a_name_is_no_part_of_it(wrapper: str, where: str, tmp_path: Path) -> None:
    state = (
        with_wrappers(STATE, lambda path, step: (path, step) == (where, wrapper)) if where else behind(f"{wrapper}.")
    )
    assert state.keys() != STATE.keys()
    write_torch(tmp_path / "model.pth", state)
    assert read(tmp_path / "model.pth") == EXPECTED
    names = names_of_model("the file", list(state), {}, None)
    assert list(names.values()) == list(STATE)


def test_names_that_would_be_one_without_their_wrappers_keep_them() -> None:
    names = [*STATE, "classifier.module.dense.weight", "module.weight"]
    found = names_of_model("the file", names, {}, None)
    assert found["classifier.module.dense.weight"] == "classifier.module.dense.weight"
    assert found["classifier.dense.weight"] == "classifier.dense.weight"
    assert found["module.weight"] == "weight"
    assert plain_name("module") == "module"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["best.pth", "last.ckpt", "pytorch_model.bin", "checkpoint.tar"])
def test_a_state_dict_under_any_key_is_found_beside_anything(key: str, name: str, tmp_path: Path) -> None:
    class Always:
        def random(self) -> float:
            return 0.0

    more = beside(Always(), STATE)  # type: ignore[arg-type]
    write_torch(tmp_path / name, {key: behind("module."), **more, "np": np.arange(3), "pair": (1, "a")})
    (tmp_path / "config.json").write_text(CONFIG.to_json_string())
    assert read(tmp_path / name) == EXPECTED
    if name != "checkpoint.tar":
        assert read(tmp_path) == EXPECTED
    write_torch(tmp_path / name, {**STATE, **more})
    among = plain({"loss": one().read(), "rng_state": one(16).read()})
    assert read(tmp_path / name) == EXPECTED | among, "what lies among the names is not passed over"


@pytest.mark.parametrize("format", SUFFIXES)
def test_any_file_name_will_do(format: str, tmp_path: Path) -> None:
    for number, suffix in enumerate(SUFFIXES[format]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = Wrapped(format, stored(format, small()), EXPECTED, [], suffix).write(folder / "my_model")
        assert find(path).format.name == format
        assert read(path) == EXPECTED
        if suffix not in (".tar", ".st", ".hdf5"):
            (folder / "training_args.bin").write_bytes(b"no tensors")
            write_torch(folder / "optimizer.pt", {"state": {0: {"exp_avg": one(3)}}})
            assert find(folder).path == path
            assert read(folder) == EXPECTED


def test_of_several_models_in_a_folder_none_is_guessed(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        write_torch(tmp_path / name, STATE)
    with pytest.raises(CheckpointError, match=r"found a\.pth, b\.pth; pass the path of the file itself"):
        open_checkpoint(tmp_path)


# Several models


AMBIGUOUS = {
    "a model and its average": ({"model": STATE, "ema": OTHER, "optimizer": {"x": one(2)}}, "model.", "ema."),
    "a student and a teacher": (behind("student.") | behind("teacher.", OTHER), "student.", "teacher."),
    "in one dictionary": ({"state_dict": behind("a.") | behind("b.", OTHER)}, "a.", "b."),
    "beside a dictionary": ({**STATE, "ema": OTHER}, "", "ema."),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_of_several_models_one_is_asked_for(case: str, tmp_path: Path) -> None:
    content, first, second = AMBIGUOUS[case]
    path = tmp_path / "x.pt"
    write_torch(path, content)
    example = first or second
    with pytest.raises(
        CheckpointError,
        match=rf"holds several encoders, under .*{re.escape(second)}.*; choose one of them with "
        rf"part='{re.escape(example)}' \(--part {re.escape(example)}\)",
    ):
        read(path)
    assert read(path, first) == EXPECTED
    assert read(path, second) == read(path, second.rstrip(".")) == bare(plain(small(1)))
    with pytest.raises(CheckpointError, match=rf"has no part 'neither'; it has .*{re.escape(second)}"):
        read(path, "neither")


def test_a_second_model_in_a_published_one_is_a_part_of_it(tmp_path: Path) -> None:
    write_torch(tmp_path / "x.pt", STATE | behind("teacher.", OTHER))
    found = read(tmp_path / "x.pt")
    assert {name: value for name, value in found.items() if not name.startswith("teacher.")} == EXPECTED
    assert len(found) == 2 * len(EXPECTED)
    assert read(tmp_path / "x.pt", "teacher") == bare(plain(small(1)))


def test_an_encoder_without_layers_gives_way(tmp_path: Path) -> None:
    words = "roberta.embeddings.word_embeddings.weight"
    write_torch(tmp_path / "x.pt", {"model": STATE, "best": {words: OTHER[words]}})
    assert read(tmp_path / "x.pt") == EXPECTED


# Other formats


@pytest.mark.parametrize("around", ["", "params/", "state/params/model/", "model/"])
def test_a_training_state_of_flax_is_read(around: str, tmp_path: Path) -> None:
    from flax.serialization import msgpack_serialize

    leaves = {name: tensor.read().to_numpy() for name, tensor in stored("flax", small()).items()}

    def tree(around: str) -> dict[str, Any]:
        root: dict[str, Any] = {}
        for name, value in leaves.items():
            *steps, last = f"{around}{name}".split("/")
            inner = root
            for step in steps:
                inner = inner.setdefault(step, {})
            inner[last] = value
        return root

    state = tree(around)
    if around:
        state |= {"opt_state": {"0": {"mu": tree(""), "nu": tree(""), "count": np.int32(1)}}, "step": 3}
        state["rng"] = np.zeros(2, np.uint32)
    (tmp_path / "state.msgpack").write_bytes(msgpack_serialize(state))
    assert read(tmp_path / "state.msgpack") == read(tmp_path) == EXPECTED


def test_other_shapes_of_a_flax_tree_are_read(tmp_path: Path) -> None:
    from flax.serialization import msgpack_serialize

    leaves = {name: tensor.read().to_numpy() for name, tensor in stored("flax", small()).items()}
    path = tmp_path / "x.msgpack"
    path.write_bytes(msgpack_serialize({"params": {name.replace("/", "."): value for name, value in leaves.items()}}))
    assert read(path) == EXPECTED
    # As a state of NNX is: layers by number, and the value below the variable.
    root: dict[Any, Any] = {}
    for name, value in leaves.items():
        inner = root
        for step in name.split("/"):
            inner = inner.setdefault(int(step) if step.isdigit() else step, {})
        inner["value"] = value
    path.write_bytes(msgpack_serialize(root))
    assert read(path) == EXPECTED
    for separator in "/.":
        save_file({name.replace("/", separator): value for name, value in leaves.items()}, tmp_path / "x.safetensors")
        assert read(tmp_path / "x.safetensors") == EXPECTED
    save_file({f"params/{name}": value for name, value in leaves.items()}, tmp_path / "x.safetensors")
    assert read(tmp_path / "x.safetensors") == EXPECTED


@pytest.mark.parametrize("around", ["encoder/tfxlm_roberta/", "model_weights/a/b/c/"])
def test_a_model_in_a_model_of_tensorflow_is_read(around: str, tmp_path: Path) -> None:
    leaves = {name: tensor.read().to_numpy() for name, tensor in stored("tf", small()).items()}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, value in leaves.items():
            file[f"{around}{name}"] = value
            if around.startswith("model_weights"):
                file[f"optimizer_weights/adam/m/{name}"] = value
        file["conv/conv/kernel:0"] = np.zeros((3, 2, 2), np.float32)
    found = read(tmp_path / "x.h5")
    assert found.pop("conv.conv.weight")[1] == (3, 2, 2), "a kernel of another kind lies as it is"
    assert found == EXPECTED
    save_file({f"tfxlm_roberta_1/{name}": value for name, value in leaves.items()}, tmp_path / "x.safetensors")
    assert read(tmp_path / "x.safetensors") == EXPECTED


@pytest.mark.parametrize(
    "around", ["", "layers/tfxlm_roberta_for_sequence_classification/", "scorer/", "_layer/layers/my_model/"]
)
@pytest.mark.parametrize("suffix", SUFFIXES["keras"])
def test_a_model_in_a_model_of_keras_is_read(around: str, suffix: str, tmp_path: Path) -> None:
    content = {around + name: value for name, value in stored("keras", small()).items()}
    content["optimizer/vars/0"] = one(3)
    path = Wrapped("keras", content, EXPECTED, [], suffix).write(tmp_path / "x")
    found = read(path)
    assert found.pop("optimizer.weight", None) is not None or around
    assert found == EXPECTED
    if suffix == ".keras":
        with open_checkpoint(path) as checkpoint:
            name = checkpoint.names[0]
            assert bytes(checkpoint.stream(name).read().data) == bytes(checkpoint.tensor(name).data)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(CheckpointError, match="not a whole"):
            open_checkpoint(path)


# What cannot be read


def plan(path: Path, **options: Any) -> None:
    with open_checkpoint(path) as checkpoint, warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)
        plan_load(CONFIG, HEAD, checkpoint, **options)


LORA = {
    name.replace("query.weight", "query.base_layer.weight"): value
    for name, value in behind("base_model.model.").items()
} | {"base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A.default.weight": one(2, 16)}
REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ({"epoch": 1, "lr": 0.1}, "holds no state dict: expected tensors by name, found 'epoch', 'lr'; save"),
    "an optimizer": (
        {"state": {0: {"exp_avg": one(3)}, 1: {"exp_avg": one(4)}}},
        r"it holds 2 tensors, under state \(2\), the largest state.1.exp_avg of shape \(4,\)",
    ),
    "moments under the names of parameters": ({"opt_state": {"mu": STATE}}, "it holds .* tensors, under opt_state"),
    "another model": (
        {"bert.embeddings.words.weight": one(9, 4), "bert.x": one(2)},
        r"nearest unused name there is 'bert.*it holds 2 tensors, under bert \(2\), the largest bert.embeddings.words",
    ),
    "adapters": (LORA, r"it holds adapters, .*; merge them first \(merge_and_unload"),
    "flat parameters": ({"_flat_param": one(100)}, "it holds the flat parameters of FSDP; save a full state dict"),
    "DeepSpeed's optimizer": (
        {"optimizer_state_dict": {"single_partition_of_fp32_groups": {"0": one(8)}}},
        "the state of DeepSpeed's optimizer; run the zero_to_fp32.py",
    ),
    "placeholders": (
        {"module": dict.fromkeys(STATE, one(0)), "ds_version": "1"},
        r"shape \(0,\) and no values.*ZeRO-3.*zero_to_fp32",
    ),
    "a part of placeholders": (
        {**STATE, "classifier.dense.weight": one(0)},
        r"classifier.dense.weight .*and no values",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_says_what_was_found(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    write_torch(tmp_path / "x.pt", content)
    for options in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(CheckpointError, match=message) as caught:
            plan(tmp_path / "x.pt", **options)
        assert "altered" not in str(caught.value) and "cut short" not in str(caught.value)


def test_a_file_that_no_reader_knows_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("some words")
    with pytest.raises(CheckpointError, match=r"notes.txt is none of: .*; pass a file of weights") as caught:
        open_checkpoint(tmp_path / "notes.txt")
    assert "altered" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zero_to_fp32.py", "found a DeepSpeed checkpoint .*; run that program"),
        ("__0_0.distcp", "found a distributed PyTorch checkpoint .*; torch.distributed.checkpoint.format_utils"),
        ("_CHECKPOINT_METADATA", "found an Orbax checkpoint .*; restore it in Orbax"),
    ],
)
def test_a_folder_of_another_kind_says_what_it_is(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_tensors_in_too_many_places_are_refused_at_once(tmp_path: Path) -> None:
    """A billion laughs: each dictionary holds the one before twice, and the last a tensor."""
    doubled = b"0}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00uq\x00"
    torch_zip(tmp_path / "x.pt", tensor_pickle((4,), (1,))[:-1] + b"q\x00" + doubled * 40 + b".")
    with pytest.raises(CheckpointError, match="nests tensors in more than 32 levels"):
        open_checkpoint(tmp_path / "x.pt")
    torch_zip(tmp_path / "x.pt", tensor_pickle((4,), (1,))[:-1] + b"q\x00" + doubled * 24 + b".")
    with pytest.raises(CheckpointError, match="or 100000 places"):
        open_checkpoint(tmp_path / "x.pt")


# Tensors in memory, and what is told of shapes


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 1, "model_state_dict": behind("module."), "loss": one()},
        behind("_orig_mod."),
        {"a": {"b": STATE}},
        STATE,
    ],
)
def test_a_state_dict_in_memory_is_searched_alike(content: Any) -> None:
    source = StateDict(content, lambda x: (x.dtype, x.shape), lambda x: x.read())
    assert bare(plain({name: source.tensor(name) for name in source.names})) == EXPECTED
    done = plan_load(CONFIG, HEAD, source)
    assert not done.fresh


def test_of_several_state_dicts_in_memory_one_is_asked_for() -> None:
    arguments = ({"model": STATE, "ema": OTHER}, lambda x: (x.dtype, x.shape), lambda x: x.read())
    with pytest.raises(CheckpointError, match="the state_dict passed holds several encoders, under model., ema."):
        StateDict(*arguments)
    source = StateDict(*arguments, "ema")
    assert bare(plain({name: source.tensor(name) for name in source.names})) == bare(plain(small(1)))


def test_a_wrong_shape_is_a_runtime_error_too() -> None:
    source = StateDict(STATE, lambda x: (x.dtype, x.shape), lambda x: x.read())
    for kind in (RuntimeError, ValueError, CheckpointError, MismatchError):
        with pytest.raises(kind, match=r"classifier.out_proj.weight must have the shape \(7, 16\)"):
            plan_load(CONFIG.copy(num_labels=7), HEAD, source)


# Anything


@pytest.mark.parametrize("seed", range(60))
def test_every_value_of_a_random_wrapping_arrives_or_is_refused(seed: int, tmp_path: Path) -> None:
    wrapped = draw(seed)
    path = wrapped.write(tmp_path / "x")
    try:
        plan(path)
        found = read(path)
    except CheckpointError as error:
        assert not wrapped.expected, (wrapped.how, str(error))
        assert re.search("several encoders|no values", str(error)), wrapped.how
    else:
        assert wrapped.expected, wrapped.how
        assert {name: found.get(name) for name in wrapped.expected} == wrapped.expected, wrapped.how
