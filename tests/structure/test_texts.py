"""One wording: the text of an error stands in one package. What two backends would say is the core's to say."""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("xlmr_core", "xlmr_torch", "xlmr_tf", "xlmr_flax")
# A shorter text is a word that any two messages may share.
FEWEST_LETTERS = 20
# Nearly the same is only said of texts of at least so many letters, which differ in length by a fifth at most and are
# alike by this ratio of difflib.
FEWEST_TO_COMPARE = 30
ALIKE = 0.9

Function = ast.FunctionDef | ast.AsyncFunctionDef


def raised_texts(source: str) -> Iterator[str]:
    """The text of each error that a source raises, `{}` in the place of a value. A name counts as the text that is
    assigned to it last in the function that raises, or else in the module.
    """
    module = ast.parse(source)
    for function, raised in _raises(module, None):
        names = _assigned(module.body) | (_assigned(ast.walk(function)) if function else {})
        for argument in raised.args:
            text = as_text(argument, names)
            if text is not None and _letters(text) >= FEWEST_LETTERS:
                yield text


def as_text(node: ast.expr, names: Mapping[str, ast.expr] | None = None) -> str | None:
    """The text of a literal, of a sum of literals, and of a name in ``names``; `{}` is what a sum has beside them."""
    match node:
        case ast.JoinedStr():
            return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        case ast.BinOp(op=ast.Add()):
            sides = [as_text(side, names) for side in (node.left, node.right)]
            return None if sides == [None, None] else "".join("{}" if side is None else side for side in sides)
        case ast.Name() if names and node.id in names:
            return as_text(names[node.id])
        case ast.Constant(value=str()):
            return node.value
    return None


def _raises(node: ast.AST, function: Function | None) -> Iterator[tuple[Function | None, ast.Call]]:
    """The calls that are raised, each with the function that it stands in."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield function, node.exc
    for child in ast.iter_child_nodes(node):
        yield from _raises(child, node if isinstance(node, Function) else function)


def _assigned(nodes: Iterator[ast.AST] | list[ast.stmt]) -> dict[str, ast.expr]:
    """What names are assigned, by name."""
    return {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _letters(text: str) -> int:
    return len(text.replace("{}", ""))


@cache
def texts() -> dict[str, set[str]]:
    """The files in which each text is raised."""
    places: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for text in raised_texts(file.read_text(encoding="utf-8")):
                places[text].add(str(file.relative_to(ROOT)))
    return dict(places)


def are_alike(a: str, b: str) -> bool:
    if max(len(a), len(b)) > 1.2 * min(len(a), len(b)):
        return False
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    return matcher.real_quick_ratio() >= ALIKE and matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('raise ValueError("expected a longer text here")', ["expected a longer text here"]),
        ('raise E(f"expected {1} number, " f"received {x}")', ["expected {} number, received {}"]),
        ('raise E("expected a number, " + f"received {x}" + tail)', ["expected a number, received {}{}"]),
        ('said = "expected a longer text here"\nraise E(said)', ["expected a longer text here"]),
        (
            'def f():\n    said = f"expected {1} longer text"\n    if x:\n        raise E(said + "; leave it out")',
            ["expected {} longer text; leave it out"],
        ),
        ('def f():\n    said = "expected a longer text here"\ndef g():\n    raise E(said)', []),
        ('raise ValueError("too short")', []),
        ("raise error", []),
    ],
)
def test_texts_are_found(source: str, texts: list[str]) -> None:
    assert list(raised_texts(source)) == texts


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ("pass inputs that are tensors of PyTorch", "pass inputs that are tensors of Python", True),
        ("pass inputs that are tensors of PyTorch", "expected one mask, received another one", False),
        ("pass inputs that are tensors of PyTorch", "pass inputs that are tensors of PyTorch, and a mask", False),
    ],
)
def test_alike(a: str, b: str, alike: bool) -> None:
    assert are_alike(a, b) is alike


def test_no_raised_text_stands_in_two_packages() -> None:
    shared = {text: sorted(files) for text, files in texts().items() if len(_packages(files)) > 1}
    assert len(texts()) > 100
    assert not shared, "\n".join(f"{', '.join(files)}: {text}" for text, files in sorted(shared.items()))


def test_no_two_packages_say_nearly_the_same() -> None:
    long = [(text, _packages(files)) for text, files in sorted(texts().items()) if _letters(text) >= FEWEST_TO_COMPARE]
    pairs = combinations(long, 2)
    alike = {(a, b) for (a, here), (b, there) in pairs if len(here | there) > 1 and are_alike(a, b)}
    assert len(long) > 100
    assert not alike, "\n".join(
        f"{', '.join(sorted(texts()[a] | texts()[b]))}:\n  {a}\n  {b}" for a, b in sorted(alike)
    )


def _packages(files: set[str]) -> set[str]:
    return {file.split("/")[0] for file in files}
