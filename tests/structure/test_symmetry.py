"""The backends have the same files, in them the same classes and functions in the same order, in those the same
methods.

Read from the source, so that no framework is needed. What differs is a row in ``symmetry_<package>.py``, with its
reason; a row that no longer says anything true fails as well.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURE = "xlmr_torch"
# Published prefixes of class names.
PREFIXES = {"xlmr_tf": "TF", "xlmr_flax": "Flax"}
# The method that a framework runs when a layer is called. A pipeline's own ``__call__`` is the same everywhere.
NATIVE = {"xlmr_torch": "forward", "xlmr_tf": "call", "xlmr_flax": "__call__"}
# What the original classes of one framework have and those of another have not; their files are compared, not these.
PUBLISHED = ("published.py", "parts_xlm_roberta.py", "parts_xlm_roberta_xl.py")


def outline(package: str) -> list[str]:
    """``file``, ``file:Class``, ``file:Class.method`` and ``file:function`` in source order; private functions and
    methods stay private, and the overloads of one are one.
    """
    every = [entry for path in sorted((ROOT / package).glob("*.py")) for entry in _of_file(package, path)]
    return list(dict.fromkeys(every))


def _of_file(package: str, path: Path) -> Iterator[str]:
    yield path.name
    if path.name in PUBLISHED:
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            name = f"{path.name}:{node.name.removeprefix(PREFIXES.get(package, ''))}"
            yield name
            yield from (f"{name}.{_method(package, part.name)}" for part in node.body if _is_public(part))
        elif _is_public(node):
            yield f"{path.name}:{node.name}"


def _is_public(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__")


def _method(package: str, name: str) -> str:
    return "__call__" if name == NATIVE[package] else name


def differences(package: str) -> dict[str, str]:
    """Reasons by entry: ``-entry`` is only in the measure, ``+entry`` only in the package. A file or class stands for
    all that is in it.
    """
    return dict(importlib.import_module(f"tests.structure.symmetry_{package}").DIFFERENCES)


def covered(entry: str, rows: set[str]) -> bool:
    file, _, rest = entry.partition(":")
    return bool(rows & {entry, file, f"{file}:{rest.partition('.')[0]}"})


@pytest.mark.parametrize("package", PREFIXES)
def test_what_differs_has_a_reason(package: str) -> None:
    measure, own, rows = outline(MEASURE), outline(package), differences(package)
    assert all(len(reason) > 10 for reason in rows.values())
    missing, added = set(measure) - set(own), set(own) - set(measure)
    gone = {row[1:] for row in rows if row[0] == "-"}
    new = {row[1:] for row in rows if row[0] == "+"}
    assert [entry for entry in measure if entry in missing and not covered(entry, gone)] == []
    assert [entry for entry in own if entry in added and not covered(entry, new)] == []
    assert gone <= missing and new <= added, f"rows without an object: {sorted((gone - missing) | (new - added))}"


@pytest.mark.parametrize("package", PREFIXES)
def test_what_is_the_same_comes_in_the_same_order(package: str) -> None:
    measure, own = outline(MEASURE), outline(package)
    both = set(measure) & set(own)
    assert [entry for entry in measure if entry in both] == [entry for entry in own if entry in both]
