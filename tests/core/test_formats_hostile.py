"""Broken and hostile files of every format: a clear error, in bounded time and memory, and never a call of what a file
names.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.core.format_cases import WRITABLE, contents_of, plain, write
from xlmr_core.checkpoint import open_checkpoint, read_config, save_checkpoint
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import FORMATS
from xlmr_core.formats.pickle_reader import Record, StorageRef, read_pickle
from xlmr_core.formats.torch_file import LEGACY

ROOT = Path(__file__).resolve().parents[2]
REMEDIES = (
    "fetch",
    "check",
    "convert",
    "save",
    "load it",
    "pass",
    "not followed",
    "is only read",
    "this library reads",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    for format in WRITABLE:
        write(folder / format, format)
    return {format: folder / format / FORMATS[format].single for format in WRITABLE}


def outcome(path: Path, format: str) -> str:
    """Read all of a file, by whatever name: what came of it."""
    started = time.process_time()
    try:
        with open_checkpoint(path, format) as checkpoint:
            for name in checkpoint.names:
                raw = checkpoint.tensor(name)
                assert raw.nbytes == len(raw.data)
                assert raw.nbytes < 10**7
        result = "read"
    except CheckpointError as error:
        assert str(path.name) in str(error) or "array has the dtype" in str(error), error
        assert any(word in str(error) for word in REMEDIES), error
        result = "refused"
    assert time.process_time() - started < 10
    return result


@pytest.mark.parametrize("format", WRITABLE)
def test_a_file_cut_anywhere_is_refused(format: str, whole: dict[str, Path], tmp_path: Path) -> None:
    data = whole[format].read_bytes()
    path = tmp_path / whole[format].name
    for length in sorted({0, 1, 2, 7, 8, 9, 60, len(data) - 1, len(data) // 2, *range(100, len(data), 2048)}):
        path.write_bytes(data[:length])
        assert outcome(path, format) == "refused", length
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize("format", [name for name in WRITABLE if name not in ("tf", "keras")])
def test_bytes_changed_near_the_start_are_refused_or_read_within_the_file(
    format: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(whole[format].read_bytes())
    path = tmp_path / whole[format].name
    results = []
    for position in range(0, 1500, 7):
        changed = data.copy()
        changed[position] ^= 0x15
        path.write_bytes(changed)
        results.append(outcome(path, format))
    assert results.count("refused") > 3


# HDF5 is read by a library in C: what a changed byte does to it is tried in a process that may die.
CHANGED_H5 = r"""
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.core.test_formats_hostile import outcome
path, data, counts = Path(sys.argv[2]), bytearray(Path(sys.argv[3]).read_bytes()), {"read": 0, "refused": 0}
for position in range(0, 6000, 41):
    changed = data.copy()
    changed[position] ^= 0x15
    path.write_bytes(changed)
    counts[outcome(path, sys.argv[4])] += 1
print(counts["refused"])
"""


@pytest.mark.parametrize("format", ["tf", "keras"])
def test_bytes_changed_in_the_structure_of_hdf5(format: str, whole: dict[str, Path], tmp_path: Path) -> None:
    arguments = [str(ROOT), str(tmp_path / whole[format].name), str(whole[format]), format]
    done = subprocess.run([sys.executable, "-c", CHANGED_H5, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 7  # `nox -s fuzz` changes all of them


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch or save it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "git-LFS pointer"),
        (b"<!doctype html>" * 20, "not|none"),
        (b"\0" * 4096, "not|none"),
    ],
    ids=["empty", "git-LFS", "web page", "zeros"],
)
def test_what_is_no_checkpoint_at_all(format: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / FORMATS[format].single
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path, format)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize("format", [name for name in WRITABLE if FORMATS[name].index])
def test_an_index_that_leads_out_or_names_what_is_not_there(format: str, tmp_path: Path) -> None:
    write(tmp_path, format, max_shard_size="4KB")
    index = tmp_path / FORMATS[format].index
    content = json.loads(index.read_text())
    first = next(iter(content["weight_map"]))
    suffix = Path(FORMATS[format].single).suffix
    for shard, message in (
        (f"../model{suffix}", "expected the name of a"),
        (f"/etc/model{suffix}", "expected the name of a"),
        ("config.json", "expected the name of a"),
        (f"missing{suffix}", "which is not in"),
    ):
        index.write_text(json.dumps({"weight_map": {**content["weight_map"], first: shard}}))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {**content["weight_map"], "no.such": content["weight_map"][first]}}))
    with pytest.raises(CheckpointError, match=r"says that .* holds no.such, it does not"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("format", WRITABLE)
def test_not_a_number_is_kept_as_it_is(format: str, tmp_path: Path) -> None:
    tensors = write(tmp_path / "a", format)
    name = "roberta.encoder.layer.0.output.dense.weight"
    tensors[name].data[0:4] = struct.pack("<I", 0x7FC12345)  # a NaN with a payload
    config = read_config(tmp_path / "a")
    save_checkpoint(tmp_path / "b", format, tensors, config, "ForMaskedLM")
    assert contents_of(tmp_path / "b")[name] == plain(tensors)[name]


# Pickles

CALLED: list[str] = []


class Attack:
    """An object whose pickle calls something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def torch_zip(path: Path, data: bytes, records: dict[str, bytes] | None = None, **changes: Any) -> None:
    """What torch.save makes, around any pickle."""
    with zipfile.ZipFile(path, "w", changes.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in (records if records is not None else {"data/0": bytes(16), "version": b"3\n"}).items():
            archive.writestr(f"archive/{name}", content)


def storage(reference: tuple[Any, ...]) -> StorageRef:
    return StorageRef("F32", str(reference[2]), reference[4])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch /tmp/never",), r"(posix|nt)\.system"),
        (eval, ("1+1",), r"(builtins|__builtin__)\.eval"),
        (subprocess.Popen, ("id",), r"(subprocess|commands)\.Popen"),
        (__import__, ("os",), r"(builtins|__builtin__)\.__import__"),
        (open, ("/etc/passwd",), r"(_?io)\.open"),
    ],
    ids=str,
)
def test_a_pickle_that_calls_something_is_refused_by_its_name(
    protocol: int, function: Callable[..., Any], arguments: tuple[Any, ...], name: str, tmp_path: Path
) -> None:
    data = pickle.dumps({"weight": Attack(function, *arguments)}, protocol)
    torch_zip(tmp_path / "pytorch_model.bin", data)
    with pytest.raises(CheckpointError, match=f"holds ({name}); only tensors, containers and plain values are read"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'id'\ntR.", r"os\.system"),
        (b"(S'id'\nios\nsystem\n.", r"os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"os\.system"),
        (b"\x80\x04\x8c\x07fairseq\x8c\x09os.system\x93\x8c\x02id\x85R.", None),  # a record of that name, and no call
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"(lp0\n", "damaged pickle"),
        (b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.", "names 'a' twice"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01a\x85R.", r"torch\.storage\._load_from_bytes"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.", None),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))\x89}tR.", "damaged pickle"),
        (b"\x80\x02)\x81.", "damaged pickle"),
        (b"\x80\x02K\x01)R.", "a call of something that is no class"),
        (b"\x80\x02K\x01}b.", "a state for int"),
        (b"\x80\x02(K\x01K\x01\x85\x85\x85K\x02d.", "damaged pickle"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "damaged pickle"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "damaged pickle"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged pickle"),
        (b"\x80\x02" + b"(" * 100_000 + b".", "damaged pickle"),
        (b"\x80\x02]" + b"]a" * 10, "damaged pickle"),
        (b"", "damaged pickle"),
    ],
)
def test_instructions_that_a_checkpoint_does_not_need(data: bytes, message: str | None) -> None:
    if message is None:
        assert isinstance(read_pickle(data, "the file", storage), Record)
        return
    with pytest.raises(CheckpointError, match=message) as caught:
        read_pickle(data, "the file", storage)
    assert str(caught.value).startswith("the file ")


def test_a_pickle_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlmr_core.formats.pickle_reader.MOST_INSTRUCTIONS", 1000)
    with pytest.raises(CheckpointError, match="more than 1000 instructions"):
        read_pickle(b"\x80\x02]" + b"Na" * 2000 + b".", "the file", storage)


def test_nested_doubling_takes_no_time(tmp_path: Path) -> None:
    """A billion laughs: each list holds the one before twice."""
    value: Any = []
    for _ in range(200):
        value = [value, value]
    torch_zip(tmp_path / "pytorch_model.bin", pickle.dumps({"a": value}, 2))
    with pytest.raises(CheckpointError, match="holds no state dict"):
        open_checkpoint(tmp_path)
    keys: Any = ()
    for _ in range(200):
        keys = (keys, keys)
    data = b"\x80\x02}" + pickle.dumps(keys, 2)[2:-1] + b"K\x01s."
    with pytest.raises(CheckpointError, match="a key must be a plain value"):
        read_pickle(data, "the file", storage)


def tensor_pickle(
    shape: Any, stride: Any, offset: Any = 0, count: Any = 4, key: Any = "0", kind: str = "FloatStorage"
) -> bytes:
    """A state dict of one tensor with any header."""

    def plain_value(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    reference = b"(" + plain_value("storage") + f"ctorch\n{kind}\n".encode()
    reference += plain_value(key) + plain_value("cpu") + plain_value(count) + b"tQ"
    arguments = b"(" + reference + plain_value(offset) + plain_value(shape) + plain_value(stride)
    arguments += b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}" + plain_value("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (10**6, 10**6), "stride": (10**6, 1)}, "its storage of 16 bytes is too small"),
        ({"shape": (10**12,), "stride": (0,)}, "its storage of 16 bytes is too small"),
        ({"shape": (5,), "stride": (1,)}, "too small"),
        ({"shape": (2,), "stride": (4,)}, "too small"),
        ({"shape": (2,), "stride": (-1,)}, "damaged pickle"),
        ({"shape": (-2,), "stride": (1,)}, "damaged pickle"),
        ({"shape": (2,), "stride": (1,), "offset": 3}, "too small"),
        ({"shape": (2,), "stride": (1,), "offset": -1}, "damaged pickle"),
        ({"shape": (2, 2), "stride": (1,)}, "damaged pickle"),
        ({"shape": 4, "stride": (1,)}, "damaged pickle"),
        ({"shape": (1.5,), "stride": (1,)}, "damaged pickle"),
        ({"shape": (True,), "stride": (1,)}, "damaged pickle"),
        ({"shape": (1,) * 40, "stride": (1,) * 40}, "damaged pickle"),
        ({"shape": (4,), "stride": (1,), "count": 5}, "damaged pickle"),
        ({"shape": (4,), "stride": (1,), "count": -1}, "damaged pickle"),
        ({"shape": (4,), "stride": (1,), "key": "../0"}, "damaged pickle"),
        ({"shape": (4,), "stride": (1,), "kind": "ComplexFloatStorage"}, r"holds torch\.ComplexFloatStorage"),
    ],
    ids=str,
)
def test_tensors_that_do_not_lie_in_their_storage(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch_zip(tmp_path / "pytorch_model.bin", tensor_pickle(**changes))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_zips_that_are_not_of_torch_save(tmp_path: Path) -> None:
    path, good = tmp_path / "pytorch_model.bin", tensor_pickle((4,), (1,))

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(path)

    torch_zip(path, good)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.info("w").shape == (4,)
    torch_zip(path, good, compression=zipfile.ZIP_DEFLATED)
    refused("compressed or encrypted")
    torch_zip(path, good, {"data/0": bytes(16), "constants.pkl": b""})
    refused("is a TorchScript program")
    torch_zip(path, good, {"data/0": bytes(16), "byteorder": b"big"})
    refused("big-endian machine")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused("without the one data.pkl")
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("archive/data.pkl", good)
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/data/0", bytes(16))
    refused("a record is there twice")
    torch_zip(path, good, {"data/0": bytes(16)})
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02")  # the last record of the directory, which is the storage's
    path.write_bytes(data[: place + 42] + struct.pack("<I", 2**31) + data[place + 46 :])
    refused("not a whole PyTorch file")


def test_a_stream_of_torch_with_views_and_its_troubles(tmp_path: Path) -> None:
    def saved(root: bytes, storages: list[tuple[str, bytes]], keys: list[str] | None = None, **machine: Any) -> Path:
        facts = {"protocol_version": 1001, "little_endian": True, **machine}
        names = [key for key, _ in storages] if keys is None else keys
        out = io.BytesIO()
        out.write(LEGACY + pickle.dumps(1001, 2) + pickle.dumps(facts, 2) + root + pickle.dumps(names, 2))
        for _, data in storages:
            out.write(struct.pack("<q", len(data) // 4) + data)
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(out.getvalue())
        return path

    def plain_value(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    # A stream's references have one more value, the view.
    good = tensor_pickle((2, 2), (1, 2), count=4).replace(b"tQ", b"NtQ")
    values = np.arange(4, dtype=np.float32)
    with open_checkpoint(saved(good, [("0", values.tobytes())])) as checkpoint:
        assert checkpoint.tensor("w").to_numpy().tolist() == [[0, 2], [1, 3]]
    view = tensor_pickle((2,), (1,), count=4).replace(b"tQ", plain_value(("v", 1, 3)) + b"tQ")
    with open_checkpoint(saved(view, [("0", values.tobytes())])) as checkpoint:
        assert checkpoint.tensor("w").to_numpy().tolist() == [1, 2]
    beyond = tensor_pickle((2,), (1,), count=4).replace(b"tQ", plain_value(("v", 3, 3)) + b"tQ")
    for path, message in (
        (lambda: saved(beyond, [("0", values.tobytes())]), "damaged pickle"),
        (lambda: saved(good, [("0", values.tobytes()[:8])]), "reaches beyond the file"),
        (lambda: saved(good, []), "list of storages"),
        (lambda: saved(good, [("0", values.tobytes())], keys=["0", "0"]), "list of storages"),
        (lambda: saved(good, [("0", values.tobytes())], little_endian=False), "big-endian machine"),
        (lambda: saved(pickle.dumps({"a": Attack(os.getpid)}, 2), []), r"holds (posix|nt)\.getpid"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(path())


# HDF5


def h5_with(path: Path, make: Callable[[Any], Any]) -> None:
    with h5py.File(path, "w") as file:
        make(file)


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (4,))
    file.create_virtual_dataset("a:0", layout)


def soft_link(file: Any) -> None:
    file["a:0"] = h5py.SoftLink("/b:0")


def external_link(file: Any) -> None:
    file["a:0"] = h5py.ExternalLink("/etc/other.h5", "/a")


def external_storage(file: Any) -> None:
    file.create_dataset("a:0", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def loop(file: Any) -> None:
    file.create_group("a")
    file["a/b"] = file["/"]


def terabytes(file: Any) -> None:
    file.create_dataset("a:0", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


def never_written(file: Any) -> None:
    file.create_dataset("a:0", (10**4,), "f4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (virtual, "keeps the values of a:0 in other files"),
        (soft_link, "has a link at a:0 to '/b:0'"),
        (external_link, r"has a link at a:0 to '/a' in '/etc/other.h5'"),
        (external_storage, "keeps the values of a:0 in other files"),
        (loop, "has the group a.b twice"),
        (terabytes, r"has the shape \(1000000, 1000000\), for which it holds 0 bytes"),
        (never_written, "for which it holds 0 bytes"),
    ],
)
@pytest.mark.parametrize("format", ["tf", "keras"])
def test_hdf5_files_that_lead_elsewhere(format: str, make: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / FORMATS[format].single
    h5_with(path, make)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path, format)


def test_chunked_compressed_and_foreign_values_are_read(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.float32).reshape(30, 20)
    scalar, bools = np.float64(2.5), np.array([True, False])

    def make(file: Any) -> None:
        file.create_dataset("roberta/zipped:0", data=values, chunks=(7, 20), compression="gzip", shuffle=True)
        file.create_dataset("roberta/big:0", data=values.astype(">f4"))
        file.create_dataset("roberta/scalar:0", data=scalar)
        file.create_dataset("roberta/bools:0", data=bools)
        file.create_dataset("roberta/text:0", data="no weights")

    h5_with(tmp_path / "tf_model.h5", make)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.names) == {f"roberta/{name}:0" for name in ("zipped", "big", "scalar", "bools")}
        for name, expected in (("zipped", values), ("big", values), ("scalar", scalar), ("bools", bools)):
            array = checkpoint.tensor(f"roberta/{name}:0").to_numpy()
            assert array.dtype == np.asarray(expected).dtype.newbyteorder("=")
            assert np.array_equal(array, expected)


def test_a_variable_that_is_there_twice_must_be_the_same(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "tf_model.h5"
    path.write_bytes((shared / "fixtures" / "hf" / "ForMaskedLM" / "tf_model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["lm_head/tfxlm_roberta_for_masked_lm/roberta/embeddings/LayerNorm/beta:0"][0] = 7
    with pytest.raises(
        CheckpointError, match=r"stores roberta/embeddings/LayerNorm/beta:0 twice with different values"
    ):
        open_checkpoint(tmp_path)


# MessagePack


def array(dtype: bytes = b"\xa7float32", shape: bytes = b"\x91\x02", data: bytes = b"\xc4\x08" + bytes(8)) -> bytes:
    inner = b"\x93" + shape + dtype + data
    return b"\xc7" + bytes((len(inner), 1)) + inner


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x82\xa1a" + array() + b"\xa1a" + array(), "names 'a' twice"),
        (b"\x81\xa1a" + array() + b"\0", "1 bytes follow after its end"),
        (b"\xdf\xff\xff\xff\xff\xa1a", "a map of 4294967295 entries reaches beyond"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "a list of 4294967295 values reaches beyond"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "reach beyond its end"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff\x01", "reach beyond its end"),
        (b"\x81\xa1a" + array(shape=b"\x91\xce\xff\xff\xff\xff"), "has other bytes"),
        (b"\x81\xa1a" + array(shape=b"\x91\xff"), "an array has the shape"),
        (b"\x81\xa1a" + array(shape=b"\x02"), "a shape is"),
        (b"\x81\xa1a" + array(dtype=b"\xa9complex64"), "an array has the dtype 'complex64'"),
        (b"\x81\xa1a\xd4\x05\x00", "an extension of type 5"),
        (b"\x81\xa1a\xc1", "no value begins with 0xc1"),
        (b"\x81\x01\xa1a", "holds no arrays: expected parameters by name"),
        (b"\x81\xa1a" * 40, "nested more than 32 levels"),
        (b"\x81\xa2\xff\xfe\x01", "not a whole Flax file"),
    ],
    ids=str,
)
def test_messagepack_that_is_damaged(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "flax_model.msgpack").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def chunked(shape: bytes, *chunks: bytes) -> bytes:
    parts = b"".join(b"\xa1" + str(number).encode() + chunk for number, chunk in enumerate(chunks))
    marks = b"\xb9__msgpack_chunked_array__\xc3\xa5shape" + shape
    return b"\x81\xa1a\x83" + marks + b"\xa6chunks" + bytes((0x80 | len(chunks),)) + parts


def test_arrays_in_chunks_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    one = array(data=b"\xc4\x08" + np.array([1, 2], np.float32).tobytes())
    other = array(data=b"\xc4\x08" + np.array([3, 4], np.float32).tobytes())
    path.write_bytes(chunked(b"\x82\xa10\x02\xa11\x02", one, other))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensor("a").to_numpy().tolist() == [[1, 2], [3, 4]]
        assert bytes(checkpoint.stream("a").read().data) == bytes(checkpoint.tensor("a").data)
    for data in (chunked(b"\x81\xa10\x05", one, other), chunked(b"\x81\xa10\x02"), chunked(b"\x81\xa11\x02", one)):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="not a whole Flax file"):
            open_checkpoint(path)


def test_arrays_above_the_limit_are_written_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flax.serialization import msgpack_restore

    monkeypatch.setattr("xlmr_core.formats.msgpack_file.MOST_CHUNK_BYTES", 256)
    tensors = write(tmp_path, "flax")
    assert contents_of(tmp_path) == plain(tensors)
    tree = msgpack_restore((tmp_path / "flax_model.msgpack").read_bytes())
    words = tree["roberta"]["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(words, tensors["roberta.embeddings.word_embeddings.weight"].to_numpy())


# Interrupted writing


@pytest.mark.parametrize("format", WRITABLE)
def test_an_error_in_the_middle_leaves_the_old_file(format: str, tmp_path: Path) -> None:
    tensors: dict[str, Any] = dict(write(tmp_path, format))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept, calls = tensors["lm_head.dense.weight"], []

    def stops() -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return kept

    tensors["lm_head.dense.weight"] = stops
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, format, tensors, read_config(tmp_path), "ForMaskedLM")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


KILLED = r"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.core.format_cases import tensors_of
from tests.core.small_models import config_of
from xlmr_core.checkpoint import save_checkpoint
config = config_of("base", "ForMaskedLM")
tensors = dict(tensors_of(config, "ForMaskedLM", sys.argv[3]))
kept, calls = tensors["lm_head.dense.weight"], []
def dies():
    calls.append(1)
    if len(calls) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept
tensors["lm_head.dense.weight"] = dies
save_checkpoint(Path(sys.argv[2]), sys.argv[3], tensors, config, "ForMaskedLM")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
@pytest.mark.parametrize("format", WRITABLE)
def test_a_kill_in_the_middle_leaves_the_old_file(format: str, tmp_path: Path) -> None:
    tensors = write(tmp_path, format)
    before = contents_of(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(ROOT), str(tmp_path), format], check=False)
    assert done.returncode == -9
    assert contents_of(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir() if not path.name.endswith(".tmp")} == {
        "config.json",
        FORMATS[format].single,
    }
    save_checkpoint(tmp_path, format, tensors, read_config(tmp_path), "ForMaskedLM")


FULL = r"""
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.core.format_cases import tensors_of
from tests.core.small_models import config_of
from xlmr_core.checkpoint import save_checkpoint
from xlmr_core.errors import CheckpointError
config = config_of("base", "ForMaskedLM")
tensors = tensors_of(config, "ForMaskedLM", sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint(Path(sys.argv[2]), sys.argv[3], tensors, config, "ForMaskedLM")
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the file size with setrlimit")
@pytest.mark.parametrize("format", WRITABLE)
def test_a_full_disk_is_said_and_leaves_the_old_file(format: str, tmp_path: Path) -> None:
    write(tmp_path, format)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(ROOT), str(tmp_path), format], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("cannot save "), done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
