"""Writing files so that an interruption leaves the old content whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["atomic_path", "replaced", "write_all_atomically", "write_atomically"]

# The mask can only be read by setting it, which other threads would notice; so once, here.
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic_path(path: Path, *, together: Mapping[Path, bytes] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is renamed to ``path``, on an exception it is removed.

    The rename is atomic within a file system, so a reader sees the old file or the new one and never a part.

    Args:
        path: the file to make.
        together: small files that belong to it. They are renamed into place directly before it and put back if that
            fails, so only a kill in between can leave them newer than ``path``.
    """
    temporary = _temporary_beside(path)
    try:
        yield temporary
        _settle(temporary)
        with replaced(together or {}):
            os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, together: Mapping[Path, bytes] | None = None) -> None:
    """Write ``content`` to ``path``, all or nothing; ``together`` as in :func:`atomic_path`."""
    with atomic_path(path, together=together) as temporary:
        temporary.write_bytes(content)


def write_all_atomically(files: Mapping[Path, bytes]) -> None:
    """Write several small files: all are complete on the disk before the first takes its place, and a failure puts the
    old ones back.
    """
    with replaced(files):
        pass
    for folder in {path.parent for path in files}:
        _sync_folder(folder)


@contextlib.contextmanager
def replaced(files: Mapping[Path, bytes]) -> Iterator[None]:
    """Put small files in place for the block; if it raises, what stood there before comes back.

    Files that hold the wanted content already are left alone.
    """
    old = {path: path.read_bytes() if path.is_file() else None for path in files}
    changed = [path for path in files if files[path] != old[path]]
    temporaries: dict[Path, Path] = {}
    done: list[Path] = []
    try:
        for path in changed:
            temporaries[path] = _temporary_beside(path)
            temporaries[path].write_bytes(files[path])
            _settle(temporaries[path])
        for path in changed:
            done.append(path)
            os.replace(temporaries[path], path)
        yield
    except BaseException:
        for path in done:
            content = old[path]
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, content)
        raise
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    return Path(name)


def _settle(temporary: Path) -> None:
    """Bring a written temporary to the disk, with the permissions of the user's files: ``mkstemp`` makes
    private ones.
    """
    temporary.chmod(0o666 & ~_UMASK)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Renames survive a power cut only with this; where folders cannot be opened (Windows) the system does without.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
