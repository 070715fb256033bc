"""What clients of each dialect ask and get, beside the answers of a pipeline over the same model."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server needs the extra serve")
pytest.importorskip("httpx2", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from tests.core.served_models import classifier, embedder, offline, reranker, served, tokenizer
from xlmr_core.serving import application
from xlmr_core.tasks.sentence_folder import SentenceFolder
from xlmr_core.tasks.vectors import normalized

LONG = "word " * 200
TEXTS = ["a text", "Ein längerer Text, 中文 too.", ""]


@pytest.fixture(scope="module")
def models():
    found = [
        *(embedder(), reranker(), classifier(), served("names", "token-classification")),
        *(
            served("answers", "question-answering"),
            served("blanks", "fill-mask"),
            served("again", "sentence-embedding"),
        ),
    ]
    return {model.name: model for model in found}


@pytest.fixture(scope="module")
def client(models):
    with TestClient(application(list(models.values()))) as found:
        yield found


@pytest.fixture
def ask(client):
    def post(path, status=200, **body):
        answer = client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    return post


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=1e-5, atol=1e-6)


# OpenAI


@pytest.mark.parametrize("given", [TEXTS[0], TEXTS], ids=["one", "several"])
@pytest.mark.parametrize("format", ["float", "base64", None])
def test_openai_embeddings(ask, models, given, format):
    found = ask("/v1/embeddings", model="vectors", input=given, **({"encoding_format": format} if format else {}))
    texts = [given] if isinstance(given, str) else given
    vectors = [row["embedding"] for row in found["data"]]
    if format == "base64":
        vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in vectors]
    close(vectors, offline(models["vectors"], "sentence-embedding")(texts))
    tokens = sum(len(row) for row in tokenizer()(texts)["input_ids"])
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert [row["index"] for row in found["data"]] == list(range(len(texts)))
    assert found["object"] == "list" and found["model"] == "vectors" and found["data"][0]["object"] == "embedding"


def test_openai_ids_stand_for_their_text(ask, models):
    ids = tokenizer()(TEXTS[:2])["input_ids"]
    expected = offline(models["vectors"], "sentence-embedding")(TEXTS[:2])
    for given in (ids, [row[1:-1] for row in ids], [ids[0], TEXTS[1]]):
        close([row["embedding"] for row in ask("/v1/embeddings", input=given)["data"]], expected)
    close(ask("/v1/embeddings", input=ids[0])["data"][0]["embedding"], expected[0])


def test_openai_dimensions_and_models(ask, client, models):
    whole = offline(models["vectors"], "sentence-embedding")(TEXTS)
    found = ask("/v1/embeddings", input=TEXTS, dimensions=3, user="somebody")
    close([row["embedding"] for row in found["data"]], normalized(whole[:, :3]))
    listed = client.get("/v1/models").json()
    assert [row["id"] for row in listed["data"]] == list(models) and listed["data"][0]["object"] == "model"
    assert client.get("/v1/models/ranks").json()["id"] == "ranks"


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "words"),
    [
        ({"input": LONG}, 400, "context_length_exceeded", None, "expected at most 48 tokens"),
        ({"input": [5] * 60}, 400, "context_length_exceeded", None, "expected at most 48 tokens, received 62"),
        ({"input": "a", "model": "nobody"}, 404, "model_not_found", "model", "expected a model of 'vectors', 'ranks'"),
        ({"input": "a", "model": "names"}, 400, None, None, "'names' does token-classification"),
        ({"input": [-1]}, 400, None, None, "expected ids of tokens from 0 to"),
        ({"input": []}, 400, None, "input", "input must be a text, a list of texts"),
        ({"input": 3}, 400, None, "input", "received 3"),
        ({"input": ["a", None]}, 400, None, "input", "input must be"),
        ({}, 400, None, "input", "expected input"),
        ({"input": "a", "dimensions": 9}, 400, None, None, "expected at most 8 dimensions"),
        ({"input": "a", "dimensions": 0}, 400, None, "dimensions", "an integer of at least 1"),
        ({"input": "a", "encoding_format": "int8"}, 400, None, "encoding_format", "one of float, base64"),
        ({"input": "a", "dimension": 3}, 400, None, "dimension", "did you mean 'dimensions'"),
    ],
)
def test_openai_faults(ask, body, status, code, param, words):
    error = ask("/v1/embeddings", status, **body)["error"]
    assert words in error["message"] and "on_overflow" not in error["message"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


# Cohere and Jina


DOCUMENTS = ["first text", "another one", "the third"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_rerank_of_cohere_and_jina(ask, models, version):
    ranked = offline(models["ranks"], "rerank")("what", DOCUMENTS)
    found = ask(f"/{version}/rerank", model="ranks", query="what", documents=DOCUMENTS)
    assert [row["index"] for row in found["results"]] == [row["index"] for row in ranked]
    close([row["relevance_score"] for row in found["results"]], [row["score"] for row in ranked])
    assert found["id"] and "warnings" not in found["meta"] and "document" not in found["results"][0]
    assert found["meta"]["api_version"]["version"] == version[1] and found["usage"]["total_tokens"] > 10
    objects = [{"text": text} for text in DOCUMENTS]
    best = ask(f"/{version}/rerank", query="what", documents=objects, top_n=1, return_documents=True)["results"]
    assert best == [{**found["results"][0], "document": {"text": DOCUMENTS[ranked[0]["index"]]}}]


def test_a_document_that_is_too_long_is_cut_and_that_is_told(client, models):
    body = {"query": "what", "documents": [LONG, "short"]}
    for more in ({}, {"max_tokens_per_doc": 3}):
        answer = client.post("/v2/rerank", json={**body, **more})
        assert "cut" in answer.json()["meta"]["warnings"][0] and answer.headers["x-truncated"] == "1"
    cut = offline(models["ranks"], "rerank")("what", ["word word word", "short"])
    close([row["relevance_score"] for row in answer.json()["results"]], [row["score"] for row in cut])
    assert client.post("/v2/rerank", json={"query": "", "documents": []}).json()["message"].startswith("documents must")


# Text Embeddings Inference


def test_tei_vectors(ask, client, models):
    embed = offline(models["vectors"], "sentence-embedding")
    for path in ("/embed", "/"):
        close(ask(path, inputs=TEXTS), embed(TEXTS))
        close(ask(path, inputs="a text"), embed(["a text"]))
    close(ask("/embed", inputs="a", normalize=False, prompt_name="query"), embed(["query: a"], normalize=False))
    whole = ask("/embed_all", inputs=TEXTS)
    for row, text in zip(whole, TEXTS, strict=True):
        close(row, embed(text, outputs=("tokens",))["tokens"])
    sparse = ask("/embed_sparse", inputs=TEXTS[0])[0]
    assert {str(row["index"]): pytest.approx(row["value"]) for row in sparse} == embed(TEXTS[0], outputs="sparse")[
        "sparse"
    ]
    answer = client.post("/embed", json={"inputs": [LONG, "a"], "truncate": True})
    assert answer.headers["x-truncated"] == "1"
    close(answer.json(), embed([LONG, "a"]))
    close(ask("/embed", inputs=[tokenizer()("a text")["input_ids"]]), embed(["a text"]))


def test_tei_numbers(ask, models):
    similar = offline(models["vectors"], "sentence-similarity")
    inputs = {"source_sentence": "a", "sentences": ["b", "c d"]}
    close(ask("/similarity", inputs=inputs), similar("a", ["b", "c d"]))
    found = ask("/similarity", inputs=inputs, parameters={"prompt_name": "query"})
    close(found, similar("a", ["b", "c d"], prompt_name="query"))
    ranked = offline(models["ranks"], "rerank")("q", DOCUMENTS, return_documents=True)
    assert ask("/rerank", query="q", texts=DOCUMENTS, return_text=True) == ranked
    raw = ask("/rerank", query="q", texts=DOCUMENTS, raw_scores=True)
    assert raw == offline(models["ranks"], "rerank")("q", DOCUMENTS, function_to_apply="none")
    label = offline(models["labels"], "text-classification", top_k=None)
    pair = {"text": "a", "text_pair": "b"}
    assert ask("/predict", model="labels", inputs="a") == label(["a"])[0]
    assert ask("/predict", model="labels", inputs=["a", "b"]) == label([pair])[0]
    assert ask("/predict", model="labels", inputs=[["a"], ["a", "b"]]) == label(["a", pair])
    raw = ask("/predict", model="labels", inputs="a", raw_scores=True)
    assert raw == label(["a"], function_to_apply="none")[0]
    assert ask("/predict", model="labels", inputs="a", parameters={}) == [label(["a"])[0]]
    assert len(ask("/predict", model="labels", inputs="a", parameters={"top_k": 1})[0]) == 1


def test_tei_tokens_and_info(ask, client):
    text = "Grüße 中文"
    (row,) = ask("/tokenize", inputs=text)
    assert [token["id"] for token in row] == tokenizer()(text)["input_ids"]
    assert [(token["text"], token["special"], token["start"]) for token in (row[0], row[-1])] == [
        ("<s>", True, None),
        ("</s>", True, None),
    ]
    assert all(token["text"] == text[token["start"] : token["stop"]] for token in row[1:-1])
    ids = [token["id"] for token in row]
    assert ask("/decode", ids=ids) == ask("/decode", ids=[ids]) == [text]
    assert ask("/decode", ids=ids, skip_special_tokens=False) != [text]
    assert "from 0 to" in ask("/decode", 422, ids=[10**9])["error"]
    (prompted,) = ask("/tokenize", inputs="a", prompt_name="query", add_special_tokens=False)
    assert [token["id"] for token in prompted] == tokenizer()("query: a")["input_ids"][1:-1]
    assert "leave it out" in ask("/tokenize", 422, inputs="a", prompt_name="nobody")["error"]
    info = client.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}} and info["max_batch_tokens"] == 2048
    assert (info["model_dtype"], info["max_input_length"], info["auto_truncate"]) == ("float32", 48, False)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "words"),
    [
        ("/embed", {"inputs": LONG}, 413, "Validation", 'send "truncate": true'),
        ("/embed", {"inputs": 3}, 422, "Validation", "inputs must be"),
        (
            "/embed",
            {"inputs": "a", "truncate": True, "truncation_direction": "left"},
            422,
            "Validation",
            "received Left",
        ),
        ("/embed", {"inputs": [5], "prompt_name": "query"}, 422, "Validation", "expected texts behind a prompt"),
        (
            "/embed",
            {"inputs": "a", "prompt_name": "nobody"},
            422,
            "Validation",
            "one of 'query', received 'nobody'; leave it out",
        ),
        ("/embed", {"inputs": "a", "model": "labels"}, 424, "Backend", "'labels' does text-classification"),
        (
            "/rerank",
            {"query": "a", "texts": ["b"], "model": "labels"},
            424,
            "Backend",
            "expected a model that does rerank",
        ),
        ("/rerank", {"query": LONG, "texts": ["b"]}, 413, "Validation", "expected at most"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "Validation", "expected sentences"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation", "inputs must be"),
    ],
)
def test_tei_faults(ask, path, body, status, kind, words):
    error = ask(path, status, **body)
    assert words in error["error"] and error["error_type"] == kind


def test_a_model_with_the_head_is_asked():
    with_heads = embedder()
    plain = served("plain", "sentence-embedding")
    plain.tasks["sentence-embedding"].set_up(plain.runner, SentenceFolder())
    plain.runner.projections.clear()
    with TestClient(application([plain, with_heads])) as client:
        assert client.post("/embed_sparse", json={"inputs": "a text"}).json()[0]
        answer = client.post("/embed_sparse", json={"inputs": "a text", "model": "plain"})
        assert answer.status_code == 424 and "with sparse_linear" in answer.json()["error"]


# Our own


@pytest.mark.parametrize(
    ("task", "model", "inputs", "parameters"),
    [
        ("text-classification", "ranks", "a text", {"top_k": 2}),
        ("text-classification", "labels", ["a text", {"text": "a", "text_pair": "b"}], {"top_k": None}),
        ("zero-shot-classification", "labels", "a text", {"candidate_labels": ["one", "two"], "multi_label": True}),
        ("token-classification", "names", "Ada in Oslo", {"aggregation_strategy": "words", "ignore_labels": []}),
        ("question-answering", "answers", {"question": "Who?", "context": "It was Ada, in Oslo."}, {"top_k": 2}),
        ("fill-mask", "blanks", "a <mask> text", {}),
        ("sentence-embedding", "vectors", TEXTS, {"precision": "binary"}),
        ("sentence-embedding", "again", "a text", {"outputs": ["dense", "sparse", "colbert"]}),
        ("sentence-embedding", "vectors", ["a text"], {"spans": [[0, 1], [2, 6]], "normalize": False}),
        ("sentence-similarity", "vectors", {"source": ["a", "b"], "target": ["c", "d"]}, {"similarity": "dot"}),
        ("feature-extraction", "vectors", "a text", None),
        ("rerank", "ranks", [{"query": "a", "passages": DOCUMENTS}], {"top_k": 1, "return_documents": True}),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else "",
)
def test_every_task_as_its_pipeline_answers_it(ask, models, task, model, inputs, parameters):
    if task == "fill-mask":
        pytest.skip("the drawn model has no vocabulary to fill in; tests/torch/test_serving.py does")
    pipeline = offline(models[model], task)
    expected = json.loads(json.dumps(pipeline.plain(pipeline(inputs, **(parameters or {})))))
    assert same(ask(f"/tasks/{task}", inputs=inputs, parameters=parameters, model=model), expected)


def same(found, expected):
    """Equal, numbers up to rounding."""
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


@pytest.mark.parametrize(
    ("task", "body", "status", "words"),
    [
        ("nobody", {"inputs": "a"}, 404, "expected a task of"),
        ("summarization", {"inputs": "a"}, 424, "expected a model that does summarization"),
        ("text-classification", {"inputs": "a", "parameters": {"top_q": 1}}, 422, "did you mean 'top_k'"),
        ("text-classification", {"inputs": "a", "parameters": {"top_k": 0}}, 422, "at least 1"),
        ("text-classification", {"inputs": "a", "parameters": {"top_k": "all"}}, 422, "top_k must be an integer"),
        ("text-classification", {"inputs": "a", "parameters": {"batch_size": 1}}, 422, "expected parameters of"),
        ("text-classification", {"inputs": "a", "parameters": {"tokenizer_kwargs": {}}}, 422, "expected parameters of"),
        ("text-classification", {"inputs": {"texts": "a"}}, 422, "expected a text, or a pair"),
        ("zero-shot-classification", {"inputs": "a"}, 422, "expected at least one label"),
        ("sentence-embedding", {"inputs": "a", "parameters": {"prompt": 3}}, 422, "prompt must be a text"),
        ("sentence-embedding", {"inputs": "a", "parameters": {"spans": [[0, 9]]}}, 422, "expected spans"),
        ("question-answering", {"inputs": {"question": "a"}}, 422, "expected"),
        ("token-classification", {"inputs": LONG, "parameters": {"on_overflow": "error"}}, 413, '"on_overflow"'),
    ],
)
def test_faults_of_tasks(ask, task, body, status, words):
    assert words in ask(f"/tasks/{task}", status, **body)["error"]


def test_what_there_is_is_described(client):
    listed = {row["task"]: row for row in client.get("/tasks").json()}
    assert listed["rerank"]["models"] == ["ranks"] and "top_k" in listed["rerank"]["parameters"]
    document = client.get("/openapi.json").json()
    embeddings = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert embeddings["required"] == ["input"] and embeddings["properties"]["encoding_format"]["default"] == "float"
    root = document["paths"]["/"]["post"]
    assert root["requestBody"] == document["paths"]["/embed"]["post"]["requestBody"]
    assert {"/health", "/metrics"} <= set(document["paths"])
    assert "/tasks/{name}" in document["paths"] and "get" in document["paths"]["/v1/models/{name}"]
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html") and "max_tokens_per_doc" in page.text
    assert "http://" not in page.text and "https://" not in page.text, "no outside address"
    assert client.get("/health").json() == {"status": "ok"}
