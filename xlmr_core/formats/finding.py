"""Where a folder keeps its weights, and what a file is by its first bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xlmr_core.bounded_files import DAMAGE, is_there, opened, read_json, why
from xlmr_core.errors import CheckpointError
from xlmr_core.wording import shown

__all__ = ["first_bytes", "in_folder", "refuse_pointer", "transformer_folder"]

MODULES = "modules.json"

_LFS_POINTER = b"version https://git-lfs"


def in_folder(*names: str) -> Callable[[Path], Path | None]:
    """A ``find`` that takes the first of some file names that is there."""

    def find(folder: Path) -> Path | None:
        return next((folder / name for name in names if (folder / name).is_file()), None)

    return find


def transformer_folder(folder: Path) -> Path:
    """Where the transformer of a sentence-transformers folder is; the folder itself if it is none of those.

    Raises:
        CheckpointError: if its ``modules.json`` names no transformer, or a folder outside.
    """
    if not is_there(folder / MODULES):
        return folder
    try:
        modules = read_json(folder / MODULES)
        path = next(row["path"] for row in modules if row["type"].rpartition(".")[2] == "Transformer")
    except (*DAMAGE, StopIteration) as error:
        raise CheckpointError(
            f"{folder / MODULES} names no transformer; pass the folder that holds its config.json and weights"
        ) from error
    if not isinstance(path, str) or Path(path).name != path or "\\" in path:
        raise CheckpointError(
            f"{folder / MODULES} names the folder {shown(path)}; expected the name of a folder beside it"
        )
    return folder / path


def first_bytes(path: Path, count: int = 64) -> bytes:
    """The start of a file.

    Raises:
        CheckpointError: if it cannot be read, is empty, or is a git-LFS pointer.
    """
    try:
        with opened(path) as file:
            start = file.read(count)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"expected a file with weights at {path}, found none; check the folder, or fetch it again"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {why(error)}; check the file and its permissions") from error
    refuse_pointer(path, start)
    return start


def refuse_pointer(path: Path, start: bytes) -> None:
    """Refuse what stands in for weights that were never fetched."""
    if not start:
        raise CheckpointError(f"{path} is empty; fetch or save it again")
    if start.startswith(_LFS_POINTER):
        raise CheckpointError(f"{path} is a git-LFS pointer and not the weights; run 'git lfs pull' in its folder")
