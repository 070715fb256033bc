"""The function: events in, answers out, here and in a process of its own whose files cannot be written, that has no
network and as much memory as a small function has.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="the function needs the extra onnx-runtime")

from tests.core.small_models import config_of, save, with_tokenizer
from xlmr_core import pipeline, serverless
from xlmr_core.onnx import export

TEXT = "Paris is the <mask> of France."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, exported."""
    here = tmp_path_factory.mktemp("function")
    save(here / "a", config_of("base", "ForMaskedLM"), "ForMaskedLM")
    with_tokenizer(here / "a")
    export(here / "a", here / "model")
    return here / "model"


@pytest.fixture
def handler(folder, monkeypatch):
    monkeypatch.setenv("XLMR_MODEL", str(folder))
    monkeypatch.setenv("XLMR_TASK", "fill-mask")
    monkeypatch.setattr(serverless, "_loaded", [])
    return serverless.handler


def of_version_2(body, method="POST", **more):
    http = {"method": method, "path": "/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"}
    return {"version": "2.0", "rawPath": "/", "requestContext": {"http": http}, "body": body, **more}


def of_version_1(body, method="POST", **more):
    return {"resource": "/", "path": "/", "httpMethod": method, "requestContext": {}, "body": body, **more}


def in_base64(body, **more):
    return of_version_2(base64.b64encode(body.encode()).decode(), isBase64Encoded=True, **more)


# Events


@pytest.mark.parametrize("event", [of_version_2, of_version_1, in_base64])
def test_a_request_is_answered_as_the_pipeline_answers(handler, folder, event):
    expected = pipeline("fill-mask", folder, backend="onnx")([TEXT, f"Ünïcode {TEXT}"], top_k=2)
    body = {"inputs": [TEXT, f"Ünïcode {TEXT}"], "parameters": {"top_k": 2}}
    answer = handler(event(json.dumps(body, ensure_ascii=False)), None)
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["headers"] == {"content-type": "application/json"}
    assert json.loads(answer["body"]) == json.loads(json.dumps(expected))


def test_an_event_may_be_the_body_itself(handler, folder):
    expected = pipeline("fill-mask", folder, backend="onnx")(TEXT)
    assert handler({"inputs": TEXT}) == expected == handler({"inputs": TEXT, "parameters": None}, object())
    assert handler({"inputs": "no blank"})["statusCode"] == 422


def test_a_get_request_loads_the_model_and_says_which(handler, folder):
    for event in (of_version_2(None, "GET"), of_version_1(None, "get")):
        answer = handler(event)
        assert answer["statusCode"] == 200
        assert json.loads(answer["body"]) == {"status": "ok", "task": "fill-mask", "model": str(folder)}
    assert len(serverless._loaded) == 1


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        (of_version_2(None), 400, "expected a body of JSON, received none"),
        (of_version_2('{"inputs": '), 400, "expected JSON in UTF-8"),
        (of_version_2("!", isBase64Encoded=True), 400, "expected a body in base64"),
        (of_version_2("\ud83d"), 400, "expected JSON in UTF-8"),
        (of_version_2("{}", "DELETE"), 405, "expected POST, received 'DELETE'"),
        (of_version_2("[]"), 422, "expected an object of JSON"),
        (of_version_2("{}"), 422, "expected inputs"),
        (of_version_2('{"inputs": "a", "top_k": 1}'), 422, "expected the fields inputs, parameters"),
        (of_version_2('{"inputs": "a", "parameters": {"top_q": 1}}'), 422, "did you mean 'top_k'"),
        (of_version_2('{"inputs": "a <mask>", "parameters": {"top_k": 0}}'), 422, "at least 1"),
        (of_version_2('{"inputs": 3}'), 422, "expected a text"),
        (of_version_2('{"inputs": {"a": 1}}'), 422, "expected a text"),
        (of_version_2(json.dumps({"inputs": "<mask> " * 600, "parameters": {"on_overflow": "error"}})), 413, "shorten"),
        (None, 422, "expected an object of JSON, received None"),
        ("text", 422, "expected an object of JSON"),
        ({}, 422, "expected inputs"),
        ({"Records": []}, 422, "expected the fields"),
        ({"requestContext": {"http": {}}, "httpMethod": 3}, 422, "expected the fields"),
    ],
    ids=range(18),
)
def test_what_is_wrong_is_a_sentence_with_a_status(handler, event, status, words):
    answer = handler(event)
    told = json.loads(answer["body"]) if "body" in answer else answer
    assert answer["statusCode"] == status and words in told["error"] and "\n" not in told["error"], told


def test_letters_are_no_list_of_inputs(handler, monkeypatch, shared):
    folder = shared / "fixtures" / "tasks" / "cross_encoder"
    monkeypatch.setattr(serverless, "_load", lambda environ: pipeline("rerank", folder, backend="onnx"))
    assert handler({"inputs": "a"})["statusCode"] == 422
    found = handler({"inputs": {"query": "a", "passages": ["b", "c"]}})
    assert {row["index"] for row in found} == {0, 1}


def test_what_was_cut_is_counted_and_not_logged(handler, caplog):
    for options in ({"on_overflow": "truncate"}, {}):
        body = {"inputs": ["<mask> " + "word " * 900, "<mask>"], "parameters": options}
        answer = handler(of_version_2(json.dumps(body)))
        if options or answer["statusCode"] == 200:
            assert (answer["statusCode"], answer["headers"]["x-truncated"]) == (200, "1"), answer
        assert "word" not in caplog.text


def test_a_failure_tells_its_place_and_no_text(handler, caplog, monkeypatch):
    def fail(*inputs, **options):
        raise RuntimeError("a text of a client: secret")

    monkeypatch.setattr(handler({"inputs": TEXT}) and type(serverless._loaded[0]), "__call__", fail)
    answer = handler(of_version_2(json.dumps({"inputs": TEXT})))
    assert answer["statusCode"] == 500 and "its log says where" in answer["body"]
    assert "failed: RuntimeError at test_serverless.py" in caplog.text and "secret" not in caplog.text + answer["body"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("XLMR_MODEL", "", "received no XLMR_MODEL; set it for the function"),
        ("XLMR_TASK", "", "received no XLMR_TASK"),
        ("XLMR_MODEL", "/nowhere", "/nowhere"),
        ("XLMR_TASK", "sleep", "expected a task of"),
        ("XLMR_TASK", "text-generation", "writes texts"),
    ],
)
def test_a_function_without_a_model_says_so(folder, monkeypatch, caplog, name, value, words):
    for own, usual in {"XLMR_MODEL": str(folder), "XLMR_TASK": "fill-mask", name: value}.items():
        monkeypatch.setenv(own, usual)
    monkeypatch.setattr(serverless, "_loaded", [])
    answer = serverless.handler(of_version_2(json.dumps({"inputs": TEXT})))
    assert answer["statusCode"] == 500 and "the function has no model" in answer["body"]
    assert words in caplog.text and "/nowhere" not in answer["body"]


def test_an_answer_that_lambda_would_not_send_is_refused(handler, monkeypatch):
    monkeypatch.setattr(serverless, "MOST_BYTES", 100)
    answer = handler(of_version_2(json.dumps({"inputs": TEXT})))
    assert answer["statusCode"] == 413 and "send fewer texts" in answer["body"]


# A process of its own

# The files of this machine, read only but for a folder of 8 MiB, and no network but a loopback that is down.
NAMESPACE = """
mount --rbind / "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o size=8m tmpfs "$1$2"
root=$1
shift 2
exec chroot "$root" "$@"
"""
PROCESS = """
import errno, json, resource, socket, sys
from pathlib import Path
limit = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for place in ("/tmp/there", sys.argv[2] + "/model/there", sys.argv[3] + "/there"):
    try:
        Path(place).write_text("x")
        written = place
    except OSError as error:
        assert error.errno == errno.EROFS, (place, error)
assert written == sys.argv[3] + "/there"
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
    raise AssertionError("there is a network")
except OSError as error:
    assert error.errno == errno.ENETUNREACH, error
from xlmr_core.serverless import _loaded, handler
assert len(_loaded) == 1, "loaded while the process starts"
event = {"requestContext": {"http": {"method": "POST"}}, "body": json.dumps({"inputs": "a <mask>"})}
answers = [handler(event, None) for _ in range(3)]
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({
    "answers": answers,
    # Of this program alone: getrusage also counts what the process held before it became this program.
    "peak": int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10,
    "loaded": sorted(loaded & {"torch", "tensorflow", "jax", "starlette", "uvicorn", "prometheus_client"}),
    "left": sorted(path.name for path in Path(sys.argv[3]).iterdir()),
}))
"""


def can_be_apart() -> bool:
    command = shutil.which("unshare")
    return command is not None and not subprocess.run([command, "-rmn", "true"], capture_output=True).returncode


@pytest.mark.skipif(not can_be_apart(), reason="it needs namespaces of users, mounts and networks (unshare -rmn)")
@pytest.mark.parametrize("megabytes", [512, 1024])
def test_in_a_process_of_its_own(folder, tmp_path, megabytes):
    for name in ("root", "own"):
        (tmp_path / name).mkdir()
    inner = [sys.executable, "-P", "-c", PROCESS, str(megabytes), str(folder.parent), str(tmp_path / "own")]
    environ = {
        "PYTHONPATH": str(Path(serverless.__file__).parents[1]),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path / "own"),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "XLMR_MODEL": str(folder),
        "XLMR_TASK": "fill-mask",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = ["unshare", "-rmn", "sh", "-ec", NAMESPACE, "sh", str(tmp_path / "root"), str(tmp_path / "own"), *inner]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {answer["statusCode"] for answer in found["answers"]} == {200}
    assert len(json.loads(found["answers"][0]["body"])) == 5
    assert found["peak"] < 0.5 * megabytes, "what else runs in a function needs some of it too"
    assert found["loaded"] == [] and found["left"] == ["there"]
