"""The modules of a sentence-transformers folder: the list, and the small files in the folders that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_core.bounded_files import read_json, why
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.finding import MODULES
from xlmr_core.wording import shown

__all__ = ["listed_modules", "module_files", "small_content"]

# Bytes of a file that is read to be copied.
_LARGEST = 256 << 20


def listed_modules(folder: Path) -> list[dict[str, Any]]:
    """The list of modules of a folder.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        modules = read_json(folder / MODULES)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / MODULES} is not valid JSON ({why(error)}); fetch or save it again") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{folder / MODULES} must hold a list of modules; fetch or save it again")
    return modules


def module_files(folder: Path, transformer: Path) -> Iterator[tuple[str, bytes]]:
    """The files in the folders that a list of modules names, and the list itself, with the transformer at the top.

    Raises:
        CheckpointError: if the list is damaged, or names a folder elsewhere, or a file is no small one.
    """
    modules = listed_modules(folder)
    flat = [
        {**module, "path": "" if folder / str(module.get("path")) == transformer else module.get("path")}
        for module in modules
    ]
    text = json.dumps(flat, indent=2, ensure_ascii=False).encode()
    yield MODULES, small_content(folder / MODULES) if flat == modules else text
    for module in flat:
        name = str(module.get("path") or "")
        if not name:
            continue
        if Path(name).name != name or "\\" in name:
            raise CheckpointError(
                f"{folder / MODULES} names the folder {shown(name)}; expected a name in the same folder"
            )
        for path in sorted((folder / name).glob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield f"{name}/{path.name}", small_content(path)


def small_content(path: Path) -> bytes:
    """The bytes of a file that is copied as it is.

    Raises:
        CheckpointError: if it is too large to be one.
    """
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, too many for a file that is copied; remove it")
    return path.read_bytes()
