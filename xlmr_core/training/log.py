"""The log of a run: what was done, a line of JSON for each step and each evaluation, in order.

Its first line says what the run is. A line counts if it is whole; a part of one at the end, which a kill or a full disk
leaves, is cut off, and so is what came behind the checkpoint from which a run goes on. What was best, and how long ago,
is read from here, so that a checkpoint needs to know no more than its step.

The file is locked while a run writes to it. The system holds the lock, so it ends with its process.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_core.atomic_files import sync_folder
from xlmr_core.errors import TrainingError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Log"]

# The keys by which lines are told apart; of a step its learning rate, and the norm of its gradients; and of an
# evaluation: figures of each language, how many examples it has, how many there are in all, how often each label got
# each answer, and by which sign the run seems to have collapsed.
RUN, STEP, EVALUATION, DONE = "run", "step", "evaluation", "done"
RATE, NORM = "learning_rate", "grad_norm"
LANGUAGES, COUNTS, EXAMPLES, CONFUSION, COLLAPSED = "languages", "counts", "examples", "confusion", "collapsed"


class Log:
    """The log of a run.

    Args:
        path: of the file; it is made if it is not there.

    Attributes:
        run: what the run is, as the first line says; none of a new one.
        last: the line of the last step; none before the first.
        evaluations: the lines of evaluations, each with its ``step``, ``evaluation`` and ``languages``.
        done: the line that says that the run is over, if there is one.

    Raises:
        TrainingError: if another process has it, or it cannot be written, or is the file of something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle: int | None = _locked(path)
        except OSError as error:
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"cannot write to {path}: {error.strerror or error}; give the run another folder"
            ) from error
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def _forget(self) -> None:
        self.run: Mapping[str, Any] | None = None
        self.last: Mapping[str, Any] | None = None
        self.evaluations: list[Mapping[str, Any]] = []
        self.done: Mapping[str, Any] | None = None
        self._end = 0

    def _read(self, last_step: int | None = None) -> None:
        """Read what is there, and cut off what is not whole, or stands behind a step."""
        self._forget()
        with open(self.path, "rb") as file:
            for raw in file:
                line = _line(raw)
                if line is None or (self.run is None) != isinstance(line.get(RUN), dict):
                    break
                if last_step is not None and (DONE in line or line.get(STEP, 0) > last_step):
                    break
                self._take(line)
                self._end += len(raw)
        if self.run is None and os.path.getsize(self.path):
            with open(self.path, "rb") as file:
                if not file.readline().startswith(b'{"run": '[: os.path.getsize(self.path)]):
                    raise TrainingError(
                        f"expected the log of a run in {self.path}, received another file; move it away"
                    )
        os.ftruncate(self._open, self._end)

    def _take(self, line: Mapping[str, Any]) -> None:
        if RUN in line:
            self.run = line[RUN]
        elif DONE in line:
            self.done = line
        elif EVALUATION in line:
            self.evaluations.append(line)
        else:
            self.last = line

    @property
    def _open(self) -> int:
        assert self._handle is not None, "the log is closed"
        return self._handle

    def begin(self, run: Mapping[str, Any]) -> None:
        """Say what the run is, and forget what was done before."""
        os.ftruncate(self._open, 0)
        self._forget()
        self.add({RUN: run})
        self.sync()
        sync_folder(self.path.parent)

    def cut(self, step: int) -> None:
        """Forget what came behind a step, and that the run was over."""
        self._read(step)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            TrainingError: if there is no room. What was written before is kept.
        """
        data = f"{json.dumps(line, ensure_ascii=False)}\n".encode()
        try:
            os.lseek(self._open, self._end, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(self._open, view) :]
        except OSError as error:
            raise TrainingError(
                f"cannot write to {self.path}: {error.strerror or error}; make room and run the same again, it goes on "
                "from its last checkpoint"
            ) from error
        self._end += len(data)
        self._take(json.loads(data))

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._open)

    def lines(self) -> Iterator[dict[str, Any]]:
        """All lines but the first."""
        with open(self.path, "rb") as file:
            for raw in file:
                line = _line(raw)
                if line is not None and RUN not in line:
                    yield line

    def evaluation(self, step: int | None) -> Mapping[str, Any]:
        """The line of the evaluation at a step; an empty one where there is none."""
        return next((line for line in self.evaluations if line[STEP] == step), {})

    def close(self) -> None:
        """Let others have the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _line(raw: bytes) -> dict[str, Any] | None:
    """What a line holds, if it is whole and one of ours."""
    try:
        found = json.loads(raw) if raw.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _locked(path: Path) -> int:
    """The file, open and locked by this process alone."""
    if path.exists() and not path.is_file():
        raise TrainingError(f"expected a file or nothing at {path}, received something else; move it away")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # else it is a file system without locks
            os.close(handle)
            raise TrainingError(
                f"expected to be the only one at this run, another process has {path}; wait for it, or give another "
                "folder"
            ) from error
    return handle
