"""What a server does with whatever comes: nonsense, too much at once, clients that go away, models that fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading

import pytest

pytest.importorskip("starlette", reason="the server needs the extra serve")
pytest.importorskip("httpx2", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from tests.core.served_models import classifier, embedder, offline, reranker, tokenizer
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.serving import Settings, application
from xlmr_core.serving.answers import as_json
from xlmr_core.serving.dialects import ROUTES

JSON = {"content-type": "application/json"}


class Gone:
    """A client, called as an ASGI server calls an application."""

    def __init__(self, app, path, body, **headers):
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), *named],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("here", 80),
            "client": ("there", 1),
        }
        self.parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self.left = asyncio.Event()
        self.status, self.headers, self.content = 0, {}, b""
        self.task = asyncio.create_task(app(self.scope, self._receive, self._send))

    async def _receive(self):
        if self.parts:
            return self.parts.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        self.content += message.get("body", b"")

    async def answer(self):
        await asyncio.wait_for(self.task, 30)
        return json.loads(self.content) if self.content else None


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to that")


def counted(app, name, **labels):
    """The value of a counter on the page of metrics."""
    with TestClient(app) as client:
        lines = client.get("/metrics").text.splitlines()
    for line in lines:
        named, _, value = line.rpartition(" ")
        if named.partition("{")[0] == name and all(f'{key}="{said}"' in named for key, said in labels.items()):
            return float(value)
    return 0.0


# Who runs with whom


def test_many_clients_share_batches_and_get_their_own_answers():
    model = embedder()
    texts = [f"{'word ' * (number % 30)}text {number}" for number in range(60)]
    expected = offline(model, "sentence-embedding")(texts)

    async def everybody():
        app = application([model])
        model.runner.batches.clear()
        model.runner.gate.clear()
        clients = [Gone(app, "/v1/embeddings", {"input": text}) for text in texts]
        await until(lambda: model.runner.batches)
        first = len(model.runner.batches[0])
        await until(lambda: len(model.worker.waiting) == len(texts) - first)
        model.runner.gate.set()
        return [await client.answer() for client in clients]

    found = asyncio.run(everybody())
    for answer, vector in zip(found, expected, strict=True):
        assert answer["data"][0]["embedding"] == pytest.approx(vector.tolist(), abs=1e-5)
    assert len(model.runner.batches) <= 3, "one that ran at once, and two full ones"
    ids = tokenizer()(texts)["input_ids"]
    assert sorted(itertools.chain(*model.runner.batches)) == sorted(ids), "each text once"


def test_tasks_of_a_model_share_batches_too():
    model = embedder()

    async def two():
        app = application([model])
        model.runner.batches.clear()
        model.runner.gate.clear()
        first = Gone(app, "/embed", {"inputs": "first"})
        await until(lambda: model.runner.batches)
        both = [
            Gone(app, "/embed", {"inputs": "another"}),
            Gone(app, "/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
            Gone(app, "/embed_all", {"inputs": "states"}),
        ]
        await until(lambda: len(model.worker.waiting) == 3)
        model.runner.gate.set()
        for client in (first, *both):
            await client.answer()
            assert client.status == 200

    asyncio.run(two())
    assert [len(batch) for batch in model.runner.batches] == [1, 3, 1], "what wants other outputs runs by itself"


def test_a_full_queue_is_told_with_the_time_to_come_again():
    model = embedder()

    async def too_many():
        app = application([model], Settings(batch_tokens=8, max_waiting_tokens=40))
        model.runner.gate.clear()
        clients = [Gone(app, "/v1/embeddings", {"input": "some words of a text"}) for _ in range(20)]
        # One runs, some wait, and the others were refused.
        await until(lambda: 1 + len(model.worker.waiting) + sum(one.task.done() for one in clients) == 20)
        refused = [client for client in clients if client.task.done()]
        model.runner.gate.set()
        for client in clients:
            await client.answer()
        return clients, refused

    clients, refused = asyncio.run(too_many())
    assert 10 <= len(refused) < 20 and {client.status for client in refused} == {429}
    assert {client.status for client in clients if client not in refused} == {200}
    assert int(refused[0].headers["retry-after"]) >= 1
    error = json.loads(refused[0].content)["error"]
    assert error["code"] == "rate_limit_exceeded" and "come again in" in error["message"]


def test_requests_at_a_time_are_bounded():
    model = embedder()

    async def three():
        app = application([model], Settings(max_requests=2))
        model.runner.gate.clear()
        clients = [Gone(app, "/embed", {"inputs": "text"}) for _ in range(3)]
        await until(lambda: any(client.task.done() for client in clients))
        model.runner.gate.set()
        for client in clients:
            await client.answer()
        return sorted(client.status for client in clients)

    assert asyncio.run(three()) == [200, 200, 429]


def test_a_client_that_went_away_costs_nothing_more():
    model = embedder()

    async def some_go():
        app = application([model], Settings(batch_tokens=16))
        model.runner.batches.clear()
        model.runner.gate.clear()
        first = Gone(app, "/embed", {"inputs": "first"})
        await until(lambda: model.runner.batches)
        going = Gone(app, "/embed", {"inputs": ["going away"] * 50})
        stays = Gone(app, "/embed", {"inputs": "stays"})
        await until(lambda: len(model.worker.waiting) == 2)
        going.left.set()
        await going.task
        assert len(model.worker.waiting) == 1
        model.runner.gate.set()
        assert await first.answer() and await stays.answer()
        return app, going.status

    app, status = asyncio.run(some_go())
    assert status == 499 and counted(app, "xlmr_requests_total", status="499") == 1
    going = tokenizer()("going away")["input_ids"]
    assert going not in list(itertools.chain(*model.runner.batches)), "nothing of it ran"
    assert model.worker.waiting.tokens == 0


def test_what_takes_long_around_the_model_keeps_nobody_waiting(monkeypatch):
    model, held = embedder(), threading.Event()
    prepare = model._prepare

    def slowly(question):
        assert len(question.inputs) == 1 or held.wait(30)
        return prepare(question)

    monkeypatch.setattr(model, "_prepare", slowly)

    async def both():
        app = application([model])
        large = Gone(app, "/embed", {"inputs": ["word " * 40] * 100})
        await asyncio.sleep(0)
        short = Gone(app, "/embed", {"inputs": "short"})
        assert len(await short.answer()) == 1 and not large.task.done()
        held.set()
        assert len(await large.answer()) == 100

    asyncio.run(both())


def test_an_answer_that_takes_too_long_is_given_up():
    model = embedder()

    async def slow():
        app = application([model], Settings(request_timeout=0.05, batch_tokens=8))
        model.runner.batches.clear()
        model.runner.gate.clear()
        client = Gone(app, "/embed", {"inputs": ["some words"] * 20})
        error = await client.answer()
        model.runner.gate.set()
        await until(lambda: not model.worker.waiting)
        return client.status, error["error"]

    status, error = asyncio.run(slow())
    assert status == 504 and "within 0.05 s" in error
    assert len(model.runner.batches) == 1, "the rest did not run"


def test_a_body_that_does_not_come_is_given_up():
    async def half():
        app = application([embedder()], Settings(read_timeout=0.05))
        client = Gone(app, "/embed", {"inputs": "text"})
        client.parts[0]["more_body"] = True
        error = await client.answer()
        return client.status, error

    status, error = asyncio.run(half())
    assert status == 408 and "expected the body within 0.05 s" in error["error"]


def test_who_goes_while_the_body_is_read_is_no_fault():
    async def gone():
        app = application([embedder()])
        client = Gone(app, "/embed", {"inputs": "text"})
        client.parts[0]["more_body"] = True
        client.left.set()
        await client.task
        return client.status

    assert asyncio.run(gone()) == 499


# What is wrong


def test_a_model_that_fails_fails_for_the_faulty_request_alone(caplog):
    model = embedder()

    async def both():
        app = application([model])
        model.runner.fails = True
        model.runner.batches.clear()
        model.runner.gate.clear()
        first = Gone(app, "/embed", {"inputs": "first"})
        await until(lambda: model.runner.batches)
        clients = [Gone(app, "/embed", {"inputs": given}) for given in ("good", [[2000]], "fine too")]
        await until(lambda: len(model.worker.waiting) == 3)
        model.runner.gate.set()
        for client in (first, *clients):
            await client.answer()
        return [client.status for client in clients], clients[1].content.decode()

    statuses, content = asyncio.run(both())
    assert statuses == [200, 500, 200]
    assert "its log says where" in content and "secret" not in content
    assert "/embed failed: RuntimeError at served_models.py" in caplog.text and "secret" not in caplog.text


def test_numbers_that_json_does_not_have_are_the_models_fault():
    model = embedder()
    model.runner.states[:] = float("nan")
    with TestClient(application([model])) as client:
        answer = client.post("/embed", json={"inputs": "text"})
    assert answer.status_code == 424 and "expected finite numbers" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b'{"inputs": ', JSON, 400, "expected JSON in UTF-8"),
        (b"\xff\xfe", JSON, 400, "expected JSON in UTF-8"),
        (b'{"inputs": "\\ud83d"}', JSON, 400, "half a character"),
        (b"[" * 100_000, JSON, 400, "nested too deeply"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", JSON, 400, "expected JSON"),
        (b"null", JSON, 422, "expected an object of JSON, received None"),
        (b'["inputs"]', JSON, 422, "expected an object of JSON"),
        (b'{"inputs": "a"}', {"content-type": "text/plain"}, 415, "Content-Type: application/json"),
        (b'{"inputs": "a"}', {"content-type": ""}, 415, "received none"),
        (b'{"inputs": "' + b"a" * 2000 + b'"}', JSON, 413, "expected a body of at most 1000 bytes"),
        (b'{"inputs": ["a", "b", "c", "d"]}', JSON, 413, "expected at most 3 texts in a request, received 4"),
        (b'{"inputs": ["a b c d e f g h", "a b c d e f g h i j k l m n o"]}', JSON, 413, "expected at most 20 tokens"),
    ],
    ids=range(12),
)
def test_what_is_wrong_with_a_body_is_one_sentence(content, headers, status, words):
    limits = Settings(max_body_bytes=1000 if len(content) == 2014 else 200_000, max_texts=3, max_request_tokens=20)
    with TestClient(application([embedder()], limits)) as client:
        answer = client.post("/embed", content=content, headers=headers)
    assert answer.status_code == status and words in answer.json()["error"], answer.text
    assert "\n" not in answer.json()["error"]


NONSENSE = [None, True, 0, -1, 1.5, 1e300, 10**30, "", "a", [], [[]], [None], ["a", 1], [[1], "a"], {}, {"a": 1}, [{}]]


@pytest.fixture(scope="module")
def everything():
    with TestClient(application([embedder(), reranker(), classifier()]), raise_server_exceptions=True) as client:
        yield client


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "POST"], ids=lambda route: route.path)
def test_nonsense_of_every_kind_is_told_in_a_sentence(everything, route, caplog):
    names = [field.name for field in route.fields if field.name != "name"]
    paths = [route.path]
    if "{name}" in route.path:
        tasks = (
            "sentence-embedding",
            "sentence-similarity",
            "rerank",
            "zero-shot-classification",
            "text-classification",
        )
        paths = [f"/tasks/{task}" for task in tasks]
    bodies = [dict.fromkeys(names, value) for value in NONSENSE]
    bodies += [
        {**{name: "a" for name in names if name in ("query", "inputs", "input")}, names[-2]: x} for x in NONSENSE
    ]
    bodies += [{"inputs": value} for value in NONSENSE] + [
        {"inputs": "a", "parameters": {name: value}}
        for value in NONSENSE
        for name in ("top_k", "spans", "candidate_labels", "outputs")
        if "parameters" in names
    ]
    for path, body in itertools.product(paths, bodies):
        answer = everything.post(path, json=body)
        assert answer.status_code < 500, (path, body, answer.text, caplog.text)
        assert answer.status_code == 200 or answer.json(), body


@pytest.mark.parametrize(
    "content",
    [
        *(None, True, 3, 1.5, "té\n", [], {}, [[]], [{}], {"a": []}, {"a": {"b": [[1.5, 2], []]}, "c": None}),
        *([[1, 2], [3.25]], [{"a": "b", "ü": [1, {"x": [True]}]}, {}], [1, [2]], {"1": [[[0.1]]], "2": "x"}),
    ],
    ids=str,
)
def test_an_answer_is_written_in_parts_as_at_once(content):
    assert as_json(content) == json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def test_addresses_and_methods_that_are_none(everything):
    lost, other = everything.get("/secret-text"), everything.get("/embed")
    assert lost.status_code == 404 and "/v1/embeddings" in lost.json()["error"] and "secret" not in lost.text
    assert other.status_code == 405 and other.headers["allow"] == "POST" and "expected POST" in other.json()["error"]
    assert everything.post("/health").status_code == 405


def test_a_key_is_asked_for_everywhere_but_where_nothing_is_told():
    with TestClient(application([embedder()], api_key="right")) as client:
        for said in (None, "Bearer wrong", "right", "Basic right"):
            sent = {"authorization": said} if said else {}
            for path in ("/v1/models", "/info", "/metrics", "/tasks"):
                answer = client.get(path, headers=sent)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert client.post("/embed", json={"inputs": "a"}, headers=sent).status_code == 401
        assert client.post("/embed", json={"inputs": "a"}, headers={"authorization": "Bearer right"}).status_code == 200
        assert all(client.get(path).status_code == 200 for path in ("/health", "/docs", "/openapi.json"))


def test_nothing_of_a_text_is_logged_or_counted(caplog):
    caplog.set_level(logging.DEBUG)
    with TestClient(application([embedder()])) as client:
        for body in ({"inputs": "secret words"}, {"inputs": "secret " * 99}, {"inputs": "a", "prompt_name": "secret"}):
            client.post("/embed", json=body)
        client.post("/embed", content=b"secret", headers=JSON)
        client.get("/secret?secret=secret")
        metrics = client.get("/metrics").text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("xlmr", "uvicorn"))]
    assert len(ours) >= 6 and not any("secret" in line for line in ours) and "secret" not in metrics
    assert any(line.startswith("POST /embed 200 ") for line in ours)


def test_metrics_count_what_went_through():
    app = application([embedder()])
    with TestClient(app) as client:
        client.post("/embed", json={"inputs": ["a", "b"]})
        client.post("/embed", json={"inputs": "word " * 99, "truncate": True})
        client.post("/embed", json={"inputs": 3})
    assert counted(app, "xlmr_requests_total", route="/embed", status="200") == 2
    assert counted(app, "xlmr_requests_total", route="/embed", status="422") == 1
    assert counted(app, "xlmr_texts_total", model="vectors", task="sentence-embedding") == 3
    assert counted(app, "xlmr_texts_cut_total", model="vectors") == 1
    assert counted(app, "xlmr_tokens_total", model="vectors") == 2 * 3 + 48
    assert counted(app, "xlmr_batch_tokens_count", model="vectors") == 2
    assert counted(app, "xlmr_waiting_tokens", model="vectors") == 0


# Settings and models


@pytest.mark.parametrize(
    "wrong", [{"batch_tokens": 0}, {"batch_tokens": 1.5}, {"max_texts": True}, {"request_timeout": "1"}], ids=str
)
def test_limits_are_checked(wrong):
    with pytest.raises(InputError, match=f"^{next(iter(wrong))} must be"):
        Settings(**wrong)


def test_models_have_names_of_their_own():
    with pytest.raises(XLMRError, match="received 'vectors' twice"):
        application([embedder(), embedder()])
    with pytest.raises(XLMRError, match="received none"):
        application([])
