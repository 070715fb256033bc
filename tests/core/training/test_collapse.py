"""Runs that learn nothing are seen, and the likely cause is the one that was made."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.core.training.toy import Toy, recipe_of, run_in, train
from xlmr_core.errors import TrainingError
from xlmr_core.training import card
from xlmr_core.training.collapse import WINDOW, ConstantAnswer, Watch
from xlmr_core.training.metrics import Measured

KIND = "single_label_classification"
LEVEL = math.log(2)
HALVES = {"labels": np.array([0, 1] * 8)}
ONE_ANSWER = Measured({"accuracy": 0.5}, examples=32, only_answer="'sport'")


def watched(losses, norm=1.0, *, rate=2e-5, kind=KIND, batch=HALVES, **recipe) -> Watch:
    watch = Watch(recipe_of(steps=1000, learning_rate=rate, **recipe), 2e-5, kind)
    for step, loss in enumerate(losses):
        watch.saw(batch)
        watch.step(step + 1, loss, norm(step) if callable(norm) else norm)
    return watch


@pytest.mark.parametrize(
    ("labels", "is_binary", "loss"),
    [
        ([[0, 1, 0, 1]], False, math.log(2)),
        ([[0, 1], [2, 3]], False, math.log(4)),
        ([[0, -100, -100, 1]], False, math.log(2)),
        ([[3, 3, 3, 3]], False, 0.0),
        ([[0.0, 4.0]], False, 4.0),
        ([[[1.0], [0.0], [0.0], [0.0]]], True, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))),
        ([[[1.0, 1.0], [0.0, 1.0]]], True, math.log(2) / 2),
        ([], False, None),
    ],
)
def test_the_loss_of_a_constant_answer(labels, is_binary, loss):
    constant = ConstantAnswer(is_binary)
    for batch in labels:
        constant.add(np.array(batch, np.float32 if isinstance(np.array(batch).flat[0], float) else np.int64))
    assert constant.loss == (None if loss is None else pytest.approx(loss))


FLAT = [LEVEL] * 200
LOST = [LEVEL - min(0.5, step / 100) if step < 150 else LEVEL for step in range(300)]


@pytest.mark.parametrize(
    ("watch", "cause"),
    [
        (
            watched(FLAT, rate=1e-3),
            "the learning rate, 0.001, is 50 times the usual one; begin anew with learning_rate=2e-05",
        ),
        (watched(LOST), "too high: the model had learned, and has lost it again; begin anew with learning_rate=5e-06"),
        (watched(FLAT, lambda step: 1.0 if step < 60 else 1e-6), "gradients have died (norm 1e-06), which too high a"),
        (
            watched(FLAT, rate=1e-7),
            "the learning rate, 1e-07, is low for what is trained; begin anew with learning_rate=2e-05",
        ),
        (watched(FLAT, head_only=True), "too little of the model is trained for this; begin anew with head_only=False"),
        (watched(FLAT), "too few steps so far, or labels that do not go with their texts"),
    ],
)
def test_the_loss_at_the_level_of_a_constant_answer_and_its_cause(watch, cause):
    found = watch.look(200, None)
    assert found.sign == "level"
    assert found.sentence.startswith("step 200: the loss, 0.6931, is at the level of a constant answer, 0.6931. Likely")
    assert cause in found.sentence


def test_one_answer_to_everything():
    found = watched([0.4] * 60).look(61, ONE_ANSWER)
    assert found.sign == "one answer"
    assert found.sentence.startswith(
        "step 61: all 32 examples of the evaluation get one answer, 'sport'. Likely cause: "
    )
    both = watched(FLAT).look(200, ONE_ANSWER)
    assert both.sign == "one answer and level" and "'sport', and the loss, 0.6931, is at" in both.sentence


def test_labels_that_are_nearly_all_the_same():
    batch = {"labels": np.array([0] * 199 + [1])}
    found = watched([0.03] * 60, batch=batch).look(61, ONE_ANSWER)
    assert "99.5% of the labels that were trained on are one and the same" in found.sentence


@pytest.mark.parametrize(
    "watch",
    [
        watched([0.4] * 100),
        watched(FLAT[: WINDOW - 1]),
        watched([9.0] * 200, kind="masked-language-modeling"),
        *(
            watched([5.0] * 200, kind=kind, batch={"labels": np.array([1.0, 0.5], np.float32)})
            for kind in ("scored-pairs", "sentence-embedding")
        ),
        watched([5.0] * 200, kind="question-answering", batch={"start_positions": np.array([1, 2])}),
    ],
)
def test_of_a_run_that_learns_or_is_young_nothing_is_said(watch):
    assert watch.look(200, None).sentence == ""
    assert watched(FLAT, warmup=0.5).look(200, ONE_ANSWER).sentence == ""


@pytest.mark.parametrize(
    ("before", "loss", "norm", "recipe", "message"),
    [
        (
            [],
            math.nan,
            1.0,
            {},
            "expected a loss, received nan at step 1. Likely cause: the weights or the labels, as it is",
        ),
        (
            [0.5],
            math.inf,
            1.0,
            {},
            "inf at step 2; the loss was 0.5 a step before. Likely cause: the learning rate, 2e-05; b",
        ),
        ([0.5], math.nan, 1.0, {"precision": "float16"}, "too large for float16; begin anew with precision=bfloat16"),
        ([0.5] * 9, math.nan, None, {}, "Likely cause: the learning rate, 2e-05; begin anew with learning_rate=5e-06"),
        (
            [0.5] * 9 + [0.9],
            math.nan,
            "grows",
            {"clip_norm": 0.0},
            "blown up (norm 1e+04); begin anew with learning_rate",
        ),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run(before, loss, norm, recipe, message):
    norms = (lambda step: 1e4 if step == len(before) - 1 else 1.0) if norm == "grows" else norm
    watch = watched(before, norms, **recipe)
    with pytest.raises(TrainingError) as ended:
        watch.step(len(before) + 1, loss, None)
    assert message in str(ended.value)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_norm_that_is_no_number_ends_the_run_but_in_float16(norm):
    with pytest.raises(TrainingError, match=f"expected a norm of the gradients, received {norm} at step 10; the loss"):
        watched([0.5] * 9).step(10, 0.5, norm)
    watched([0.5] * 9, precision="float16").step(10, 0.5, norm)


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        (KIND, HALVES),
        ("multi_label_classification", {"labels": np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)}),
        ("rerank", {"labels": np.array([[1.0], [0.0]], np.float32)}),
    ],
)
def test_answers_that_vary_are_no_collapse_whatever_the_loss_is(kind, batch):
    watch = watched(FLAT, kind=kind, batch=batch)
    found = watch.look(200, Measured({"accuracy": 0.5}, examples=32))
    assert found.sign == "level" and found.sentence and not found.is_collapse
    assert watch.look(200, ONE_ANSWER).is_collapse and watch.look(200, None).is_collapse


def test_a_run_that_goes_on_knows_its_losses_and_norms(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "publish", lambda *_, **__: None)
    recipe = {"steps": 120, "evaluate_every": 60}

    def ends(step):
        if step == 100:
            raise KeyboardInterrupt

    with run_in(tmp_path / "run", recipe=recipe) as run, pytest.raises(KeyboardInterrupt):
        train(Toy(), run, ends)
    with run_in(tmp_path / "run", recipe=recipe) as again:
        assert again.restore(lambda folder: None) == 99
        old, new = run._watch, again._watch
        assert list(new._losses) == list(old._losses) and list(new._norms) == list(old._norms)
        assert new._learned and new._first_norms == old._first_norms
        assert new._constant.loss == pytest.approx(old._constant.loss, rel=0.02)


def test_a_run_without_an_evaluation_that_goes_on_at_its_end_knows_its_collapse(tmp_path, monkeypatch):
    monkeypatch.setattr("xlmr_core.training.run.publish", lambda *_, **__: None)
    monkeypatch.setattr(Toy, "loss", lambda self, points, labels: (math.log(3), np.zeros_like(self.weights)))
    said, how = [], {"evaluation": None, "recipe": {"steps": 100}}
    with run_in(tmp_path / "run", **how) as run:
        monkeypatch.setattr(run, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(Toy(), run)
    assert train(Toy(), run_in(tmp_path / "run", said, **how)).collapsed == "level"
    assert said[0] == "goes on after step 100 of 100" and not any(line.startswith("warning") for line in said)


@pytest.mark.parametrize(("good", "collapsed"), [(60, ""), (0, "one answer")])
def test_the_card_speaks_of_the_weights_that_are_published(good, collapsed, tmp_path, monkeypatch):
    monkeypatch.setattr("xlmr_core.training.run.publish", lambda *_, **__: None)
    run = run_in(tmp_path / "run", recipe={"steps": 120, "evaluate_every": 60})
    measured = run._judge.measured

    def judged(*arguments):
        found = measured(*arguments)
        return found if run._reached <= good else replace(found, figures={"accuracy": 0.3}, only_answer="'sport'")

    run._judge.measured = judged
    assert train(Toy(), run).collapsed == collapsed


def test_a_run_says_it_once_and_its_card_says_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "curves_picture", lambda *_: b"curves")
    monkeypatch.setattr(card, "confusion_picture", lambda *_: b"confusion")
    monkeypatch.setattr(Toy, "loss", lambda self, points, labels: (math.log(3), np.zeros_like(self.weights)))
    model, said = Toy(), []
    model.weights[:] = np.eye(8, 3)[:, [0, 0, 0]] * [1, 2, 3] * 0
    model.weights[0] = [0.0, 0.0, 0.0]
    outcome = train(model, run_in(tmp_path / "run", said, recipe={"steps": 100, "evaluate_every": 10}))
    warnings = [line for line in said if line.startswith("warning: ")]
    assert len(warnings) == 1 and "get one answer, 'sport', and the loss, 1.099" in warnings[0]
    assert outcome.collapsed == "one answer"  # of the first evaluation, whose weights are published
    assert "**The run seems to have collapsed**" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


def test_a_run_whose_loss_is_no_number_ends_with_its_checkpoints(tmp_path, monkeypatch):
    real = Toy.loss
    calls = []

    def loss(self, points, labels):
        calls.append(1)
        found, gradient = real(self, points, labels)
        return (math.nan if len(calls) > 7 else found), gradient

    monkeypatch.setattr(Toy, "loss", loss)
    run = run_in(tmp_path / "run")
    with pytest.raises(TrainingError, match="received nan at step 8"):
        train(Toy(), run)
    run.close()
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-4", "step-6"]
