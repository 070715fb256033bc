"""The checkpoints of a run: a folder each, which is there whole or not at all.

A checkpoint is written beside the others under a name that does not count, brought to the disk, and renamed; that is
the moment from which it counts. It is renamed again before it is removed. So a kill at any moment leaves whole
checkpoints, and perhaps a folder whose name begins with a point, which the next start removes. What a checkpoint holds
is the backend's to say: ``write`` and ``read`` are given a folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from xlmr_core.atomic_files import saving_to, sync_folder
from xlmr_core.bounded_files import read_json

__all__ = ["Checkpoints"]

NAME = re.compile(r"step-(0|[1-9]\d*)")
# In the folder of a checkpoint: its step, and the files that it has, with their sizes.
CONTENT = "checkpoint.json"
# What is not a checkpoint yet, and what is none any more.
PART, OLD = ".part", ".old"


class Checkpoints:
    """The folder that holds the checkpoints of a run. One process at a time has it; see ``log.py``.

    Args:
        folder: of the checkpoints; it is made with the first.
        keep: how many of the newest stay. The best one stays besides.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def place(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def steps(self) -> list[int]:
        """The steps of the whole checkpoints, the oldest first. One that lost a file, or a part of one, is none."""
        if not self.folder.is_dir():
            return []
        found = (NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(step for step in (int(name[1]) for name in found if name) if _is_whole(self.place(step), step))

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """Make the checkpoint of a step.

        Args:
            step: how many steps are done.
            write: writes it into a folder.

        Raises:
            CheckpointError: if there is no room. The checkpoints before it are intact.
        """
        part, place = self.folder / f".step-{step}{PART}", self.place(step)
        with saving_to(self.folder, f"the checkpoint of step {step}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove(part)
            part.mkdir()
            try:
                write(part)
                sizes = {path.relative_to(part).as_posix(): path.stat().st_size for path in _files(part)}
                (part / CONTENT).write_text(json.dumps({"step": step, "files": sizes}), encoding="utf-8")
                _settle(part)
            except BaseException:
                _remove(part)
                raise
            if place.exists():  # a damaged one
                self._retire(place)
            os.replace(part, place)
            sync_folder(self.folder)

    def prune(self, best: int | None) -> None:
        """Remove the checkpoints that are neither among the newest nor the best, and what kills have left.

        Args:
            best: the step of the best one, if one is known.
        """
        _remove(self._cleared)
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(".step-*"):
            if path.name.endswith((PART, OLD)):
                _remove(path)
        for step in self.steps()[: -self.keep]:
            if step != best:
                self._retire(self.place(step))

    def clear(self) -> None:
        """Remove all of them."""
        _remove(self._cleared)
        if self.folder.is_dir():
            os.replace(self.folder, self._cleared)
            _remove(self._cleared)

    @property
    def _cleared(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}{OLD}")

    def _retire(self, place: Path) -> None:
        old = place.with_name(f".{place.name}{OLD}")
        _remove(old)
        os.replace(place, old)
        _remove(old)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _settle(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk."""
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def _is_whole(place: Path, step: int) -> bool:
    try:
        content = read_json(place / CONTENT)
        return bool(content["step"] == step) and all(
            (place / name).stat().st_size == size for name, size in content["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
