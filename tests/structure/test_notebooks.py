"""Recipes as notebooks: every line of the script is there, in cells that run one after the other."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*/*.py"))


def made() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks", EXAMPLES / "notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = made()


def code_of(content: dict[str, Any]) -> list[str]:
    return [cell["source"] for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_notebook_is_its_script(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    content = MAKER.notebooks()[f"{script.parent.name}/{script.stem}.ipynb"]
    first, *cells = content["cells"]
    assert first["cell_type"] == "markdown" and first["source"].startswith("# ") and "``" not in first["source"]
    assert len(cells) >= 5 and len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    joined = "\n\n".join(code_of(content))
    (parsing,) = [line for line in joined.splitlines() if "parse_args(" in line]
    back = joined.replace(parsing, "arguments = parser.parse_args()")
    expected = [one for one in ast.parse(text).body[1:] if getattr(one, "module", "") != "__future__"]
    assert ast.dump(ast.parse(back)) == ast.dump(ast.Module(expected, type_ignores=[]))
    comments = [line.strip() for line in text.splitlines() if line.lstrip().startswith("#")]
    assert all(comment in back for comment in comments)
    # A cell is whole by itself, and what it is given is what the docstring says.
    for cell in code_of(content):
        ast.parse(cell)
    call: Any = ast.parse(parsing.strip()).body[0]
    assert ast.literal_eval(call.value.args[0])[0] == "--output"


def test_they_are_notebooks(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "notebooks.py", tmp_path], check=True, capture_output=True)
    files = sorted(tmp_path.glob("*/*.ipynb"))
    assert len(files) == len(SCRIPTS) > 0
    nbformat = pytest.importorskip("nbformat", reason="the session guests has it")
    for file in files:
        nbformat.validate(nbformat.read(file, as_version=4))
