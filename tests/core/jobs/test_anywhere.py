"""Answers in the workers of another engine: one model a process, columns of answers, faulty rows, shards that go on."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xlmr_core.errors import InputError, JobError, MissingBackendError
from xlmr_core.jobs import anywhere
from xlmr_core.jobs.anywhere import Answering

ANSWERS: dict[str, Any] = {
    "text-classification": lambda text: {"label": text[:1], "score": len(text) / 10},
    "sentence-embedding": lambda text: np.full(3, len(text), np.float32),
    "token-classification": lambda text: [{"word": word, "entity": "X"} for word in text.split()],
}


class Pipe:
    """A pipeline that refuses one text."""

    truncated = ()

    def __init__(self, task: str) -> None:
        self.answer = ANSWERS[task]

    def __call__(self, inputs: Any) -> list[Any]:
        texts = list(inputs)
        if "bad" in texts:
            raise InputError("expected another text, received 'bad'")
        return [self.answer(text) for text in texts]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What pipelines were made with."""
    calls: list[Any] = []

    def pipeline(task: str, model: Any, **arguments: Any) -> Pipe:
        calls.append((task, model, arguments))
        return Pipe(task)

    monkeypatch.setattr(anywhere, "_PIPELINES", {})
    monkeypatch.setattr(anywhere, "installed", lambda name: name == "flax")
    monkeypatch.setattr(anywhere, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    return calls


def test_a_batch_gets_columns_and_a_process_one_model(made: list[Any]) -> None:
    answering = Answering("text-classification", "topics", batch_tokens=64)
    assert not made
    batch = {"id": np.array([1, 2]), "text": np.array(["ab", "bcd"], object)}
    found = pickle.loads(pickle.dumps(answering))(batch)  # as it comes to a worker
    assert found["id"] is batch["id"] and found["label"].tolist() == ["a", "b"] and found["error"].tolist() == ["", ""]
    np.testing.assert_allclose(found["score"], [0.2, 0.3])
    answering(batch)
    assert made == [("text-classification", "topics", {"batch_tokens": 64})]
    Answering("text-classification", "topics", batch_tokens=32)(batch)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("sentence-embedding", {"answer": [[2.0] * 3, [np.nan] * 3]}),
        ("text-classification", {"label": ["a", ""], "score": [0.2, np.nan]}),
        ("token-classification", {"answer": ['[{"word": "ab", "entity": "X"}]', ""]}),
    ],
)
def test_a_row_without_an_answer_says_why(task: str, expected: dict[str, Any], made: list[Any]) -> None:
    found = Answering(task, column=["body"])({"body": ["ab", "bad"]})
    assert found.pop("error").tolist() == ["", "expected another text, received 'bad'"] and found.pop("body")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], np.array(values, found[name].dtype))
    none = Answering(task)({"text": [None, 3]})
    assert all(text.startswith("expected a text in the column 'text'") for text in none["error"])


def test_rows_one_after_the_other(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anywhere, "WINDOW", 2)
    rows = [{"text": "a" * n, "n": n} for n in range(1, 6)]
    found = list(Answering("sentence-embedding").rows(SimpleNamespace(asDict=lambda row=row: row) for row in rows))
    assert [row["n"] for row in found] == [1, 2, 3, 4, 5] and found[4]["answer"] == [5.0] * 3
    assert list(Answering("sentence-embedding").rows([])) == []


class Table(dict):  # type: ignore[type-arg]
    """As much of a table of pandas as is asked for."""

    columns = property(lambda self: list(self))

    def __getitem__(self, name: str) -> Any:
        return np.array(super().__getitem__(name), object)

    def to_dict(self) -> dict[str, Any]:
        return dict(self)

    def assign(self, **columns: Any) -> Table:
        return Table(**self, **columns)


def test_tables_of_pandas(made: list[Any]) -> None:
    (found,) = Answering("sentence-embedding").frames(iter([Table(text=["ab", "c"])]))
    assert isinstance(found, Table) and [x.tolist() for x in found.to_dict()["answer"]] == [[2.0] * 3, [1.0] * 3]


def test_shards_go_on_where_they_were(made: list[Any], tmp_path: Path) -> None:
    for name, texts in (("one", ["ab", "bad", "c"]), ("two", ["d"])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    answering, files = Answering("text-classification"), sorted(tmp_path.glob("*.jsonl"))
    todo = answering.shards(files, tmp_path / "out")
    assert [Path(output).name for _, output in todo] == ["one.jsonl", "two.jsonl"]
    assert answering.shard(todo[0]).failed == 1
    (tmp_path / "out" / "two.jsonl.xlmr-job").write_bytes(b"")  # of a worker that was killed
    left = answering.shards(files, tmp_path / "out")
    assert left == todo[1:]
    assert answering.shard(left[0]).rows == 1 and answering.shards(files, tmp_path / "out") == []
    assert answering.shard(todo[0]).rows == 0  # another worker was faster
    found = [json.loads(line) for line in (tmp_path / "out" / "one.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row.get("answer", {}).get("label") for row in found] == ["a", None, "c"]
    with pytest.raises(JobError, match="expected files of different names"):
        answering.shards([files[0], tmp_path / "other" / "one.jsonl"], tmp_path / "again")


def test_what_is_wrong_is_said(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match="expected a column 'text', received 'body'"):
        Answering("text-classification")({"body": ["a"]})
    monkeypatch.setattr(anywhere, "installed", lambda name: False)
    with pytest.raises(MissingBackendError, match="this worker has none"):
        Answering("text-classification", "another")({"text": ["a"]})
