"""Saving checkpoints: the layout others read, and nothing half-written whatever happens."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from xlmr_core import atomic_files
from xlmr_core.atomic_files import write_all_atomically
from xlmr_core.checkpoints.found import find, open_checkpoint
from xlmr_core.checkpoints.saving import save_tensors
from xlmr_core.config import AutoConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.hub import resolve
from xlmr_core.parameters import parameters

ROOT = Path(__file__).resolve().parents[2]
Arrays = dict[str, np.ndarray]


def arrays(seed: int = 0, count: int = 4) -> Arrays:
    """Tensors of 400 bytes."""
    rng = np.random.default_rng(seed)
    return {f"t{number}": rng.standard_normal((10, 10)).astype(np.float32) for number in range(count)}


def raw(values: Arrays) -> dict[str, RawTensor]:
    return {name: RawTensor.from_numpy(array) for name, array in values.items()}


def read(folder: Path) -> Arrays:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.tensor(name).to_numpy() for name in checkpoint.names}


def equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


# Layout


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    values: Arrays = {
        "halves": np.array([1, 2, 3], np.float16),
        "bytes": np.array([7], np.uint8),
        "floats": np.array([[1.5, -2]], np.float32),
        "scalar": np.array(2**40),
        "empty": np.empty((3, 0), np.float64),
        'ünï "quoted"': np.array([True]),
    }
    paths = save_tensors(tmp_path / "new" / "folder", raw(values), metadata={"format": "pt", "step": "7"})
    assert paths == [tmp_path / "new" / "folder" / "model.safetensors"]
    assert equal(load_file(paths[0]), values)
    assert equal(read(tmp_path / "new" / "folder"), values)
    with safe_open(paths[0], "np") as file:
        assert file.metadata() == {"format": "pt", "step": "7"}
    with open_checkpoint(paths[0]) as checkpoint:
        for name, array in values.items():
            assert checkpoint.tensor(name).to_numpy().ctypes.data % array.itemsize == 0, (
                "widest first keeps all aligned"
            )


def test_metadata_is_what_the_original_loader_asks_for(tmp_path: Path) -> None:
    save_tensors(tmp_path, raw(arrays()))
    assert open_checkpoint(tmp_path).metadata == {"format": "pt"}
    save_tensors(tmp_path, raw(arrays()), metadata={})
    assert open_checkpoint(tmp_path).metadata == {}


def test_bfloat16_goes_through_as_bytes(shared: Path, tmp_path: Path) -> None:
    source = shared / "fixtures" / "hf_variants" / "ForMaskedLM_bf16"
    with open_checkpoint(source) as checkpoint:
        save_tensors(tmp_path, {name: checkpoint.tensor(name) for name in checkpoint.names})
        with open_checkpoint(tmp_path) as again:
            for name in checkpoint.names:
                one, other = checkpoint.tensor(name), again.tensor(name)
                assert (one.dtype, one.shape, bytes(one.data)) == (other.dtype, other.shape, bytes(other.data))
                assert one.dtype == "BF16"


def test_shards_and_index_are_those_of_the_original_library(shared: Path, tmp_path: Path) -> None:
    source = shared / "fixtures" / "hf_sharded" / "ForMaskedLM_safetensors"
    rows = parameters(AutoConfig.from_pretrained(source), "ForMaskedLM")
    with open_checkpoint(source) as checkpoint:
        own = {name: checkpoint.tensor(name) for name, row in rows.items() if row.tied_to is None}
        paths = save_tensors(tmp_path, own, max_shard_size="30KB")
    assert [path.name for path in paths] == sorted(file.name for file in source.glob("*.safetensors"))
    for path in paths:
        assert equal(load_file(path), load_file(source / path.name))
    assert json.loads((tmp_path / INDEX).read_text()) == json.loads((source / INDEX).read_text())


@pytest.mark.parametrize(
    ("limit", "groups"),
    [
        ("5GB", [["a", "b", "c"]]),
        (600, [["a", "b", "c"]]),
        ("0.6KB", [["a", "b", "c"]]),
        (599, [["a", "b"], ["c"]]),
        ("0.5 KiB", [["a", "b"], ["c"]]),
        (499, [["a"], ["b"], ["c"]]),
        ("1B", [["a"], ["b"], ["c"]]),
    ],
)
def test_a_file_holds_what_fits_and_a_tensor_is_never_split(
    limit: int | str, groups: list[list[str]], tmp_path: Path
) -> None:
    sizes = {"a": 100, "b": 400, "c": 100}
    values = {name: np.full(size, 1, np.uint8) for name, size in sizes.items()}
    paths = save_tensors(tmp_path, raw(values), max_shard_size=limit)
    assert [list(load_file(path)) for path in paths] == groups
    assert equal(read(tmp_path), values)
    assert (tmp_path / INDEX).exists() == (len(groups) > 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("200MiB", 200 * 2**20),
        ("1.5kb", 1500),
        ("2TB", 2 * 10**12),
        (" 7 ", 7),
        (7, 7),
        ("3gib", 3 * 2**30),
    ],
)
def test_sizes_are_read_as_the_original_reads_them(text: int | str, size: int) -> None:
    from xlmr_core.checkpoints.saving import _bytes_of

    assert _bytes_of(text) == size


@pytest.mark.parametrize("size", [0, -1, True, "", "GB", "5XB", "-5GB", "0GB", 1.5, None])
def test_sizes_that_say_nothing_are_refused(size: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"max_shard_size must be a number of bytes or a text such as '5GB'"):
        save_tensors(tmp_path, raw(arrays()), max_shard_size=size)  # type: ignore[arg-type]
    assert names_in(tmp_path) == []


def test_tensors_are_made_one_at_a_time(tmp_path: Path) -> None:
    size, count = 2**20, 12

    def make(number: int) -> RawTensor:
        return RawTensor.from_numpy(np.full(size // 4, number, np.float32))

    tracemalloc.start()
    try:
        save_tensors(tmp_path, {f"t{number}": lambda number=number: make(number) for number in range(count)})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * size
    assert all(np.all(array == int(name[1:])) for name, array in read(tmp_path).items())


# Replacing an older checkpoint


LAYOUTS = {"nothing": 0, "single": 10**6, "two shards": 800, "four shards": 400}


def save(folder: Path, seed: int, layout: str) -> list[Path]:
    def made(tensor: RawTensor) -> RawTensor:
        sys.audit("xlmr.test.tensor")  # a step at which the test below can kill
        return tensor

    tensors = {name: partial(made, tensor) for name, tensor in raw(arrays(seed)).items()}
    return save_tensors(folder, tensors, max_shard_size=LAYOUTS[layout])


@pytest.mark.parametrize("new", ["single", "two shards", "four shards"])
@pytest.mark.parametrize("old", LAYOUTS)
def test_only_the_new_checkpoint_remains(old: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-notes.txt").write_text("mine")
    (tmp_path / "adapter_model.safetensors").write_text("mine too")
    if LAYOUTS[old]:
        save(tmp_path, 1, old)
    paths = save(tmp_path, 2, new)
    assert equal(read(tmp_path), arrays(2))
    expected = {"config.json", "model-notes.txt", "adapter_model.safetensors", *(path.name for path in paths)}
    assert set(names_in(tmp_path)) == expected | ({INDEX} if len(paths) > 1 else set())


@pytest.mark.parametrize("folder", ["out", "./out", "out/../out", "."])
def test_a_folder_may_be_named_from_where_we_are(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for seed, layout in enumerate(("single", "two shards", "single")):
        save(Path(folder), seed, layout)
        assert equal(read(tmp_path / folder), arrays(seed))


def test_shard_names_are_the_published_ones_unless_they_are_taken(tmp_path: Path) -> None:
    assert [path.name for path in save(tmp_path, 1, "two shards")] == SHARDS
    taken = [path.name for path in save(tmp_path, 2, "two shards")]
    assert taken == ["model-r2-00001-of-00002.safetensors", "model-r2-00002-of-00002.safetensors"]
    assert [path.name for path in save(tmp_path, 3, "two shards")] == SHARDS
    assert equal(read(tmp_path), arrays(3))


def test_a_checkpoint_can_be_saved_over_itself_while_its_tensors_are_in_use(tmp_path: Path) -> None:
    save(tmp_path, 1, "two shards")
    checkpoint = open_checkpoint(tmp_path)
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.names}
    for limit in (10**6, 10**6, 400, 400):
        save_tensors(tmp_path, tensors, max_shard_size=limit)
        assert equal(read(tmp_path), arrays(1))


def test_files_of_killed_saves_are_removed_once_they_are_old(tmp_path: Path) -> None:
    old = [
        tmp_path / f".{name}.abcd1234.tmp"
        for name in ("model.safetensors", "config.json", "tokenizer.json", "sentencepiece.bpe.model", "dict.txt")
    ]
    fresh, other = tmp_path / ".model-00001-of-00002.safetensors.x2z4x6z8.tmp", tmp_path / ".notes.tmp"
    hours_ago = time.time() - 7200
    for file in (*old, other, fresh):
        file.write_text("part")
        if file != fresh:
            os.utime(file, (hours_ago, hours_ago))
    save(tmp_path, 1, "single")
    assert not any(file.exists() for file in old)
    assert fresh.exists(), "another process may be writing it"
    assert other.exists(), "not ours"


def test_small_files_take_those_of_killed_saves_with_them(tmp_path: Path) -> None:
    file = tmp_path / ".model.safetensors.abcd1234.tmp"
    file.write_text("part")
    os.utime(file, (time.time() - 7200,) * 2)
    write_all_atomically(tmp_path, {"config.json": b"{}"})
    assert names_in(tmp_path) == ["config.json"]


def test_a_shard_that_no_index_names_is_not_ours_to_remove(tmp_path: Path) -> None:
    stranger = tmp_path / "model-00001-of-00003.safetensors"
    stranger.write_text("mine")
    for layout in ("two shards", "single", "four shards"):
        save(tmp_path, 1, layout)
        assert stranger.read_text() == "mine"


# Several at once


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("layouts", [("four shards",) * 4, ("single",) * 3, ("two shards", "single", "four shards")])
def test_of_several_that_save_at_once_the_last_leaves_its_own(layouts: tuple[str, ...], tmp_path: Path) -> None:
    for number in range(4):
        folder, (start, go) = tmp_path / str(number), os.pipe()
        children = []
        for seed, layout in enumerate(layouts):
            children.append(os.fork())
            if not children[-1]:
                try:
                    os.close(go)
                    os.read(start, 1)
                    config = {"config.json": b"%d" % seed}
                    save_tensors(folder, raw(arrays(seed)), max_shard_size=LAYOUTS[layout], together=config)
                    os._exit(0)
                finally:
                    os._exit(1)
        os.close(start)
        os.close(go)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(layouts)
        seed = int((folder / "config.json").read_text())
        assert equal(read(folder), arrays(seed))
        shards = {"single": ["model.safetensors"], "two shards": [INDEX, *SHARDS], "four shards": [""] * 5}[
            layouts[seed]
        ]
        assert len(names_in(folder)) == 1 + len(shards), names_in(folder)


def test_a_reader_that_found_a_checkpoint_opens_the_one_that_took_its_place(tmp_path: Path) -> None:
    for old, new in (("two shards", "single"), ("single", "four shards"), ("four shards", "two shards")):
        save(tmp_path, 1, old)
        found = find(tmp_path)
        save(tmp_path, 2, new)
        with found.open() as checkpoint:
            assert equal({name: checkpoint.tensor(name).to_numpy() for name in checkpoint.names}, arrays(2))


def test_who_waits_too_long_for_another_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    save(tmp_path, 1, "single")
    monkeypatch.setattr(atomic_files, "PATIENCE", 0.1)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="expected the other process that saves to .* to end"):
            save(tmp_path, 2, "single")
    finally:
        os.close(handle)
    assert equal(read(tmp_path), arrays(1))
    save(tmp_path, 2, "single")


def test_where_folders_cannot_be_locked_saving_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    save(tmp_path, 1, "two shards")
    save(tmp_path, 2, "single")
    assert equal(read(tmp_path), arrays(2))


# A save that was killed between its renames


def killed(folder: Path, files: dict[str, bytes], done: int) -> None:
    """What is left of writing small files over others if it is killed after so many renames."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    real, count = os.replace, -1  # the record is the first

    def replace(source: str, target: str) -> None:
        nonlocal count
        if count == done:
            os._exit(9)  # without any cleaning up
        count += 1
        real(source, target)

    os.replace = replace  # type: ignore[assignment]
    write_all_atomically(folder, files)
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("done", [0, 1, 2])
def test_the_next_that_looks_does_the_rest_of_a_killed_save(done: int, tmp_path: Path) -> None:
    new = {"a.json": b"1", "b.json": b"2", "c.json": b"3"}
    for name in new:
        (tmp_path / name).write_bytes(b"old")
    killed(tmp_path, new, done)
    assert sum((tmp_path / name).read_bytes() == b"old" for name in new) == 3 - done
    assert atomic_files.interrupted(tmp_path) == tuple(new)[done:]
    resolve(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == new


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_what_was_written_after_a_killed_save_is_not_replaced(tmp_path: Path) -> None:
    killed(tmp_path, {"a.json": b"1", "b.json": b"2"}, 1)
    time.sleep(0.01)
    (tmp_path / "b.json").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match=r"and b\.json was written since; remove \.xlmr-save\.json there"):
        resolve(tmp_path)
    assert (tmp_path / "b.json").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "{",
        '{"files": {"../x": ".x.json.abcd1234.tmp"}, "remove": []}',
        '{"files": {"x": "/etc/.x.json.abcd1234.tmp"}, "remove": []}',
        '{"files": {"x": "y"}, "remove": []}',
        '{"files": {}, "remove": ["../config.json"]}',
        '{"files": {}, "remove": ["link/config.json"]}',
        '{"files": {}, "remove": [7]}',
        '{"files": {}, "remove": ["a/b/c"]}',
    ],
)
def test_a_record_from_elsewhere_reaches_nothing(record: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "config.json"
    folder.mkdir()
    outside.write_text("mine")
    (folder / "link").symlink_to(tmp_path)
    (folder / "y").write_text("mine")
    (folder / atomic_files.RECORD).write_text(record)
    with pytest.raises(CheckpointError, match=r"expected the record of a save in .*; remove it"):
        resolve(folder)
    assert outside.read_text() == (folder / "y").read_text() == "mine"


# Interruptions

# Runs in a process of its own: forks, lets the child save, and kills it at its n-th step on the file system.
KILL = r"""
import json, os, signal, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from tests.core.test_checkpoint_saving import LAYOUTS, arrays, equal, read, save

os.fsync = lambda handle: None  # only a crash of the machine needs it, and it is slow
FILES = {"open", "tempfile.mkstemp", "os.mkdir", "os.rename", "os.remove", "os.chmod", "os.listdir", "os.scandir"}
STEPS = {"xlmr.test.tensor", *FILES}

def save_and_die(folder, layout, number):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in STEPS:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    save(folder, 2, layout)
    os._exit(0)

outcomes = []
for number in range(1, 1000):
    folder = Path(sys.argv[2]) / str(number)
    folder.mkdir()
    if LAYOUTS[sys.argv[3]]:
        save(folder, 1, sys.argv[3])
    child = os.fork()
    if child == 0:
        save_and_die(folder, sys.argv[4], number)
    _, status = os.waitpid(child, 0)
    try:
        found = read(folder)
        outcome = "old" if equal(found, arrays(1)) else "new" if equal(found, arrays(2)) else "mixture"
    except Exception as error:
        outcome = "nothing" if not LAYOUTS[sys.argv[3]] else f"{type(error).__name__}: {error}"
    save(folder, 2, sys.argv[4])
    if not equal(read(folder), arrays(2)):
        outcome = "cannot save again"
    left = [name for name in os.listdir(folder) if not name.endswith(".tmp") and name != "config.json"]
    if len(left) != {"single": 1, "two shards": 3, "four shards": 5}[sys.argv[4]]:
        outcome = f"left over: {left}"
    outcomes.append(outcome)
    if status == 0:
        break
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nothing", "two shards"),
        ("single", "single"),
        ("single", "two shards"),
        ("two shards", "single"),
        ("two shards", "two shards"),
        ("four shards", "two shards"),
    ],
)
def test_a_kill_at_any_step_leaves_the_old_checkpoint_or_the_new(old: str, new: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(ROOT), str(tmp_path), old, new], capture_output=True, text=True, check=True
    )
    outcomes = json.loads(done.stdout)
    before = "nothing" if old == "nothing" else "old"
    assert set(outcomes) == {before, "new"}
    assert outcomes[0] == before
    assert outcomes == sorted(outcomes, key=["nothing", "old", "new"].index), "once it is new it stays new"
    assert len(outcomes) >= 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, CheckpointError])
@pytest.mark.parametrize("new", ["single", "two shards", "four shards"])
@pytest.mark.parametrize("old", ["single", "two shards"])
def test_an_exception_while_saving_leaves_the_folder_as_it_was(old: str, new: str, error: type, tmp_path: Path) -> None:
    save(tmp_path, 1, old)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    calls = 0

    def last() -> RawTensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error("stop")
        return RawTensor.from_numpy(arrays(2)["t3"])

    with pytest.raises(error, match="stop"):
        save_tensors(tmp_path, {**raw(arrays(2)), "t3": last}, max_shard_size=LAYOUTS[new])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


# A file-size limit of the process is a disk that fills up: the write itself fails.
FULL = r"""
import resource, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from tests.core.test_checkpoint_saving import arrays, raw
from xlmr_core.checkpoints.saving import save_tensors
from xlmr_core.errors import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    values = {**arrays(2, count=8), "large": np.zeros(1000, np.float32)}
    save_tensors(Path(sys.argv[2]), raw(values), max_shard_size=sys.argv[3])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the file size with setrlimit")
@pytest.mark.parametrize("limit", ["1MB", "1200B"])
def test_a_full_disk_is_said_and_leaves_the_folder_as_it_was(limit: str, tmp_path: Path) -> None:
    save(tmp_path, 1, "two shards")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(ROOT), str(tmp_path), limit], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"cannot save 7200 bytes to {tmp_path}: ")
    assert "make room or choose another folder" in done.stdout
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="expected a folder to save to, received the file"):
        save_tensors(file, raw(arrays()))
    with pytest.raises(CheckpointError, match="cannot save 1600 bytes to"):
        save_tensors(file / "inside", raw(arrays()))
    assert file.read_text() == "mine"
