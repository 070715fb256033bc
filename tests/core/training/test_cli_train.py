"""``xlmr train``: from files to the folder of a model, with a backend that is a toy; and what it refuses at once."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xlmr_core import cli
from xlmr_core.cli import train as command
from xlmr_core.training import card

WIDTH = 64
WORDS = {"sport": ("goal", "match", "team"), "music": ("song", "band", "choir")}


class Bag:
    """A classifier by the ids of pieces."""

    def __init__(self, run) -> None:
        self.weights = np.zeros((WIDTH, len(run.task.labels)))

    @staticmethod
    def points(batch):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        points = np.zeros((len(ids), WIDTH))
        for row, (own, kept) in enumerate(zip(ids, mask, strict=True)):
            np.add.at(points[row], own[kept > 0] % WIDTH, 1)
        return points / points.sum(axis=1, keepdims=True)


def train(model: Bag, run, *, accumulate):
    model.parts = accumulate

    def predict(batch):
        return {"logits": model.points(batch) @ model.weights}

    step = run.restore(lambda folder: setattr(model, "weights", np.load(folder / "weights.npy")))
    while run.goes_on(step):
        batch = run.batch(step)
        points, labels = model.points(batch), batch["labels"]
        shares = np.exp(points @ model.weights)
        shares /= shares.sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(len(labels)), labels]).mean()
        shares[np.arange(len(labels)), labels] -= 1
        model.weights = model.weights - 1000 * run.rate(step) * points.T @ shares
        step += 1
        run.after(step, loss, 1.0, save=lambda folder: np.save(folder / "weights.npy", model.weights), predict=predict)
    return run.finish(lambda folder: np.save(folder / "weights.npy", model.weights), predict=predict)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, in which the command runs; what it did with the backend."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(card, "curves_picture", lambda *_: b"curves")
    monkeypatch.setattr(card, "confusion_picture", lambda *_: b"confusion")
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: name == "torch")
    backend = SimpleNamespace(train=train, model_for=Bag)
    monkeypatch.setattr(command, "load_training", lambda name: backend)
    for name, count in (("train", 40), ("dev", 12)):
        rows = [(label, words[n % 3], n) for n in range(count) for label, words in WORDS.items()]
        lines = [f"a {word} number {n},{label},{'de' if n % 2 else 'sw'}" for label, word, n in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label,lang", *lines]) + "\n", encoding="utf-8")
    return backend


LINE = ("train", "--task", "text-classification", "--train", "train.csv", "--eval", "dev.csv", "--output", "out")
SHORT = ("--steps", "60", "--evaluate-every", "20", "--batch-size", "8", "--patience", "0", "--no-progress")


def test_from_files_to_a_model_with_its_card(here, capsys):
    assert cli.main([*LINE, *SHORT]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "eval, step 40"
    assert out.splitlines()[1].split() == ["language", "examples", "accuracy", "f1"]
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["de", "sw", "mean", "all"]
    assert out.splitlines()[-1].split() == ["all", "24", "1.000", "1.000"]
    assert err.splitlines()[0].startswith("xlmr: step 20 of 60: accuracy 0")
    assert err.splitlines()[-1] == "xlmr: 60 steps; the model is in out"
    assert {"README.md", "recipe.toml", "log.jsonl", "curves.png", "tokenizer.json"} <= set(os.listdir("out"))
    with open("out/README.md", encoding="utf-8") as file:
        text = file.read()
    assert "2 labels: `music`, `sport`." in text and 'train = ["train.csv"]' in text


def test_parts_of_a_batch_are_no_part_of_the_recipe(here, capsys):
    made = []
    here.model_for = lambda run: made.append(Bag(run)) or made[-1]
    assert cli.main([*LINE, *SHORT, "--accumulate", "3"]) == 0
    assert cli.main([*LINE, *SHORT, "--accumulate", "2"]) == 0  # the run is over, and is the same
    assert [model.parts for model in made] == [3] and "accumulate" not in Path("out/recipe.toml").read_text()
    assert "the run in out is over" in capsys.readouterr().err


def test_a_recipe_in_a_file_and_what_the_line_says_otherwise(here, capsys):
    with open("recipe.toml", "w", encoding="utf-8") as file:
        file.write('task = "text-classification"\ntrain = ["train.csv"]\neval = ["dev.csv"]\n')
        file.write("steps = 30\npatience = 0\nbatch_size = 4\n")
    words = ["train", "--recipe", "recipe.toml", "--output", "out", "--batch-size", "8", "--no-progress", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 30 and found["evaluation"]["examples"] == 24 and found["output"] == "out"
    with open("out/recipe.toml", encoding="utf-8") as file:
        assert "batch_size = 8\n" in file.read()
    assert cli.main(["train", "--recipe", "out/recipe.toml", "--output", "again", "--no-progress"]) == 0
    logs = [Path(folder, "log.jsonl").read_text(encoding="utf-8").splitlines() for folder in ("again", "out")]
    assert logs[0][-2] == logs[1][-2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_with_a_checkpoint_and_it_goes_on(number, status, here, capsys, monkeypatch):
    rate, calls = command_rate(monkeypatch), []
    rate(lambda step: calls.append(step) or (step == 7 and len(calls) < 60 and os.kill(os.getpid(), number)))
    assert cli.main([*LINE, *SHORT]) == status
    said = capsys.readouterr().err
    assert "stops after this step, with a checkpoint" in said
    assert "stopped after step 8 of 60; the same call goes on" in said and "step-8" in os.listdir("out/checkpoints")
    rate(lambda step: None)
    assert cli.main([*LINE, *SHORT]) == 0
    assert "goes on after step 8 of 60" in capsys.readouterr().err
    assert cli.main([*LINE, *SHORT]) == 0
    said = capsys.readouterr()
    assert "the run in out is over; its model is there" in said.err and "eval, step 40" in said.out


def command_rate(monkeypatch):
    """Lets something happen in each step."""
    from xlmr_core.training.run import Run

    real, watch = Run.batch, [lambda step: None]
    monkeypatch.setattr(Run, "batch", lambda self, step: (watch[0](step), real(self, step))[1])
    return lambda function: watch.__setitem__(0, function)


def test_a_second_signal_ends_it_at_once(here, capsys, monkeypatch):
    command_rate(monkeypatch)(
        lambda step: step == 7 and [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)] and None
    )
    before = signal.getsignal(signal.SIGINT)
    assert cli.main([*LINE, *SHORT]) == 130
    assert signal.getsignal(signal.SIGINT) is before and "the model is in" not in capsys.readouterr().err


def test_another_recipe_in_the_same_folder_is_refused_in_the_words_of_the_line(here, capsys):
    assert cli.main([*LINE, *SHORT]) == 0
    capsys.readouterr()
    assert cli.main([*LINE, *SHORT, "--seed", "3"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "xlmr: error: the run in out was begun with another seed, 0, received 3; go on with that, give another folder, "
        "or pass --restart to begin anew\n"
    )
    assert cli.main([*LINE, *SHORT, "--seed", "3", "--restart"]) == 0


USAGE = f"; usage: {command.USAGE}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train",), "xlmr train needs --output" + USAGE),
        (("train", "--output", "out"), "xlmr train needs --task, or --recipe with a file that says it" + USAGE),
        ((*LINE, "--tsak", "x"), "xlmr train has no option --tsak; did you mean --task? usage: " + command.USAGE),
        ((*LINE, "--steps", "-1"), "--steps: expected an integer of at least 0, received '-1'"),
        ((*LINE, "--accumulate", "0"), "--accumulate: expected an integer of at least 1, received '0'"),
        ((*LINE, "--warmup", "6"), "warmup is a share, expected at most 1.0, received 6.0"),
        ((*LINE, "--schedule", "liner"), "--schedule: expected one of linear, cosine, "),
        ((*LINE, "--metric", "bleu"), "expected a metric of accuracy, f1, loss, received 'bleu'; choose one of them"),
        ((*LINE[:4], "none.csv", "--output", "out"), "none.csv, where there is none"),
        ((*LINE, "--columns", "text=body"), "expected the column 'body'"),
        ((*LINE, "--languages", "fr"), "found none in fr"),
        ((*LINE, "--model", "nowhere"), "nowhere"),
        (("train", "--recipe", "none.toml", "--output", "out"), "expected a recipe in TOML, received none.toml"),
        ((*LINE[:-1], "train.csv"), "expected a folder to train in, received the file 'train.csv'; name another"),
        ((*LINE[:-1], "."), "expected an empty folder, or one with a run in it, received '.' with other files"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(words, message, here, capsys):
    here.model_for = None
    assert cli.main(list(words)) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("xlmr: error: ") and said.count("\n") == 1
    assert not os.path.exists("out")


def test_a_package_that_is_missing_is_said_before_anything_starts(here, capsys, monkeypatch):
    from xlmr_core.training import extras

    real = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "sklearn" else real(name))
    assert cli.main([*LINE]) == 2
    assert "sklearn is needed for training and is not installed; install it with: pip install 'xlmr[train]'" in (
        capsys.readouterr().err
    )


def test_a_run_that_collapsed_says_so_by_its_status(here, monkeypatch):
    monkeypatch.setattr(Bag, "points", staticmethod(lambda batch: np.ones((len(batch["input_ids"]), WIDTH))))
    assert cli.main([*LINE, *SHORT]) == 1
