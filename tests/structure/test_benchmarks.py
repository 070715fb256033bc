"""The benchmark harness itself: its rounds, its statistics, its batches, and that every question runs. No figure is
tested here.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import harness, long_texts, machine, models, page, peers, picture, targets, texts
from benchmarks.__main__ import QUESTIONS, main
from benchmarks.children import Child
from benchmarks.harness import Absent, Case, Options, Timed
from benchmarks.targets import TARGETS, Target
from tests.choice import chosen

TINY = Options(rounds=3, warmup=1, tiny=True)
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def light_collections() -> Iterator[None]:
    """The harness collects garbage before each turn: not among all that pytest holds, which takes it a third of a
    second.
    """
    gc.freeze()
    yield
    gc.unfreeze()


# ---- Rounds


def test_everybody_gets_a_turn_in_every_round_and_warming_up_is_not_kept() -> None:
    turns: list[str] = []

    def job(name: str) -> harness.Job:
        def turn() -> dict[str, float]:
            turns.append(name)
            return {"turn": len(turns)}

        return turn

    samples = harness.take_turns({name: job(name) for name in "abcd"}, rounds=6, warmup=2, pause=0)
    rounds = [turns[start : start + 4] for start in range(0, len(turns), 4)]
    assert len(rounds) == 8
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len({order[0] for order in map(tuple, rounds)}) > 1, "the order changes"
    for name in "abcd":
        assert samples[name]["turn"] == [
            8 + 4 * number + order.index(name) + 1 for number, order in enumerate(rounds[2:])
        ]


def constant(seconds: float, answer: float) -> Any:
    def build() -> Any:
        job = Timed(lambda: answer)
        job()
        return type("Job", (), {"__call__": lambda self: {"seconds": seconds}, "answer": answer})()

    return build


def absent() -> Any:
    raise Absent("it is not here")


def case(**changes: Any) -> Case:
    contestants = {"peer": constant(3.0, 1.0), "ours": constant(1.0, 1.25), "gone": absent}
    values = {
        "contestants": contestants,
        "baselines": ("gone", "peer", "ours"),
        "compare": lambda a, b: {"error": b - a},
    }
    return Case("a case", **{**values, **changes})


def test_a_result_holds_samples_ratios_errors_and_who_is_absent() -> None:
    found = harness.run_case(case(facts={"pad": 3.25}), TINY)
    assert json.loads(json.dumps(found)) == {
        "name": "a case",
        "baseline": "peer",
        "rounds": 3,
        "facts": {"pad": 3.25},
        "contestants": {
            "peer": {
                "samples": {"seconds": [3.0] * 3},
                "quartiles": {"seconds": [3.0] * 3},
                "ratio": {"seconds": [1.0] * 3},
                "error": {"error": 0.0},
            },
            "ours": {
                "samples": {"seconds": [1.0] * 3},
                "quartiles": {"seconds": [1.0] * 3},
                "ratio": {"seconds": [3.0] * 3},
                "error": {"error": 0.25},
            },
        },
        "absent": {"gone": "it is not here"},
    }
    shown = harness.case_text(found)
    assert "| ours | 1000 ms | 3.00 | 0.25 |" in shown
    assert "pad 3.25" in shown
    assert "Left out: gone: it is not here" in shown


def test_only_and_rounds_of_the_case() -> None:
    found = harness.run_case(case(rounds=2), Options(rounds=5, warmup=0, tiny=True, only=("ours",)))
    assert list(found["contestants"]) == ["ours"]
    assert found["baseline"] == "ours"
    assert found["contestants"]["ours"]["samples"]["seconds"] == [1.0, 1.0]
    assert found["absent"] == {}


def test_a_timed_job_keeps_its_latest_answer_unless_it_was_given_one() -> None:
    answers = iter([1, 2])
    job = Timed(lambda: next(answers))
    seconds = job()["seconds"]
    job()
    assert job.answer == 2
    assert 0 <= seconds < 60
    given = Timed(lambda: 1, answer=7)
    given()
    assert given.answer == 7


# ---- Processes


def test_a_child_answers_and_says_what_it_held() -> None:
    code = "held = b'x' * 100_000_000\nfrom benchmarks import children\nchildren.answer(len(held))"
    child = Child(code)
    found = child()
    assert child.answer == 100_000_000
    assert 100_000_000 / 2**20 < found["peak_mib"] < 200
    assert 0.01 < found["seconds"] < 60
    assert list(Child(code, quantities=("peak_mib",))()) == ["peak_mib"]


def test_a_child_that_fails_is_an_error_with_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="too small a boat"):
        Child("raise SystemExit('too small a boat')")()


# ---- Statistics


@pytest.mark.parametrize(
    ("values", "expected"),
    [([4.0], [4.0, 4.0, 4.0]), ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 3.0, 4.0]), ([5.0, 1.0, 100.0], [3.0, 5.0, 52.5])],
)
def test_spread(values: list[float], expected: list[float]) -> None:
    assert harness.spread(values) == expected


def test_ratios_are_taken_within_a_round() -> None:
    ours, theirs = [1.0, 10.0, 2.0], [3.0, 30.0, 4.0]
    assert harness.ratios("seconds", ours, theirs) == [3.0, 3.0, 2.0]
    assert harness.ratios("peak_mib", ours, theirs) == pytest.approx([1 / 3, 1 / 3, 0.5])
    assert harness.spread(harness.ratios("seconds", ours, theirs))[1] == 3.0  # of the medians it would be 2.0


# ---- Batches


def test_natural_lengths_are_distributed_as_said() -> None:
    lengths = texts.natural_lengths(40_000, np.random.default_rng(0))
    assert np.median(lengths) == pytest.approx(24, abs=1)
    assert np.percentile(lengths, 95) == pytest.approx(120, rel=0.03)
    assert (lengths.min(), lengths.max()) == (5, 256)


def test_a_batch_is_padded_on_the_right_and_says_how_much() -> None:
    batch = texts.batch(np.array([5, 2, 3]), 100, np.random.default_rng(0))
    assert batch.mask_BS.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert ((batch.ids_BS == texts.PAD) == (batch.mask_BS == 0)).all()
    assert [row[0] for row in batch.lists] == [texts.BOS] * 3
    assert [row[-1] for row in batch.lists] == [texts.EOS] * 3
    inner = [token for row in batch.lists for token in row[1:-1]]
    assert all(texts.FIRST_ORDINARY <= token < 99 for token in inner)
    assert batch.facts == {"rows": 3, "length": 5, "tokens": 10, "pad": 1.5}


def test_batches_are_the_same_every_time() -> None:
    first, again, other = texts.natural(1000), texts.natural(1000), texts.natural(1000, seed=1)
    assert (first.ids_BS == again.ids_BS).all()
    assert first.ids_BS.shape != other.ids_BS.shape or (first.ids_BS != other.ids_BS).any()
    assert 3.0 < first.facts["pad"] < 3.6
    assert texts.full(1000).facts == {"rows": 8, "length": 128, "tokens": 1024, "pad": 1.0}


def test_masked_sentences() -> None:
    sentences = texts.masked_sentences("<mask>", [3, 60])
    assert [len(sentence.split()) for sentence in sentences] == [3, 60]
    assert all(sentence.split().count("<mask>") == 1 for sentence in sentences)


def test_sentences_are_real_lines_of_many_languages(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMR_SHARED", str(shared))
    found = texts.sentences(200)
    assert len(found) == 200
    assert len(set(found)) > 150
    assert all(line == line.strip() and 0 < len(line) <= 200 for line in found)


def test_without_the_data_a_question_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMR_SHARED", str(tmp_path))
    with pytest.raises(Absent, match="XLMR_SHARED"):
        texts.sentences(10)
    monkeypatch.setattr(machine, "limit_threads", lambda threads: None)
    with pytest.raises(SystemExit, match="^a question: no texts in .* set XLMR_SHARED"):
        harness.main("a question", "What?", lambda options: [case(facts={"texts": texts.sentences(10)})], ["--tiny"])


# ---- The checkpoint


def test_a_vocabulary_of_any_size_that_sentencepiece_reads() -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    small = models.MINI_VOCABULARY.read_bytes()
    large = models.with_pairs(small, 34_000)
    assert large == models.with_pairs(small, 34_000)
    processor = sentencepiece.SentencePieceProcessor(model_proto=large)
    before = sentencepiece.SentencePieceProcessor(model_proto=small)
    pieces = [processor.id_to_piece(index) for index in range(len(processor))]
    assert len(pieces) == len(set(pieces)) == 34_000
    assert pieces[: len(before)] == [before.id_to_piece(index) for index in range(len(before))]
    text = " ".join(piece.removeprefix("▁") for piece in pieces[-50:])
    assert len(processor.encode(text)) < len(before.encode(text))


def test_what_is_made_once_is_whole_or_not_there(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.once(tmp_path / "a" / "folder", interrupted)
    assert not (tmp_path / "a" / "folder").exists()
    made = models.once(tmp_path / "a" / "folder", lambda path: path.mkdir())
    assert list(made.iterdir()) == []
    assert models.once(made, interrupted) == made


def test_a_peer_that_is_not_there_is_a_clear_word() -> None:
    with pytest.raises(Absent, match=r"no_such_peer is not installed \(`nox -s bench`"):
        peers.installed("no_such_peer")
    with pytest.raises(Absent, match="not among --peer onnxruntime"):
        peers.peer("transformers", Options(peers=("onnxruntime",)))


# ---- Questions


def test_every_question_is_in_the_list_and_on_the_page() -> None:
    folder = Path(harness.__file__).parent
    runnable = {path.stem for path in folder.glob("*.py") if "harness.main(" in path.read_text(encoding="utf-8")}
    assert runnable == set(QUESTIONS)
    listed = page.PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in listed for name in QUESTIONS)
    assert {question for group in OURS.values() for question in group} == set(QUESTIONS)


# By question: contestants who need no peer, and a measured quantity. The questions of a group share a process, as
# loading a framework takes longer than a tiny question.
OURS = {
    "PyTorch": {
        "encoder": (["xlmr padded", "xlmr"], "seconds"),
        "near_limit": (["products"], "seconds"),
        "training": (["xlmr"], "seconds"),
        "recipes": (["xlmr"], "seconds"),
        "fill_mask": (["xlmr"], "seconds"),
        "tasks": (["xlmr", "xlmr, means"], "seconds"),
        "vectors": (["xlmr", "xlmr, sorted"], "seconds"),
        "bge_m3": (["xlmr", "xlmr, dense alone"], "seconds"),
        "generation": (["xlmr"], targets.pace(8)),
        "recompiles": (["xlmr compiled"], "later"),
        "int8_files": (["float32", "int8"], "mib"),
        "serving": (["pipeline", "server"], "tokens a second"),
        "quantized": (["xlmr float32", "xlmr int4", "xlmr nf4"], "mib"),
        "tokenizing": (["xlmr", "xlmr fast"], "seconds"),
    },
    "Flax": {
        "flax_encoder": (["xlmr flax padded", "xlmr flax", "xlmr torch"], "seconds"),
        "flax_training": (["xlmr flax", "xlmr flax published call"], "seconds"),
        "flax_compiling": (["xlmr flax", "xlmr flax scanned"], "seconds"),
        "flax_generation": (["xlmr torch", "xlmr flax"], targets.pace(8)),
    },
    "Keras": {
        "keras_encoder": (["xlmr_torch", "xlmr_tf padded", "xlmr_tf"], "seconds"),
        "keras_training": (["xlmr_tf", "xlmr_tf published call, fit", "bare loop", "fit"], "seconds"),
        "keras_retraces": (["xlmr_tf"], "later"),
        "keras_generation": (["xlmr_torch", "xlmr_tf"], targets.pace(8)),
    },
    "processes of their own": {
        "start_up": (["xlmr", "torch alone"], "peak_mib"),
        "long_texts": (["xlmr"], "peak_mib"),
        "flax_start_up": (["xlmr flax, same file", "xlmr flax", "jax alone"], "peak_mib"),
        "keras_start_up": (["xlmr_tf, same file", "xlmr_tf", "tensorflow alone"], "peak_mib"),
        "conversion": (["copying", "to safetensors", "to flax"], "peak_mib"),
        "onnx": (["xlmr exported", "xlmr exported int8"], "seconds"),
        "quantized_xl": (["int4", "from torch, one file", "from flax, several"], "peak_mib"),
    },
}
# As `python -m benchmarks.QUESTION OPTIONS`, one after the other, what each prints in a file of its own.
ASK = """
import contextlib, json, pathlib, runpy, sys
for question, options in json.loads(sys.argv[1]).items():
    sys.argv = [question, *options]
    with open(pathlib.Path(options[-1]).with_suffix(".md"), "w") as file, contextlib.redirect_stdout(file):
        runpy.run_module(f"benchmarks.{question}", run_name="__main__")
"""


@pytest.fixture(scope="session", params=chosen(list(OURS), ["PyTorch"]))
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A group of questions, and the folder of what they answered."""
    work = tmp_path_factory.mktemp("benchmarks")
    shared = ["--tiny", "--warmup", "0", "--threads", "1", "--work", str(work), "--peer", "--only"]
    options = {
        question: [*shared, *contestants, "--json", str(work / f"{question}.json")]
        for question, (contestants, _) in OURS[request.param].items()
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(options)],
        cwd=machine.ROOT,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return request.param, work


@needs_torch
@pytest.mark.slow
def test_every_question_runs_on_a_tiny_model_without_peers(asked: tuple[str, Path]) -> None:
    group, work = asked
    for question, (contestants, quantity) in OURS[group].items():
        report = json.loads((work / f"{question}.json").read_text(encoding="utf-8"))
        assert report["question"] == question
        assert report["tiny"] is True
        assert {"date", "cpu", "flags", "threads", "python", "versions", "xlmr"} <= set(report["environment"])
        assert report["environment"]["versions"]["torch"]
        found = {name: row for case in report["cases"] for name, row in case["contestants"].items()}
        assert set(found) == set(contestants)
        assert all(case["absent"] == {} for case in report["cases"])
        assert all(values == [values[0]] for row in found.values() for values in row["samples"].values())
        shown = (work / f"{question}.md").read_text(encoding="utf-8")
        for name, row in found.items():
            assert quantity in row["samples"] or question == "training", name
            allowed = 0.5 if question == "quantized" else 1e-5
            assert all(abs(value) < allowed for value in row.get("error", {}).values()), (name, row["error"])
            assert f"| {name} |" in shown


@needs_torch
def test_compilations_and_breaks_are_counted() -> None:
    import torch

    def cut(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return y * 2

    recompiles = importlib.import_module("benchmarks.recompiles")
    batches = [torch.zeros(size) for size in (4, 5, 6, 7)]
    once = torch.compile(lambda x: x + 1, backend="eager", dynamic=True)
    assert recompiles.count(once, batches) == {"first": 1, "later": 0, "breaks": 0}
    each = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    assert recompiles.count(each, batches) == {"first": 1, "later": 3, "breaks": 0}
    assert recompiles.count(torch.compile(cut, backend="eager", dynamic=True), batches)["breaks"] == 1


def test_the_runner_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["encoder", "no_such_question"])
    assert "no such question: no_such_question; there are encoder" in capsys.readouterr().err


# ---- Targets and page


def all_names() -> Iterator[tuple[str, Case]]:
    """Every case of every question; building the cases' contestants is left out."""
    for question in QUESTIONS:
        # Of the lengths a tiny model reads few.
        options = Options(tiny=question != "long_texts", work=Path("nowhere"))
        for found in importlib.import_module(f"benchmarks.{question}").cases(options):
            yield question, found


@needs_torch
def test_every_target_is_read_from_a_case_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mini = models.MINI_VOCABULARY.parent
    for question in QUESTIONS:
        module = importlib.import_module(f"benchmarks.{question}")
        monkeypatch.setattr(module, "checkpoint", lambda options: mini, raising=False)
    reports: dict[str, Any] = defaultdict(lambda: {"cases": []})
    for question, found in all_names():
        numbers: Any = defaultdict(lambda: [2.0] * 3)
        row = {"samples": numbers, "quartiles": numbers, "error": defaultdict(lambda: 2.0)}
        contestants = dict.fromkeys(found.contestants, row)
        case = {"name": found.name, "facts": found.facts, "contestants": contestants}
        for name in (question, question + targets.WITHOUT):
            reports[name]["cases"].append(case)
    rows = [target.row(reports) for target in TARGETS]
    assert [row for row in rows if "not measured" in row] == []
    assert len({row[0] for row in rows}) == len(TARGETS)


@pytest.mark.parametrize(
    ("found", "at_least", "expected"),
    [
        (2.0, True, ["at least 2", "2", "yes"]),
        (1.91, True, ["at least 2", "1.91", "yes"]),
        (1.89, True, ["at least 2", "1.89", "**no**"]),
        (2.09, False, ["at most 2", "2.09", "yes"]),
        (2.11, False, ["at most 2", "2.11", "**no**"]),
    ],
)
def test_a_figure_within_five_percent_counts_as_met(found: float, at_least: bool, expected: list[str]) -> None:
    row = Target("a figure", lambda reports: [found] * 3, targets.number(2.0), at_least).row({})
    assert row == ["a figure", *expected]


def test_figures_that_depend_on_the_padding_and_on_other_contestants() -> None:
    natural = {
        "name": targets.NATURAL,
        "facts": {"pad": 4.0},
        "contestants": {
            "transformers": {"samples": {"seconds": [8.0, 80.0, 9.0]}},
            "xlmr": {"samples": {"seconds": [2.0, 20.0, 3.0]}},
        },
    }
    reports = {"encoder": {"cases": [natural]}}
    assert TARGETS[0].row(reports) == [TARGETS[0].what, "at least 3.8", "4 (3.5–4)", "yes"]
    assert TARGETS[1].row(reports)[2:] == ["not measured", ""]
    share = targets.relative_time("encoder", targets.NATURAL, "xlmr", "transformers")(reports)
    assert share == pytest.approx([0.25, 0.25, 2 / 7], abs=1e-12)


def test_the_page_holds_the_figures_of_the_file_and_no_others() -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    reports = page.latest()
    assert page.with_figures(written, reports) == written, "run `python -m benchmarks.page`"
    assert written.count(page.BEGIN) == written.count(page.END) == 1
    assert not any(report["tiny"] for report in reports.values())
    assert {question.removesuffix(targets.WITHOUT) for question in reports} <= set(QUESTIONS)


def test_the_picture_is_drawn_from_the_files() -> None:
    drawn = picture.PICTURE.read_text(encoding="utf-8")
    assert picture.picture(page.latest()) == drawn, "run `python -m benchmarks.picture`"
    assert set(picture.GROUPS) == {"PyTorch", "Keras 3 on TensorFlow", "Flax on JAX"}
    curves = picture.CURVES.read_text(encoding="utf-8") if picture.CURVES.exists() else None
    assert picture.curves(page.latest()) == curves, "run `python -m benchmarks.picture`"
    lengths = picture.LENGTHS.read_text(encoding="utf-8") if picture.LENGTHS.exists() else None
    assert picture.lengths(page.latest()) == lengths, "run `python -m benchmarks.picture`"


def test_lengths_have_a_place_each_and_a_line_a_contestant() -> None:
    def case(length: int | str, *times: float) -> dict[str, Any]:
        pairs = zip(("transformers", "xlmr"), times, strict=True)
        contestants = {name: {"ratio": {"tokens a second": [value] * 3}} for name, value in pairs}
        return {"name": long_texts.name_of("base", length), "contestants": contestants}

    others = [{"name": long_texts.name_of("bge-m3", 2048), "contestants": {}}]
    drawn = picture.lengths({"long_texts": {"cases": [case(16, 1, 2), case(8192, 1, 3), case("mixed", 1, 9), *others]}})
    assert drawn is not None and drawn.count("<polyline") == 2 == drawn.count("<circle")
    assert all(f">{mark}<" in drawn for mark in ("16", "8192", "mixed", "9.0")) and ">64<" not in drawn
    assert [long_texts.lengths_of(long_texts.SHAPES["bge-m3"], length) for length in (8192, 512)] == [[8192], [512] * 4]
    assert all(max(shape.lengths) <= shape.longest for shape in long_texts.SHAPES.values())
    assert max(long_texts.lengths_of(long_texts.SHAPES["large"], "mixed")) == 512


def test_a_curve_has_a_line_for_what_was_measured_and_names_that_can_be_read() -> None:
    def row(*costs: float) -> dict[str, Any]:
        return {"quartiles": {targets.pace(mark): [cost] * 3 for mark, cost in zip((64, 128), costs, strict=True)}}

    contestants = {"transformers": row(100.0, 102.0), "xlmr": row(99.0, 100.0), "a stranger": row(1.0, 1.0)}
    reports = {"generation": {"cases": [{"name": targets.CURVE, "contestants": contestants}]}}
    assert picture.lines(reports) == {"transformers 5": {64: 100.0, 128: 102.0}, "xlmr": {64: 99.0, 128: 100.0}}
    drawn = picture.curves(reports)
    assert drawn is not None
    assert drawn.count("<polyline") == 2
    assert "stranger" not in drawn
    assert picture.spaced({"a": 50.0, "b": 52.0, "c": 200.0}) == {"a": 50, "b": 66, "c": 200}
    assert picture.curves({}) is None
    assert picture.lengths({}) is None
    growth = targets.growth("generation", targets.CURVE, "xlmr", targets.pace(64), targets.pace(128))
    contestants["xlmr"]["samples"] = {targets.pace(64): [10.0, 20.0], targets.pace(128): [11.0, 22.0]}
    assert growth(reports) == pytest.approx([1.1] * 3)
