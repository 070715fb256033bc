"""Reading examples: every format, every column by its names, and each bad line with its file and number."""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import math
import os
import tempfile
from pathlib import Path

import pytest

from tests.choice import chosen
from xlmr_core.errors import InputError
from xlmr_core.training import examples as reading
from xlmr_core.training.examples import read_examples
from xlmr_core.training.formats import language_of
from xlmr_core.training.tasks import TRAINING

CLASSES, TAGS, QUESTIONS, LINES, CHOICES, VECTORS, RANKS = (
    TRAINING[name]
    for name in (
        *("text-classification", "token-classification", "question-answering", "masked-language-modeling"),
        *("multiple-choice", "sentence-embedding", "rerank"),
    )
)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def json_lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


TABLE = [{"text": "one, two", "label": "a", "lang": "en"}, {"text": "drei", "label": "b", "lang": "de"}]
FORMS = {
    "a.csv": 'text,label,lang\n"one, two",a,en\ndrei,b,de\n',
    "a.tsv.gz": "text\tlabel\tlang\none, two\ta\ten\ndrei\tb\tde\n",
    "a.jsonl": json_lines(*TABLE),
    "a.ndjson.xz": json_lines(*TABLE),
    "a.json": json.dumps(TABLE),
}


@pytest.mark.parametrize("name", FORMS)
def test_rows_are_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    found = read_examples(CLASSES, [written(tmp_path, name, FORMS[name])])
    assert list(found) == [
        {"text": "one, two", "label": "a", "language": "en"},
        {"text": "drei", "label": "b", "language": "de"},
    ]
    assert (found.labels, found.languages, found.language.tolist()) == (["a", "b"], ["de", "en"], [1, 0])
    assert found.sizes.tolist() == [len("one, two") + 1 + 2, 4 + 1 + 2]
    assert found[-1] == found[1] and found[:1] == [found[0]]
    with pytest.raises(IndexError):
        found[2]


def test_a_file_larger_than_memory_is_read_by_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.jsonl", json_lines(*({"text": f"Zeile {n} ü", "label": n % 3} for n in range(200))))
    whole = list(read_examples(CLASSES, [path]))
    monkeypatch.setattr(reading, "MOST_IN_MEMORY", 1000)
    found = read_examples(CLASSES, [path])
    assert len(found._memory) == 0
    path.unlink()
    assert [found[n] for n in reversed(range(200))] == whole[::-1]
    monkeypatch.delattr("os.pread")
    assert found[77] == whole[77]


def test_a_folder_stands_for_its_files_and_their_names_for_languages(tmp_path: Path) -> None:
    for name in ("de.txt.xz", "en.txt", "zh-Hant.txt.gz", "README.md"):
        written(tmp_path, name, f"{name} 1\n{name} 2\n\n{name} 3\n")
    found = read_examples(LINES, [tmp_path])
    assert found.languages == ["de", "en", "zh-Hant"] and len(found) == 9
    assert [bool(example.get("begins")) for example in found] == [True, False, True] * 3
    assert len(read_examples(LINES, [tmp_path], languages=["en"])) == 3
    with pytest.raises(InputError, match="found none in fr"):
        read_examples(LINES, [tmp_path], languages=["en", "fr"])


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(
            ("de.txt", "de"),
            ("zh-Hant.txt.xz", "zh-Hant"),
            ("pt-BR.csv", "pt-BR"),
            ("yue.txt", "yue"),
            ("ary.tsv", "ary"),
        ),
        *(
            (f"{name}.jsonl", "")
            for name in ("train", "dev", "val", "qa", "ner", "pos", "nli", "mc", "all", "new", "de-x")
        ),
    ],
)
def test_the_name_of_a_file_says_its_language(name: str, language: str) -> None:
    assert language_of(Path(name)) == language


CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nruns VBZ O\n\n\nOslo NNP B-LOC\n"
CONLLU = (
    "# text = du kommer\n1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n1\tdu\tdu\tPRON\t_\t_\t2\tx\t_\t_\n"
    "2\tkommer\tkomme\tVERB\t_\t_\t0\troot\t_\t_\n2.1\tx\tx\tX\t_\t_\t_\t_\t_\t_\n\n"
)


COMMENTS = "# sent_id = 1\n# text ... of it\nAda B-PER\n# x=y O\n\n# sent_id = 2\n# O\nOslo B-LOC\n\n# the end of it\n"
MARKS = "# newdoc\nAda B-PER\n\n# newpar\n# SYM\nOslo B-LOC\n"
FIRST_MARKS = "# O\n# B-X\n\n# the_second\n# #\nOslo B-LOC\n"
MULTICONER = "# id 64-a\tdomain=en\nAda _ _ B-PER\nruns _ _ O\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.conll", CONLL, [(["Ada", "runs"], ["B-PER", "O"]), (["Oslo"], ["B-LOC"])]),
        ("a.iob2.gz", CONLL.rstrip(), [(["Ada", "runs"], ["B-PER", "O"]), (["Oslo"], ["B-LOC"])]),
        ("a.conll", COMMENTS, [(["Ada", "#"], ["B-PER", "O"]), (["#", "Oslo"], ["O", "B-LOC"])]),
        ("a.conll", MARKS, [(["Ada"], ["B-PER"]), (["#", "Oslo"], ["SYM", "B-LOC"])]),
        ("a.conll", FIRST_MARKS, [(["#", "#"], ["O", "B-X"]), (["#", "Oslo"], ["#", "B-LOC"])]),
        ("b.conll", MULTICONER, [(["Ada", "runs"], ["B-PER", "O"])]),
        ("a.conllu", CONLLU, [(["du", "kommer"], ["PRON", "VERB"])]),
    ],
)
def test_conll_is_sentences_of_words(tmp_path: Path, name: str, text: str, expected: list) -> None:
    found = read_examples(TAGS, [written(tmp_path, name, text)])
    assert [(example["tokens"], example["tags"]) for example in found] == expected


def test_squad_is_read_as_published_and_flat(tmp_path: Path) -> None:
    context, answer = "Ada lived in London.", {"text": "London", "answer_start": 13}
    article = {
        "title": "Ada",
        "paragraphs": [
            {
                "context": context,
                "qas": [
                    {"id": "1", "question": "Where?", "answers": [answer]},
                    {"id": "2", "question": "Who else?", "answers": [], "is_impossible": True},
                ],
            }
        ],
    }
    nested = read_examples(QUESTIONS, [written(tmp_path, "squad.json", json.dumps({"data": [article]}))])
    lists = {"text": ["London"], "answer_start": [13]}
    rows = [
        {"context": context, "question": "Where?", "answers": lists},
        {"context": context, "question": "Who else?", "answers": {"text": [], "answer_start": []}},
    ]
    flat = read_examples(QUESTIONS, [written(tmp_path, "flat.jsonl", json_lines(*rows))])
    assert list(nested) == list(flat)
    assert nested[0]["answers"] == [{**answer, "end": 19}] and nested.labels == ["no answer"]


def test_columns_have_other_names_and_can_be_named(tmp_path: Path) -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": 1, "mine": "c"}]
    path = written(tmp_path, "a.jsonl", json_lines(*rows))
    assert read_examples(CLASSES, [path])[0] == {"text": "a", "pair": "b", "label": "1", "language": ""}
    assert read_examples(CLASSES, [path], {"text": "mine"})[0]["text"] == "c"
    with pytest.raises(InputError, match="'hypotesis'; did you mean 'hypothesis'"):
        read_examples(CLASSES, [path], {"pair": "hypotesis"})
    with pytest.raises(InputError, match="text-classification has no column 'txt'; did you mean 'text'"):
        read_examples(CLASSES, [path], {"txt": "mine"})


def test_choices_are_a_list_or_columns_with_numbers(tmp_path: Path) -> None:
    listed = {"premise": "It fell.", "question": "cause", "choices": ["wind", "rain"], "label": 1}
    numbered = "sent1,ending0,ending1,label\nIt fell.,wind,rain,1\n"
    found = read_examples(CHOICES, [written(tmp_path, "a.jsonl", json_lines(listed))])
    assert found[0] == {"prompt": "It fell. cause", "choices": ["wind", "rain"], "label": 1, "language": ""}
    again = read_examples(CHOICES, [written(tmp_path, "b.csv", numbered)])
    assert again[0] == {**found[0], "prompt": "It fell."}


def test_blank_cells_behind_the_last_choice_alone_are_left_out(tmp_path: Path) -> None:
    text = "prompt,ending0,ending1,ending2,label\np,a,b,c,2\np,a,b,,1\np,a,b, ,1\n"
    found = read_examples(CHOICES, [written(tmp_path, "a.csv", text)])
    assert [(len(one["choices"]), one["label"]) for one in found] == [(3, 2), (2, 1), (2, 1)]
    with pytest.raises(InputError, match="row 4: expected a list of two choices or more, all of them texts"):
        read_examples(CHOICES, [written(tmp_path, "a.csv", text + "p,a,,c,2\n")])


@pytest.mark.parametrize(
    ("label", "choices", "place"),
    [
        ("0", "ab", 0),
        ("b", "ab", 1),
        ("1", "10", "one"),
        ("1", "01", 1),
        ("5", "75", 1),
        (1, "10", 1),
        ("2", "120", "one"),
    ],
)
def test_a_label_is_the_text_of_a_choice_or_its_place(label: object, choices: str, place: object) -> None:
    row = {"prompt": "p", "choices": list(choices), "label": label}
    if place == "one":
        with pytest.raises(InputError, match="is the text of the choice . and the place of another one"):
            CHOICES.read(row)
    else:
        assert CHOICES.read(row)["label"] == place


def test_a_cell_holds_several_labels_as_a_list_in_json(tmp_path: Path) -> None:
    text = 'text,label\nx,"[""a"", ""b""]"\ny,b\nz,[]\nw,[sic]\n'
    found = read_examples(CLASSES, [written(tmp_path, "a.csv", text)])
    assert [one["label"] for one in found] == [["a", "b"], "b", [], "[sic]"]


@pytest.mark.parametrize(
    ("cell", "negatives"),
    [('"[""c"", ""d""]"', ["c", "d"]), ("c", ["c"]), ("[sic] c", ["[sic] c"]), ("[]", None), ("", None)],
)
def test_a_cell_holds_one_other_passage_or_a_list_in_json(tmp_path: Path, cell: str, negatives: list | None) -> None:
    (found,) = read_examples(RANKS, [written(tmp_path, "a.csv", f"query,passage,negatives\na,b,{cell}\n")])
    assert found.get("negatives") == negatives


@pytest.mark.parametrize("label", ["n/a", "nan", "inf", "1e39", ["1.0"]])
def test_a_regression_has_finite_numbers(tmp_path: Path, label: object) -> None:
    path = written(tmp_path, "a.jsonl", json_lines({"text": "a", "label": 1.5}, {"text": "b", "label": label}))
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: expected a finite number as the label of a regression"):
        read_examples(CLASSES, [path], problem="regression")
    assert len(read_examples(CLASSES, [path])) == 2


def test_rows_that_the_disk_does_not_take_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, content: bytes = b"") -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        close = write

    monkeypatch.setattr(reading, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(InputError, match="No space left on device; make room there, or name another folder"):
        read_examples(CLASSES, [written(tmp_path, "a.csv", FORMS["a.csv"])])


GOOD = {"text": "a", "label": "x"}
BAD = {
    "no text": (CLASSES, {"text": " ", "label": "x"}, "expected a text in the column 'text'"),
    "no label": (CLASSES, {"text": "a", "label": None}, "expected a label, a text or a number, received nothing"),
    "a label of its own kind": (CLASSES, {"text": "a", "label": {"b": 1}}, "expected a label"),
    "blank tokens": (TAGS, {"tokens": ["", " "], "tags": ["O", "O"]}, "expected tokens with a text"),
    "uneven tags": (TAGS, {"tokens": ["a", "b"], "tags": ["O"]}, "a tag for each of 2 tokens, received 1 tag"),
    "an answer elsewhere": (
        QUESTIONS,
        {"question": "q", "context": "abc", "answers": [{"text": "b", "answer_start": 2}]},
        "expected the answer 'b' at character 2 of the context, found 'c'",
    ),
    "an answer before": (
        QUESTIONS,
        {"question": "q", "context": "abc", "answers": [{"text": "c", "answer_start": -1}]},
        "at character -1",
    ),
    "a choice that is none": (CHOICES, {"prompt": "a", "choices": ["b", "c"], "label": 2}, "from 0 to 1"),
    "a choice by a truth value": (CHOICES, {"prompt": "a", "choices": ["b", "c"], "label": True}, "received True"),
    "one choice": (CHOICES, {"prompt": "a", "choices": ["b"], "label": 0}, "two choices or more"),
    **{
        f"the score {score!s:.9}": (
            VECTORS,
            {"text1": "a", "text2": "b", "score": score},
            "a score, a finite number, received",
        )
        for score in ("x", "nan", math.inf, "1e39", True, 10**400)
    },
    "no pair and no id": (VECTORS, {"text": "a"}, "expected a column 'other' or an 'id'"),
    "negatives": (RANKS, {"query": "a", "passage": "b", "negatives": [3]}, "negatives to be a list of texts"),
    "negatives in a cell": (
        RANKS,
        {"query": "a", "passage": "b", "negatives": "[3]"},
        "to be a list of texts, received",
    ),
    "another column": (RANKS, {"query": "a", "text": "b"}, "expected a column 'passage' or 'positive'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    task, row, told = BAD[name]
    path = written(tmp_path, "bad.jsonl", "\n" + json_lines(row))
    with pytest.raises(InputError) as caught:
        read_examples(task, [path])
    assert "bad.jsonl, line 2: expected" in str(caught.value) and told in str(caught.value)


def test_further_bad_lines_are_counted(tmp_path: Path) -> None:
    text = json_lines(GOOD) + "no json\n" + json_lines(GOOD, {"text": ""}) * 12
    with pytest.raises(InputError) as caught:
        read_examples(CLASSES, [written(tmp_path, "a.jsonl", text)])
    told = str(caught.value)
    assert "a.jsonl, line 2: expected an object of JSON" in told
    assert "12 more bad lines: a.jsonl:4" in told and "and 4 further" in told


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", 'text,label\nx,y\n"z,1\n', "row 2"),
        ("a.conll", "Ada B-PER\n\nOslo\n\n", "a.conll, line 3: expected at least 2 columns"),
        ("a.conllu", "1\tdu\n\n", "a.conllu, line 1: expected at least 10 columns"),
        ("a.json", '{"data": 3}', "expected a list of objects"),
        ("a.json", "{", "expected JSON"),
    ],
)
def test_a_file_that_breaks_its_format_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    task = TAGS if "conll" in name else CLASSES
    with pytest.raises(InputError) as caught:
        read_examples(task, [written(tmp_path, name, text)])
    assert told in str(caught.value)


def test_what_is_no_file_of_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="where there is none"):
        read_examples(CLASSES, [tmp_path / "a.csv"])
    with pytest.raises(InputError, match="without any"):
        read_examples(CLASSES, [tmp_path])
    with pytest.raises(InputError, match=r"ends with one of .*\.jsonl"):
        read_examples(CLASSES, [written(tmp_path, "a.doc", "")])
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"b\.jsonl\.gz"):
        read_examples(CLASSES, [tmp_path / "b.jsonl.gz"])


FOLDERS = [
    *((CLASSES, name) for name in ("langid", "nli", "sentiment", "sts", "topic")),
    *((CHOICES, "mc"), (TAGS, "ner"), (TAGS, "pos"), (QUESTIONS, "qa"), (VECTORS, "sts"), (VECTORS, "topic")),
    *((VECTORS, "pairs_tatoeba"), (RANKS, "qa")),
]


@pytest.mark.parametrize(
    ("task", "folder"), chosen(FOLDERS, [(CLASSES, "sts"), (CHOICES, "mc"), (TAGS, "ner"), (QUESTIONS, "qa")])
)
def test_the_shared_files_are_read(shared: Path, task: type, folder: str) -> None:
    found = read_examples(task, [shared / "data" / folder / "test.jsonl.gz"])
    assert len(found) > 1000 and "" not in found.languages
