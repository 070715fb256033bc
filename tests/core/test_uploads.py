"""Uploads: what ``push_to_hub`` sends to a hub, which a small server plays here, and every way in which it cannot."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.core.test_hub import in_a_process
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.tokenization import XLMRobertaTokenizerFast


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload needs."""

    made: ClassVar[dict[str, dict[str, Any]]] = {}
    commits: ClassVar[list[dict[str, Any]]] = []

    def answer(self, status: int, **body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer(401, error="Invalid username or password.")
        path = self.path.removeprefix("/api/")
        if path == "repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.made.setdefault(name, asked)  # the first makes it
            return self.answer(200, url=f"http://{self.headers['Host']}/{name}", name=name)
        if "/preupload/" in path:
            how = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer(200, files=[{"path": file["path"], **how} for file in json.loads(body)["files"]])
        if "/branch/" in path:
            return self.answer(200)
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        header = next(line["value"] for line in lines if line["key"] == "header")
        self.commits.append({"where": path.partition("?")[0], "files": files, **header})
        url = f"http://{self.headers['Host']}/{path}/commit/1"
        return self.answer(200, success=True, commitUrl=url, commitOid="1", hookOutput="")

    def do_GET(self) -> None:
        self.answer(404, error="nothing here")

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[str]:
    pytest.importorskip("huggingface_hub")
    Hub.made, Hub.commits = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def at(server: str, home: Path, code: str, **variables: str) -> list[str]:
    """The lines that code prints, in a process that takes the server for the hub."""
    setting = {"HF_ENDPOINT": server, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_right", **variables}
    return in_a_process(code, **setting).splitlines()


UPLOADS = """
from xlmr_core import XLMRobertaConfig, XLMRobertaTokenizerFast
config = XLMRobertaConfig(hidden_size=24)
print(config.push_to_hub("org/model", private=True, commit_message="first", commit_description="of two"))
config.save_pretrained({folder!r} + "/named-after-the-folder")
open({folder!r} + "/named-after-the-folder/mine.json", "w").write("not ours")
config.save_pretrained({folder!r} + "/named-after-the-folder", push_to_hub=True, revision="trial", create_pr=False)
tokenizer = XLMRobertaTokenizerFast.from_pretrained("xlmr-mini")
tokenizer.push_to_hub("org/model", use_temp_dir=False, max_shard_size="1GB", safe_serialization=True)
tokenizer.save_pretrained({folder!r} + "/t", push_to_hub=True, repo_id="org/model", token="hf_right")
"""


def test_what_is_saved_is_sent_in_one_commit(server: str, tmp_path: Path) -> None:
    (address,) = at(server, tmp_path / "home", UPLOADS.format(folder=str(tmp_path)))
    assert address.startswith(f"{server}/models/org/model/commit/main")
    made = Hub.made["org/model"]
    assert made.get("private") or made["visibility"] == "private"  # by the release of huggingface_hub
    first, named, tokenizer, saved = Hub.commits
    assert (first["where"], first["summary"], first["description"]) == (
        "models/org/model/commit/main",
        "first",
        "of two",
    )
    assert json.loads(first["files"]["config.json"])["hidden_size"] == 24
    # A file that was right already is sent as well; one of the user's own is not.
    assert named["where"] == "models/me/named-after-the-folder/commit/trial"
    assert (list(named["files"]), named["summary"]) == (["config.json"], "Upload XLMRobertaConfig")
    XLMRobertaTokenizerFast.from_pretrained("xlmr-mini").save_pretrained(tmp_path / "local")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}
    assert tokenizer["files"] == saved["files"] == expected
    assert tokenizer["summary"] == "Upload XLMRobertaTokenizerFast"


FAILURES = """
from xlmr_core import XLMRobertaConfig, XLMRError
for name, arguments in {calls!r}:
    try:
        XLMRobertaConfig().push_to_hub(name, **arguments)
    except XLMRError as error:
        print(type(error).__name__, error)
"""


def test_an_upload_that_fails_says_what_to_do(server: str, tmp_path: Path) -> None:
    calls = [("org/model", {"token": "hf_wrong"}), ("a/b/c", {})]
    denied, named = at(server, tmp_path, FAILURES.format(calls=calls))
    assert denied.startswith(f"UploadError 'org/model' was not uploaded to {server}: ")
    assert denied.endswith("log in with 'hf auth login', or pass token=..., with the right to write there")
    assert "hf_wrong" not in denied
    assert named.startswith("UploadError 'a/b/c' was not uploaded") and named.endswith(
        "check the name and the connection, and try again"
    )
    code = FAILURES.format(calls=[("org/model", {})])
    (gone,) = at("http://127.0.0.1:9", tmp_path, code)
    assert gone.startswith("UploadError 'org/model' was not uploaded to http://127.0.0.1:9: ")
    (off,) = at(server, tmp_path, code, HF_HUB_OFFLINE="1")
    assert off == "UploadError 'org/model' cannot be uploaded: the hub is switched off (HF_HUB_OFFLINE); unset it"
    without = "import sys; sys.modules['huggingface_hub'] = None\n" + code
    (absent,) = at(server, tmp_path, without)
    assert absent.startswith(
        "MissingBackendError an upload to 'org/model' needs huggingface_hub, which is not installed"
    )
    assert absent.endswith("pip install 'xlmr[hub]'")
    assert not Hub.commits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tags": ["x"]}, "tags must be None, received .*README.md"),
        ({"organization": "org"}, "organization must be None, .*repo_id='organisation/name'"),
        ({"use_auth_token": True}, "received a bool: it was renamed; pass token="),
    ],
)
def test_published_arguments_that_cannot_be_served(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        XLMRobertaConfig().save_pretrained(tmp_path, push_to_hub=True, **arguments)
    with pytest.raises(InputError, match=message):
        XLMRobertaConfig().push_to_hub("org/model", **arguments)
    assert not list(tmp_path.iterdir())
