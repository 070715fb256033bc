"""Files of jobs: the rows that are read, and what is written of an answer."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.core.fake_task import LetterCounting
from tests.core.jobs.small_jobs import QUESTION, Interrupted, Vectors, interrupting, lines, start
from xlmr_core.errors import JobError, MissingBackendError, XLMRError
from xlmr_core.jobs import parquet_file
from xlmr_core.jobs.rows import READERS, columns_of, read_rows
from xlmr_core.jobs.values import from_json, to_json
from xlmr_core.tasks.multiple_choice import MultipleChoice
from xlmr_core.tasks.question_answering import QuestionAnswering
from xlmr_core.tasks.rerank import Rerank
from xlmr_core.tasks.sentence_embedding import SentenceEmbedding
from xlmr_core.tasks.task import plain
from xlmr_core.tasks.text_classification import TextClassification
from xlmr_core.tasks.vectors import quantized

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
