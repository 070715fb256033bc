"""Opening checkpoints: what is in the files comes out unchanged, and nothing broken gets past the door."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xlmr_core.checkpoints.found import open_checkpoint
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.safetensors_file import DTYPES
from xlmr_core.formats.tensors import RawTensor

TENSORS = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f16": np.array([1.5, -2, 65504], np.float16),
    "f64": np.array(3.25),
    "i64": np.array([[-1], [2**40]]),
    "bool": np.array([True, False, True]),
    "empty": np.empty((0, 4), np.float32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt", "note": "ü"})
    return tmp_path


def write_raw(path: Path, header: Any, data: bytes = b"") -> None:
    """A file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_file_comes_out_as_the_safetensors_library_wrote_it(folder: Path) -> None:
    for path in (folder, str(folder), folder / "model.safetensors"):
        with open_checkpoint(path) as checkpoint:
            assert set(checkpoint.names) == set(TENSORS)
            assert checkpoint.metadata == {"format": "pt", "note": "ü"}
            assert checkpoint.path == folder / "model.safetensors"
            for name, expected in TENSORS.items():
                array = checkpoint.tensor(name).to_numpy()
                info = checkpoint.info(name)
                assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
                assert np.array_equal(array, expected)
                assert (info.shape, info.file) == (expected.shape, folder / "model.safetensors")
                assert DTYPES[info.dtype].numpy == expected.dtype.name


def test_every_recorded_checkpoint_reads_as_the_safetensors_library_reads_it(shared: Path) -> None:
    folders = sorted({file.parent for file in (shared / "fixtures").glob("hf*/**/model*.safetensors")})
    assert len(folders) >= 18
    for folder in folders:
        if folder.name == "ForMaskedLM_bf16":
            continue  # NumPy has no bfloat16: tested below
        if folder.name.endswith(("_by_tf", "_by_flax")):
            continue  # other names and layouts: tested with those formats
        expected = {
            name: array for file in sorted(folder.glob("*.safetensors")) for name, array in load_file(file).items()
        }
        with open_checkpoint(folder) as checkpoint:
            assert set(checkpoint.names) == set(expected)
            for name, array in expected.items():
                assert np.array_equal(checkpoint.tensor(name).to_numpy(), array), (folder, name)


def test_bfloat16_becomes_the_float32_of_the_same_value(shared: Path, tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, 1e38, float("inf"), 0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    write_raw(
        tmp_path / "model.safetensors",
        {
            "x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
            "e": {"dtype": "BF16", "shape": [0], "data_offsets": [12, 12]},
        },
        halves.tobytes(),
    )
    with open_checkpoint(tmp_path) as checkpoint:
        array = checkpoint.tensor("x").to_numpy()
        assert array.dtype == np.float32
        assert np.array_equal(array, ((values.view(np.uint32) >> 16) << 16).view(np.float32).reshape(2, 3))
        assert checkpoint.tensor("e").to_numpy().shape == (0,)
    # The same model, recorded in both dtypes: bfloat16 keeps eight bits.
    variants = shared / "fixtures" / "hf_variants"
    with (
        open_checkpoint(variants / "ForMaskedLM_bf16") as half,
        open_checkpoint(variants / "ForMaskedLM_small") as full,
    ):
        for name in half.names:
            one, other = half.tensor(name).to_numpy(), full.tensor(name).to_numpy()
            assert np.all(np.abs(one - other) <= np.abs(other) * 2**-8), name


def test_reading_copies_nothing_and_writing_reaches_no_file(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with open_checkpoint(folder) as checkpoint:
        raw = checkpoint.tensor("f32")
        assert not raw.data.readonly
        one, other = raw.to_numpy(), checkpoint.tensor("f32").to_numpy()
        one[0, 0] = 99
        assert other[0, 0] == 99, "views of one private map"
    assert (folder / "model.safetensors").read_bytes() == before
    with open_checkpoint(folder) as again:
        assert again.tensor("f32").to_numpy()[0, 0] == 0


def test_tensors_outlive_the_checkpoint_and_the_file(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        array = checkpoint.tensor("f32").to_numpy()
    (folder / "model.safetensors").unlink()
    assert np.array_equal(array, TENSORS["f32"])
    with pytest.raises(CheckpointError, match="was closed"):
        checkpoint.tensor("f32")


@pytest.mark.skipif(sys.platform != "linux", reason="makes a sparse file")
def test_a_file_larger_than_the_memory_opens(tmp_path: Path) -> None:
    size = 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    write_raw(
        tmp_path / "model.safetensors", {"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, b"abc"
    )
    with (tmp_path / "model.safetensors").open("r+b") as file:
        end = file.seek(0, 2)
        file.truncate(end - 3 + size)
    with open_checkpoint(tmp_path) as checkpoint:
        raw = checkpoint.tensor("x")
        raw.data[0] = 7
        assert (bytes(raw.data[:3]), bytes(raw.data[-2:])) == (b"\x07bc", b"\0\0")


def test_an_unknown_name_is_refused(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match="has no tensor 'g32'"):
        checkpoint.tensor("g32")


def test_tensors_that_are_not_aligned_in_the_file_are_aligned_in_memory(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    write_raw(tmp_path / "model.safetensors", header, b"\1\2\3" + np.array([1.5, -2], np.float32).tobytes())
    with open_checkpoint(tmp_path) as checkpoint:
        array = checkpoint.tensor("b").to_numpy()
        assert array.ctypes.data % 4 == 0
        assert array.tolist() == [1.5, -2]
        assert array.flags.writeable


def test_every_row_of_a_few_reads_only_those() -> None:
    raw = RawTensor.from_numpy(np.arange(20, dtype=np.float32).reshape(10, 2))
    assert raw.every(4).to_numpy().tolist() == [[0, 1], [8, 9], [16, 17]]


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), np.array(["a"])], ids=str)
def test_arrays_that_no_file_holds_are_refused(array: Any) -> None:
    with pytest.raises(CheckpointError, match="safetensors files hold"):
        RawTensor.from_numpy(array)


def test_arrays_of_any_order_are_wrapped_with_their_values() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert np.array_equal(RawTensor.from_numpy(array).to_numpy(), array)
    assert RawTensor.from_numpy(np.array(2.5)).shape == ()


# One file, broken


HEADER = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def entry(**values: Any) -> dict[str, Any]:
    return {"x": {**HEADER["x"], **values}}


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty; fetch or save it again"),
    "a few bytes": (lambda path: path.write_bytes(b"\0\0\0"), "not a whole safetensors file"),
    "a git-LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1115567652\n"),
        r"is a git-LFS pointer and not the weights; run 'git lfs pull'",
    ),
    "a web page": (lambda path: path.write_text("<!doctype html>" * 20), "not a whole safetensors file"),
    "a zip": (lambda path: path.write_bytes(b"PK\3\4" + bytes(200)), "not a whole safetensors file"),
    "header length beyond the file": (lambda path: path.write_bytes(struct.pack("<Q", 10**6) + b"{}"), "not a whole"),
    "header length absurd": (lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"), "not a whole"),
    "header is no JSON": (lambda path: write_raw(path, b"{x}"), "not a whole"),
    "header is a list": (lambda path: write_raw(path, []), "not a whole"),
    "header is no UTF-8": (lambda path: write_raw(path, b'{"\xff":1}'), "not a whole"),
    "data cut short": (lambda path: write_raw(path, HEADER, bytes(7)), "cut short or altered"),
    "data too long": (lambda path: write_raw(path, HEADER, bytes(9)), "not a whole"),
    "offsets beyond the file": (lambda path: write_raw(path, entry(data_offsets=[0, 80]), bytes(8)), "not a whole"),
    "offsets backwards": (lambda path: write_raw(path, entry(data_offsets=[8, 0]), bytes(8)), "not a whole"),
    "offsets negative": (lambda path: write_raw(path, entry(data_offsets=[-8, 0]), bytes(8)), "not a whole"),
    "offsets with a hole": (lambda path: write_raw(path, entry(data_offsets=[8, 16]), bytes(16)), "not a whole"),
    "shape and offsets disagree": (lambda path: write_raw(path, entry(shape=[3]), bytes(8)), "not a whole"),
    "shape overflows": (lambda path: write_raw(path, entry(shape=[2**62, 2**62]), bytes(8)), "not a whole"),
    "shape negative": (lambda path: write_raw(path, entry(shape=[-2]), bytes(8)), "not a whole"),
    "overlapping tensors": (lambda path: write_raw(path, {**HEADER, "y": HEADER["x"]}, bytes(8)), "not a whole"),
    "unknown dtype": (lambda path: write_raw(path, entry(dtype="F33"), bytes(8)), "not a whole"),
    "a dtype without a place here": (
        lambda path: write_raw(path, entry(dtype="C64", shape=[1]), bytes(8)),
        "stores x as C64",
    ),
    "a name twice": (
        lambda path: write_raw(path, b'{"x":%b,"x":%b}' % ((json.dumps(HEADER["x"]).encode(),) * 2), bytes(8)),
        "names 'x' twice in its header",
    ),
    "a folder": (lambda path: path.mkdir(), "expected model.safetensors.* found no weights"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    breaks, message = BROKEN[case]
    breaks(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "model.safetensors" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OSError)


def test_a_file_cut_anywhere_is_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    cut = folder / "cut.safetensors"
    for length in {0, 1, 7, 8, 9, 40, *range(50, len(whole), 37), len(whole) - 1}:
        cut.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
            open_checkpoint(cut)


def test_a_header_with_any_byte_changed_is_refused_or_reads_within_the_file(folder: Path) -> None:
    whole = bytearray((folder / "model.safetensors").read_bytes())
    (length,) = struct.unpack("<Q", whole[:8])
    path = folder / "tampered.safetensors"
    refused = 0
    for position in range(8 + length):
        tampered = bytearray(whole)
        tampered[position] ^= 0x11
        path.write_bytes(tampered)
        try:
            checkpoint = open_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            for name in checkpoint.names:
                raw = checkpoint.tensor(name)
                assert raw.nbytes == raw.data.nbytes
    assert refused > length // 2


# Folders


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found no weights; check the folder"),
        (["config.json", "README.md"], "found no weights"),
        (["pytorch_model.fp16.bin"], r"pytorch_model.fp16.bin is none of: .*; pass a file of weights"),
        (["a.ckpt", "b.ckpt"], r"found a.ckpt, b.ckpt; pass the path of the file itself"),
        (["model.keras"], r"model.keras is none of: "),
        (
            ["model.onnx", "model.gguf"],
            r"found an ONNX graph \(model.onnx\) and GGUF .*, which is not read; conv",
        ),
        (["model.fp16.safetensors"], r"model.fp16.safetensors \(1 bytes\) is not a whole safetensors file"),
    ],
    ids=str,
)
def test_a_folder_without_weights_says_what_it_holds(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_a_missing_path_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found none"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is none of: safetensors, PyTorch pickle, "):
        open_checkpoint(tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"expected tf_model.h5 in .*, found model.safetensors, pytorch_model.bin; ask for"
    ):
        open_checkpoint(tmp_path, "tf")
    with pytest.raises(
        CheckpointError, match=r"format must be one of peft, safetensors, torch, .*, received 'tensorflow'"
    ):
        open_checkpoint(tmp_path, "tensorflow")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for number, name in enumerate(("f32", "i64"), 1):
        save_file({name: TENSORS[name]}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    write_index(tmp_path, {"f32": "model-00001-of-00002.safetensors", "i64": "model-00002-of-00002.safetensors"})
    return tmp_path


def write_index(folder: Path, weight_map: Any, **more: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map, **more}))


def test_shards_are_found_through_the_index(sharded: Path) -> None:
    write_index(
        sharded,
        {"i64": "model-00002-of-00002.safetensors", "f32": "model-00001-of-00002.safetensors"},
        metadata={"total_size": 40},
    )
    for path in (sharded, sharded / "model.safetensors.index.json"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.names == ("i64", "f32")
            assert checkpoint.metadata == {"total_size": 40}
            assert checkpoint.info("i64").file.name == "model-00002-of-00002.safetensors"
            assert np.array_equal(checkpoint.tensor("f32").to_numpy(), TENSORS["f32"])


def test_the_index_decides_and_the_single_file_comes_first(sharded: Path) -> None:
    write_index(sharded, {"f32": "model-00001-of-00002.safetensors"})
    assert open_checkpoint(sharded).names == ("f32",), "what the index leaves out is no part of the checkpoint"
    save_file({"only": TENSORS["f16"]}, sharded / "model.safetensors")
    assert open_checkpoint(sharded).names == ("only",), "as the original library chooses"


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"f32": "../model-00001-of-00002.safetensors"}, "expected the name of a .safetensors file in the same folder"),
        ({"f32": "/etc/passwd"}, "expected the name of a .safetensors file"),
        ({"f32": "sub/model.safetensors"}, "expected the name of a .safetensors file"),
        ({"f32": "..\\model.safetensors"}, "expected the name of a .safetensors file"),
        ({"f32": ".."}, "expected the name of a .safetensors file"),
        ({"f32": ""}, "expected the name of a .safetensors file"),
        ({"f32": "pytorch_model.bin"}, "expected the name of a .safetensors file"),
        (
            {"f32": "model-00003-of-00002.safetensors"},
            "names the shard model-00003-of-00002.safetensors, which is not in",
        ),
        (
            {"f33": "model-00001-of-00002.safetensors"},
            "says that model-00001-of-00002.safetensors holds f33, it does not",
        ),
        ({"f32": 3}, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
        (None, "has no weight_map"),
    ],
    ids=str,
)
def test_a_bad_index_is_refused(weight_map: Any, message: str, sharded: Path) -> None:
    write_index(sharded, weight_map)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(sharded)
    assert "model.safetensors.index.json" in str(caught.value)


def test_an_index_that_is_no_json_and_a_broken_shard_are_refused(sharded: Path) -> None:
    shard = sharded / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors .* is not a whole safetensors file"):
        open_checkpoint(sharded)
    (sharded / "model.safetensors.index.json").write_text("{")
    with pytest.raises(CheckpointError, match="index.json is not valid JSON"):
        open_checkpoint(sharded)


def test_a_shard_missing_from_a_recorded_checkpoint(shared: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(
        shared / "fixtures" / "hf_sharded" / "ForMaskedLM_safetensors", tmp_path / "copy", copy_function=shutil.copyfile
    )
    folder.chmod(0o755)
    assert len(open_checkpoint(folder).names) == 42
    (folder / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match="names the shard model-00003-of-00004.safetensors, which is not in"):
        open_checkpoint(folder)
