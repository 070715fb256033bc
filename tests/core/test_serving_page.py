"""The page at ``/`` and what it asks: bytes, headers, no address but the server's own, tokens, attention. How it looks
in a browser `nox -s browser` tests.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server needs the extra serve")
pytest.importorskip("httpx2", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from tests.core.served_models import embedder, reranker, tokenizer
from xlmr_core.serving import application, views
from xlmr_core.serving.page import KINDS, page_files
from xlmr_core.tasks import TASKS

TEXT = "Ada 東京 😀 in Oslo."
FILES = {address: file.content.decode() for address, file in page_files().items()}
# The name of a kind of XML, which nothing is asked of.
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


@pytest.fixture(scope="module")
def model():
    return embedder()


@pytest.fixture(scope="module")
def client(model):
    with TestClient(application([model, reranker()])) as found:
        yield found


# Files


def test_every_file_beside_the_module_is_served(client):
    beside = {entry.name for entry in files("xlmr_core.serving.page").iterdir() if entry.is_file()}
    named = {"index.html" if address == "/" else address.removeprefix("/page/") for address in FILES}
    assert named == {name for name in beside if not name.endswith((".py", ".pyc"))} and len(named) == 9
    for address, content in FILES.items():
        answer = client.get(address)
        assert (answer.status_code, answer.text) == (200, content)
        assert answer.headers["content-type"] in KINDS.values()


def test_a_browser_is_told_to_ask_nobody_else(client):
    for address in FILES:
        headers = client.get(address).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy.pop("default-src") == "'none'" and set(policy.values()) == {"'self'", "'none'"}
        assert policy["connect-src"] == policy["script-src"] == policy["style-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_what_a_browser_has_it_does_not_get_again(client):
    tag = client.get("/page/main.js").headers["etag"]
    again = client.get("/page/main.js", headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/page/main.js", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.head("/").status_code == 200 and client.head("/").content == b""


def test_the_page_is_open_and_what_it_asks_is_not():
    with TestClient(application([embedder()], api_key="k")) as client:
        assert {client.get(address).status_code for address in FILES} == {200}
        assert client.get("/tasks").status_code == 401
        assert client.get("/tasks", headers={"authorization": "Bearer k"}).status_code == 200


@pytest.mark.parametrize("address", FILES)
def test_no_file_names_an_outside_address(address):
    content = FILES[address].replace(NAMESPACE, "")
    assert not re.search(r"https?:|//\w+\.\w+|\bwss?:|@import|url\(", content)


@pytest.mark.parametrize("address", FILES)
def test_files_are_small_and_texts_are_texts(address):
    lines = FILES[address].splitlines()
    assert len(lines) < 300 and (address.endswith(".svg") or max(map(len, lines)) <= 120)
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bstyle=|\bon\w+=\""
    assert not re.search(forbidden, FILES[address]), "texts go in as text nodes, and the policy takes nothing else"


def test_every_view_is_a_task_of_the_server():
    named = set(re.findall(r'^  "([\w-]+)": \{$', FILES["/page/views.js"], re.M))
    assert named <= {*TASKS, *views.VIEWS} and set(views.VIEWS) < named and len(named) == 12


def test_modules_that_are_named_are_there():
    for address, content in FILES.items():
        for name in re.findall(r'from "\./([\w.]+)"|(?:src|href)="page/([\w.]+)"', content):
            assert f"/page/{''.join(name)}" in FILES, address


# What it asks


def ask(client, task, inputs, status=200, **parameters):
    answer = client.post(f"/tasks/{task}", json={"inputs": inputs, "parameters": parameters})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_tokens_have_pieces_and_places(client):
    found = ask(client, "tokens", TEXT)
    encoded = tokenizer()(TEXT)["input_ids"]
    assert [token["id"] for token in found] == encoded
    assert [token["piece"] for token in found] == tokenizer().convert_ids_to_tokens(encoded)
    assert [token["special"] for token in (found[0], found[-1])] == [True, True] and found[0]["start"] is None
    for token in found[1:-1]:
        assert token["text"] == TEXT[token["start"] : token["end"]]
        written = unicodedata.normalize("NFKC", token["text"]).strip()
        assert token["piece"] in ("<unk>", "▁") or token["piece"].removeprefix("▁") == written
    assert ask(client, "tokens", TEXT, add_special_tokens=False) == found[1:-1]
    assert ask(client, "tokens", ["", "a"]) == [found[:1] + found[-1:], ask(client, "tokens", "a")]
    assert ask(client, "tokens", []) == []


def test_attention_by_layer_and_head(client, model):
    found = ask(client, "attention", TEXT)
    size = len(tokenizer()(TEXT)["input_ids"])
    assert (found["layers"], found["heads"], len(found["tokens"])) == ([0, 1], [2, 2], size)
    (ids,) = np.array([tokenizer()(TEXT)["input_ids"]])
    layers = model.runner.attentions({"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]})
    np.testing.assert_allclose(found["attention"], np.stack(layers)[:, 0], atol=1e-6)
    np.testing.assert_allclose(np.sum(found["attention"], axis=-1), 1, atol=1e-5)
    packed = ask(client, "attention", TEXT, encoding_format="base64")["attention"]
    numbers = np.frombuffer(base64.b64decode(packed), "<f4").reshape(2, 2, size, size)
    np.testing.assert_allclose(numbers, found["attention"], atol=1e-6)
    one = ask(client, "attention", TEXT, layer=1)
    assert (one["layers"], one["attention"]) == ([1], found["attention"][1:])
    assert ask(client, "attention", [TEXT, "a"])[0] == found, "padding of a batch is left out"


@pytest.mark.parametrize(
    ("task", "inputs", "parameters", "status", "words"),
    [
        ("attention", TEXT, {"layer": 2}, 422, "expected a layer from 0 to 1, received 2"),
        ("attention", TEXT, {"encoding_format": "int8"}, 422, "one of float, base64"),
        ("attention", TEXT, {"on_overflow": "window"}, 422, "expected a text to be read at once"),
        ("attention", "word " * 90, {}, 413, "expected at most"),
        ("attention", [TEXT] * 9, {}, 413, "shorten the text, or ask for one layer"),
        ("attention", 3, {}, 422, "expected inputs of attention"),
        ("tokens", [3], {}, 422, "expected texts, received int 3"),
        ("tokens", TEXT, {"on_overflow": "truncate"}, 422, "expected parameters of add_special_tokens"),
    ],
)
def test_what_is_refused(client, monkeypatch, task, inputs, parameters, status, words):
    monkeypatch.setattr(views, "MOST_NUMBERS", 3000)
    assert words in ask(client, task, inputs, status, **parameters)["error"]


def test_a_model_without_attention_says_so(monkeypatch):
    model = embedder()
    monkeypatch.setattr(type(model.runner), "framework", "onnx")
    with TestClient(application([embedder("graph")])) as client:
        listed = {row["task"]: row for row in client.get("/tasks").json()}
        assert "attention" not in listed and listed["tokens"]["models"] == ["graph"]
        assert "expected a model that does attention" in ask(client, "attention", TEXT, 424)["error"]


def test_views_are_listed_as_tasks_are(client):
    listed = {row["task"]: row for row in client.get("/tasks").json()}
    assert listed["attention"]["models"] == listed["tokens"]["models"] == ["vectors", "ranks"]
    assert listed["attention"]["parameters"] == ["encoding_format", "layer", "on_overflow"]
    assert listed["attention"]["summary"] and listed["rerank"]["models"] == ["ranks"]
