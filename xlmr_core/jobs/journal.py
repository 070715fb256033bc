"""What a job has done, in one file that a kill at any moment leaves readable.

Its first line says what the job is, each further one holds a row that is done, in order, and a last one that all are.
A line counts if it is whole; a part of one at the end, which a kill, a power cut or a full disk leaves, is cut off.
The file is locked while a job writes to it. The system holds the lock, so it ends with its process; where a file
system has no locks the rest is the same without it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from xlmr_core.atomic_files import sync_folder
from xlmr_core.errors import JobError
from xlmr_core.jobs.values import from_json, to_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal"]

JOB, ROW, DONE = "job", "row", "done"
BEGIN = b'{"job": '


class Journal:
    """The journal of a job. Use it in a ``with`` statement.

    Args:
        path: of the file; it is made if it is not there, and removed if nothing was done.

    Attributes:
        job: what the job is, as its first line says; none of a new one.
        rows: how many are done.
        failed: how many of them have no answer.
        truncated: of how many something was cut off.
        last: the number of the last.
        example: the first answer.
        done: whether its last line says that all are.

    Raises:
        JobError: if another process has it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle, self._is_open = _locked(path), True
        except JobError:
            raise
        except OSError as error:
            raise JobError(
                f"cannot write to {path}: {error.strerror or error}; give the output another place"
            ) from error
        try:
            self._read()
        except BaseException:
            os.close(self._handle)
            raise

    def _forget(self) -> None:
        self.job: Mapping[str, Any] | None = None
        self.rows, self.failed, self.truncated, self.last = 0, 0, 0, 0
        self.example: Any = None
        self.done, self._end = False, 0

    def _read(self) -> None:
        self._forget()
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    found = from_json(line) if line.endswith(b"\n") else None
                except ValueError:
                    found = None
                if not isinstance(found, dict) or self.done:
                    break
                if self.job is None:
                    if not isinstance(found.get(JOB), dict):
                        break
                    self.job = found[JOB]
                elif found.get(DONE) is True:
                    self.done = True
                elif isinstance(found.get(ROW), int) and found[ROW] > self.last:
                    self._count(found)
                else:
                    break
                self._end += len(line)
        if self.job is None:
            with open(self.path, "rb") as file:
                if not BEGIN.startswith(file.read(len(BEGIN))):
                    raise JobError(f"expected the journal of a job in {self.path}, received another file; move it away")
        os.ftruncate(self._handle, self._end)

    def _count(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        self.failed += "error" in row
        self.truncated += "truncated" in row
        self.last = row[ROW]
        self.example = row.get("answer") if self.example is None else self.example

    def begin(self, job: Mapping[str, Any]) -> None:
        """Say what the job is, and forget what was done before."""
        os.ftruncate(self._handle, 0)
        self._forget()
        self.job = job
        self._write([to_json({JOB: job})])
        sync_folder(self.path.parent)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows that are done, each with its number as ``row``; they are on the disk when this returns.

        Raises:
            JobError: if there is no room. What was done before is kept.
        """
        rows = list(rows)
        self._write([to_json(row) for row in rows])
        for row in rows:
            self._count(row)

    def finish(self) -> None:
        """Say that all rows are done."""
        if not self.done:
            self._write([to_json({DONE: True})])
            self.done = True

    def _write(self, lines: list[str]) -> None:
        data = "".join(line + "\n" for line in lines).encode()
        try:
            os.lseek(self._handle, self._end, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._end)
            raise JobError(
                f"cannot write to {self.path}: {error.strerror or error}; make room and run the same again, "
                f"{self.rows} rows are kept"
            ) from error
        self._end += len(data)

    def read(self) -> Iterator[dict[str, Any]]:
        """The rows that are done."""
        with open(self.path, "rb") as file:
            for line in file:
                found = from_json(line)
                if ROW in found:
                    yield found

    def remove(self) -> None:
        """Remove the file: the job is over."""
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError:  # Windows removes no open file
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._is_open:
            os.close(self._handle)
        self._is_open = False

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.rows and not self.done:
            with contextlib.suppress(OSError):
                self.remove()
        self._close()


def _locked(path: Path) -> int:
    """The file, open and locked by this process alone."""
    while True:
        if path.exists() and not path.is_file():
            raise JobError(f"expected a file or nothing at {path}, received something else; move it away")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if fcntl is not None:
                _lock(handle, path)
            # Who had the lock may have removed the file in the meantime.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise JobError(
                f"expected to be the only one at this job, another process has {path}; wait for it, or give another "
                "output"
            ) from error
