"""Writing what stands beside weights, and the hashes by which a test knows that they are the published ones."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of every file in a folder and those below it, by its path there."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_manifest(path: Path, entries: dict[str, Any]) -> None:
    """Write entries of models into the manifest, in place of those that are there under their names."""
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write(path, json.dumps({**there, **entries}, indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """Replace a text file at once, so that an interrupted call leaves the old one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
