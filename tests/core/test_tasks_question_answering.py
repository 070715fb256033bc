"""Question answering without a framework: windows, spans, words and answers on hand-made logits, and the ways in which
questions come. The recorded calls run in ``tests/torch/test_question_answering.py``.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from xlmr_core import cli
from xlmr_core.cli import run
from xlmr_core.errors import InputError
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tasks.question_answering import Example, QuestionAnswering, best_spans
from xlmr_core.tasks.texts import windows
from xlmr_core.tokenization import AutoTokenizer

CLS, EOS = 0, 2
BREST = "Anna lives in Brest now."
CHINESE = "昨天王小明在上海参观了博物馆。"


@pytest.fixture(scope="module", params=["fast", "sentencepiece"])
def tokenizer(request, shared):
    folder = shared / "fixtures" / "tasks" / "question_answering"
    return AutoTokenizer.from_pretrained(folder, use_fast=request.param == "fast")


class Runner:
    """A model that takes spans of tokens for answers, the first the surest, with ``null`` for no answer."""

    model = device = None
    config = SimpleNamespace(max_tokens=64, architectures=None)

    def __init__(self, spans=(), null=-9.0):
        self.spans, self.null = spans, null
        self.rows = []

    def run(self, arrays, wanted):
        assert list(wanted) == ["start_logits", "end_logits"]
        rows = arrays["input_ids"].tolist()
        self.rows += [row[: sum(mask)] for row, mask in zip(rows, arrays["attention_mask"].tolist(), strict=True)]
        both = np.full((2, *arrays["input_ids"].shape), -9.0, np.float32)
        both[:, :, 0] = self.null
        both[:, :, 1] = 50.0  # the question is no answer, however sure the model is
        for line, row in enumerate(rows):
            for rank, span in enumerate(self.spans):
                for first in range(len(row)):
                    if row[first : first + len(span)] == span:
                        both[0, line, first] = both[1, line, first + len(span) - 1] = 9.0 - rank
        return dict(zip(wanted, both, strict=True))


@pytest.fixture
def make(tokenizer):
    """Makes a pipeline whose model finds words, the first the surest."""

    def make(*words, null=-9.0, **options):
        spans = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        return Pipeline("question-answering", Runner(spans, null), tokenizer, **options)

    return make


ONE = [
    ((), {"question": "Who?", "context": BREST}),
    (("Who?", BREST), {}),
    (("Who?",), {"context": BREST}),
    (({"question": "Who?", "context": BREST},), {}),
    (([{"question": "Who?", "context": BREST, "id": 7}],), {}),
    ((), {"data": {"question": "Who?", "context": BREST}}),
    ((), {"X": [{"question": "Who?", "context": BREST}]}),
    ((Example("Who?", BREST),), {}),
    ((SimpleNamespace(question_text="Who?", context_text=BREST, qas_id=None),), {}),
    (([SimpleNamespace(question_text="Who?", context_text=BREST)],), {}),
    (({"question": ["Who?"], "context": [BREST]},), {}),
    ((), {"question": ["Who?"], "context": BREST}),
]


@pytest.mark.parametrize(("args", "kwargs"), ONE)
def test_one_question(make, args, kwargs):
    answer = make("Brest")(*args, **kwargs)
    assert list(answer) == ["score", "start", "end", "answer"]
    assert (answer["start"], answer["end"], answer["answer"]) == (13, 19, " Brest")
    assert 0.9 < answer["score"] < 1


SEVERAL = [
    ((), {"question": ["Who?", "Where?"], "context": BREST}),
    ((), {"question": ["Who?", "Where?"], "context": [BREST, BREST]}),
    ((), {"question": "Who?", "context": [BREST, BREST]}),
    ((["Who?", "Where?"], BREST), {}),
    (({"question": "Who?", "context": BREST}, {"question": "Where?", "context": BREST}), {}),
    (([("Who?", BREST), ("Where?", BREST)],), {}),
    (({"question": ["Who?", "Where?"], "context": BREST},), {}),
]


@pytest.mark.parametrize(("args", "kwargs"), SEVERAL)
def test_several_questions(make, args, kwargs):
    assert [answer["answer"] for answer in make("Brest")(*args, **kwargs)] == [" Brest"] * 2


def test_no_question_and_a_stream_of_them(make):
    assert make()([]) == []
    answers = make("Brest")({"question": "Who?", "context": BREST} for _ in range(2))
    assert [answer["answer"] for answer in answers] == [" Brest"] * 2


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((), {}, "received no question"),
        ((), {"question": "Who?"}, "received no context"),
        (("Who?",), {}, "expected a question and its context, received str 'Who\\?'"),
        (("Who?", ""), {}, "expected a context, received an empty one"),
        (("", BREST), {}, "expected a question, received an empty one"),
        (({"question": "Who?"},), {}, "expected a context, received NoneType None"),
        (([{"question": "Who?", "context": BREST}, {"question": 3, "context": BREST}],), {}, r"int 3 \(index 1\)"),
        (([7],), {}, "expected a question and its context, received int 7"),
        (("a", "b", "c"), {}, r"received str 'a' \(index 0\)"),
        ((["a", "b"], ["c"]), {}, "received 2 questions and 1 contexts"),
        ((["a", "b"], 3), {}, "context must be a text or a list of texts, received int 3"),
        (({"question": "Who?", "context": BREST},), {"question": "Who?", "context": BREST}, "inputs and question"),
        (("Who?", BREST), {"top_k": 0}, "top_k must be an integer of at least 1"),
        (("Who?", BREST), {"topk": 0}, "top_k must be an integer of at least 1"),
        (("Who?", BREST), {"words": "letters"}, "words must be one of 'spaces', 'scripts'"),
        (("Who?", BREST), {"max_seq_len": 20, "doc_stride": 21}, "doc_stride must be at most max_seq_len, 20"),
        (("Who?", BREST * 9), {"max_seq_len": 20, "doc_stride": 19}, "doc_stride must be less than 1[0-9]"),
        (("Who?", BREST * 9), {"max_seq_len": 65}, "at most 64 tokens, .* received 65; pass max_seq_len=64"),
        ((["Who?", "who " * 70], BREST), {}, r"leaves room .* \(index 1\), where max_seq_len is 64; shorten"),
        (("Who?", BREST * 9), {"on_overflow": "error"}, "tokens of context, .* pass on_overflow='window'"),
    ],
)
def test_mistakes_are_named(make, args, options, message):
    with pytest.raises(InputError, match=message):
        make()(*args, **options)


def test_logits_that_are_not_finite_are_refused(make):
    answer = make("Brest", null=np.nan)
    with pytest.raises(InputError, match="finite logits"):
        answer("Who?", BREST)


@pytest.mark.parametrize("longest", [1, 3, 40])
@pytest.mark.parametrize("count", [1, 7, 900])
def test_best_spans_are_those_of_a_search_of_all(longest, count):
    random = np.random.default_rng(3)
    start_C, end_C = random.choice(np.float32([0.0, 0.1, 0.2, 0.7]), (2, 25))
    spans = [(first, last) for first in range(25) for last in range(first, min(25, first + longest))]
    spans = [span for span in spans if start_C[span[0]] * end_C[span[1]] > 0]
    spans.sort(key=lambda span: -start_C[span[0]] * end_C[span[1]])
    firsts, lasts, scores = best_spans(start_C, end_C, longest, count)
    assert list(zip(firsts, lasts, strict=True)) == spans[:count]
    assert scores.tolist() == [start_C[first] * end_C[last] for first, last in spans[:count]]


def test_each_window_has_the_question_and_its_part_of_the_context(make, tokenizer):
    question, context = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Who?", BREST * 3))
    room = 20 - 4 - len(question)
    qa = make("Brest")
    qa("Who?", BREST * 3, max_seq_len=20, doc_stride=5, batch_size=9)
    parts = [context[start:stop] for start, stop in windows(len(context), room, 5)]
    assert len(parts) > 2
    assert sorted(qa.runner.rows) == sorted([CLS, *question, EOS, EOS, *part, EOS] for part in parts)


def test_windows_are_counted_from_the_side_that_is_kept(make, tokenizer):
    context = tokenizer(BREST * 3, add_special_tokens=False)["input_ids"]
    qa = make("Brest", max_seq_len=20, doc_stride=5, on_overflow="truncate")
    tokenizer.truncation_side = "left"
    try:
        qa("Who?", BREST * 3)
    finally:
        tokenizer.truncation_side = "right"
    (row,) = qa.runner.rows
    assert len(row) == 20 and row[-9:-1] == context[-8:]


def test_a_context_is_tokenized_once(make, tokenizer, monkeypatch):
    texts = []
    qa = make("Brest")
    original = type(tokenizer).__call__

    def call(self, text, *args, **kwargs):
        texts.extend(text)
        return original(self, text, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", call)
    qa(["Who?", "Where?", "When?"], BREST * 9)
    assert texts == [BREST * 9, "Who?", "Where?", "When?"]


def test_all_questions_share_batches(make):
    qa = make("Brest")
    alone = [qa(question, BREST * 9) for question in ("Who?", "Where does Anna live?")]
    assert qa(["Who?", "Where does Anna live?"], BREST * 9, batch_size=64) == alone


def test_a_long_question_leaves_less_to_overlap(make):
    question = "who " * 19  # half of a row is more than what is left
    assert make("Brest")(question, BREST * 9)["answer"] == " Brest"
    with pytest.raises(InputError, match="doc_stride must be less than"):
        make("Brest")(question, BREST * 9, doc_stride=32)


def test_what_is_too_long_can_be_cut(make, tokenizer):
    qa = make("Brest", on_overflow="truncate")
    assert qa("who " * 90, BREST, max_question_len=3)["answer"] == " Brest"
    assert qa("Who?", BREST * 9)["answer"] == " Brest"
    assert [len(row) for row in qa.runner.rows][1:] == [64]
    task = QuestionAnswering(tokenizer, Runner.config)
    items = task.encode(
        [("Who?", BREST), ("who " * 90, BREST), ("Who?", BREST * 9)], replace(qa.options, max_question_len=9)
    )
    assert [item.truncated for item in items] == [False, True, True]


def test_no_more_is_asked_of_the_model_than_it_takes(make, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "model_max_length", int(1e30))
    qa = make("Brest")
    qa("Who?", BREST * 9)
    assert max(map(len, qa.runner.rows)) == 64


@pytest.mark.parametrize("option", ["top_k", "topk"])
def test_several_answers_come_best_first(make, option):
    qa = make("Brest", "Anna")
    answers = qa("Who?", BREST, **{option: 2})
    assert [answer["answer"] for answer in answers] == [" Brest", "Anna lives in Brest"]
    assert answers[0]["score"] > answers[1]["score"]
    assert qa("Who?", BREST, topk=None)["answer"] == " Brest"
    assert len(make("Brest", top_k=3)("Who?", BREST, topk=2)) == len(make("Brest", top_k=2, topk=3)("Who?", BREST)) == 2
    assert isinstance(make("Brest", topk=3)("Who?", BREST, top_k=1), dict)


def test_one_answer_alone_has_no_list_around_it(make):
    assert make("a")("Who?", "a", top_k=6)["answer"] == "a"


def test_an_answer_has_so_many_tokens_at_most(make):
    qa = make("Anna", "now", top_k=30, align_to_words=False)
    widths = {longest: {answer["answer"] for answer in qa("?", BREST, max_answer_len=longest)} for longest in (1, 40)}
    assert "Anna lives in Brest now" not in widths[1]
    assert any(text.startswith("Anna lives in Brest") for text in widths[40])


@pytest.mark.parametrize(("null", "expected"), [(9.5, ""), (2.0, " Brest")])
def test_no_answer_takes_part(make, null, expected):
    qa = make("Brest", null=null)
    assert qa("Who?", BREST)["answer"] == " Brest"
    answer = qa("Who?", BREST, handle_impossible_answer=True)
    assert answer["answer"] == expected
    assert 0.3 < answer["score"] < 1
    if not expected:
        assert answer == {"score": answer["score"], "start": 0, "end": 0, "answer": ""}


def test_no_answer_counts_where_it_is_least_likely(make):
    # The last windows have no "Anna" in them, so that no answer is nearly certain there.
    context = "Anna. " + "x " * 70
    sure = make("Anna", null=5.0)("Who?", context, handle_impossible_answer=True, top_k=9)
    assert next(answer["score"] for answer in sure if answer["answer"] == "") < 0.001


def test_a_context_without_tokens_has_the_empty_answer(make):
    assert make()("Who?", " ") == {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    answer = make()("Who?", " ", handle_impossible_answer=True)
    assert answer == {"score": 1.0, "start": 0, "end": 0, "answer": ""}


def test_answers_that_read_alike_are_one(make):
    context = "Brest, brest and " + "x " * 60 + "Brest"
    qa = make("Brest", "brest", words="scripts", trim=True)
    added = qa("Who?", context, max_seq_len=40, doc_stride=8)
    best = qa("Who?", context, max_seq_len=40, doc_stride=8, equal_answers="best")
    assert added["answer"] == best["answer"].capitalize() == "Brest"
    assert added["score"] > 1.5 > 1 >= best["score"] > 0.9
    alone = [qa("Who?", BREST, equal_answers=how) for how in ("sum", "best")]
    assert alone[0] == alone[1]


@pytest.mark.parametrize(
    ("context", "word", "options", "expected"),
    [
        (BREST, "Brest", {}, " Brest"),
        (BREST, "Brest", {"trim": True}, "Brest"),
        ("Ja: Brest.", "Brest", {}, " Brest."),
        ("Ja: Brest.", "Brest", {"words": "scripts", "trim": True}, "Brest"),
        (CHINESE, "上海", {}, CHINESE),
        (CHINESE, "上海", {"words": "scripts"}, "上海"),
        (CHINESE, "上海", {"words": "scripts", "align_to_words": False}, "上海"),
    ],
)
def test_where_an_answer_begins_and_ends(tokenizer, context, word, options, expected):
    at = context.index(word)
    encoded = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    inside = [token for token, (start, end) in tokens if start < at + len(word) and end > at]
    qa = Pipeline("question-answering", Runner([inside]), tokenizer, **options)
    answer = qa("?", context)
    assert answer["answer"] == expected == context[answer["start"] : answer["end"]]


def test_answers_are_printed_a_line_each(make):
    found = [
        {"score": 0.25, "start": 13, "end": 19, "answer": " Brest"},
        {"score": 0.125, "start": 0, "end": 0, "answer": ""},
        {"score": 0.0625, "start": 2, "end": 5, "answer": "a\nb"},
    ]
    assert make().text(found) == "  0.2500  13-19  Brest\n  0.1250  0-0  (no answer)\n  0.0625  2-5  'a\\nb'"
    assert make().text(found[0]) == "  0.2500  13-19  Brest"


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_lines_of_the_command(make, monkeypatch, capsys, form):
    def pipeline(task, *, model, device, dtype, progress, **options):
        return make("Brest", **options)

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: True)
    lines = [f"Who?\t{BREST}", json.dumps({"question": "Who?", "context": BREST}), "Who?"]
    options = ("--task", "question-answering", "--model", "m", "--trim", "--format", form)
    assert cli.main(["run", *options, *lines]) == 2
    out, err = capsys.readouterr()
    assert "line 3: expected a question and its context, received str 'Who?'" in err
    if form == "json":
        assert [json.loads(line)["answer"]["answer"] for line in out.splitlines()] == ["Brest"] * 2
    elif form == "csv":
        head, *rows = csv.DictReader(io.StringIO(out)).fieldnames, *csv.DictReader(io.StringIO(out))
        assert head[-4:] == ["score", "start", "end", "answer"]
        assert [(row["start"], row["answer"]) for row in rows] == [("14", "Brest")] * 2
    else:
        assert [line.split()[1:] for line in out.splitlines() if line.startswith("  ")] == [["14-19", "Brest"]] * 2
