"""The zip of a function: `nox -s function` builds it with pip, weighs it, and asks the unpacked one in as much memory
and time as Lambda gives it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "lambda"
TEXT = "Ich weiß es <mask>."


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["float32", "int8"])
def unpacked(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    scheme = ["--scheme", "int8"] if request.param == "int8" else []
    said = run("build_zip.py", "xlmr-mini", str(folder / "function.zip"), "--task", "fill-mask", *scheme)
    print(f"\n{request.param}\n{said}")
    with zipfile.ZipFile(folder / "function.zip") as file:
        file.extractall(folder / "function")
    return folder / "function"


def test_it_is_small_enough_and_has_no_framework(unpacked):
    total = sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file())
    assert total < 250 * 2**20
    names = {path.name.partition("-")[0] for path in unpacked.iterdir()}
    assert {"xlmr_core", "onnxruntime", "numpy", "model"} <= names
    assert not names & {"torch", "tensorflow", "jax", "starlette"}


@pytest.mark.parametrize("memory", [512, 1024])
def test_it_answers_in_that_memory(unpacked, memory):
    found = json.loads(run("measure.py", str(unpacked), "--task", "fill-mask", "--memory", str(memory), "--text", TEXT))
    print(found)
    assert found["peak"] < memory and found["warm"] < found["cold"] < 60
