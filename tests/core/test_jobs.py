"""Jobs over files: what is read and written, and that no interruption repeats or loses a row."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner, LetterCounting
from xlmr_core import cli
from xlmr_core.cli import run as run_command
from xlmr_core.errors import InputError, JobError, MissingBackendError, XLMRError
from xlmr_core.jobs import job as jobs
from xlmr_core.jobs import parquet_file
from xlmr_core.jobs.answering import answer_each
from xlmr_core.jobs.compiling import COMPILED_FROM, compiled
from xlmr_core.jobs.job import Job
from xlmr_core.jobs.rows import READERS, columns_of, read_rows
from xlmr_core.jobs.values import from_json, to_json
from xlmr_core.tasks import TASKS
from xlmr_core.tasks.multiple_choice import MultipleChoice
from xlmr_core.tasks.pipeline import TRUNCATED, Pipeline
from xlmr_core.tasks.question_answering import QuestionAnswering
from xlmr_core.tasks.rerank import Rerank
from xlmr_core.tasks.sentence_embedding import SentenceEmbedding
from xlmr_core.tasks.task import plain
from xlmr_core.tasks.text_classification import TextClassification
from xlmr_core.tasks.vectors import quantized

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks and signals")


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(TASKS, ROW.name, ROW)


def counting(rows=0, examples=()):
    """The letters of a text; a question is refused."""
    return Pipeline(ROW.name, FakeRunner(), TOKENIZER, batch_tokens=64)


class Vectors:
    """Answers with a vector of a text's length, or of any shape that is asked for."""

    device, truncated = "cpu", ()

    def __init__(self, of=lambda text: np.array([len(text), 0.1], np.float32)):
        self.of = of

    def __call__(self, texts):
        for text in texts:
            if "?" in text:
                raise InputError("expected no question, received one; ask nothing")
            yield self.of(text)


def start(input, output, make=counting, said=None, **how):
    told = [] if said is None else said
    return Job(Path(input), Path(output), LetterCounting, **how).run(make, lambda kind, text: told.append(text))


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# Reading


def rows(content, ending, task=LetterCounting, **how):
    """What the task is given of a file, by the number of the row; of a bad one the error's text."""
    with open("file" + ending, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    with open("file" + ending, "rb") as file:
        names, count = READERS[ending].look(file)
        columns = columns_of(task, names, **how)
        file.seek(0)
        found = list(read_rows(task, READERS[ending].read(file), columns))
    assert len(found) == count
    return {row.number: str(row.input) if isinstance(row.input, XLMRError) else row.input for row in found}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("ending", "content", "expected"),
    [
        (".txt", "\ufeffein Satz\r\n\n日本 x", {1: "ein Satz", 3: "日本 x"}),
        (".txt", "a\x0bb\u2028c\n", {1: "a\x0bb\u2028c"}),
        (".txt", '{"text": "two\\nlines"}\n', {1: "two\nlines"}),
        (".csv", '\ufeffid,text\r\n1,"a, ""b""\nc"\r\n\r\n2,\r\n', {1: 'a, "b"\nc', 2: ""}),
        (".tsv", "text\tid\na, b\t1\n", {1: "a, b"}),
        (".jsonl", '{"text": "a\\tb"}\n\n{"id": 1, "text": "c"}\n"alone"\n', {1: "a\tb", 3: "c", 4: "alone"}),
        (".csv", "\n\ntext,id\na,1\n", {1: "a"}),
        (".csv", "", {}),
        (".csv", "text\n", {}),
        (".jsonl", "", {}),
    ],
)
def test_rows_of_a_file(here, ending, content, expected):
    assert rows(content, ending) == expected


@pytest.mark.parametrize(
    ("ending", "content", "numbers", "told"),
    [
        (".txt", b"a\n\xff\xfe\nb\n", (1, 3), "row 2: expected UTF-8, received other bytes"),
        (".csv", b"text,id\na,1\nb\nc,1\n", (1, 3), "row 2: expected 2 cells, received 1 (line 3)"),
        (".csv", b"text,id\na,1\nb, b,2\nc,1\n", (1, 3), "row 2: expected 2 cells, received 3 (line 3)"),
        (".csv", b"text\na\n\xff\nb\n", (1, 3), "row 2: expected UTF-8, received other bytes (line 3)"),
        (
            ".csv",
            b'text\na\n"b"c\nd\n',
            (1, 3),
            "row 2: expected cells of csv in line 3, received a text behind a quotation mark that ends a cell",
        ),
        (
            ".csv",
            b'text\na\n"b\nc\n',
            (1, 3),
            "row 2: expected cells of csv in line 3, received a quotation mark that does not end; mend the line",
        ),
        (".csv", b'text\na\n"b\nc\n"d"\ne\n', (1, 3, 4, 5), "row 2: expected cells of csv in line 3"),
        (".csv", b'text,id\n"a\nb",1\n"c\nd,2\ne,3\n', (1, 3, 4), "row 2: expected cells of csv in line 4"),
        (".csv", b"text\na\nb\rc\nd\n", (1, 3), "row 2: expected cells of csv in line 3, received a carriage return"),
        (
            ".jsonl",
            b'{"text": "a"}\n{"text": \n{"text": "b"}\n',
            (1, 3),
            "row 2: expected an object of JSON, received '{\"text\": ': Expecting value (character 10); mend the line",
        ),
        (".jsonl", b'{"text": "a"}\n[1]\n', (1,), "row 2: expected an object of JSON, received '[1]'; mend the line"),
        (".jsonl", b'{"text": "a"}\n{"text": null}\n', (1,), "row 2: expected a text in the column 'text', received n"),
        (
            ".jsonl",
            b'{"text": "a"}\n{"text": 5}\n',
            (1,),
            "row 2: expected a text in the column 'text', received int 5",
        ),
        (".jsonl", b'{"text": "a"}\n{"id": 5}\n', (1,), "row 2: expected a text in the column 'text', received noth"),
        (".jsonl", b'{"text": "a"}\n' + b"[" * 9999 + b"\n", (1,), "row 2: expected an object of JSON"),
    ],
)
def test_a_bad_row_is_one_row(here, ending, content, numbers, told):
    found = rows(content, ending)
    assert tuple(number for number, given in found.items() if not given.startswith("expected")) == numbers
    number, _, text = told.removeprefix("row ").partition(": ")
    assert found[int(number)].startswith(text)


QA, TC, MC, RR = QuestionAnswering, TextClassification, MultipleChoice, Rerank
CHOICES = {"prompt": "x", "choices": ["y", "z"]}


@pytest.mark.parametrize(
    ("task", "content", "how", "expected"),
    [
        (TC, "text,id\na,1\n", {}, "a"),
        (TC, "text,text_pair\na,b\n", {}, {"text": "a", "text_pair": "b"}),
        (TC, "x,y\na,b\n", {"column": ["y"]}, "b"),
        (TC, "x,y\na,b\n", {"column": ["y", "x"]}, {"text": "b", "text_pair": "a"}),
        (TC, "x,y\na,b\n", {"named": {"text": ["x"], "text_pair": ["y"]}}, {"text": "a", "text_pair": "b"}),
        (QA, "context,question\nc,q\n", {}, {"question": "q", "context": "c"}),
        (QA, "context,q\nc,q\n", {"named": {"question": ["q"]}}, {"question": "q", "context": "c"}),
        (
            MC,
            "p,a,b\nx,y,z\n",
            {"column": ["p"], "named": {"choices": ["a", "b"]}},
            CHOICES,
        ),
        (MC, "p,a,b\nx,y,z\n", {"column": ["p", "a", "b"]}, CHOICES),
        (MC, 'prompt,choices\nx,"[""y"", ""z""]"\n', {}, CHOICES),
        (RR, "query,passages\nx,y\n", {}, {"query": "x", "passages": ["y"]}),
        (RR, "query,passages\nx,[1]\n", {}, {"query": "x", "passages": ["[1]"]}),
    ],
)
def test_columns_of_a_task(here, task, content, how, expected):
    assert rows(content, ".csv", task, **how) == {1: expected}


@pytest.mark.parametrize(
    ("task", "ending", "content", "how", "told"),
    [
        (
            LetterCounting,
            ".csv",
            "id,body\n",
            {},
            "expected a column 'text', received 'id', 'body'; say which",
        ),
        (QA, ".csv", "question,body\n", {}, "say which it is: pass context_column="),
        (
            TC,
            ".csv",
            "texts,x\n",
            {"column": ["text"]},
            "expected a column of 'texts', 'x', received 'text'; did you",
        ),
        (
            TC,
            ".csv",
            "a,b,c\n",
            {"column": ["a", "b", "c"]},
            "expected one column for each of text, text_pair, received b, c for text_pair; leave some out",
        ),
        (TC, ".csv", "text,text\n", {}, "expected columns of different names, received text twice"),
        (
            TC,
            ".csv",
            "text,row\n",
            {"keep": ["row"]},
            "expected other columns to keep, received row, which is a n",
        ),
        (TC, ".txt", "a\n", {"column": ["a"]}, "expected a file with columns, received one without names of any"),
        (TC, ".csv", b"\xff\xfet\0e\0", {}, "expected UTF-8, received other bytes in the first line; con"),
        (TC, ".jsonl", '{"id": 1}\n', {}, "expected a column 'text', received 'id'"),
    ],
)
def test_a_file_without_the_columns_is_refused(here, task, ending, content, how, told):
    with pytest.raises(JobError) as refused:
        rows(content, ending, task, **how)
    assert told in str(refused.value)


# Writing

NAN = [np.nan, np.nan]
TEXTS = "text,id,score\nbanana,1,x\nwhy?,2,y\nä aan,3,z\n"
QUESTION = "expected no question, received one; ask nothing"


def test_answers_as_lines(here):
    Path("in.csv").write_text(TEXTS, encoding="utf-8")
    said = []
    outcome = start("in.csv", "out.jsonl", said=said, keep=["id"])
    assert (outcome.rows, outcome.failed, said) == (3, 1, [f"row 2: {QUESTION}"])
    assert lines("out.jsonl") == [
        {"row": 1, "text": "banana", "id": "1", "answer": {"a": 3}},
        {"row": 2, "text": "why?", "id": "2", "error": QUESTION},
        {"row": 3, "text": "ä aan", "id": "3", "answer": {"a": 2}},
    ]
    assert sorted(os.listdir()) == ["in.csv", "out.jsonl"]


@pytest.mark.parametrize(("ending", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_answers_as_a_table(here, ending, delimiter):
    Path("in.csv").write_text(TEXTS.replace("score", "a"), encoding="utf-8")
    start("in.csv", "out" + ending, keep=["all"])
    with open("out" + ending, encoding="utf-8", newline="") as file:
        table = list(csv.reader(file, delimiter=delimiter))
    assert table == [
        ["row", "text", "id", "a", "truncated", "answer_a", "error"],
        ["1", "banana", "1", "x", "false", "3", ""],
        ["2", "why?", "2", "y", "false", "", QUESTION],
        ["3", "ä aan", "3", "z", "false", "2", ""],
    ]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (
            lambda text: np.array([len(text), 0.1], np.float32),
            np.array([[1, 0.1], [np.nan, np.nan], [2, 0.1]], np.float32),
        ),
        (lambda text: np.array([len(text), -3], np.int8), np.array([[1, -3], [0, 0], [2, -3]], np.int8)),
        (lambda text: [len(text), 0.1], np.array([[1, 0.1], NAN, [2, 0.1]])),
        (lambda text: 0.1 * len(text), np.array([0.1, np.nan, 0.2])),
    ],
)
def test_vectors_keep_their_bits_and_their_rows(here, of, expected):
    Path("in.txt").write_text("a\n?\nbb\n")
    start("in.txt", "out.npy", lambda *rows: Vectors(of))
    found = np.load("out.npy")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_ranges_of_numbers_come_from_all_vectors(texts):
    asked = SentenceEmbedding.Options(precision="int8")
    apart, at_the_end = SentenceEmbedding.put_off(asked)
    assert apart == SentenceEmbedding.Options() and SentenceEmbedding.put_off(apart) == (apart, None)
    how = {"at_the_end": at_the_end}
    with pytest.raises(Interrupted):
        start("in.txt", "out.npy", lambda *rows: interrupting(after=2)(pipeline=Vectors()), **how)
    start("in.txt", "out.npy", lambda *rows: Vectors(), **how)
    whole = [Vectors().of("a" * number) for number in range(1, 11) if number != 6]
    expected = np.insert(quantized(np.stack(whole), "int8"), 5, 0, axis=0)
    np.testing.assert_array_equal(np.load("out.npy"), expected)
    with pytest.raises(JobError, match="expected an output that ends in .npy for answers that are made of all rows"):
        start("in.txt", "out.jsonl", **how)


def test_rows_of_vectors_that_are_no_lines_are_told(here):
    Path("in.txt").write_text("a\n\nb\n")
    said = []
    start("in.txt", "out.npy", lambda *rows: Vectors(), said)
    assert said == ["blank lines are left out: 2 rows of 3 lines"]


def test_json_has_no_numbers_that_are_none(here):
    Path("in.jsonl").write_text('{"text": "a", "x": NaN, "y": [Infinity, {"z": -Infinity}], "n": 1}\n')
    for output in ("out.jsonl", "out.csv"):
        start("in.jsonl", output, keep=["all"])
    kept = {"x": None, "y": [None, {"z": None}], "n": 1}
    assert lines("out.jsonl") == [{"row": 1, "text": "a", **kept, "answer": {"a": 1}}]
    assert '"[null, {""z"": null}]"' in Path("out.csv").read_text()
    parquet = pytest.importorskip("pyarrow.parquet")
    start("in.jsonl", "out.parquet", keep=["all"])
    assert parquet.read_table("out.parquet")["y"].to_pylist() == ['[null, {"z": null}]']


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (
            lambda text: np.zeros(len(text), np.float32),
            "a .npy holds arrays of one shape, row 2 has (2,) float32 and",
        ),
        (
            lambda text: [[0.1] * len(text)],
            "a .npy holds an array of numbers for each row, this task answers with lists",
        ),
        (lambda text: {"score": 1.0}, "this task answers with dict; give an output that ends in .jsonl or .parquet"),
    ],
)
def test_what_is_no_vector_of_one_shape_is_refused(here, of, told):
    Path("in.txt").write_text("a\nbb\n")
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.npy", lambda *rows: Vectors(of))
    assert told in str(refused.value)
    assert os.listdir() == ["in.txt"]


def test_parquet_in_and_out(here):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as arrow

    arrow.parquet.write_table(
        arrow.table(
            {"text": [b"banana", None, b"why?", b"a"], "id": [1, 2, 3, 4], "more": [{"b": 1}, None, None, None]}
        ),
        "in.parquet",
    )
    outcome = start("in.parquet", "out.parquet", keep=["all"])
    assert (outcome.rows, outcome.failed) == (4, 2)
    table = parquet.read_table("out.parquet").to_pydict()
    assert table["row"] == [1, 2, 3, 4] and table["id"] == [1, 2, 3, 4] and table["a"] == [3, None, None, 1]
    assert table["more"] == ['{"b": 1}', None, None, None]
    assert table["error"][1] == "expected a text in the column 'text', received nothing; mend the row"
    Path("in.txt").touch()
    start("in.txt", "none.parquet")
    assert [str(kind) for kind in parquet.read_schema("none.parquet").types] == ["int64", "bool", "string"]


@pytest.mark.parametrize(
    ("cells", "type_", "expected"),
    [
        ([1, 2.5, None], "double", [1.0, 2.5, None]),
        ([1, "x", [1]], "string", ["1", "x", "[1]"]),
        ([2**70, 1], "string", [str(2**70), "1"]),
        ([np.float32([1, 2]), None], "list", [[1.0, 2.0], None]),
        ([np.float32([[1], [2]]), None], "list", [[[1.0], [2.0]], None]),
        ([[], ["a"]], "list", [[], ["a"]]),
        ([{"a": 1}, {}], "string", ['{"a": 1}', "{}"]),
        ([None, None], "string", [None, None]),
        (["\ud800"], "string", ["\\ud800"]),
        ([True, None, 3], "string", ["true", None, "3"]),
    ],
)
@pytest.mark.parametrize("together", [1, 100])
def test_columns_of_parquet_take_any_value(here, monkeypatch, cells, type_, expected, together):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet_file, "WRITTEN_TOGETHER", together)
    parquet_file.write(Path("x.parquet"), lambda: ({"cell": cell} for cell in cells), ["cell"], {})
    table = parquet.read_table("x.parquet")
    assert str(table.schema.field("cell").type).startswith(type_)
    assert table.to_pydict()["cell"] == expected


def test_a_damaged_parquet_is_one_sentence(here):
    pytest.importorskip("pyarrow")
    Path("in.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(JobError, match="expected a file of Parquet, received another: .*; check the file"):
        start("in.parquet", "out.jsonl")


@pytest.mark.parametrize("names", [("in.parquet", "out.jsonl"), ("in.txt", "out.parquet")])
def test_without_pyarrow_one_sentence_says_what_to_install(here, monkeypatch, names):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("in.parquet", "in.txt"):
        Path(name).write_text("a\n")
    with pytest.raises(MissingBackendError, match=r"^pyarrow is needed .* pip install 'xlmr\[tables\]'$"):
        start(*names)
    assert sorted(os.listdir()) == ["in.parquet", "in.txt"]


@pytest.mark.parametrize(
    "value",
    [np.arange(6, dtype=np.int8).reshape(2, 3), np.float32([0.1]), {"a": [np.ones(1)]}, {"__array__": 1}],
)
def test_arrays_keep_their_bits_in_json(value):
    found = from_json(to_json(value))
    assert plain(found) == plain(value)
    if isinstance(value, np.ndarray):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)


def test_what_only_looks_like_an_array_is_left_alone():
    value = {"__array__": "x", "dtype": "object", "shape": [1]}
    assert from_json(to_json(value)) == value


# Going on


@pytest.fixture
def texts(here, monkeypatch):
    """Ten rows in windows of four, one of them bad."""
    monkeypatch.setattr(jobs, "WINDOW", 4)
    Path("in.txt").write_text("".join(f"{'a' * number}\n" for number in range(1, 11)).replace("aaaaaa\n", "?\n", 1))
    return here


ALL = [
    {"row": n, "text": "?", "error": QUESTION} if n == 6 else {"row": n, "text": "a" * n, "answer": {"a": n}}
    for n in range(1, 11)
]


class Interrupted(Exception):
    pass


def interrupting(after):
    """Makes pipelines that answer so many windows, and then end as no other does."""

    class Interrupting:
        truncated = ()

        def __init__(self, rows=0, examples=(), pipeline=None):
            self.answered, self.pipeline = 0, pipeline or counting()

        def __call__(self, texts):
            if self.answered == after:
                raise Interrupted
            self.answered += 1
            return self.pipeline(texts)

        def rows(self, answer):
            return self.pipeline.rows(answer)

        def check_options(self):
            pass

    return Interrupting


def interrupt(**how):
    with pytest.raises(Interrupted):
        start("in.txt", "out.jsonl", interrupting(after=1), **how)
    assert sorted(os.listdir()) == ["in.txt", "out.jsonl.xlmr-job"]


def test_an_interrupted_job_goes_on(texts):
    interrupt()
    said, made = [], []
    outcome = start(
        "in.txt", "out.jsonl", lambda rows, examples: made.append((rows, list(examples))) or counting(), said
    )
    assert said == ["goes on after row 4, 4 rows are done", f"row 6: {QUESTION}"]
    assert made == [(6, ["aaaaa", "?", "aaaaaaa", "aaaaaaaa"])]
    assert (outcome.rows, outcome.failed) == (10, 1)
    assert lines("out.jsonl") == ALL and sorted(os.listdir()) == ["in.txt", "out.jsonl"]


@pytest.mark.parametrize("tail", [b'{"row": 5, "gi', b"\0" * 40, b'{"row": 2}\n', b"\n"])
def test_what_is_no_whole_row_of_a_journal_is_cut_off(texts, tail):
    interrupt()
    with open("out.jsonl.xlmr-job", "ab") as file:
        file.write(tail)
    start("in.txt", "out.jsonl")
    assert lines("out.jsonl") == ALL


def test_a_changed_input_is_refused(texts):
    interrupt()
    before = Path("in.txt").read_bytes()
    Path("in.txt").write_bytes(before.replace(b"aaaaa\n", b"aaaab\n", 1))
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.jsonl")
    assert str(refused.value) == (
        "in.txt is not the file that out.jsonl.xlmr-job was begun with (4 rows are done); bring that one back to "
        "go on, or pass restart=True to answer all rows of this one"
    )
    Path("in.txt").write_bytes(before)
    start("in.txt", "out.jsonl")
    assert lines("out.jsonl") == ALL


def test_an_input_that_changes_while_it_is_read_is_refused(texts):
    def make(rows, examples):
        with open("in.txt", "a") as file:
            file.write("more\n")
        return counting()

    with pytest.raises(JobError, match="in.txt was changed while it was read; pass restart=True"):
        start("in.txt", "out.jsonl", make)
    assert os.listdir() == ["in.txt"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (
            {"settings": {"model": "b"}},
            "another model, 'a', received 'b' (4 rows are done); go on with that",
        ),
        ({"settings": {"model": "a", "top_k": 3}}, "was begun with another top_k, None, received 3"),
    ],
)
def test_a_job_with_other_settings_is_refused_or_begun_anew(texts, how, told):
    interrupt(settings={"model": "a"})
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.jsonl", **how)
    assert told in str(refused.value)
    said = []
    start("in.txt", "out.jsonl", said=said, restart=True, **how)
    assert said == [f"row 6: {QUESTION}"] and lines("out.jsonl") == ALL


def test_an_output_that_is_there_is_not_replaced_by_itself(texts):
    Path("out.jsonl").write_text("mine")
    with pytest.raises(JobError, match=r"^out.jsonl is there already; pass force=True to replace it, or "):
        start("in.txt", "out.jsonl")
    assert Path("out.jsonl").read_text() == "mine" and sorted(os.listdir()) == ["in.txt", "out.jsonl"]
    start("in.txt", "out.jsonl", force=True)
    assert lines("out.jsonl") == ALL


def test_an_output_that_appears_meanwhile_is_not_replaced_either(texts):
    with pytest.raises(JobError, match="is there already"):
        start("in.txt", "out.jsonl", lambda *rows: Path("out.jsonl").write_text("mine") and counting())
    assert Path("out.jsonl").read_text() == "mine"
    start("in.txt", "out.jsonl", make=None, force=True)
    assert lines("out.jsonl") == ALL


@pytest.mark.parametrize(
    ("input", "output", "told"),
    [
        ("none.txt", "out.jsonl", "cannot read none.txt: No such file or directory; check the name"),
        (".", "out.jsonl", "expected an input that ends in .txt, .csv, "),
        ("in.xlsx", "out.jsonl", "expected an input that ends in .txt, .csv, "),
        ("in.txt", "out.jsonlines", "received 'out.jsonlines'; did you mean '.jsonl'?"),
        ("in.txt", "none/out.jsonl", "expected a folder to write to, received 'none', which is none; make it first"),
        ("in.txt", "folder.csv", "expected a file to write, received the folder 'folder.csv'; name a file in it"),
        ("in.csv", "in.csv", "expected another output than the input, received 'in.csv' twice; rename it"),
    ],
)
def test_files_that_cannot_be_had_are_refused(texts, input, output, told):
    Path("folder.csv").mkdir()
    Path("in.csv").write_text("text\na\n")
    before = sorted(os.listdir())
    with pytest.raises(JobError) as refused:
        start(input, output)
    assert told in str(refused.value)
    assert sorted(os.listdir()) == before


@POSIX
def test_a_pipe_is_no_input(here):
    os.mkfifo("in.txt")
    with pytest.raises(JobError, match="it is a named pipe and no file"):
        start("in.txt", "out.jsonl")


@pytest.mark.parametrize("content", [b"somebody's\n", b"{}\n"])
def test_another_file_in_the_place_of_the_journal_is_left_alone(texts, content):
    Path("out.jsonl.xlmr-job").write_bytes(content)
    with pytest.raises(JobError, match="expected the journal of a job in .*, received another file; move it away"):
        start("in.txt", "out.jsonl")
    assert Path("out.jsonl.xlmr-job").read_bytes() == content


def test_a_full_disk_keeps_what_is_done(texts, monkeypatch):
    real, written = os.write, []

    def write(handle, data):
        written.append(len(data))
        if len(written) == 3:
            real(handle, bytes(data)[:7])
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.jsonl")
    assert str(refused.value) == (
        "cannot write to out.jsonl.xlmr-job: No space left on device; make room and run the same again, 4 rows are kept"
    )
    start("in.txt", "out.jsonl")
    assert lines("out.jsonl") == ALL


def test_a_full_disk_at_the_end_keeps_all(texts, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(JobError) as refused:
        patch.setattr(jobs, "settle", full)
        start("in.txt", "out.jsonl")
    assert str(refused.value) == (
        "cannot write out.jsonl: No space left on device; make room and run the same again, all 10 rows are answered "
        "and kept"
    )
    assert sorted(os.listdir()) == ["in.txt", "out.jsonl.xlmr-job"]
    start("in.txt", "out.jsonl", make=None)  # nothing is left to answer
    assert lines("out.jsonl") == ALL


# Killed at every step, one after the other; the next start finishes what was begun.
KILLED = """
import os, sys
from pathlib import Path
from tests.core import test_jobs as t
from tests.core.killed import killed_at
t.TASKS[t.ROW.name] = t.ROW
t.jobs.WINDOW = 4
for name in sys.argv[1:]:
    output, journal, step = Path(name), Path(name + ".xlmr-job"), 1
    while killed_at(step, lambda: t.start("in.txt", output)):
        before = output.read_bytes() if output.exists() else None
        if before is None or journal.exists():
            t.start("in.txt", output)
        found = output.read_bytes()
        assert before in (None, found), step
        assert found.count(b"a" * 10) == 1 and found.count(b"row") in (1, 10), step
        assert sorted(os.listdir()) == ["in.txt", name], (step, os.listdir())
        output.unlink()
        step += 1
    os.rename(name, "../" + name)
    print(step)
"""
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


@POSIX
def test_a_kill_at_any_step_neither_repeats_nor_loses_a_row(texts):
    command = [sys.executable, "-c", KILLED, "out.jsonl", "out.csv"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(int(steps) > 15 for steps in done.stdout.split())
    assert lines("../out.jsonl") == ALL and Path("../out.csv").read_text().count("\n") == 11


SLOW = """
import sys, time
from tests.core import test_jobs as t
t.TASKS[t.ROW.name] = t.ROW
t.jobs.WINDOW = 1
class Slow(t.interrupting(after=-1)):
    def __call__(self, texts):
        time.sleep(0.05 if self.answered < 3 else 60)
        return super().__call__(texts)
t.start("in.txt", "out.jsonl", Slow)
"""


@POSIX
def test_a_job_is_killed_while_another_waits_for_it(texts):
    with subprocess.Popen([sys.executable, "-c", SLOW], env=ENV) as process:
        journal = Path("out.jsonl.xlmr-job")
        while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(JobError) as refused:
            start("in.txt", "out.jsonl")
        assert str(refused.value) == (
            "expected to be the only one at this job, another process has out.jsonl.xlmr-job; wait for it, or give "
            "another output"
        )
        process.send_signal(signal.SIGKILL)
    said = []
    start("in.txt", "out.jsonl", said=said)
    assert said[0] == "goes on after row 3, 3 rows are done"
    assert lines("out.jsonl") == ALL


# Answering


def test_bad_rows_are_found_by_halves():
    calls = []

    class Upper:
        truncated = (0,)

        def __call__(self, texts):
            texts = list(texts)
            calls.append(len(texts))
            if "?" in texts:
                raise InputError("no")
            return [text.upper() for text in texts]

    given = ["?" if number == 77 else "x" for number in range(256)]
    given[3] = JobError("bad")
    found = list(answer_each(Upper(), given))
    assert [answer for answer, _ in found].count("X") == 254
    assert str(found[3][0]) == "bad" and str(found[77][0]) == "no"
    assert found[0] == ("X", True) and found[1] == ("X", False) and found[77][1] is False
    assert len(calls) < 20 and calls[0] == 255


def test_windows_are_bounded_by_characters(monkeypatch):
    monkeypatch.setattr(jobs, "WINDOW", 3)
    monkeypatch.setattr(jobs, "WINDOW_CHARACTERS", 10)
    rows = [jobs.Row(n, {"text": "x" * size}, {}, "") for n, size in enumerate([1, 1, 1, 20, 5, 5, 1])]
    assert [len(window) for window in jobs._windows(iter(rows))] == [3, 1, 2, 1]


# Compiling


@pytest.mark.parametrize(
    ("wanted", "rows", "device", "expected"),
    [
        (None, COMPILED_FROM, "cpu", []),
        (None, COMPILED_FROM + 1, "cpu", [{}]),
        (None, COMPILED_FROM + 1, "cuda:0", []),
        (False, COMPILED_FROM + 1, "cpu", []),
        (True, 1, "cpu", [{"compile": True}]),
        (True, 1, "cuda:0", [{"compile": True}]),
    ],
)
def test_long_jobs_are_compiled_and_say_so(wanted, rows, device, expected):
    calls, said = [], []
    pipeline = Vectors()
    pipeline.model, pipeline.device = object(), device

    def optimize(model, **how):
        assert model is pipeline.model
        calls.append(how)

    found = compiled(lambda: pipeline, optimize, wanted, rows, ["?", "a"], lambda kind, text: said.append(text))
    assert found is pipeline and calls == expected
    words = f"compiles the model for {rows} rows, up to a minute; pass compile=False to leave that out"
    assert said == ([words] if calls == [{}] else [])


def test_a_compiler_that_fails_does_not_end_a_job():
    made, said = [], []

    def load():
        made.append(Vectors())
        made[-1].model = object()
        return made[-1]

    def fail(model, **how):
        raise RuntimeError("no C++ compiler")

    found = compiled(load, fail, None, 9999, [], lambda kind, text: said.append((kind, text)))
    assert found is made[1]
    assert said[1] == ("warning", "goes on without compiling the model, which failed: RuntimeError: no C++ compiler")
    with pytest.raises(JobError, match="cannot compile the model: RuntimeError: no C.. compiler; leave compile=True"):
        compiled(load, fail, True, 1, [], print)
    with pytest.raises(JobError, match="only models of PyTorch are compiled"):
        compiled(load, None, True, 1, [], print)


# The command


@pytest.fixture
def command(texts, monkeypatch):
    """The command line with the task and a backend that is not there; the pipelines that it made."""
    made = []

    def pipeline(task, *, model, device, dtype, progress, **given):
        made.append(given)
        return Pipeline(task, FakeRunner(), TOKENIZER, **given)

    monkeypatch.setattr(run_command, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr(run_command, "installed", lambda name: True)
    return made


COUNT = ("run", "--task", ROW.name, "--model", "m")


def test_the_command_runs_a_job(command, capsys):
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 2
    assert lines("out.jsonl") == ALL
    assert capsys.readouterr() == (
        "",
        f"xlmr: error: row 6: {QUESTION}\nxlmr: 10 rows, 1 without an answer, in out.jsonl\n",
    )
    assert command[0]["batch_tokens"] == 4096 and command[0]["batch_size"] is None
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 2
    assert "out.jsonl is there already; pass --force to replace it" in capsys.readouterr().err
    Path("in.csv").write_text("body,id\na,1\n")
    words = ["--input", "in.csv", "--output", "out.csv", "--column", "body", "--keep", "id", "--batch-size", "2"]
    assert cli.main([*COUNT, *words]) == 0
    assert Path("out.csv").read_text() == "row,text,id,truncated,a,error\n1,a,1,false,1,\n"
    assert command[1]["batch_tokens"] is None and command[1]["batch_size"] == 2


def test_the_command_goes_on_with_the_same_settings_only(command, capsys, monkeypatch):
    words = [*COUNT, "--input", "in.txt", "--output", "out.jsonl", "--least", "1"]
    backend = SimpleNamespace(pipeline=lambda task, **how: interrupting(after=1)())
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(run_command, "load_backend", lambda name: backend)
        cli.main(words)
    for other, told in [
        (("--least", "2"), "was begun with another least, 1, received 2"),
        (("--model", "n"), "was begun with another model, 'm', received 'n'"),
    ]:
        assert cli.main([*words, *other]) == 2
        err = capsys.readouterr().err
        assert told in err and "pass --restart to begin anew" in err
    # Which rows run together, and what is shown, makes no other job.
    assert cli.main([*words, "--batch-size", "3", "--progress"]) == 2
    err = capsys.readouterr().err
    assert "goes on after row 4, 4 rows are done" in err and "| 10/10 [" in err
    assert lines("out.jsonl") == ALL


def test_a_model_that_was_trained_on_is_another(command, capsys, monkeypatch):
    Path("folder").mkdir()
    Path("folder/model.bin").write_text("old")
    words = [*COUNT[:-1], "folder", "--input", "in.txt", "--output", "out.jsonl"]
    backend = SimpleNamespace(pipeline=lambda task, **how: interrupting(after=1)())
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(run_command, "load_backend", lambda name: backend)
        cli.main(words)
    Path("folder/model.bin").write_text("newer")
    assert cli.main(words) == 2
    assert "was begun with another content of the model's folder" in capsys.readouterr().err
    assert cli.main([*words, "--restart"]) == 2
    assert lines("out.jsonl") == ALL


def backend_of(monkeypatch, kind, **others):
    backend = SimpleNamespace(pipeline=lambda task, **how: kind(), **others)
    monkeypatch.setattr(run_command, "load_backend", lambda name: backend)


def test_that_texts_are_cut_is_said_once(command, capsys, monkeypatch):
    class Cutting(Vectors):
        truncated = (1,)

        def check_options(self):
            pass

        def __call__(self, texts):
            logging.getLogger("xlmr_core.tasks").warning(TRUNCATED, "'aa'", " and 3 others")
            return super().__call__(texts)

    backend_of(monkeypatch, Cutting)
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "xlmr: warning: 'aa': truncated, as longer than the model takes; --on-overflow says what happens to such texts",
        f"xlmr: error: row 6: {QUESTION}",
        "xlmr: 10 rows, 1 without an answer, 3 truncated, in out.jsonl",
    ]


def test_options_are_looked_at_before_the_model_is_compiled(command, capsys, monkeypatch):
    class Refusing(Vectors):
        model = None

        def check_options(self):
            raise InputError("expected labels, received none; pass some")

    backend_of(monkeypatch, Refusing, optimize_for_inference=lambda model, **how: None)
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl", "--compile"]) == 2
    assert capsys.readouterr().err == "xlmr: error: expected labels, received none; pass some\n"
    assert os.listdir() == ["in.txt"]


def test_ctrl_c_says_how_to_go_on(command, capsys, monkeypatch):
    class Stopped(interrupting(after=-1)):
        def __call__(self, texts):
            raise KeyboardInterrupt

    backend_of(monkeypatch, Stopped)
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 130
    assert capsys.readouterr().err == "xlmr: interrupted; the same command goes on\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--input", "in.txt"), "expected --input and --output, received one of them; give --output too"),
        (("--output", "o.csv"), "expected --input and --output, received one of them; give --input too"),
        (("--input", "in.txt", "--output", "o.csv", "x"), "expected texts or --input, received both ('x')"),
        (
            ("--input", "in.txt", "--output", "o.csv", "--json"),
            "expected the format in the ending of --output, ",
        ),
        (("--restart", "x"), "--restart is for jobs over files, received no --input; give --input and --output"),
        (("--column", "a", "x"), "--column is for jobs over files"),
        (("--no-compile", "x"), "--no-compile is for jobs over files"),
        (("--input", "in.csv", "--output", "o.csv"), "say which it is: pass --column"),
        (("--input", "in.txt", "--output", "o.csv", "--compile"), "leave --compile out"),
        (("in.csv",), "xlmr run ... --input in.csv --output answers.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence(command, capsys, words, told):
    Path("in.csv").write_text("id,body\n1,a\n")
    assert cli.main([*COUNT, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and told in err


def test_a_task_has_an_argument_for_each_of_its_columns(capsys):
    assert cli.main(["run", "--task", "question-answering", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--question-column NAME" in out and "--context-column NAME" in out and "--keep NAME" in out
