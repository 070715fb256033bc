"""Events that TensorBoard reads, tables, and what the card says."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from xlmr_core.training import events as module
from xlmr_core.training.card import card
from xlmr_core.training.curves import confusion_picture, curves_picture, thinned
from xlmr_core.training.events import Events
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.reports import Figures, Outcome, in_columns, in_markdown, said, table

LINES = [
    {"step": 1, "loss": 2.5, "learning_rate": 1e-5, "grad_norm": 3.0, "seconds": 0.5},
    {"step": 2, "loss": 2.0, "learning_rate": 2e-5, "seconds": 1.0},
    {"step": 2, "evaluation": {"accuracy": 0.5, "loss": 2.2}, "languages": {"de": {"accuracy": 0.25}}, "counts": {}},
    {"done": True, "step": 2},
]
POINTS = [
    *((1, "train/loss", 2.5), (1, "train/learning_rate", 1e-5), (1, "train/grad_norm", 3.0)),
    *((2, "train/loss", 2.0), (2, "train/learning_rate", 2e-5)),
    *((2, "evaluation/accuracy", 0.5), (2, "evaluation/loss", 2.2), (2, "languages/de/accuracy", 0.25)),
]


def test_tensorboard_reads_the_events(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    Events(tmp_path, LINES, 1.0).close()
    (path,) = tmp_path.iterdir()
    reader, found = PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()  # which compares the checksums
        except Exception as end:
            assert "OutOfRange" in type(end).__name__
            break
        found.append(Event.FromString(reader.record()))
    assert found[0].file_version == "brain.Event:2"
    read = [(event.step, value.tag, value.simple_value) for event in found[1:] for value in event.summary.value]
    assert read == [(step, tag, pytest.approx(value)) for step, tag, value in POINTS]
    assert [event.wall_time - found[0].wall_time for event in found[1:]] == pytest.approx([0.5, 1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize("value", [1e300, -1e300, math.inf, 3.4028235e38])
def test_a_figure_that_is_too_large_for_an_event_is_infinite(value, tmp_path):
    events = Events(tmp_path, [{"step": 1, "evaluation": {"perplexity": value}}], 0.0)
    events.close()
    (path,) = tmp_path.iterdir()
    assert struct.pack("<f", math.copysign(math.inf, value)) in path.read_bytes()


def test_events_begin_anew_and_go_on(tmp_path):
    (tmp_path / "events.out.tfevents.1.xlmr").write_bytes(b"of a run that was killed")
    (tmp_path / "mine.txt").write_text("stays", encoding="utf-8")
    events = Events(tmp_path, LINES[:1], 0.5)
    for line in LINES[1:]:
        events.add(line)
    events.close()
    one, two = tmp_path / "a", tmp_path / "b"
    Events(one, LINES, 1.0).close()
    Events(two, LINES[:1], 0.5).close()
    (whole,), (gone_on,) = (list(folder.glob("events*")) for folder in (one, tmp_path))
    assert len(whole.read_bytes()) == len(gone_on.read_bytes())
    assert (tmp_path / "mine.txt").exists() and not (tmp_path / "events.out.tfevents.1.xlmr").exists()


def test_the_checksum_is_the_published_one():
    # RFC 3720, B.4: 32 bytes of zeros have the checksum 0x8A9136AA.
    masked = module._masked(bytes(32))
    rotated = (masked - module.MASK) & 0xFFFFFFFF
    assert ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF == 0x8A9136AA
    assert module._varint(300) == b"\xac\x02" and struct.unpack("<f", module._float(2, 1.5)[1:]) == (1.5,)


FIGURES = Figures({"accuracy": 0.5, "perplexity": 123.456}, {"de": {"accuracy": 0.25, "perplexity": 90.0},
    "sw": {"accuracy": 0.75, "perplexity": 150.0}}, {"de": 12, "sw": 30}, 42)  # fmt: skip


def test_a_table_has_each_language_their_mean_and_all():
    rows = table(FIGURES)
    assert rows == [
        ["language", "tokens", "accuracy", "perplexity"],
        ["de", "12", "0.250", "90"],
        ["sw", "30", "0.750", "150"],
        ["mean", "", "0.500", "120"],
        ["all", "42", "0.500", "123.5"],
    ]
    assert in_markdown(rows).splitlines()[1:3] == ["| --- | ---: | ---: | ---: |", "| de | 12 | 0.250 | 90 |"]
    assert in_columns(rows)[1] == "de            12     0.250          90"
    assert said(FIGURES.all) == "accuracy 0.500, perplexity 123.5"
    assert [row[:2] for row in table(Figures({"f1": 1.0}))] == [["language", "examples"], ["all", "0"]]


def outcome_of(**values) -> Outcome:
    return Outcome(**{"steps": 500, "seconds": 90.0, "loss": 0.25, "metric": "accuracy", "best": 400, **values})


def card_of(outcome: Outcome, labels=(), has_confusion=False, **recipe) -> str:
    recipe = Recipe(**{"task": "text-classification", "train": "/home/me/texts/train.csv", **recipe})
    return card("topics", recipe, labels, outcome, {"train": {"train.csv": "9 bytes"}}, has_confusion)


def test_the_card_says_what_was_done_and_what_came_of_it():
    text = card_of(outcome_of(evaluation=FIGURES), ("a", "b"), True, model="FacebookAI/xlm-roberta-base")
    for part in (
        "base_model: FacebookAI/xlm-roberta-base",
        'language: ["de", "sw"]',
        "pipeline_tag: text-classification",
        "2 labels: `a`, `b`.",
        "On `eval`, at step 400, which was chosen because its accuracy was the best there:",
        "| mean |  | 0.500 | 120 |",
        "500 steps in 1.5 minutes",
        'train = ["train.csv"]',
        "- train: train.csv `9 bytes`",
        "of the examples by which the best step was chosen, so they flatter it a little",
        "Languages with fewer than 20 tokens, of which the figures tell little: de (12).",
        "![how often each label got each answer](confusion.png)",
    ):
        assert part in text
    assert "/home/me" not in text and "collapsed" not in text


@pytest.mark.parametrize(
    ("values", "recipe", "part"),
    [
        ({}, {}, "It was not evaluated. The loss of the last step was 0.25."),
        ({"test": FIGURES}, {}, "On `test`, which had no part in training:"),
        ({"collapsed": "level"}, {}, "**The run seems to have collapsed**"),
        ({}, {"head_only": True}, "Nothing but the head was trained."),
        ({}, {"lora_rank": 8}, "Low-rank deltas of rank 8 were trained, and are merged into the weights."),
        ({}, {"config": "config.json"}, "Fresh weights, trained for text classification with xlmr"),
        ({}, {"task": "sentence-embedding"}, "pipeline_tag: sentence-similarity"),
        ({}, {"task": "masked-language-modeling"}, "xlmr run --task fill-mask --model topics"),
    ],
)
def test_the_card_of_other_runs(values, recipe, part):
    assert part in card_of(outcome_of(**values), **recipe)


def test_the_recipe_on_a_card_can_be_used_again(tmp_path):
    recipe = card_of(outcome_of(), seed=3).partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    assert Recipe.from_toml(tmp_path / "recipe.toml").seed == 3


def test_a_long_curve_is_thinned_to_means():
    x, y = thinned(np.arange(10.0), np.arange(10.0) ** 2, 5)
    assert x.tolist() == [0.5, 2.5, 4.5, 6.5, 8.5] and y.tolist() == [0.5, 6.5, 20.5, 42.5, 72.5]
    assert thinned(x, y, 5)[0] is x


@pytest.mark.parametrize("lines", [LINES, LINES[:1], [], [{**LINES[2], "evaluation": {"perplexity": 30.0}}]])
def test_curves_of_any_log_are_drawn(lines):
    assert curves_picture(lines, "a run in 東京").startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [2, 30, 120])
def test_a_confusion_matrix_of_any_size_is_drawn(count):
    labels = [f"ラベル {number}" for number in range(count)]
    assert confusion_picture(labels, np.eye(count, dtype=np.int64) * 5).startswith(b"\x89PNG")


def test_what_is_no_number_is_no_obstacle():
    line = {"step": 3, "evaluation": {"perplexity": math.inf, "loss": 800.0}, "languages": {}, "counts": {}}
    assert curves_picture([*LINES, line], "a run").startswith(b"\x89PNG")
