"""Every module path that a document names is promised (docs/compatibility.md), so it is in the frozen lists, and
nothing else is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.structure.surface import DOCUMENTED, FROZEN, PACKAGES
from tests.structure.test_dependencies import ROOT, is_module

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
IMPORT = re.compile(r"\bfrom (xlmr_(?:core|torch|tf|flax)(?:\.\w+)*) import (\([^)]*\)|[^\n]+)")
PATH = re.compile(r"\bxlmr_(?:core|torch|tf|flax)(?:\.\w+)+")


def named(text: str) -> set[str]:
    """Every path below a package that a text names: a module, or something in a module."""
    imported = {f"{module}.{name}" for module, names in IMPORT.findall(text) for name in re.findall(r"\w+", names)}
    return imported | set(PATH.findall(text))


def module_of(path: str) -> str:
    while not is_module(path):
        path = path.rpartition(".")[0]
    return path


def frozen(package: str) -> set[str]:
    lines = (FROZEN / f"{package}.txt").read_text(encoding="utf-8").splitlines()
    return {re.split(r"[ (:]", line, maxsplit=1)[0] for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_what_a_document_names_is_promised(document: Path) -> None:
    promised = {*PACKAGES, *DOCUMENTED}.union(*map(frozen, PACKAGES))
    paths = named(document.read_text(encoding="utf-8"))
    assert not paths - promised, "add them to DOCUMENTED and run: python tests/structure/surface.py"


def test_what_is_promised_is_named_in_a_document() -> None:
    paths = set().union(*(named(document.read_text(encoding="utf-8")) for document in DOCUMENTS))
    assert {module_of(path) for path in paths} - set(PACKAGES) == set(DOCUMENTED)


def test_reading_sees_imports_of_every_shape() -> None:
    text = "from xlmr_tf.datasets import (\n    tokenized,\n    more,\n)\nas `xlmr_torch.int8.HAS_FAST_PRODUCT` says"
    assert named(text) == {
        "xlmr_tf.datasets",
        "xlmr_tf.datasets.tokenized",
        "xlmr_tf.datasets.more",
        "xlmr_torch.int8.HAS_FAST_PRODUCT",
    }
