"""One wording: the text of an error stands in one package. What two backends would say is the core's to say."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("xlmr_core", "xlmr_torch", "xlmr_tf", "xlmr_flax")
# A shorter text is a word that any two messages may share.
FEWEST_LETTERS = 20


def raised_texts(source: str) -> Iterator[str]:
    """The text of each error that a source raises, `{}` in the place of a value."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                text = as_text(argument)
                if text is not None and len(text.replace("{}", "")) >= FEWEST_LETTERS:
                    yield text


def as_text(node: ast.expr) -> str | None:
    """The text of a literal."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('raise ValueError("expected a longer text here")', ["expected a longer text here"]),
        ('raise E(f"expected {1} number, " f"received {x}")', ["expected {} number, received {}"]),
        ('raise ValueError("too short")', []),
        ("raise error", []),
    ],
)
def test_texts_are_found(source: str, texts: list[str]) -> None:
    assert list(raised_texts(source)) == texts


def test_no_raised_text_stands_in_two_packages() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for text in raised_texts(file.read_text(encoding="utf-8")):
                places[text].add(str(file.relative_to(ROOT)))
    shared = {text: sorted(files) for text, files in places.items() if len({f.split("/")[0] for f in files}) > 1}
    assert len(places) > 100
    assert not shared, "\n".join(f"{', '.join(files)}: {text}" for text, files in sorted(shared.items()))
