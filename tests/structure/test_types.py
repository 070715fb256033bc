"""Editors and type checkers know what a user holds: two checkers read a user's script and agree with every line."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_overloads, get_type_hints

import pytest

from tests.structure.surface import PACKAGES, installed
from xlmr_core.outputs import OUTPUT_TYPES
from xlmr_core.tasks import TASKS, published
from xlmr_core.tasks.options import option_fields

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("typed_script.py")
BACKENDS = [package for package in PACKAGES if package != "xlmr_core"]
# What the script's frameworks bring along and no type in it comes from: read, they would be most of the time.
LEFT_OUT = (
    *("torch._dynamo", "torch._inductor", "torch._refs", "torch._decomp", "torch._export", "torch._functorch"),
    *("torch.ao", "torch.distributed", "torch.export", "torch.fx", "torch.jit", "torch.onnx", "torch.testing"),
    *("jax", "jaxlib", "flax", "optree", "rich", "ml_dtypes"),
)
FOLLOWED = ("jax", "jax._src.basearray")

needs_all = pytest.mark.skipif(not all(map(installed, PACKAGES)), reason="the script uses all three frameworks")


def run(module: str, *arguments: str) -> None:
    """Run a checker on the script, with the packages of this checkout.

    Raises:
        AssertionError: with what it found.
    """
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@needs_all
def test_mypy_agrees_with_the_script(tmp_path: Path) -> None:
    settings = tmp_path / "mypy.ini"
    lines = [
        *("[mypy]", "warn_unused_ignores = true", "python_version = 3.11"),
        *(f"cache_dir = {tmp_path / 'cache'}", "follow_imports_for_stubs = true"),
        *("[mypy-tensorflow.*,keras.*]", "ignore_missing_imports = true"),
        *(f"[mypy-{','.join(f'{name}.*' for name in LEFT_OUT)}]", "follow_imports = skip"),
        *(f"[mypy-{','.join(FOLLOWED)}]", "follow_imports = normal"),
    ]
    settings.write_text("\n".join(lines), encoding="utf-8")
    run("mypy", "--config-file", str(settings), str(SCRIPT))


@needs_all
@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_basedpyright_agrees_with_the_script(tmp_path: Path) -> None:
    settings = {
        "include": [str(SCRIPT)],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "basic",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings), encoding="utf-8")
    run("basedpyright", "-p", str(project), "--pythonpath", sys.executable)


@pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)
def test_every_field_of_an_output_has_a_type(kind: type) -> None:
    assert tuple(vars(kind)["__annotations__"]) == kind.fields  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", TASKS)
def test_every_pipeline_has_its_types(task: str) -> None:
    row = TASKS[task]
    options = {own.name for own in option_fields(row.load().Options)}
    gathered = set(row.load().Options.gathers)
    ways = get_overloads(getattr(published, row.pipeline).__call__)
    assert ways
    for way in ways:
        assert options <= _keywords(way) <= options | gathered, row.pipeline


@pytest.mark.parametrize("package", BACKENDS)
def test_pipeline_tells_its_class_by_the_task(package: str) -> None:
    path = ROOT / package / "pipelines.py"
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    told = {
        ast.unparse(way.args.args[0].annotation or ast.Constant(None)): ast.unparse(way.returns or ast.Constant(None))
        for way in functions
        if way.name == "pipeline" and way.decorator_list
    }
    expected = {f"Literal['{row.name}']": row.pipeline for row in TASKS.values()}
    assert told == {**expected, "str | None": "Pipeline"}


def _keywords(way: Any) -> frozenset[str]:
    """The options of a way to call a pipeline: the keys of what its keywords are unpacked from."""
    (call,) = get_args(get_type_hints(way)["options"])
    assert not call.__required_keys__, "a call may leave any option out"
    return frozenset(call.__optional_keys__)
