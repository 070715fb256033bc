"""The training loop: it trains every task, goes on where it was killed, does what the recipe says, and finds what
PyTorch finds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests import small_runs  # noqa: E402
from tests.choice import chosen  # noqa: E402
from tests.small_runs import ROWS, SIZES, TASKS, alone, losses, small_recipe, written  # noqa: E402
from xlmr_core import cli  # noqa: E402
from xlmr_core.config import XLMRobertaConfig  # noqa: E402
from xlmr_core.errors import CheckpointError, InputError, MismatchError  # noqa: E402
from xlmr_core.training.card import RUN_AS  # noqa: E402
from xlmr_core.training.run import Run  # noqa: E402
from xlmr_tf import auto, pipeline  # noqa: E402
from xlmr_tf.objectives import answers  # noqa: E402
from xlmr_tf.optimizers import optimizer_of, trained_in  # noqa: E402
from xlmr_tf.training import check, model_for, train  # noqa: E402
from xlmr_tf.training_state import read_state  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ASKED = {
    "masked-language-modeling": ("the sun is <mask>",),
    "causal-language-modeling": ("the sun",),
    "text-classification": ("the sun",),
    "token-classification": ("the sun",),
    "question-answering": ({"question": "what is here", "context": "the sun is here"},),
    "multiple-choice": ("the sun", ["rain", "snow"]),
    "sentence-embedding": ("the sun",),
    "rerank": ("the sun", ["rain", "snow"]),
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """The card and its pictures are tested elsewhere."""
    monkeypatch.setattr("xlmr_core.training.run.publish", lambda *arguments, **named: None)


def small_run(folder, task="text-classification", **values):
    """A small run of a model with one layer, which is traced in half the time."""
    return small_runs.small_run(folder, task, **{"layers": 1, **values})


def values_of(model):
    return {name: variable.numpy() for name, variable in trained_in(model).items()}


def trained(run, **how):
    """The weights after a run."""
    model = model_for(run)
    with run:
        train(model, run, **how)
    return values_of(model)


# A loss of the vocabulary, and one outside the model; labels of texts are in the other tests.
FEW = ("masked-language-modeling", "sentence-embedding")


def test_an_answer_is_looked_for_among_real_tokens(tmp_path):
    run = small_run(tmp_path, "question-answering", dropout=0.0)
    model, batch = model_for(run), run.batch(0)
    rows = [answers(model, run.task, alone(batch, row)) for row in range(len(batch["input_ids"]))]
    assert batch["attention_mask"].min() == 0
    expected = np.mean([float(row["loss"]) for row in rows])
    assert float(answers(model, run.task, batch)["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", chosen(TASKS, FEW))
def test_every_task_trains_and_is_evaluated_and_answers(task, tmp_path):
    file = written(tmp_path, "eval.jsonl", ROWS[task](7))
    run = small_run(tmp_path, task, steps=10, eval=str(file), evaluate_every=5, patience=0)
    model = model_for(run)
    with run:
        outcome = train(model, run)
    assert outcome is not None and outcome.steps == 10 and outcome.best in (5, 10)
    assert run.task.metric in outcome.evaluation.all
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3]), found
    # The folder has the best weights, which are those of the model now, and answers by the task's name.
    bare = {"add_pooling_layer": False} if task == "sentence-embedding" else {}
    again = getattr(auto, f"TF{run.task.auto}").from_pretrained(run.folder, **bare)
    for name, value in values_of(again).items():
        np.testing.assert_array_equal(value, values_of(model)[name], err_msg=name)
    assert pipeline(RUN_AS[task][0], str(run.folder))(*ASKED[task]) is not None


# A child that is killed with two steps behind its last checkpoint.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.tf.test_training import VALUES, small_run
from xlmr_tf.training import model_for, train
run = small_run(Path(sys.argv[1]), at=Path(sys.argv[1], "broken"), **VALUES)
after = run.after
def killed(step, *arguments, **named):
    after(step, *arguments, **named)
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
run.after = killed
train(model_for(run), run)
"""
VALUES = {"steps": 8, "checkpoint_every": 3, "dropout": 0.2, "clip_norm": 0.5, "layer_decay": 0.8}


def started(*arguments):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_a_run_that_was_killed_ends_bit_for_bit_as_an_undisturbed_one(tmp_path):
    whole = small_run(tmp_path, at=tmp_path / "whole", **VALUES)
    expected = trained(whole)
    done = started("-c", KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    resumed = small_run(tmp_path, at=tmp_path / "broken", **VALUES)
    steps, batch = [], resumed.batch
    resumed.batch = lambda step: (steps.append(step), batch(step))[1]
    keras.random.normal((7,))  # what others draw changes nothing
    found = trained(resumed)
    assert steps == [3, 4, 5, 6, 7], "the work since the last checkpoint is done again, and no other"
    assert losses(resumed) == losses(whole)
    over = trained(small_run(tmp_path, at=tmp_path / "broken", **VALUES))
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
        np.testing.assert_array_equal(value, over[name], err_msg=f"of a run that is over: {name}")


def test_the_command_finds_what_pytorch_finds(tmp_path):
    """Of one recipe in TOML."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch beside it")
    start = tmp_path / "start"
    keras.utils.set_random_seed(1)
    config = XLMRobertaConfig(**{**SIZES, "num_hidden_layers": 1}, num_labels=3, initializer_range=0.1)
    auto.TFAutoModelForSequenceClassification.from_config(config).save_pretrained(start)
    run = small_run(tmp_path, at=tmp_path / "unused", **{**VALUES, "dropout": 0.0, "learning_rate": 0.003})
    run.task.tokenizer.save_pretrained(start)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(run.recipe.replace(model=str(start), config="").to_toml(), encoding="utf-8")
    command = ["train", "--recipe", str(recipe), "--no-progress", "--backend"]
    assert cli.main([*command, "tf", "--output", str(tmp_path / "tf")]) == 0
    done = started("-m", "xlmr_core", *command, "torch", "--output", tmp_path / "torch")
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = ([line for line in lines_of(tmp_path / name) if "loss" in line] for name in ("tf", "torch"))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["learning_rate"] == theirs["learning_rate"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4), ours["step"]
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3), ours["step"]
    kind = auto.TFAutoModelForSequenceClassification
    ours, theirs = (values_of(kind.from_pretrained(tmp_path / name)) for name in ("tf", "torch"))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-3, err_msg=name)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_parts_of_a_batch_train_as_the_batch_does_and_one_without_labels_teaches_nothing(tmp_path):
    task, values = "masked-language-modeling", {"steps": 3, "dropout": 0.0}
    runs = [small_run(tmp_path, task, at=tmp_path / name, **values) for name in ("whole", "divided")]
    found = []
    for run, accumulate in zip(runs, (1, 3), strict=True):  # of five rows, two parts have two
        model, batch, weights, moments = model_for(run), run.batch, [], []

        def kept(*arguments, moments=moments):
            moments.append(optimizer_of(*arguments))
            return moments[0]

        def without(step, batch=batch, model=model, weights=weights, moments=moments):
            weights.append(values_of(model))
            moments.append([variable.numpy() for variable in moments[0].variables])
            found = batch(step)
            return {**found, "labels": np.full_like(found["labels"], -100)} if step == 1 else found

        run.batch = without
        with run:
            train(model, run, accumulate=accumulate, make_optimizer=kept)
        for name, value in weights[1].items():
            np.testing.assert_array_equal(value, weights[2][name], err_msg=name)
        for value, later in zip(*moments[2:4], strict=True):
            np.testing.assert_array_equal(value, later)
        assert any(not np.array_equal(weights[0][name], value) for name, value in weights[1].items())
        assert losses(run)[1] == 0 and all(loss > 0 for loss in losses(run)[::2])
        found.append(values_of(model))
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-4)
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=0, atol=2e-3, err_msg=name)


def test_what_is_frozen_stays_and_gradients_are_cut(tmp_path):
    def plain(model, recipe, layers):
        return keras.optimizers.SGD(recipe.learning_rate)

    values = {"steps": 2, "checkpoint_every": 2, "layers": 2, "freeze_layers": 1, "clip_norm": 0.01, "warmup": 0.0}
    run = small_run(tmp_path, schedule="constant", **values)
    model = model_for(run)
    before = [variable.numpy() for variable in model.weights]
    with run:
        train(model, run, make_optimizer=plain)
    names = {id(variable): name for name, variable in trained_in(model).items()}
    moved = {names.get(id(v), v.path): v.numpy() - old for v, old in zip(model.weights, before, strict=True)}
    moved = {name: value for name, value in moved.items() if value.any()}
    assert not any("embeddings" in name or "layer.0" in name or "/" in name for name in moved)
    assert any("layer.1" in name for name in moved) and any("classifier" in name for name in moved)
    length = np.sqrt(sum(float((value**2).sum()) for value in moved.values()))
    assert 0.5 < length / 0.01 / 0.01 <= 2.01, "two steps of this rate along gradients of this norm"
    assert all(line["grad_norm"] > 0.02 for line in lines_of(run.folder) if "loss" in line), "before they are cut"
    # A checkpoint has what is trained; another model does not go on with it.
    model.classifier.trainable = False
    with pytest.raises(CheckpointError, match=r"trains other weights.*classifier"):
        read_state(run.folder / "checkpoints" / "step-2", model, optimizer_of(model, run.recipe, 2))


@pytest.mark.parametrize("precision", chosen(["bfloat16", "float16"], ["bfloat16"]))
def test_computation_is_in_the_precision_of_the_recipe(precision, tmp_path):
    run = small_run(tmp_path, steps=3, precision=precision, checkpoint_every=2)
    model, seen = model_for(run), set()
    layer = model.roberta.encoder.layer[0].intermediate
    call = layer.call
    layer.call = lambda states: (seen.add(call(states).dtype.name), call(states))[1]
    with run:
        train(model, run)
    assert seen == {precision}
    assert model.dtype_policy.name == "float32"
    assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in values_of(model).values())
    assert json.loads((run.folder / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"


def test_adapters_are_trained_beside_frozen_weights_and_added(tmp_path):
    run = small_run(tmp_path, steps=3, lora_rank=2, lora_alpha=4.0, learning_rate=0.05)
    model = model_for(run)
    start = model.get_values("roberta.encoder.layer.0.attention.self.query.weight")
    kernel = model.roberta.encoder.layer[0].attention.self.query._kernel.numpy()
    with run:
        train(model, run)
    ends = {name.split(".")[-1] for name in trained_in(model) if "encoder" in name}
    assert ends == {"lora_kernel_a", "lora_kernel_b"}
    np.testing.assert_array_equal(model.roberta.encoder.layer[0].attention.self.query._kernel.numpy(), kernel)
    again = auto.TFAutoModelForSequenceClassification.from_pretrained(run.folder)
    added = again.get_values("roberta.encoder.layer.0.attention.self.query.weight")
    assert not np.array_equal(added, start)
    np.testing.assert_allclose(
        added, model.get_values("roberta.encoder.layer.0.attention.self.query.weight"), rtol=0, atol=1e-7
    )


def test_a_head_for_another_number_of_labels_starts_fresh(tmp_path):
    first, start, said = small_run(tmp_path, at=tmp_path / "first"), tmp_path / "start", []
    kind = auto.TFAutoModelForSequenceClassification
    kind.from_config(XLMRobertaConfig(**{**SIZES, "num_hidden_layers": 1}, num_labels=5)).save_pretrained(start)
    first.task.tokenizer.save_pretrained(start)
    recipe = small_recipe(tmp_path / "data", model=str(start), config="")
    run = Run.of(recipe, tmp_path / "run", tell=lambda kind, text: said.append(text))
    model = model_for(run)
    assert model.config.num_labels == 3 and said[0].endswith(
        "was trained for another number of labels; classifier.out_proj.weight, classifier.out_proj.bias start fresh"
    )
    stored = kind.from_pretrained(start)
    name = "classifier.dense.weight"
    np.testing.assert_array_equal(model.get_values(name), stored.get_values(name))
    # What is not of the head has to fit.
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    (start / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}), encoding="utf-8")
    with pytest.raises(MismatchError, match="intermediate"):
        model_for(run)


def test_a_stop_ends_with_a_checkpoint_and_an_error_of_the_data_is_told_in_its_own_words(tmp_path):
    values = {"steps": 6, "head_only": True}  # there is little to trace
    run = small_run(tmp_path, **values)
    batch = run.batch

    def asked(step):
        if step == 1:
            run.stop()
        return batch(step)

    run.batch = asked
    with run:
        assert train(model_for(run), run) is None
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-2"]
    again = small_run(tmp_path, **values)

    def fails(step):
        if step == 3:
            raise InputError("expected a text in line 7")
        return batch(step)

    again.batch = fails
    with again, pytest.raises(InputError, match="expected a text in line 7"):
        train(model_for(again), again)
    assert len(losses(again)) == 2


@pytest.mark.parametrize(
    ("task", "values", "how", "text"),
    [
        ("text-classification", {}, {"accumulate": 0}, "accumulate of at least 1, received 0"),
        ("sentence-embedding", {}, {"accumulate": 2}, "compared with all others.*accumulate=2"),
        ("text-classification", {"freeze_layers": 3}, {}, "freeze_layers of at most 1.*received 3"),
        ("sentence-embedding", {"head_only": True}, {}, "nothing of TFXLMRobertaModel is left to train"),
        (
            "text-classification",
            {"lora_rank": 2, "lora_targets": ["query", "qery"]},
            {},
            "'qery'; did you mean 'query'",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(task, values, how, text, tmp_path):
    with pytest.raises(InputError, match=text), small_run(tmp_path, task, **values) as run:
        train(model_for(run), run, **how)


def test_several_machines_are_for_the_step(tmp_path):
    """Which ``test_distribution.py`` takes in two processes. Keras would fail in words of its own."""
    several = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    with pytest.raises(InputError, match=r"devices of one machine.*training_step of xlmr_tf\.distribution there"):
        check(small_recipe(tmp_path), 1, several)
