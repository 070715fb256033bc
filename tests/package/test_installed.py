"""What an installed wheel can do, away from the source, offline. ``nox -s package`` copies this file beside a fresh
environment and runs it there; it is no part of an ordinary test run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(os.environ["XLMR_SOURCE"])
PACKAGES = ("xlmr_core", "xlmr_torch", "xlmr_tf", "xlmr_flax")
SENTENCES = (
    "Plants create <mask> through a process known as photosynthesis.",
    "Bonjour, je suis un modèle <mask>.",
)
OFFLINE = """
import socket
def refuse(*arguments, **options):
    raise AssertionError("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
"""


def installed(package: str) -> Path:
    import importlib.util

    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_the_installed_one_and_typed(package):
    folder = installed(package)
    assert SOURCE not in folder.parents or ".nox" in folder.parts
    assert folder.parent == Path(importlib.metadata.distribution("xlmr").locate_file("")).resolve()
    assert (folder / "py.typed").is_file()


def test_every_module_of_the_source_is_in_the_wheel_and_nothing_else():
    for package in PACKAGES:
        in_source = {path.relative_to(SOURCE) for path in (SOURCE / package).rglob("*.py")}
        in_wheel = {path.relative_to(installed(package).parent) for path in installed(package).rglob("*.py")}
        assert in_wheel == in_source


def test_the_page_of_the_server_is_in_the_wheel():
    place = Path("xlmr_core", "serving", "page")
    here, there = installed("xlmr_core").parent / place, SOURCE / place
    names = {path.name for path in there.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}
    assert {path.name for path in here.iterdir() if path.is_file()} == {*names, "__init__.py"} and len(names) == 9
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)


def test_the_built_in_checkpoints_are_those_of_the_source():
    from xlmr_core.hub import BUILT_IN

    assert {folder.name for folder in (installed("xlmr_core") / "data").iterdir()} == set(BUILT_IN)
    for model in BUILT_IN:
        here, there = installed("xlmr_core") / "data" / model, SOURCE / "weights" / model
        names = {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
        assert {path.relative_to(here) for path in here.rglob("*") if path.is_file()} == names
        assert Path("config.json") in names
        for name in names:
            assert (here / name).read_bytes() == (there / name).read_bytes()


def test_metadata():
    metadata = importlib.metadata.metadata("xlmr")
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"torch", "tf", "flax", "hub", "completion", "tables", "train", "serve", "onnx", "onnx-runtime"}
    assert set(metadata.get_all("Provides-Extra")) == extras | {"all", "dev"}
    files = importlib.metadata.files("xlmr")
    assert any(path.name == "LICENSE" for path in files)
    assert not any(path.parts[0] in ("tests", "weights", "docs", "examples") for path in files)


@pytest.mark.parametrize("tokenizer", ["XLMRobertaTokenizer", "XLMRobertaTokenizerFast"])
def test_a_tokenizer_alone_needs_no_framework(tokenizer, tmp_path):
    code = OFFLINE + (
        f"import sys; from xlmr_core.tokenization import {tokenizer} as T\n"
        "t = T.from_pretrained('xlmr-mini')\n"
        "assert t.decode(t('Bonjour, je suis un modèle.')['input_ids'], skip_special_tokens=True) == 'Bonjour, je suis "
        "un modèle.'\n"
        "assert not {'torch', 'tensorflow', 'jax', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_the_main_job_in_python_offline(tmp_path):
    code = OFFLINE + (
        "import json, sys; from xlmr_torch import pipeline\n"
        "answers = pipeline(task='fill-mask')(sys.argv[1:], batch_size=2)\n"
        "print(json.dumps(answers))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *SENTENCES], cwd=tmp_path, check=True, timeout=120, stdout=subprocess.PIPE
    )
    answers = json.loads(done.stdout)
    assert [len(answer) for answer in answers] == [5, 5]
    for answer in answers:
        scores = [candidate["score"] for candidate in answer]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1


def test_the_main_job_on_the_command_line(tmp_path):
    command = shutil.which("xlmr", path=str(Path(sys.executable).parent))
    assert command is not None
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}
    done = subprocess.run(
        [command, "run", "--task", "fill-mask"],
        input="\n".join(SENTENCES).encode(),
        cwd=tmp_path,
        env={**env, "HF_HUB_OFFLINE": "1", "LC_ALL": "C"},
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = done.stdout.decode().strip().split("\n\n")
    assert first.splitlines()[0] == SENTENCES[0]
    assert second.splitlines()[0] == SENTENCES[1]
    assert len(first.splitlines()) == len(second.splitlines()) == 6


@pytest.mark.parametrize("format", ["tf", "flax", "keras"])
def test_a_checkpoint_of_another_framework_is_written_without_that_framework(format, tmp_path):
    code = OFFLINE + (
        "import sys; from xlmr_core.cli import main\n"
        f"assert main(['convert', 'xlmr-mini', 'converted', '--to', {format!r}, '--verify']) == 0\n"
        "assert main(['doctor', 'converted']) == 0\n"
        "assert not {'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, timeout=120)
