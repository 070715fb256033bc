"""Names to folders: local, built in, on the hub (played by a small server here), and every way in which there
is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from xlmr_core import hub, hub_answers
from xlmr_core.arguments import HUB_ARGUMENTS
from xlmr_core.config import AutoConfig
from xlmr_core.errors import ModelNotFoundError
from xlmr_core.hub import BUILT_IN, DEFAULT_MODEL, resolve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder: a name must not be found by accident."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


# Folders


def test_an_existing_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "here" / "my-model"
    model.mkdir()
    for path in (model, str(model), "my-model", "./my-model", "../here/my-model"):
        assert resolve(path).resolve() == model
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    assert resolve("~/my-model") == model


def test_a_folder_wins_over_built_in_and_hub_names(tmp_path: Path) -> None:
    for name in ("xlmr-mini", "org/model", "xlmr-mni"):
        (tmp_path / "here" / name).mkdir(parents=True)
        assert resolve(name) == Path(name)


def test_a_subfolder_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "here" / "model" / "inner").mkdir(parents=True)
    assert resolve("model", subfolder="inner") == Path("model/inner")
    with pytest.raises(ModelNotFoundError, match="model has no subfolder 'outer'"):
        resolve("model", subfolder="outer")


# Built in


def test_the_built_in_model_is_there() -> None:
    assert DEFAULT_MODEL in BUILT_IN
    assert (resolve(DEFAULT_MODEL) / "sentencepiece.bpe.model").is_file()
    for name in BUILT_IN:
        assert (resolve(name) / "config.json").is_file()
        assert not resolve(name).is_relative_to(Path.cwd())


@pytest.mark.parametrize(
    ("present", "expected"),
    [(("data", "weights"), "data"), (("data",), "data"), (("weights",), "weights")],
    ids=["wheel beside a checkout", "wheel", "checkout"],
)
def test_package_data_comes_before_the_checkout(
    present: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in present:
        (tmp_path / place / "xlmr-mini").mkdir(parents=True)
    monkeypatch.setattr(hub, "_BUILT_IN_FOLDERS", (tmp_path / "data", tmp_path / "weights"))
    assert resolve("xlmr-mini") == tmp_path / expected / "xlmr-mini"


def test_the_places_are_the_package_and_the_checkout() -> None:
    package = Path(hub.__file__).parent
    assert (package / "data", package.parent / "weights") == hub._BUILT_IN_FOLDERS


def test_an_installation_without_the_built_in_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_BUILT_IN_FOLDERS", (tmp_path / "data", tmp_path / "weights"))
    with pytest.raises(ModelNotFoundError, match="built-in model 'xlmr-mini' is missing from this installation"):
        resolve("xlmr-mini")


# Names that cannot be


NO_NAMES = ["./nowhere", "../nowhere", "/no/where", "~/nowhere", "a/b/c", "a\\b", "C:\\models\\x", "model/", "org/.."]


@pytest.mark.parametrize("name", [*NO_NAMES, "a b", "ünï/x", "-x", "x" * 97, "org/model--x"])
def test_what_looks_like_a_path_is_refused_as_one(name: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match="expected a folder with a model at .*found nothing there; check the path"
    ) as caught:
        resolve(name)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "name",
    [
        "xlmr-min",
        "xlmr-minii",
        "xlmrmini",
        "xlmr-mimi",
        "xlrm-mini",
        "xlmr_mini",
        "XLMR-Mini",
        "lmr-mini",
        "xlmr-mini2",
        "xlmr-mixi",
    ],
)
def test_one_edit_from_a_built_in_name_is_asked_back(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"received '{name}'; did you mean 'xlmr-mini'"):
        resolve(name)


@pytest.mark.parametrize(
    "name", ["xlmr", "xlmr-mi", "mini", "xlmr-large", "xlm-roberta-base", "org/xlmr-mini", "imin-rmlx"]
)
def test_other_names_are_no_misspellings(name: str) -> None:
    assert not hub._one_edit_apart(name, "xlmr-mini")


def test_an_empty_name_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="received an empty name"):
        resolve("")
    file = tmp_path / "here" / "model.safetensors"
    file.write_text("x")
    with pytest.raises(ModelNotFoundError, match=r"received the file model\.safetensors; pass its folder"):
        resolve("model.safetensors")


# The hub


def test_the_arguments_are_those_of_resolve() -> None:
    import inspect

    assert set(HUB_ARGUMENTS) == set(inspect.signature(resolve).parameters) - {"name_or_path", "patterns"}


def in_a_process(code: str, **variables: str) -> str:
    """Run code with a hub of its own: huggingface_hub reads its variables when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "*",
        "no_proxy": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ASK = """
from xlmr_core.errors import XLMRError
from xlmr_core.hub import resolve
for name, arguments in {calls!r}:
    try:
        print(resolve(name, **arguments))
    except XLMRError as error:
        print(type(error).__name__, error)
"""


def test_the_hub_package_is_imported_for_hub_names_only() -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None  # importing it raises ImportError
from xlmr_core.errors import MissingBackendError, ModelNotFoundError
from xlmr_core.hub import resolve
resolve("."), resolve("xlmr-mini")
absent = (("org/model", MissingBackendError), ("some-model", MissingBackendError), ("./no", ModelNotFoundError))
for name, kind in absent:
    try:
        resolve(name)
    except kind as error:
        print(error)
"""
    lines = in_a_process(code).splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("org/model", "some-model"), strict=False):
        assert line.startswith(f"'{name}' is no folder here and no built-in model ({', '.join(BUILT_IN)}); ")
        assert "pip install 'xlmr[hub]'" in line


COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "xlm-roberta", "hidden_size": 24}',
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle that nobody needs",
    "inner/config.json": b'{"model_type": "roberta"}',
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download needs."""

    asked: ClassVar[list[str]] = []

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        type(self).asked.append(path)
        if "org/gated" in path:
            return self.answer(403, X_Error_Code="GatedRepo")
        if "org/model" not in path:
            return self.answer(401, X_Error_Code="RepoNotFound")
        if path.startswith("/api/") and "v9" in path:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if path.startswith("/api/"):
            listing: Any = {"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            if "/tree/" in path:
                listing = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in FILES.items()
                ]
            return self.answer(200, json.dumps(listing).encode(), Content_Type="application/json")
        data = FILES[path.split(f"/resolve/{COMMIT}/")[1]]
        return self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[str]:
    pytest.importorskip("huggingface_hub")
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def ask(server: str, cache: Path, *calls: tuple[str, dict[str, Any]], offline: bool = False) -> list[str]:
    """What calls of ``resolve`` return or raise, all in one process."""
    code = ASK.format(calls=[(name, {"cache_dir": str(cache), **arguments}) for name, arguments in calls])
    variables = {"HF_ENDPOINT": server, "HF_HOME": str(cache / "home"), "HF_HUB_OFFLINE": "1" if offline else "0"}
    return in_a_process(code, **variables).splitlines()


def files_in(folder: str | Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file())


def test_a_model_is_fetched_without_what_nobody_needs_and_found_offline_after(server: str, tmp_path: Path) -> None:
    (folder,) = ask(server, tmp_path, ("org/model", {}))
    assert Path(folder).is_relative_to(tmp_path)
    assert files_in(folder) == ["config.json", "inner/config.json", "model.safetensors"]
    assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"
    assert AutoConfig.from_pretrained(folder).hidden_size == 24
    Hub.asked = []
    calls: list[tuple[str, dict[str, Any]]] = [
        ("org/model", {}),
        ("org/model", {"subfolder": "inner"}),
        ("org/model", {"revision": "main"}),
    ]
    assert ask(server, tmp_path, *calls, offline=True) == [folder, f"{folder}/inner", folder]
    assert ask(server, tmp_path, ("org/model", {"local_files_only": True})) == [folder]
    assert Hub.asked == [], "offline asks nobody"


def test_only_the_files_asked_for_are_fetched(server: str, tmp_path: Path) -> None:
    config = {"patterns": ("config.json",)}
    folder, missing = ask(server, tmp_path / "a", ("org/model", config), ("org/model", {"patterns": ("*.onnx",)}))
    assert files_in(folder) == ["config.json"]
    assert missing.startswith("ModelNotFoundError 'org/model' on the hub has no *.onnx")
    (inner,) = ask(server, tmp_path / "b", ("org/model", {**config, "subfolder": "inner"}))
    assert (Path(inner).name, files_in(Path(inner).parent)) == ("inner", ["inner/config.json"])
    assert not any("model.safetensors" in path or "pytorch" in path for path in Hub.asked)


LOOKED_FOR = f"is no folder here and no built-in model ({', '.join(BUILT_IN)})"


def test_what_the_hub_does_not_have(server: str, tmp_path: Path) -> None:
    expected: list[tuple[str, dict[str, Any], str]] = [
        ("org/none", {}, f"'org/none' {LOOKED_FOR}, and the hub has none of that name; check the spelling"),
        ("org/model", {"revision": "v9"}, "'org/model' on the hub has no revision 'v9'; check the spelling"),
        ("org/gated", {}, "'org/gated' on the hub wants an agreement; accept it on its page"),
        ("org/model", {"subfolder": "outer"}, "'org/model' on the hub has no outer/*.json"),
    ]
    answers = ask(server, tmp_path, *((name, arguments) for name, arguments, _ in expected))
    for answer, (_, _, message) in zip(answers, expected, strict=True):
        assert answer.startswith(f"ModelNotFoundError {message}")


@pytest.mark.parametrize("offline", [True, False], ids=["variable", "argument"])
def test_offline_without_a_download_says_what_to_do(offline: bool, server: str, tmp_path: Path) -> None:
    names = ("org/model", "xlm-roberta-base", "nonsense")
    calls: list[tuple[str, dict[str, Any]]] = [(name, {} if offline else {"local_files_only": True}) for name in names]
    for name, answer in zip(names, ask(server, tmp_path, *calls, offline=offline), strict=True):
        assert answer.startswith(f"ModelNotFoundError '{name}' {LOOKED_FOR}, it was not (or not wholly) downloaded")
        assert "the hub is switched off (local_files_only or HF_HUB_OFFLINE); download it once" in answer
    assert Hub.asked == []


def test_a_hub_that_cannot_be_reached_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    (message,) = ask("http://127.0.0.1:9", tmp_path, ("org/model", {}))
    assert message.startswith(f"ModelNotFoundError 'org/model' {LOOKED_FOR}")
    assert "the hub cannot be reached; download it once with a connection, or pass the folder that holds it" in message


class Liar(Hub):
    """A hub that breaks off, leads elsewhere, or says nothing that makes sense, as the name of the model asks for."""

    def do_GET(self) -> None:
        kind = self.path.partition("org/")[2].partition("/")[0].partition("?")[0]
        if kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id": "org/model"')
        elif kind == "file":
            self.answer(302, Location="file:///etc/passwd")
        elif kind == "circle":
            self.answer(302, Location=self.path)
        elif kind == "gone":
            self.connection.close()
        elif kind == "escape":
            self.answer(500, b'{"error": "a\\u001b[31m\\nxlmr: forged"}', X_Error_Message="a\x1b[31mred")
        else:
            self.answer(200, {"null": b"null", "list": b"[]", "text": b"<html>", "none": b"", "id": b"{}"}[kind])

    do_HEAD = do_GET


LIES = ("cut", "file", "circle", "null", "list", "text", "none", "id")


def test_a_hub_that_lies_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{running.server_port}"
        answers = ask(at, tmp_path, *((f"org/{kind}", {}) for kind in LIES))
        running.shutdown()
    for kind, answer in zip(LIES, answers, strict=True):
        assert answer.startswith(f"ModelNotFoundError 'org/{kind}' {LOOKED_FOR}, and fetching it from the hub failed: ")
        assert answer.endswith("; check the connection and try again, or pass the folder that holds it")


def test_a_hub_that_does_not_answer_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub_answers, "PATIENCE", 0.2)
    ended = threading.Event()
    with pytest.raises(hub_answers.Silence, match="nothing came for 0 s"):
        hub_answers.within_patience(lambda: ended.wait(20))
    assert hub_answers.is_left_alone()
    ended.set()
    (tmp_path / "blobs").mkdir()

    def slow() -> str:
        for number in range(8):
            ended.wait(0.1) and time.sleep(0.1)
            (tmp_path / "blobs" / str(number)).write_bytes(b"1")
        return "done"

    assert hub_answers.within_patience(slow, tmp_path) == "done"
    with pytest.raises(ZeroDivisionError):
        hub_answers.within_patience(lambda: 1 // 0)
    assert not hub_answers.is_left_alone()


def test_what_libraries_say_is_cut_to_a_line() -> None:
    assert hub_answers.first_line(ValueError("\n a\x1b[31m\nb")) == "a\\x1b[31m"
    assert hub_answers.first_line(ValueError()) == "ValueError"
    assert len(hub_answers.first_line(ValueError("x" * 10**6))) <= 300
