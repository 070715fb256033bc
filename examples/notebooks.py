"""The recipes as notebooks, one for each script of ``torch/``, ``tf/`` and ``flax/``.

    python examples/notebooks.py notebooks      # writes notebooks/torch/text_classification.ipynb and the others

A notebook has the script's own lines in cells, under what its docstring says. What stands behind the name of a script
on the command line is a list there. Without a folder they are made and not written.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BACKENDS = ("torch", "tf", "flax")
PARSING = "parser.parse_args()"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def blocks(script: str) -> list[str]:
    """The statements of a script without its docstring, those between two blank lines together, and all imports."""
    lines, body = script.splitlines(), ast.parse(script).body[1:]
    body = [one for one in body if not (isinstance(one, ast.ImportFrom) and one.module == "__future__")]
    begins = [body[0].lineno - 1]
    for before, after in pairwise(body):
        are_imports = all(isinstance(one, ast.Import | ast.ImportFrom) for one in (before, after))
        if not are_imports and not all(line.strip() for line in lines[before.end_lineno : after.lineno - 1]):
            begins.append(before.end_lineno)
    return ["\n".join(lines[begin:end]).strip("\n") for begin, end in pairwise([*begins, len(lines)])]


def notebook(script: str) -> dict[str, Any]:
    """A notebook of a script, as its file in JSON holds it (nbformat 4.5)."""
    said = ast.get_docstring(ast.parse(script)) or ""
    line = re.search(r"^ +python \S+\.py (.*)$", said, re.MULTILINE)
    words = line[1].split() if line else []
    cells = [{"cell_type": "markdown", "source": f"# {said}".replace("``", "`")}]
    for block in blocks(script):
        given = block.replace(PARSING, f"parser.parse_args({json.dumps(words)})")
        cells.append({"cell_type": "code", "source": given, "execution_count": None, "outputs": []})
    return {
        "cells": [{"id": f"cell-{number}", "metadata": {}, **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": KERNEL, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def notebooks() -> dict[str, dict[str, Any]]:
    """All of them, by their place in a folder."""
    scripts = [path for backend in BACKENDS for path in sorted((HERE / backend).glob("*.py"))]
    return {f"{path.parent.name}/{path.stem}.ipynb": notebook(path.read_text(encoding="utf-8")) for path in scripts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where to write them")
    folder = parser.parse_args().folder
    made = notebooks()
    for place, content in made.items() if folder is not None else ():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(made)} notebooks" + (f" in {folder}" if folder is not None else "; name a folder to write them"))


if __name__ == "__main__":
    main()
