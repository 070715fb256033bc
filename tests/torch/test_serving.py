"""``xlmr serve`` in PyTorch, in a process of its own, with real models: its answers are those of pipelines here."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from xlmr_core.serving.loading import load_model, tasks_of, usual_task
from xlmr_core.tasks import TASKS
from xlmr_torch import pipeline

pytest.importorskip("uvicorn", reason="the server needs the extra serve")

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["Ada in Oslo", "one more text, a longer one", "kurz", "第三个文本", "a"]
ADDRESS = re.compile(r"serves at http://([\d.]+):(\d+)")


@pytest.fixture(scope="module")
def fixtures(shared):
    return shared / "fixtures" / "tasks"


@pytest.fixture(scope="module")
def served(fixtures, tmp_path_factory):
    """The address, and what is said on standard error; the folder of one model is gone once it serves."""
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(fixtures / "st_mean", folder / "gone")
    models = ["xlmr-mini", str(folder / "gone"), f"m3={fixtures / 'bge_m3'}", f"ranks={fixtures / 'cross_encoder'}"]
    command = [sys.executable, "-m", "xlmr_core", "serve", *models, "--backend", "torch", "--port", "0", "--access-log"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "XLMR_API_KEY": "k"}
    )
    lines: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=lambda: [lines.put(line) for line in process.stderr], daemon=True)
    thread.start()
    said: list[str] = []
    while not (found := ADDRESS.search("".join(said))):
        said.append(lines.get(timeout=60))
    shutil.rmtree(folder / "gone")
    yield (found[1], int(found[2])), said
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    thread.join(10)
    process.stderr.close()
    said += list(lines.queue)
    assert any(re.search(r"POST /v1/embeddings 200 [\d.]+ ms", line) for line in said), said
    assert not any("Traceback" in line or "Oslo" in line for line in said), said


@pytest.fixture
def ask(served):
    def post(path, status=200, **body):
        with closing(http.client.HTTPConnection(*served[0], timeout=60)) as connection:
            headers = {"content-type": "application/json", "authorization": "Bearer k"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == status, content
        return json.loads(content)

    return post


def test_what_it_says_when_it_starts(served):
    said = "".join(served[1])
    assert "xlmr-mini: fill-mask\n" in said and "ranks: text-classification, rerank\n" in said
    assert "gone: sentence-embedding, feature-extraction, sentence-similarity" in said


def test_many_at_once_get_the_answers_of_the_pipeline(ask, fixtures):
    expected = pipeline("sentence-embedding", fixtures / "st_mean")(TEXTS * 8)
    found = [None] * len(expected)

    def one(place):
        found[place] = ask("/v1/embeddings", model="gone", input=(TEXTS * 8)[place])["data"][0]["embedding"]

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.array(found), expected, atol=2e-6)


def test_the_other_tasks(ask, fixtures):
    blank = "Bonjour, je suis un modèle <mask>."
    expected = pipeline("fill-mask", top_k=3)(blank)
    found = ask("/tasks/fill-mask", inputs=blank, parameters={"top_k": 3})
    assert [row["token_str"] for row in found] == [row["token_str"] for row in expected]
    m3 = pipeline("sentence-embedding", fixtures / "bge_m3", outputs=("dense", "sparse", "colbert"))(TEXTS[0])
    (sparse,) = ask("/embed_sparse", inputs=TEXTS[0], model="m3")
    assert {str(row["index"]): pytest.approx(row["value"], abs=1e-5) for row in sparse} == m3["sparse"]
    vectors = ask("/tasks/sentence-embedding", inputs=TEXTS[0], model="m3", parameters={"outputs": ["colbert"]})
    np.testing.assert_allclose(vectors["colbert"], m3["colbert"], atol=1e-5)
    ranked = pipeline("rerank", fixtures / "cross_encoder")(TEXTS[0], TEXTS[1:])
    results = ask("/v2/rerank", model="ranks", query=TEXTS[0], documents=TEXTS[1:])["results"]
    assert [row["index"] for row in results] == [row["index"] for row in ranked]
    assert [row["relevance_score"] for row in results] == pytest.approx([row["score"] for row in ranked], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *(("fill_mask", "fill-mask"), ("st_mean", "sentence-embedding"), ("bge_m3", "sentence-embedding")),
        *(("question_answering",) * 2, ("token_classification",) * 2, ("text_classification",) * 2),
        *(("multiple_choice",) * 2, ("feature_extraction", "sentence-embedding"), ("text_generation",) * 2),
    ],
)
def test_what_a_checkpoint_is_for(fixtures, name, task):
    assert usual_task(fixtures / name) == task.replace("_", "-")


def test_what_a_head_can_do(fixtures):
    for name, tasks in {
        "cross_encoder": ["text-classification", "rerank"],
        "zero_shot_entail2": ["text-classification", "zero-shot-classification"],
        "text_classification": ["text-classification"],
    }.items():
        config = pipeline("text-classification", fixtures / name).runner.config
        assert [row.name for row in tasks_of(TASKS["text-classification"], config)] == tasks
    assert next(iter(load_model(fixtures / "st_mean", "feature-extraction").tasks)) == "feature-extraction"
