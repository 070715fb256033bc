"""Token classification without a framework: what is found where hand-made logits say which label a character has.

The recorded calls run in ``tests/torch/test_tasks.py``.
"""

from __future__ import annotations

import csv
import enum
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from xlmr_core import cli
from xlmr_core.cli import run
from xlmr_core.errors import InputError
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tokenization import AutoTokenizer

NER = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
ADA = "Ada Lovelace wrote in Saint-Denis."


class Runner:
    """A model that gives the tokens of each known text their labels, wherever a window of it begins."""

    model = device = None

    def __init__(self, names, known, longest=64):
        self.config = SimpleNamespace(id2label=dict(enumerate(names)), max_tokens=longest, architectures=None)
        self.known = known
        self.rows = []

    def run(self, arrays, wanted):
        assert list(wanted) == ["logits"]
        rows = arrays["input_ids"]
        logits = np.zeros((*rows.shape, len(self.config.id2label)), np.float32)
        for line, mask in enumerate(arrays["attention_mask"]):
            row = rows[line][: mask.sum()].tolist()
            self.rows.append(row)
            logits[line, 1 : len(row) - 1] = next(filter(len, (self._found(row[1:-1], *one) for one in self.known)))
        return {"logits": logits}

    @staticmethod
    def _found(part, ids, logits):
        for first in range(len(ids) - len(part) + 1):
            if ids[first : first + len(part)] == part:
                return logits[first : first + len(part)]
        return []


@pytest.fixture(scope="module", params=["fast", "sentencepiece"])
def tokenizer(request, shared):
    folder = shared / "fixtures" / "tasks" / "token_classification"
    return AutoTokenizer.from_pretrained(folder, use_fast=request.param == "fast")


@pytest.fixture
def make(tokenizer):
    """Makes a pipeline that knows a text, or some: each ``(part, label)`` labels the tokens of the next such part."""

    def make(*known, names=NER, surer=(), longest=64, **options):
        return Pipeline(
            "token-classification",
            Runner(names, [learnt(tokenizer, text, parts, names, surer) for text, parts in known], longest),
            tokenizer,
            **options,
        )

    return make


def learnt(tokenizer, text, parts, names, surer=()):
    """The ids of a text and their logits: 4 for the label, 6 where a part of ``surer`` is said."""
    whole = text if isinstance(text, str) else " ".join(text)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    logits = np.zeros((len(encoded["input_ids"]), len(names)), np.float32)
    logits[:, 0] = 2.0
    at = 0
    for part, label in parts:
        at = whole.index(part, at)
        for token, (start, _) in enumerate(encoded["offset_mapping"]):
            # A token of nothing but the space before a word is the first of that word.
            if at <= start + len(whole[start:]) - len(whole[start:].lstrip()) < at + len(part):
                logits[token, names.index(label)] = 6.0 if part in surer else 4.0
        at += len(part)
    return encoded["input_ids"], logits


def said(found):
    """Labels and words, once what stands there was compared with the text."""
    return [(one.get("entity_group") or one["entity"], one["word"]) for one in found]


def assert_exact(found, text):
    for one in found:
        assert text[one["start"] : one["end"]] == one["word"] == one["word"].strip() != ""
        assert all(type(one[key]) is kind for key, kind in (("score", float), ("start", int), ("end", int)))


# A name, a text, labels of its parts, and the spans.
SPANS = [
    ("spaces", ADA, "Ada B-PER|Lovelace I-PER|Saint-Denis B-LOC", "Ada Lovelace PER|Saint-Denis LOC"),
    ("two beside each other", "Ada Ben", "Ada B-PER|Ben B-PER", "Ada PER|Ben PER"),
    ("I- without B-", ADA, "Ada I-PER|Lovelace I-PER", "Ada Lovelace PER"),
    ("I- of another", ADA, "Ada B-PER|Lovelace I-LOC", "Ada PER|Lovelace LOC"),
    ("I- after a gap", ADA, "Ada B-PER|wrote I-PER", "Ada PER|wrote PER"),
    ("first piece counts", "Lovelace", "L B-PER|ovelace O", "Lovelace PER"),
    ("later pieces do not", "Lovelace", "L O|ovelace B-PER", ""),
    ("no point at the end", "in Oslo.", "Oslo B-LOC", "Oslo LOC"),
    ("quotes", "(“Oslo”)", "Oslo B-LOC", "Oslo LOC"),
    ("white space", "  in\tOslo\nand\u3000Rom ", "Oslo B-LOC|Rom B-LOC", "Oslo LOC|Rom LOC"),
    ("Chinese", "昨天王小明在上海。", "王 B-PER|小明 I-PER|上 B-LOC|海 I-LOC", "王小明 PER|上海 LOC"),
    ("Japanese", "田中さんは京都へ", "田 B-PER|中 I-PER|京都 I-LOC", "田中 PER|京都 LOC"),
    ("Thai", "สมชายไปตลาด", "ส B-PER|มชาย I-PER", "สมชาย PER"),
    ("Arabic", "زار أحمد القاهرة،", "أحمد B-PER|القاهرة B-LOC", "أحمد PER|القاهرة LOC"),
    ("Hindi", "राम मुंबई में", "राम B-PER|मुंबई B-LOC", "राम PER|मुंबई LOC"),
    ("Korean", "김민수는 부산에서", "김민수 B-PER|부산 B-LOC", "김민수는 PER|부산에서 LOC"),
    ("emoji", "Ada😀Oslo", "Ada B-PER|Oslo B-LOC", "Ada PER|Oslo LOC"),
]


@pytest.mark.parametrize(("text", "parts", "expected"), [case[1:] for case in SPANS], ids=[case[0] for case in SPANS])
def test_spans(make, text, parts, expected):
    parts = [part.rsplit(" ", 1) for part in parts.split("|")]
    found = make((text, parts), aggregation_strategy="spans")(text)
    assert_exact(found, text)
    assert "|".join(f"{word} {label}" for label, word in said(found)) == expected
    assert all(list(one) == ["entity_group", "score", "word", "start", "end"] for one in found)


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        # BIOES and BILOU: an end closes a span, one that stands alone is one.
        ("O B-X I-X E-X S-X", "B-X E-X I-X S-X S-X O", [(0, 2), (2, 3), (3, 4), (4, 5)]),
        ("O B-X I-X L-X U-X", "B-X I-X L-X U-X O B-X", [(0, 3), (3, 4), (5, 6)]),
        ("O B-X M-X E-X", "B-X M-X E-X E-X O O", [(0, 3), (3, 4)]),
        # Without B- and I-, neighbours of one label belong together, and an S- is no mark.
        ("O X S-X", "X X S-X O X X", [(0, 2), (2, 3), (4, 6)]),
    ],
)
def test_spans_by_other_schemes(make, names, labels, expected):
    text, labels = "a b c d e f", labels.split()
    found = make((text, list(zip(text.split(), labels, strict=True))), names=tuple(names.split()))(
        text, aggregation_strategy="spans"
    )
    assert [(one["start"] // 2, one["end"] // 2 + 1) for one in found] == expected


def test_words_have_their_labels(make):
    names = ("NOUN", "VERB", "PUNCT")
    parts = [("wrote", "VERB"), (".", "PUNCT")]
    found = make((ADA, parts), names=names, aggregation_strategy="words")(ADA)
    assert_exact(found, ADA)
    words = ["Ada", "Lovelace", "wrote", "in", "Saint-Denis", "."]
    assert [(one["index"], one["word"]) for one in found] == list(enumerate(words))
    assert [one["entity"] for one in found] == ["NOUN", "NOUN", "VERB", "NOUN", "NOUN", "PUNCT"]
    assert list(found[0]) == ["entity", "score", "index", "word", "start", "end"]
    some = make((ADA, parts), names=names, aggregation_strategy="words")(ADA, ignore_labels="NOUN")
    assert some == [one for one in found if one["entity"] != "NOUN"]


def test_which_token_says_the_label_of_a_word(make, tokenizer):
    word = "children"
    assert tokenizer.tokenize(word) == ["▁ch", "i", "ld", "ren"]
    answer = make((word, [("ch", "B-PER"), ("ild", "B-LOC"), ("ren", "I-PER")]), surer=["ren"])
    found = {
        how: answer(word, aggregation_strategy="words", word_label=how)[0]["entity"]
        for how in ("first", "last", "average", "max")
    }
    assert found == {"first": "B-PER", "last": "I-PER", "average": "B-LOC", "max": "I-PER"}
    assert answer(word, aggregation_strategy="words")[0]["entity"] == "B-PER"


OLD = "old in children"
GROUPS = {
    "simple": [("PER", "old"), ("LOC", "ch"), ("PER", "ildren")],
    "first": [("PER", "old"), ("LOC", "children")],
    "average": [("PER", "old"), ("PER", "children")],
    "max": [("PER", "old"), ("PER", "children")],
}


@pytest.mark.parametrize("strategy", GROUPS)
def test_published_groups(make, strategy):
    answer = make((OLD, [("old", "I-PER"), ("ch", "B-LOC"), ("ildren", "I-PER")]), surer=["ildren"])
    found = answer(OLD, aggregation_strategy=strategy)
    assert said(found) == GROUPS[strategy]
    assert found[1]["start"] == 6  # as published, at the space before


def test_published_words_begin_at_spaces_only(make):
    text = "昨天在上海。"
    answer = make((text, [("昨天", "B-LOC"), ("上海", "B-LOC")]))
    found = answer(text, aggregation_strategy="first")[-1]
    assert text[found["start"] : found["end"]] == text
    assert [one["word"] for one in answer(text, aggregation_strategy="spans")] == ["昨", "天", "上", "海"]


def test_tokens(make, tokenizer):
    found = make((ADA, [("Ada", "B-PER")]))(ADA)
    ids = tokenizer(ADA)["input_ids"]
    assert [one["entity"] for one in found] == ["B-PER"] * len(found) != []
    assert [one["word"] for one in found] == tokenizer.convert_ids_to_tokens([ids[one["index"]] for one in found])
    every = make((ADA, []))(ADA, ignore_labels=[])
    assert len(every) == len(ids) - 2 and every[-1]["index"] == len(ids) - 2


LONG = " ".join(f"Ada saw Oslo and Rom on day {number}." for number in range(12))
LONG_PARTS = [("Ada", "B-PER"), ("Oslo", "B-LOC"), ("Rom", "B-LOC")] * 12
NAMES = [("PER", "Ada"), ("LOC", "Oslo"), ("LOC", "Rom")]


@pytest.mark.parametrize("stride", [None, 0, 5, 40])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_long_text_is_read_whole(make, tokenizer, monkeypatch, stride, side):
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    known = (LONG, LONG_PARTS)
    found = make(known)(LONG, aggregation_strategy="spans", stride=stride)
    assert said(found) == NAMES * 12
    assert found == make(known, longest=10**6)(LONG, aggregation_strategy="spans")
    words = make(known)(LONG, aggregation_strategy="words", stride=stride, ignore_labels=[])
    assert [one["index"] for one in words] == list(range(12 * 9))


def test_a_word_at_the_edge_of_a_window_is_seen_from_the_other(make, tokenizer):
    """The last tokens of a window and the first are labelled wrongly, and only there."""
    answer = make((LONG, LONG_PARTS), aggregation_strategy="spans")
    run = answer.runner.run

    def blind_at_edges(arrays, wanted):
        found = run(arrays, wanted)
        for line, mask in enumerate(arrays["attention_mask"]):
            for edge in (slice(0, 4), slice(mask.sum() - 4, None)):
                found["logits"][line, edge] = 0
        return found

    answer.runner.run = blind_at_edges
    assert said(answer(LONG)) == (NAMES * 12)[1:]  # the first word of the text is seen at an edge only


@pytest.mark.parametrize(
    ("options", "rows", "cut"),
    [
        ({}, 1, True),
        ({"aggregation_strategy": "first"}, 1, True),
        ({"stride": 5}, 6, False),
        ({"aggregation_strategy": "max", "stride": 5}, 6, False),
        ({"on_overflow": "window"}, 7, False),
        ({"aggregation_strategy": "spans"}, 7, False),
        ({"aggregation_strategy": "spans", "on_overflow": "truncate"}, 1, True),
        ({"stride": 5, "on_overflow": "truncate"}, 1, True),
    ],
)
def test_what_happens_to_a_long_text(make, caplog, options, rows, cut):
    answer = make((LONG, LONG_PARTS))
    found = answer(["", LONG], **options)
    assert found[0] == [] and answer.truncated == [1] * cut
    assert len(answer.runner.rows) == rows
    assert ("truncated, as longer" in caplog.text) is (cut and "on_overflow" not in options)
    ends = [one["end"] for one in found[1]]
    assert ends == sorted(ends) and (max(ends) < 200) is cut
    if not cut:
        assert len({one["start"] for one in found[1]}) == len(found[1])


def test_a_long_text_can_be_refused(make):
    answer = make((LONG, LONG_PARTS), on_overflow="error")
    assert answer(["Ada"] * 0 or "", aggregation_strategy="spans") == []
    with pytest.raises(InputError, match=r"at most 64 tokens, received \d+; shorten the text 'Ada.*\(index 1\), or"):
        answer(["", LONG])
    with pytest.raises(InputError, match=r"shorten the text 'Ada saw"):
        answer([LONG.split()], is_split_into_words=True)


@pytest.mark.parametrize("delimiter", [" ", "", "--"])
def test_words_that_were_given(make, delimiter):
    words = ["Ada", "Lovelace", "in", "Saint-Denis"]
    known = (words, [("Ada", "B-PER"), ("Lovelace", "I-PER"), ("Saint-Denis", "B-LOC")])
    text = delimiter.join(words)
    answer = make(known, aggregation_strategy="spans", delimiter=delimiter)
    (found,) = answer(words, is_split_into_words=True)
    assert [(text[one["start"] : one["end"]]) for one in found] == [f"Ada{delimiter}Lovelace", "Saint-Denis"]
    assert_exact(found, text)
    (found,) = answer([words], is_split_into_words=True, aggregation_strategy="words", ignore_labels=[])
    assert [(one["index"], one["word"]) for one in found] == list(enumerate(words))
    (found,) = answer(words, is_split_into_words=True, aggregation_strategy="simple")
    assert (found[0]["start"], found[-1]["end"]) == (0, len(text))


def test_places_that_were_given(make, tokenizer):
    offsets = tokenizer(ADA, return_offsets_mapping=True)["offset_mapping"]
    answer = make((ADA, [("Ada", "I-PER")]), aggregation_strategy="simple")
    (usual,) = answer(ADA)
    moved = [(start + 7, end + 7) for start, end in offsets]
    (found,) = answer(ADA, offset_mapping=moved)
    assert (found["start"], found["end"]) == (usual["start"] + 7, usual["end"] + 7)
    assert answer([ADA, ADA], offset_mapping=[offsets, moved]) == [[usual], [found]]


def test_labels_may_be_ignored(make):
    answer = make((ADA, [("Ada", "B-PER"), ("Saint", "B-LOC")]))
    assert said(answer(ADA, aggregation_strategy="spans", ignore_labels=["PER", "O"])) == [("LOC", "Saint-Denis")]
    assert {one["entity"] for one in answer(ADA, ignore_labels=["B-PER"])} == {"O", "B-LOC"}
    every = answer(ADA, aggregation_strategy="spans", ignore_labels=[])
    assert [one["entity_group"] for one in every] == ["PER", "O", "LOC", "O"]
    punctuation = make(("a b", [("b", "-")]), names=("0", "-"), aggregation_strategy="spans", ignore_labels=["0"])
    assert said(punctuation("a b")) == [("-", "b")]


class Strategy(enum.Enum):
    FIRST = "first"


@pytest.mark.parametrize(
    ("of_pipeline", "of_call", "like"),
    [
        ({}, {"aggregation_strategy": "FIRST"}, "first"),
        ({}, {"aggregation_strategy": Strategy.FIRST}, "first"),
        ({}, {"grouped_entities": True}, "simple"),
        ({}, {"grouped_entities": True, "ignore_subwords": True}, "first"),
        ({"grouped_entities": True}, {}, "simple"),
        ({"grouped_entities": True}, {"aggregation_strategy": "first"}, "first"),
        ({"aggregation_strategy": "max"}, {"grouped_entities": False}, "none"),
        ({"stride": 5}, {"aggregation_strategy": "none"}, "none"),
    ],
)
def test_how_a_strategy_is_said(make, of_pipeline, of_call, like):
    known = (ADA, [("Ada", "B-PER"), ("Saint", "B-LOC"), ("-Denis.", "I-PER")])
    assert make(known, **of_pipeline)(ADA, **of_call) == make(known)(ADA, aggregation_strategy=like)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([], {}, "expected at least one text"),
        ([3], {}, "expected texts, received int 3 at index 0"),
        ([["a"]], {}, r"expected texts, received list \['a'\] at index 0"),
        ("a", {"is_split_into_words": True}, "expected a list of words"),
        ([["a"], [1]], {"is_split_into_words": True}, "expected a list of words.* at index 1"),
        (
            "a",
            {"aggregation_strategy": "bogus"},
            "aggregation_strategy must be one of 'none', .*'spans', received 'bogus'",
        ),
        ("a", {"aggregation_strategy": "none", "stride": 3}, "stride .* needs an aggregation_strategy"),
        ("a", {"grouped_entities": False, "stride": 3}, "stride .* needs an aggregation_strategy"),
        ("a", {"aggregation_strategy": "spans", "stride": 62}, "stride must be below 62"),
        ("a", {"word_label": "best"}, "word_label must be one of 'first', 'last'"),
        ("a", {"offset_mapping": [(0, 1)]}, "offset_mapping of 3 pairs, one for each token, received 1 at index 0"),
        (["a", "b"], {"offset_mapping": [[(0, 1)]]}, "an offset_mapping for each text, received 1 for 2"),
    ],
)
def test_mistakes_are_named(make, inputs, options, message):
    with pytest.raises(InputError, match=message):
        make(("a", []))(inputs, **options)


def test_a_pipeline_is_not_made_with_what_belongs_to_a_call(make):
    with pytest.raises(InputError, match="offset_mapping belongs to the texts of a call"):
        make(offset_mapping=[(0, 1)])
    with pytest.raises(InputError, match="needs an aggregation_strategy"):
        make(stride=3, aggregation_strategy="none")


def test_logits_that_are_not_finite_are_refused(make):
    answer = make(("a", []))
    answer.runner.known[0][1][0, 0] = np.nan
    with pytest.raises(InputError, match="finite logits"):
        answer("a")


def test_answers_are_printed_a_line_each(make):
    answer = make()
    found = [
        {"entity_group": "PER", "score": 0.25, "word": "Ada", "start": 0, "end": 3},
        {"entity_group": "MISC", "score": 1.0, "word": "a\nb", "start": 10, "end": 13},
    ]
    assert answer.text(found) == "  0.2500  PER   0-3    Ada\n  1.0000  MISC  10-13  'a\\nb'"
    assert answer.text([]) == "  nothing found"


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_lines_of_the_command(make, monkeypatch, capsys, form):
    def pipeline(task, *, model, device, dtype, progress, **options):
        assert task == "ner"
        return make((ADA, [("Ada", "B-PER"), ("Lovelace", "I-PER")]), ("", []), **options)

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: True)
    options = ("--task", "ner", "--model", "m", "--aggregation-strategy", "spans", "--format", form)
    assert cli.main(["run", *options, ADA]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    if form == "json":
        (found,) = json.loads(out)["answer"]
        assert (found["entity_group"], found["word"]) == ("PER", "Ada Lovelace")
    elif form == "csv":
        (found,) = csv.DictReader(io.StringIO(out))
        assert (found["entity_group"], found["start"], found["end"], found["word"]) == (
            "PER",
            "0",
            "12",
            "Ada Lovelace",
        )
    else:
        assert [line.split()[1:] for line in out.splitlines()[1:2]] == [["PER", "0-12", "Ada", "Lovelace"]]
