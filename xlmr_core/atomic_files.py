"""Writing files so that an interruption leaves the old ones whole, or all new ones.

One file is written to a temporary beside it and renamed. Several that belong together are all complete on the disk
first; then a record of what takes whose place is written, and that is the moment from which the new ones count: whoever
finds the record, because its writer was killed between the renames, does the rest (:func:`finish_interrupted`).

Only the renames exclude each other, by a lock that the system holds on the open folder: nothing of it is left behind by
a process that dies. Where a file system has no such locks the steps are the same without it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_core.bounded_files import read_bytes, read_json
from xlmr_core.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "RECORD",
    "Temporaries",
    "finish_interrupted",
    "interrupted",
    "locked",
    "named_by",
    "put_in_place",
    "remove_abandoned",
    "saving_to",
    "settle",
    "sync_folder",
    "write_all_atomically",
    "write_atomically",
]

# The mask can only be read by setting it, which other threads would notice; so once, here.
_UMASK = os.umask(0)
os.umask(_UMASK)

RECORD = ".xlmr-save.json"
# Seconds without a write, after which a temporary file belongs to a save that was killed.
ABANDONED_AFTER = 3600.0
# For the renames of others, which take a moment: who waits longer waits for a process that was stopped.
PATIENCE = 30.0
_TEMPORARY = re.compile(
    r"\..+\.(json|model|txt|safetensors|bin|h5|keras|msgpack|pt|md|png|toml|onnx|onnx_data)\.[a-z0-9_]{8}\.tmp"
)


@contextlib.contextmanager
def saving_to(folder: Path, what: str = "the files") -> Iterator[None]:
    """Make the error of this library of what the system says while the block writes.

    Args:
        folder: where to.
        what: is written, in words.
    """
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        why = " ".join(str(error.strerror or error).split())  # HDF5 speaks in several lines
        raise CheckpointError(
            f"cannot save {what} to {folder}: {why}; make room or choose another folder (what was there before is "
            "intact)"
        ) from error


class Temporaries:
    """Temporary files of one folder, by the names of the files that they become; what is left goes with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: dict[str, Path] = {}
        self.contents: dict[str, bytes] = {}
        self.folders = {folder}

    def __enter__(self) -> Temporaries:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.paths.values():
            with contextlib.suppress(OSError):
                path.unlink()

    def new(self, name: str) -> Path:
        """An empty file beside the one of that name. Those that are there are kept from seeming abandoned."""
        import tempfile  # not for reading

        for path in self.paths.values():
            os.utime(path)
        target = self.folder / name
        handle, made = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        self.paths[name] = Path(made)
        self.folders.add(target.parent)
        return self.paths[name]

    def write(self, name: str, content: bytes) -> None:
        """A small file."""
        path = self.new(name)
        path.write_bytes(content)
        settle(path)
        self.contents[name] = content


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, all or nothing.

    Raises:
        CheckpointError: if it cannot be written.
    """
    write_all_atomically(path.parent, {path.name: content})


def write_all_atomically(folder: Path, contents: Mapping[str, bytes], remove: Iterable[str] = ()) -> None:
    """Write several small files of a folder and remove others, all or nothing. Temporaries of killed saves go too.

    Args:
        folder: is there.
        contents: by name.
        remove: names of files that go in the same step; they need not be there.

    Raises:
        CheckpointError: if they cannot be written; what was there is then intact.
    """
    what = " and ".join(contents) if len(contents) < 3 else f"{len(contents)} files"
    with saving_to(folder, what), Temporaries(folder) as files:
        for name, content in contents.items():
            files.write(name, content)
        with locked(folder):
            put_in_place(files, remove=remove)
            remove_abandoned(files)


def settle(temporary: Path) -> None:
    """Bring a written temporary to the disk, with the permissions of the user's files: ``mkstemp`` makes
    private ones.
    """
    temporary.chmod(0o666 & ~_UMASK)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())


# ---- The moment in which new files take the place of old ones


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While the block runs no other process that saves renames files of the folder; a save that was killed is finished
    first.

    Raises:
        CheckpointError: if another process does not come to an end.
    """
    with _lock_on(folder):
        _finish(folder)
        yield


@contextlib.contextmanager
def _lock_on(folder: Path) -> Iterator[None]:
    handle = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            _wait_for(handle, folder)
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has the handle as well
            os.close(handle)


def _wait_for(handle: int, folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                return None  # a file system without locks
        if time.monotonic() > end:
            raise CheckpointError(
                f"expected the other process that saves to {folder} to end, waited {PATIENCE:.0f} s; end it, or choose "
                "another folder"
            )
        time.sleep(0.005)


def put_in_place(files: Temporaries, *, remove: Iterable[str] = (), stale: Iterable[str] = ()) -> None:
    """Rename temporaries to the files that they become, in order, and remove others; inside :func:`locked`.

    Small files that hold the wanted content already are left alone. If it fails, what stood there before comes back.

    Args:
        files: complete, by name. A large one that replaces another stands last.
        remove: names of files that must go in the same step.
        stale: names of files that may go afterwards: nothing refers to them.
    """
    folder = files.folder
    for name, content in files.contents.items():
        if name in files.paths and _content(folder / name) == content:
            files.paths.pop(name).unlink()
    gone, late = ([name for name in names if (folder / name).exists()] for names in (remove, stale))
    steps = [*files.paths, *gone]
    if not steps:
        return
    # What is not the last step may have to be undone.
    old = {name: _content(folder / name) for name in steps[:-1]}
    is_recorded = len(steps) > 1 or bool(late)
    try:
        if is_recorded:
            _record(files, [*gone, *late])
        for name in steps:
            if name in gone:
                (folder / name).unlink(missing_ok=True)
            else:
                os.replace(files.paths[name], folder / name)
    except BaseException:
        last = files.paths.get(steps[-1], folder / steps[-1])
        if last.exists():  # otherwise all was done when somebody interrupted
            for name in reversed(steps[:-1]):
                _put_back(folder / name, old[name], is_new=name in files.paths and not files.paths[name].exists())
        (folder / RECORD).unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):
        for name in late:
            (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    if is_recorded:
        (folder / RECORD).unlink(missing_ok=True)


def _put_back(path: Path, content: bytes | None, *, is_new: bool) -> None:
    if content is not None and _content(path) != content:
        with Temporaries(path.parent) as files:
            files.write(path.name, content)
            os.replace(files.paths[path.name], path)
    elif content is None and is_new:
        path.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except FileNotFoundError:
        return None


def _record(files: Temporaries, remove: list[str]) -> None:
    folder = files.folder
    renames = {name: Path(os.path.relpath(path, folder)).as_posix() for name, path in files.paths.items()}
    with Temporaries(folder) as record:
        record.write(RECORD, json.dumps({"files": renames, "remove": remove}).encode())
        os.replace(record.paths[RECORD], folder / RECORD)
    sync_folder(folder)


def finish_interrupted(folder: Path) -> None:
    """Do the rest of a save that was killed between its renames, so that its files are read together.

    Raises:
        CheckpointError: if that cannot be done here, or the record of the save is none.
    """
    if (folder / RECORD).exists():
        with _lock_on(folder):
            _finish(folder)


def interrupted(folder: Path) -> tuple[str, ...]:
    """The files of a folder that a killed save has not put in place, or removed, yet."""
    if not (folder / RECORD).exists():
        return ()
    renames, removed = _read_record(folder)
    waiting = [name for name, temporary in renames.items() if (folder / temporary).exists()]
    return (*waiting, *(name for name in removed if (folder / name).exists()))


def _finish(folder: Path) -> None:
    record = folder / RECORD
    if not record.exists():
        return
    try:
        renames, removed = _read_record(folder)
        written = [name for name in renames if _is_newer(folder / name, record)]
        if written:
            raise CheckpointError(
                f"a save to {folder} was killed between its files, and {', '.join(written[:3])} was written since; "
                f"remove {RECORD} there to keep what is there, or copy the files again"
            )
        for name, temporary in renames.items():
            with contextlib.suppress(FileNotFoundError):  # it is in its place
                os.replace(folder / temporary, folder / name)
        for name in removed:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        record.unlink(missing_ok=True)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"a save to {folder} was killed between its files and cannot be finished here: {error.strerror or error}; "
            "make the folder writable, or copy it and load the copy"
        ) from error


def _is_newer(path: Path, record: Path) -> bool:
    """Whether somebody else has written a file since: those of the save itself are older than its record."""
    try:
        return path.stat().st_mtime_ns > record.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _read_record(folder: Path) -> tuple[dict[str, str], list[str]]:
    """What a record says, if it is one of ours: it may have come with a folder from elsewhere."""
    try:
        content: Any = read_json(folder / RECORD)
        renames, removed = content["files"], content["remove"]
        assert isinstance(renames, dict) and isinstance(removed, list)
        for name in (*renames, *removed):
            assert _is_inside(folder, name)
        for name, temporary in renames.items():
            assert _is_inside(folder, temporary) and Path(temporary).parent == Path(name).parent
            assert _TEMPORARY.fullmatch(Path(temporary).name)
    except FileNotFoundError:  # another process has just finished it
        return {}, []
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise CheckpointError(
            f"expected the record of a save in {folder / RECORD}, received something else; remove it"
        ) from error
    return renames, removed


def _is_inside(folder: Path, name: Any) -> bool:
    """Whether a name, of the folder or of one inside it, leads nowhere else."""
    parts = name.split("/") if isinstance(name, str) else []
    if not 1 <= len(parts) <= 2 or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        return False
    return not Path(name).drive and not (len(parts) == 2 and (folder / parts[0]).is_symlink())


# ---- What killed saves leave


def remove_abandoned(files: Temporaries, keep: Iterable[str] = ()) -> None:
    """Remove temporaries of saves that were killed: nobody has written to them for an hour.

    Args:
        files: of a save to the same folders.
        keep: of what the temporary of an index names, which goes with it, what stays.
    """
    for folder in files.folders:
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if not _TEMPORARY.fullmatch(path.name) or time.time() - path.lstat().st_mtime < ABANDONED_AFTER:
                    continue
                for name in named_by(path) - set(keep) if ".index.json." in path.name else ():
                    (folder / name).unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def named_by(index: Path) -> set[str]:
    """The files of its own folder that an index of shards names; none where it is not readable."""
    try:
        names = json.loads(read_bytes(index))["weight_map"].values()
        return {name for name in names if _is_inside(index.parent, name) and "/" not in name}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def sync_folder(folder: Path) -> None:
    # Renames survive a power cut only with this; where folders cannot be opened (Windows) the system does without.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
