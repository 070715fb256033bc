"""The training loop: it trains as PyTorch's does, goes on where it was killed, and does what the recipe says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax.sharding import Mesh  # noqa: E402

from tests import small_runs  # noqa: E402
from tests.choice import EVERYTHING, chosen  # noqa: E402
from tests.flax import models  # noqa: E402
from tests.small_runs import ROWS, SIZES, TASKS, alone, losses, small_recipe, written  # noqa: E402
from xlmr_core import cli  # noqa: E402
from xlmr_core.config import XLMRobertaConfig  # noqa: E402
from xlmr_core.errors import CheckpointError, InputError, MismatchError  # noqa: E402
from xlmr_core.training.checkpoints import Checkpoints  # noqa: E402
from xlmr_core.training.run import Run  # noqa: E402
from xlmr_flax import auto  # noqa: E402
from xlmr_flax.functional import flatten, to_canonical  # noqa: E402
from xlmr_flax.objectives import answers, fitted, trimmed, width_of  # noqa: E402
from xlmr_flax.optimizers import FIRST_SCALE, STEPS_TO_GROW, freeze, optimizer_of, rescaled  # noqa: E402
from xlmr_flax.sharding import FSDP  # noqa: E402
from xlmr_flax.training import model_for, train  # noqa: E402
from xlmr_flax.training_state import read_state, write_state  # noqa: E402

# Those whose losses are computed here; the models' own are tested with the models, and in the other tests.
FEW = ("question-answering", "sentence-embedding")
ROOT = Path(__file__).resolve().parents[2]
OF_ROWS = [task for task in TASKS if task != "sentence-embedding"]


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """The card and its pictures are tested elsewhere, and once here."""
    if "killed" not in request.node.name:
        monkeypatch.setattr("xlmr_core.training.run.publish", lambda *arguments, **named: None)


def small_run(folder, task="text-classification", **values):
    """A small run of a model with one layer, which is compiled in half the time."""
    return small_runs.small_run(folder, task, **{"layers": 1, **values})


def copied(params):
    """Values that stay when a step takes the memory."""
    return {".".join(path): np.array(value) for path, value in flatten(params).items()}


def trained(run, **how):
    """The parameters after a run."""
    model = model_for(run)
    with run:
        train(model, run, **how)
    return copied(model.params)


def log_of(run):
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- What is trained


@pytest.mark.parametrize("task", chosen(TASKS, FEW))
def test_every_task_trains_as_in_pytorch_and_loads_there(task, tmp_path):
    pytest.importorskip("torch", reason="trains the same in PyTorch: pip install 'xlmr[torch]'")
    import xlmr_torch.auto
    import xlmr_torch.training

    file = written(tmp_path, "eval.jsonl", ROWS[task](7))
    values = {"steps": 10, "dropout": 0.0, "eval": str(file), "evaluate_every": 5, "patience": 0}
    run, there = (small_run(tmp_path, task, at=tmp_path / name, **values) for name in ("flax", "torch"))
    kind, bare = getattr(xlmr_torch.auto, run.task.auto), {"dtype": "float32"}
    bare |= {"add_pooling_layer": False} if task == "sentence-embedding" else {}
    model = model_for(run)
    model.save_pretrained(tmp_path / "start")
    other = kind.from_pretrained(tmp_path / "start", **bare)
    with there:
        expected = xlmr_torch.training.train(other, there)
    with run:
        found = train(model, run)
    first, wanted = (next(line for line in log_of(one) if "loss" in line) for one in (run, there))
    assert first["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
    assert first["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
    assert losses(run) == pytest.approx(losses(there), rel=1e-2)
    assert losses(run)[-1] < losses(run)[0]
    assert found.steps == 10 and found.evaluation.all == pytest.approx(expected.evaluation.all, rel=2e-2)
    # The folder has the best weights, which are those of the model now, and PyTorch reads them.
    names = dict(kind.from_pretrained(run.folder, **bare).named_parameters())
    for name, value in to_canonical(model.parameter_table(), model.params).items():
        np.testing.assert_array_equal(value, names[name].detach().numpy(), err_msg=name)


@pytest.mark.parametrize("task", chosen(OF_ROWS, ["question-answering", "rerank"]))
def test_what_is_added_to_a_batch_counts_nothing(task, tmp_path):
    run = small_run(tmp_path, task, dropout=0.0)
    model, batch = model_for(run), run.batch(0)
    rows = len(batch["input_ids"])
    if task == "question-answering":  # an answer is looked for among real tokens
        wanted = model(batch["input_ids"], batch["attention_mask"])
        loss = np.mean([float(model(**alone(batch, row)).loss) for row in range(rows)])
    else:
        wanted = model(**batch)
        loss = float(wanted.loss)
    given = fitted(batch, run.task, rows + 3)
    assert given["input_ids"].shape[0] == rows + 3 and given["input_ids"].shape[-1] == 32 > batch["input_ids"].shape[-1]
    compute = jax.jit(lambda params, batch: answers(model, run.task, params, batch))
    found = trimmed(compute(model.params, given), batch)
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)
    for name in set(run.task.outputs) - {"loss"}:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_rows_have_few_lengths():
    assert {width_of(length, 128) for length in range(2, 129)} == {32, 48, 64, 96, 128}
    assert {width_of(length, 100) for length in range(2, 101)} == {32, 48, 64, 96, 100}
    assert width_of(7, 20) == 20 and width_of(500, 512) == 512


def test_the_losses_of_embeddings_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="has the same losses: pip install 'xlmr[torch]'")
    from xlmr_flax import contrastive
    from xlmr_torch import contrastive as there

    vectors = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    vectors[9] = vectors[4]
    batches = (
        {"group": np.array([1, 2, 1, 3])},
        {"group": np.array([1, 2, 3, 4]), "texts": np.array([0, 0, 1, 2, 3, 4, 2, 5, 6, 3, 7, 5])},
        {"labels": np.array([0.5, 3.0, 3.0, 1.0, 2.0, 0.0], np.float32)},
    )
    for batch in batches:
        tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
        expected = there.embedding_loss(torch.from_numpy(vectors), tensors, 0.3, [2, 4])
        found = contrastive.embedding_loss(jnp.asarray(vectors), batch, 0.3, [2, 4])
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
    states, mask = vectors.reshape(2, 3, 12), np.array([[1, 1, 0], [1, 1, 1]])
    for pooling in ("mean", "cls"):
        expected = there.pooled(torch.from_numpy(states), torch.from_numpy(mask), pooling)
        np.testing.assert_allclose(contrastive.pooled(jnp.asarray(states), mask, pooling), expected, rtol=1e-6)


# ---- Going on


def test_a_run_that_was_killed_ends_bit_for_bit_as_an_undisturbed_one(tmp_path, monkeypatch):
    values = {"steps": 48, "checkpoint_every": 8, "dropout": 0.2, "clip_norm": 0.5, "layer_decay": 0.8}
    recipe = small_run(tmp_path, **values).recipe
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    command = ["train", "--recipe", str(tmp_path / "recipe.toml"), "--backend", "flax", "--no-progress", "--output"]
    whole, broken = (SimpleNamespace(folder=tmp_path / name) for name in ("whole", "broken"))
    assert cli.main([*command, str(whole.folder)]) in (0, 1)  # it may have learned little
    # Compiled as in this process.
    settings = ("jax_disable_most_optimizations", "jax_num_cpu_devices")
    env = {**os.environ, **{name.upper(): str(int(jax.config.values[name])) for name in settings}}
    again = [sys.executable, "-m", "xlmr_core", *command, str(broken.folder)]
    process = subprocess.Popen(again, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
    log, ends = broken.folder / "log.jsonl", time.monotonic() + 120
    while not log.exists() or log.read_text(encoding="utf-8").count("loss") < 12:
        assert process.poll() is None and time.monotonic() < ends
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(losses(broken))
    assert 12 <= done < 48 and not (broken.folder / "model.safetensors").exists()
    assert cli.main([*command, str(broken.folder)]) in (0, 1)
    assert losses(broken) == losses(whole)
    assert len(set(losses(whole))) > 30
    written_there, wanted = ((one.folder / "model.safetensors").read_bytes() for one in (broken, whole))
    assert written_there == wanted
    # A run that is over trains nothing, and gives its weights.
    over = Run.of(recipe, whole.folder, made_with={"backend": "flax"})
    model = auto.FlaxAutoModelForSequenceClassification.from_pretrained(whole.folder)
    for name, value in trained(over).items():
        np.testing.assert_array_equal(value, copied(model.params)[name], err_msg=name)


def test_an_error_in_the_middle_leaves_the_model_its_parameters(tmp_path):
    run = small_run(tmp_path, steps=4, head_only=True)
    model = model_for(run)
    before, after = copied(model.params), run.after

    def fails(step, *arguments, **named):
        after(step, *arguments, **named)
        raise KeyboardInterrupt

    run.after = fails
    with pytest.raises(KeyboardInterrupt), run:
        train(model, run)
    found = copied(model.params)
    assert not np.array_equal(found["classifier.dense.kernel"], before["classifier.dense.kernel"])
    assert model(**run.batch(0)).loss.dtype == jnp.float32


def small_state(width=4):
    own = {"classifier": {"kernel": jnp.ones((3, width)), "bias": jnp.zeros(width)}}
    return {"trained": own, "moments": optax.adamw(0.1).init(own), "scale": {}}


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    write_state(tmp_path, small_state())
    found = read_state(tmp_path, small_state())
    jax.tree.map(np.testing.assert_array_equal, found, small_state())
    with pytest.raises(CheckpointError, match=r"trains other weights.*classifier/bias"):
        read_state(tmp_path, small_state(5))
    with pytest.raises(CheckpointError, match="moments of another optimizer"):
        read_state(tmp_path, {**small_state(), "moments": {"other": jnp.zeros(2)}})
    with pytest.raises(CheckpointError, match="expected a checkpoint of Flax"):
        read_state(tmp_path / "state", small_state())


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what the writes that failed leave
def test_a_disk_that_is_full_is_told_and_nothing_is_half_written(tmp_path):
    import resource

    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    state = {**small_state(), "trained": {"classifier": jax.random.normal(jax.random.key(0), (300, 300))}}
    checkpoints.save(2, lambda folder: write_state(folder, state))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot save the checkpoint of step 4 to .*: File too large"):
            checkpoints.save(4, lambda folder: write_state(folder, state))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-2"]


# ---- Parts and devices


def ways_of(task):
    """How several parts or devices train: of five rows, two of three parts have two."""
    meshes = {"mesh": jax.make_mesh((4,), ("data",)), "rules": FSDP}, {"mesh": Mesh(jax.devices()[:2], ("data",))}
    if task == "sentence-embedding":
        return {"FSDP over explicit axes": meshes[0], "two devices": meshes[1]}
    together = {"parts on devices": {"accumulate": 3, **meshes[0]}}
    return {**together, "parts": {"accumulate": 3}, "two devices": meshes[1]} if EVERYTHING else together


@pytest.mark.parametrize("task", chosen(TASKS, ["masked-language-modeling"]))
def test_parts_and_devices_train_as_one_does(task, tmp_path):
    whole = small_run(tmp_path, task, at=tmp_path / "whole", steps=3, dropout=0.0)
    expected = trained(whole)
    for name, how in ways_of(task).items():
        run = small_run(tmp_path, task, at=tmp_path / name, steps=3, dropout=0.0)
        found = trained(run, **how)
        assert losses(run) == pytest.approx(losses(whole), rel=1e-4), name
        for parameter, value in expected.items():
            np.testing.assert_allclose(found[parameter], value, atol=2e-3, err_msg=f"{name}: {parameter}")


# ---- What the recipe says


def test_a_batch_without_labels_teaches_nothing(tmp_path):
    run = small_run(tmp_path, "masked-language-modeling", steps=1)
    model, batch = model_for(run), run.batch
    before = copied(model.params)
    run.batch = lambda step: {**batch(step), "labels": np.full_like(batch(step)["labels"], -100)}
    with run:
        train(model, run, accumulate=2)
    assert losses(run) == [0]
    for name, value in copied(model.params).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_what_is_frozen_stays_and_a_step_is_compiled_once(tmp_path, caplog):
    run = small_run(tmp_path, steps=3, head_only=True, precision="bfloat16")
    model = model_for(run)
    before = copied(model.params)
    with run, jax.log_compiles():
        train(model, run)
    assert len({run.batches[step]["input_ids"].shape for step in range(3)}) > 1
    assert sum("Compiling jit(take_step)" in message for message in caplog.messages) == 1
    found = copied(model.params)
    changed = {name for name, value in found.items() if not np.array_equal(value, before[name])}
    assert changed == {name for name in found if name.startswith("classifier")}
    shapes = json.loads((run.folder / "checkpoints" / "step-3" / "shapes.json").read_text(encoding="utf-8"))
    assert {name.replace("/", ".") for name in shapes} == changed
    assert model.dtype == jnp.float32 and {value.dtype for value in found.values()} == {np.dtype("float32")}
    assert all(loss > 0 for loss in losses(run))


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, {"embeddings", "layer.0", "layer.1", "classifier"}),
        ({"freeze_embeddings": True}, {"layer.0", "layer.1", "classifier"}),
        ({"freeze_layers": 1}, {"layer.1", "classifier"}),
        ({"head_only": True}, {"classifier"}),
    ],
)
def test_depths_that_are_trained(values, parts, tmp_path):
    model = models.model("ForSequenceClassification", _do_init=False)
    params = model.params_shape_tree
    own, rest = freeze(params, model, small_recipe(tmp_path, **values))
    names = " ".join(".".join(path) for path in flatten(own))
    assert {part for part in ("embeddings", "layer.0", "layer.1", "classifier") if part in names} == parts
    assert set(flatten(own)) | set(flatten(rest)) == set(flatten(params)) and not set(flatten(own)) & set(flatten(rest))


def test_adapters_train_beside_weights_that_stay(tmp_path):
    run = small_run(tmp_path, steps=4, lora_rank=2, lora_targets=["query", "attention.output.dense"], dropout=0.0)
    model = model_for(run)
    before = copied(model.params)
    with run:
        train(model, run)
    found = copied(auto.FlaxAutoModelForSequenceClassification.from_pretrained(run.folder).params)
    changed = {name for name, value in found.items() if not np.array_equal(value, before[name])}
    kernels = {name for name in found if name.endswith(("query.kernel", "attention.output.dense.kernel"))}
    assert len(kernels) == 2 and changed == kernels | {name for name in found if name.startswith("classifier")}
    for name in kernels:
        assert np.linalg.matrix_rank(found[name] - before[name], tol=1e-4) <= 2, name
    shapes = json.loads((run.folder / "checkpoints" / "step-4" / "shapes.json").read_text(encoding="utf-8"))
    assert sum("lora_" in name for name in shapes) == 4 and not any("kernel" in n for n in shapes if "roberta" in n)
    for name, value in copied(model.params).items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_the_rate_of_a_step_is_each_depth_s_share(family, tmp_path):
    model = models.model("ForSequenceClassification", family, _do_init=False)
    recipe = small_recipe(tmp_path, layer_decay=0.5, weight_decay=0.1)
    params = jax.tree.map(lambda x: np.full(x.shape, 2, np.float32), model.params_shape_tree)

    @jax.jit
    def first_updates(params, rate):
        optimizer = optimizer_of(params, recipe, 2, rate)
        return optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[0]

    updates = first_updates(params, 0.01)
    for path, update in flatten(updates).items():
        name = "/".join(path)
        depth = 0 if "embeddings" in path else int(path[path.index("layer") + 1]) + 1 if "layer" in path else 3
        depth = 2 if "encoder" in path and "layer" not in path else depth
        decay = 0.2 if path[-1] in ("kernel", "embedding") else 0.0
        np.testing.assert_allclose(update, -0.01 * 0.5 ** (3 - depth) * (1 + decay), rtol=1e-4, err_msg=name)


def test_the_scale_of_a_loss_follows_overflows():
    scale = {"value": jnp.float32(FIRST_SCALE), "steps": jnp.int32(STEPS_TO_GROW - 2)}
    for is_finite, value, steps in ((True, 1, STEPS_TO_GROW - 1), (True, 2, 0), (True, 2, 1), (False, 1, 0)):
        scale = rescaled(scale, jnp.bool_(is_finite))
        assert float(scale["value"]) == value * FIRST_SCALE and int(scale["steps"]) == steps


@pytest.mark.skipif(not EVERYTHING, reason="the scale has a test of its own; nox -s everything")
def test_a_step_that_overflows_in_float16_teaches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("xlmr_flax.training.FIRST_SCALE", 2.0**24)
    run = small_run(tmp_path, steps=16, precision="float16", dropout=0.0, schedule="constant", head_only=True)
    model, batch = model_for(run), run.batch
    run.batch = lambda step: batch(0)
    with run:
        train(model, run)
    found, norms = losses(run), [line.get("grad_norm") for line in log_of(run) if "loss" in line]
    assert norms[0] is None and found[1] == found[0]
    assert norms[-1] is not None and found[-1] < 0.9 * found[0]


def test_a_head_for_another_number_of_labels_starts_fresh(tmp_path):
    first = small_run(tmp_path, at=tmp_path / "first")
    start, said = tmp_path / "start", []
    kind = auto.FlaxAutoModelForSequenceClassification
    sizes = {**SIZES, "num_hidden_layers": 1, "num_labels": 5}
    kind.from_config(XLMRobertaConfig(**sizes)).save_pretrained(start)
    first.task.tokenizer.save_pretrained(start)
    recipe = first.recipe.replace(model=str(start), config="")
    model = model_for(Run.of(recipe, tmp_path / "run", tell=lambda kind, text: said.append(text)))
    assert model.config.num_labels == 3 and said[0].endswith(
        "was trained for another number of labels; classifier.out_proj.weight, classifier.out_proj.bias start fresh"
    )
    stored = kind.from_pretrained(start).params["classifier"]["dense"]["kernel"]
    np.testing.assert_array_equal(model.params["classifier"]["dense"]["kernel"], stored)
    # What is not of the head has to fit.
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    (start / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}), encoding="utf-8")
    with pytest.raises(MismatchError, match="intermediate"):
        model_for(Run.of(recipe, tmp_path / "other"))


@pytest.mark.parametrize(
    ("task", "values", "how", "text"),
    [
        ("text-classification", {}, {"accumulate": 0}, "accumulate of at least 1, received 0"),
        ("sentence-embedding", {}, {"accumulate": 2}, "compared with all others.*accumulate=2"),
        ("rerank", {"lora_rank": 2, "lora_targets": ["qery"]}, {}, "received 'qery'; did you mean 'query'"),
        ("text-classification", {"freeze_layers": 3}, {}, "freeze_layers of at most 1.*received 3"),
        ("sentence-embedding", {"head_only": True}, {}, "nothing of FlaxXLMRobertaModel is left to train"),
        ("text-classification", {}, {"rules": {"hidden": "model"}}, r"over \['model'\], the mesh has"),
    ],
)
def test_what_cannot_be_served_is_refused(task, values, how, text, tmp_path):
    run = small_run(tmp_path, task, **values)
    model = model_for(run)
    with pytest.raises(InputError, match=text), run:
        train(model, run, **how)
    assert model.params
