"""The folder of a run: killed at any moment it goes on as if nothing had been, and it keeps what it should."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.core.killed import killed_at
from tests.core.training.toy import TASK, Looked, Rows, Toy, quiet, recipe_of, run_in, train
from xlmr_core.errors import CheckpointError, InputError, TrainingError
from xlmr_core.training import card
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.run import Run

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks and signals")


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    """Drawing takes longer than all else."""
    if "with_pictures" not in request.node.name:
        monkeypatch.setattr(card, "curves_picture", lambda *_: b"curves")
        monkeypatch.setattr(card, "confusion_picture", lambda *_: b"confusion")


def log_of(folder: Path) -> list[dict]:
    """The log without what a clock says."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def there(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if not name.startswith(".")}


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "curves_picture", lambda *_: b"curves")
        patch.setattr(card, "confusion_picture", lambda *_: b"confusion")
        train(Toy(), run_in(folder))
    return folder


def check_is_whole(folder: Path, whole: Path) -> None:
    assert log_of(folder) == log_of(whole)
    assert np.array_equal(np.load(folder / "weights.npy"), np.load(whole / "weights.npy"))
    # Temporaries that a kill leaves are removed when they are an hour old.
    assert there(folder) == there(whole)
    assert steps_of(folder) == steps_of(whole)


# Going on


def test_a_run_learns_and_logs_each_step(whole):
    steps = [line for line in log_of(whole) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert [line["step"] for line in log_of(whole) if "evaluation" in line] == [4, 8, 12]
    assert log_of(whole)[-1]["done"] is True


SHORT = {"steps": 6, "evaluate_every": 3, "checkpoint_every": 2, "keep": 1}


@POSIX
@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_been(part, tmp_path):
    train(Toy(), run_in(tmp_path / "whole", recipe=SHORT))
    step, was_killed = 1 + part, True
    while was_killed:
        folder = tmp_path / f"killed-{step}"
        was_killed = killed_at(step, lambda folder=folder: train(Toy(), run_in(folder, recipe=SHORT)))
        train(Toy(), run_in(folder, recipe=SHORT))
        check_is_whole(folder, tmp_path / "whole")
        step += 4
    assert step > 60


@POSIX
def test_killed_again_and_again_it_comes_to_its_end(tmp_path, whole):
    folder, times = tmp_path / "run", 0
    while killed_at(45, lambda: train(Toy(), run_in(folder))):
        times += 1
        assert times < 20
    train(Toy(), run_in(folder))
    assert times > 1
    check_is_whole(folder, whole)


@pytest.mark.parametrize("at", [0, 1, 5, 8, 11])
def test_a_run_that_is_stopped_makes_a_checkpoint_and_goes_on(at, tmp_path, whole):
    folder, said = tmp_path / "run", []
    run = run_in(folder, said)
    assert train(Toy(), run, before=lambda step: run.stop() if step == at else None) is None or at == 11
    if at < 11:
        assert said[-1] == f"stopped after step {at + 1} of 12; the same call goes on"
        assert not (folder / "weights.npy").exists()
        train(Toy(), run_in(folder, said))
        assert f"goes on after step {at + 1} of 12" in said
    check_is_whole(folder, whole)


def test_a_run_that_is_over_stays_as_it_is(tmp_path, whole):
    folder, said = tmp_path / "run", []
    shutil.copytree(whole, folder)
    model = Toy(seed=7)
    outcome = train(model, run_in(folder, said))
    assert said == [f"the run in {folder} is over; its model is there"]
    assert outcome.evaluation.all == log_of(whole)[-2]["evaluation"] and outcome.steps == 12
    assert np.array_equal(model.weights, np.load(whole / "weights.npy")), "the model has what the run found"
    check_is_whole(folder, whole)


def test_a_run_that_is_over_and_has_no_checkpoints_says_where_its_weights_are(tmp_path, whole):
    folder, said = tmp_path / "run", []
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints")
    train(Toy(seed=7), run_in(folder, said))
    (warning,) = (line for line in said if line.startswith("warning: "))
    assert f"load those of the run with from_pretrained('{folder}')" in warning


def test_a_run_that_is_begun_anew_forgets_the_model_and_no_other_file(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    names = ("config.json", "model-00001-of-00002.safetensors", "adapter/adapter_config.json", "1_Pooling/config.json")
    for name in (*names, "mine.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")
    with run_in(folder, restart=True) as run:
        run.open()
        # The toy's weights have a name of their own.
        assert there(folder) == {"log.jsonl", "recipe.toml", "mine.txt", "tensorboard", "weights.npy"}


def test_a_checkpoint_that_lost_a_file_is_none(tmp_path, whole):
    folder, said = tmp_path / "run", []
    interrupted(folder, at=10)
    (folder / "checkpoints" / "step-9" / "state.npz").write_bytes(b"half")
    train(Toy(), run_in(folder, said))
    assert "goes on after step 8 of 12" in said
    check_is_whole(folder, whole)


class Stop(Exception):
    """What ends a run as a kill does, as far as files go."""


def interrupted(folder: Path, at: int, **how) -> None:
    def before(step: int) -> None:
        if step == at:
            raise Stop

    run = run_in(folder, **how)
    with pytest.raises(Stop):
        train(Toy(), run, before)
    run.close()


@pytest.mark.parametrize(
    "tail", [b'{"step": 11, "lo', b"\0" * 30, b'{"step": 11, "loss": 0.1, "learning_rate": 1, "seconds": 1}\n']
)
def test_what_stands_behind_the_checkpoint_is_cut_off(tail, tmp_path, whole):
    folder = tmp_path / "run"
    interrupted(folder, at=10)
    with open(folder / "log.jsonl", "ab") as file:
        file.write(tail)
    train(Toy(), run_in(folder))
    check_is_whole(folder, whole)


def test_a_run_may_go_on_with_other_checkpoints_kept(tmp_path):
    folder = tmp_path / "run"
    interrupted(folder, at=7)
    assert steps_of(folder) == [4, 6]
    train(Toy(), run_in(folder, recipe={"keep": 5}))
    assert steps_of(folder) == [4, 6, 8, 9, 12]


# What is kept


class Worse(Looked):
    """An evaluation whose figures get worse after a step."""

    def __init__(self, good_until: int) -> None:
        super().__init__()
        self.good_until, self.calls = good_until, 0

    def answers(self, results):
        self.calls += 1
        answers = super().answers(results)
        if 4 * self.calls > self.good_until:
            answers.predicted[:] = [(number + 1) % 3 for number in answers.gold]
        return answers


@pytest.mark.parametrize(("good_until", "best"), [(4, 4), (12, 12), (0, 4)])
def test_the_newest_and_the_best_checkpoint_are_kept_and_the_best_is_published(good_until, best, tmp_path):
    folder = tmp_path / "run"
    states = {}

    run = run_in(folder, evaluation=Worse(good_until), recipe={"keep": 1})
    save = run._checkpoints.save

    def watched(step, write):
        save(step, write)
        with np.load(folder / "checkpoints" / f"step-{step}" / "state.npz") as state:
            states[step] = state["weights"]

    run._checkpoints.save = watched
    outcome = train(Toy(), run)
    found = outcome.best
    assert found == (best if good_until else 4) or good_until == 12
    assert steps_of(folder) == sorted({12, found})
    assert np.array_equal(np.load(folder / "weights.npy"), states[found])


def test_a_run_ends_when_nothing_becomes_better(tmp_path):
    said = []
    outcome = train(Toy(), run_in(tmp_path / "run", said, evaluation=Worse(4), recipe={"patience": 2, "steps": 40}))
    assert outcome.steps == 12 and outcome.best == 4
    assert "ends after step 12: accuracy has not become better in 2 evaluations" in said


def test_a_run_that_was_killed_at_such_an_end_ends_there(tmp_path):
    folder, recipe = tmp_path / "run", {"patience": 2, "steps": 40}
    run = run_in(folder, evaluation=Worse(4), recipe=recipe)
    run._publish = lambda *_: (_ for _ in ()).throw(Stop)
    with pytest.raises(Stop):
        train(Toy(), run)
    run.close()
    evaluation = Worse(4)
    evaluation.calls = 3
    said = []
    outcome = train(Toy(), run_in(folder, said, evaluation=evaluation, recipe=recipe))
    assert outcome.steps == 12 and said[0] == "goes on after step 12 of 40"


def test_without_an_evaluation_the_last_weights_are_published(tmp_path):
    folder, model = tmp_path / "run", Toy()
    outcome = train(model, run_in(folder, evaluation=None, recipe={"keep": 2}))
    assert outcome.best is None and outcome.evaluation is None
    assert np.array_equal(np.load(folder / "weights.npy"), model.weights)
    assert steps_of(folder) == [9, 12]


def test_the_test_is_looked_at_once_with_the_best_weights(tmp_path):
    said, test = [], Looked(seed=3)
    outcome = train(Toy(), run_in(tmp_path / "run", said, test=test))
    assert outcome.test.examples == 48 and outcome.test.all != outcome.evaluation.all
    assert list(outcome.test.languages) == ["de", "sw"]
    assert sum(line.startswith("test: accuracy ") for line in said) == 1
    assert "which had no part in training" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


# What stands in the folder


def test_what_a_finished_run_leaves_with_pictures(tmp_path):
    folder = tmp_path / "topics"
    train(Toy(), run_in(folder))
    names = ("README.md", "curves.png", "confusion.png", "evaluation.json", "log.jsonl", "recipe.toml", "weights.npy")
    assert {*names, "checkpoints", "tensorboard", "tokenizer.json"} == set(os.listdir(folder))
    for picture in ("curves.png", "confusion.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert Recipe.from_toml(folder / "recipe.toml") == recipe_of()
    figures = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["evaluation"]["figures"] == log_of(folder)[-2]["evaluation"]
    text = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("# topics", "xlmr run --task text-classification --model topics", "| de | 24 |", "| all | 48 |"):
        assert part in text
    assert 'language: ["de", "sw"]' in text and str(tmp_path) not in text


# What is refused


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"recipe": {"seed": 3}},
            "was begun with another seed, 0, received 3; go on with that, give another folder, or pass",
        ),
        ({"recipe": {"steps": 20}}, "was begun with another steps, 12, received 20; "),
        ({"data": {"train": {"rows": "8"}}}, "with another train, {'rows': '7'}, received {'rows': '8'}; "),
        ({"data": {}}, "with another train, {'rows': '7'}, received None; "),
    ],
)
def test_another_run_in_the_folder_is_refused_and_begun_anew_when_that_is_said(how, message, tmp_path):
    folder = tmp_path / "run"
    interrupted(folder, at=10)
    with pytest.raises(TrainingError) as refused:
        train(Toy(), run_in(folder, **how))
    assert message in str(refused.value) and "restart=True" in str(refused.value)
    outcome = train(Toy(), run_in(folder, restart=True, **how))
    assert outcome.steps == how.get("recipe", {}).get("steps", 12)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TrainingError, match="expected an empty folder, or one with a run in it, received"):
        run_in(tmp_path)
    with pytest.raises(TrainingError, match="expected a folder to train in, received the file"):
        run_in(tmp_path / "config.json")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.jsonl").write_text("something else\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="expected the log of a run in .*, received another file; move it away"):
        run_in(tmp_path / "other").open()


@POSIX
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, if another test has imported it
def test_two_processes_at_one_run_are_refused(tmp_path):
    with run_in(tmp_path / "run") as run:
        run.open()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            said = pool.apply(_said_to_a_second, (tmp_path / "run",))
    assert "expected to be the only one at this run, another process has" in said
    run_in(tmp_path / "run").open().close()


def _said_to_a_second(folder: Path) -> str:
    try:
        run_in(folder).open()
    except TrainingError as error:
        return str(error)
    return ""


def test_a_log_that_is_shorter_than_its_checkpoint_is_refused(tmp_path):
    folder = tmp_path / "run"
    interrupted(folder, at=10)
    lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "log.jsonl").write_bytes(b"".join(lines[:5]))
    with pytest.raises(TrainingError, match=r"to reach as far as the checkpoint of step 9; bring it back, or pass"):
        train(Toy(), run_in(folder))


def test_a_best_checkpoint_that_is_gone_is_refused(tmp_path):
    run = run_in(tmp_path / "run", evaluation=Worse(4))
    show = run._show

    def gone(loss):
        show(loss)
        if run._reached == 12:
            shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-4")

    run._show = gone
    with run, pytest.raises(TrainingError, match="expected the checkpoint of the best step, 4, in"):
        train(Toy(), run)
    # A run that goes on says so before it does anything.
    with run_in(tmp_path / "run") as run, pytest.raises(TrainingError, match="of the best step, 4, in"):
        run.restore(lambda folder: None)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"metric": "bleu"}, "expected a metric of accuracy, f1, loss, received 'bleu'; choose one of them"),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_refused(recipe, message, tmp_path):
    with pytest.raises(InputError) as refused:
        run_in(tmp_path / "run", recipe=recipe)
    assert message in str(refused.value) and not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_completed_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a recipe with steps and a learning_rate; recipe.completed"):
        Run(tmp_path / "run", Recipe(task="text-classification"), Rows(), tell=quiet)


def test_without_room_for_a_checkpoint_those_before_it_are_intact(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def full(path, **arrays):
        if "step-6" in str(path):
            raise OSError(28, "No space left on device")
        savez(path, **arrays)

    savez = np.savez
    monkeypatch.setattr(np, "savez", full)
    run = run_in(folder, evaluation=None)
    with pytest.raises(
        CheckpointError, match=r"cannot save the checkpoint of step 6 to .*: No space left on device; make"
    ):
        train(Toy(), run)
    run.close()
    assert os.listdir(folder / "checkpoints") == ["step-3"]


def test_the_loss_of_evaluations_is_logged_where_there_is_one(tmp_path):
    run = run_in(tmp_path / "run")
    measured = run._judge.measured(
        run.evaluation, lambda batch: {"logits": batch["input_ids"][:, :3], "loss": np.float32(2)}
    )
    assert measured.figures["loss"] == 2 and list(measured.figures) == ["accuracy", "f1", "loss"]
    with pytest.raises(TrainingError, match="expected a function that predicts"):
        run._judge.measured(run.evaluation, None)
    run.close()


def test_the_best_may_be_that_of_the_least_loss(tmp_path):
    run = run_in(tmp_path / "run", recipe={"metric": "loss"})
    lines = [{"step": step, "evaluation": {"accuracy": step, "loss": loss}} for step, loss in ((1, 2.0), (2, 3.0))]
    assert run._judge.best(lines) == 1
    with pytest.raises(TrainingError, match="expected .loss. of an evaluation, by which the best is known"):
        train(Toy(), run)
    run.close()


def test_what_a_model_for_a_run_has_to_be(tmp_path):
    settings = run_in(tmp_path / "run", recipe={"dropout": 0.0}).settings
    assert settings == {**TASK.settings(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    assert run_in(tmp_path / "run").settings == TASK.settings()
