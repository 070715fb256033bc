"""The training loop: it trains every task, goes on where it was killed, and does what the recipe says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.choice import chosen
from tests.small_runs import ROWS, SIZES, TASKS, alone, losses, small_recipe, small_run, written
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, InputError, MismatchError, MissingBackendError
from xlmr_core.training.card import RUN_AS
from xlmr_core.training.checkpoints import Checkpoints
from xlmr_core.training.run import Run
from xlmr_torch import auto, pipeline
from xlmr_torch.objectives import answers
from xlmr_torch.training import model_for, train
from xlmr_torch.training_state import read_state, write_state

ASKED: dict[str, tuple[Any, ...]] = {
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
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card and its pictures are tested elsewhere, and once here."""
    if "question-answering" not in request.node.name:
        monkeypatch.setattr("xlmr_core.training.run.publish", lambda *arguments, **named: None)


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained(run: Any, **how: Any) -> dict[str, torch.Tensor]:
    """The weights after a run."""
    model = model_for(run)
    with run:
        train(model, run, **how)
    return state_of(model)


# Of kinds of tasks one each: a loss of tokens, of tags, of places, of vectors; labels of texts are in the other tests.
FEW = ("masked-language-modeling", "token-classification", "question-answering", "sentence-embedding")


@pytest.mark.parametrize("task", chosen(TASKS, FEW))
def test_every_task_trains_and_is_evaluated_and_answers(task: str, tmp_path: Path) -> None:
    file = written(tmp_path, "eval.jsonl", ROWS[task](7))
    run = small_run(tmp_path, task, steps=10, eval=str(file), evaluate_every=5, patience=0)
    model = model_for(run)
    with run:
        outcome = train(model, run)
    assert outcome is not None and outcome.steps == 10 and outcome.best in (5, 10)
    assert outcome.evaluation is not None and run.task.metric in outcome.evaluation.all
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3]), found
    # The folder has the best weights, which are those of the model now, and answers by the task's name.
    bare = {"add_pooling_layer": False} if task == "sentence-embedding" else {}
    again = getattr(auto, run.task.auto).from_pretrained(run.folder, **bare)
    names = dict(again.named_parameters())
    assert names.keys() >= dict(model.named_parameters()).keys() and again.dtype is torch.float32
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, names[name]), name
    assert pipeline(RUN_AS[task][0], str(run.folder))(*ASKED[task]) is not None


def test_an_answer_is_looked_for_among_real_tokens(tmp_path: Path) -> None:
    run = small_run(tmp_path, "question-answering", dropout=0.0)
    model, batch = model_for(run).eval().requires_grad_(False), run.batch(0)
    rows = [answers(model, run.task, alone(batch, row), torch.device("cpu")) for row in range(len(batch["input_ids"]))]
    found = answers(model, run.task, batch, torch.device("cpu"))
    assert batch["attention_mask"].min() == 0
    assert float(found["loss"]) == pytest.approx(np.mean([float(row["loss"]) for row in rows]), rel=1e-5)


def test_a_run_that_was_interrupted_ends_bit_for_bit_as_an_undisturbed_one(tmp_path: Path) -> None:
    values = {"steps": 8, "checkpoint_every": 3, "dropout": 0.2, "clip_norm": 0.5, "layer_decay": 0.8}
    whole = small_run(tmp_path, at=tmp_path / "whole", **values)
    expected = trained(whole)
    broken = small_run(tmp_path, at=tmp_path / "broken", **values)
    after = broken.after

    def fails(step: int, *arguments: Any, **named: Any) -> None:
        after(step, *arguments, **named)
        if step == 5:
            torch.rand(7)  # what others draw changes nothing
            raise KeyboardInterrupt

    broken.after = fails  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trained(broken)
    resumed = small_run(tmp_path, at=tmp_path / "broken", **values)
    steps: list[int] = []
    batch = resumed.batch
    resumed.batch = lambda step: (steps.append(step), batch(step))[1]  # type: ignore[method-assign]
    found = trained(resumed)
    assert steps == [3, 4, 5, 6, 7], "the work since the last checkpoint is done again, and no other"
    assert losses(resumed) == losses(whole)
    over = trained(small_run(tmp_path, at=tmp_path / "broken", **values))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
        assert torch.equal(value, over[name]), f"of a run that is over: {name}"


@pytest.mark.parametrize("task", ["masked-language-modeling", "text-classification"])
def test_parts_of_a_batch_train_as_the_batch_does(task: str, tmp_path: Path) -> None:
    values = {"steps": 4, "dropout": 0.0}
    whole, divided = (small_run(tmp_path, task, at=tmp_path / name, **values) for name in ("whole", "divided"))
    expected, found = trained(whole), trained(divided, accumulate=3)  # of five rows, two parts have two
    assert losses(divided) == pytest.approx(losses(whole), rel=1e-4)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-3, msg=name)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_batch_without_labels_teaches_nothing(precision: str, tmp_path: Path) -> None:
    task = "masked-language-modeling"
    eval_file = written(tmp_path, "eval.jsonl", ROWS[task](4))
    run = small_run(tmp_path, task, steps=3, precision=precision, eval=str(eval_file), evaluate_every=3)
    batch, weights = run.batch, []
    model = model_for(run)

    def without(step: int) -> Any:
        weights.append(state_of(model))
        found = batch(step)
        return {**found, "labels": np.full_like(found["labels"], -100)} if step == 1 else found

    run.batch = without  # type: ignore[method-assign]
    with run:
        train(model, run, accumulate=2)
    assert losses(run)[1] == 0 and all(loss > 0 for loss in losses(run)[::2])
    assert all(torch.equal(weights[2][name], value) for name, value in weights[1].items())
    assert any(not torch.equal(weights[1][name], value) for name, value in weights[0].items())
    found = answers(model, run.task, {**batch(0), "labels": np.full_like(batch(0)["labels"], -100)}, model.device)
    assert float(found["loss"]) == 0


def test_a_head_for_another_number_of_labels_starts_fresh(tmp_path: Path) -> None:
    first = small_run(tmp_path, at=tmp_path / "first")
    start, said = tmp_path / "start", []
    kind = auto.AutoModelForSequenceClassification
    kind.from_config(XLMRobertaConfig(**SIZES, num_labels=5)).save_pretrained(start)
    first.task.tokenizer.save_pretrained(start)
    recipe = small_recipe(tmp_path / "data", model=str(start), config="")
    run = Run.of(recipe, tmp_path / "run", tell=lambda kind, text: said.append(text))
    model = model_for(run)
    assert model.config.num_labels == 3 and said[0].endswith(
        "was trained for another number of labels; classifier.out_proj.weight, classifier.out_proj.bias start fresh"
    )
    stored = kind.from_pretrained(start)
    assert torch.equal(model.classifier.dense.weight, stored.classifier.dense.weight)
    # What is not of the head has to fit.
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    (start / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}), encoding="utf-8")
    with pytest.raises(MismatchError, match="intermediate"):
        model_for(run)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_disk_that_is_full_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    import resource

    model = torch.nn.Linear(300, 300)
    optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    checkpoints.save(2, lambda folder: write_state(folder, model, optimizer, scaler, True))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot save the checkpoint of step 4 to .*: File too large"):
            checkpoints.save(4, lambda folder: write_state(folder, model, optimizer, scaler, True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-2"]


def test_what_was_read_outlives_its_file(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    write_state(tmp_path, model, optimizer, scaler, True)
    other = torch.nn.Linear(3, 2)
    again = torch.optim.AdamW(other.parameters())
    read_state(tmp_path, other, again, scaler)
    with open(tmp_path / "state.pt", "r+b") as file:  # a mapped file shows what is written into it
        file.write(bytes(os.path.getsize(tmp_path / "state.pt")))
    assert torch.equal(other.weight, model.weight)
    for one, two in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_rate_of_a_step_is_each_group_s_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path, steps=5, layer_decay=0.5, schedule="linear", warmup=0.4)
    seen: list[dict[float, float]] = []
    step = torch.optim.AdamW.step

    def watched(self: Any, *arguments: Any) -> Any:
        seen.append({group["share"]: group["lr"] for group in self.param_groups})
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(run)
    for number, rates in enumerate(seen):
        assert rates == {share: run.rate(number) * share for share in (0.125, 0.25, 0.5, 1.0)}
    assert len(seen) == 5 and seen[1][1.0] > seen[4][1.0] > 0


def test_gradients_are_cut_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: Any, *arguments: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    for name, clip_norm in (("cut", 0.01), ("whole", 0.0)):
        trained(small_run(tmp_path, at=tmp_path / name, steps=1, clip_norm=clip_norm))
    assert norms[0] == pytest.approx(0.01, rel=1e-3) and norms[1] > 0.1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_computation_is_in_the_precision_of_the_recipe(precision: str, tmp_path: Path) -> None:
    run = small_run(tmp_path, steps=3, precision=precision, checkpoint_every=2)
    model = model_for(run)
    seen: set[torch.dtype] = set()
    layer = model.roberta.encoder.layer[0].intermediate
    forward = layer.forward
    layer.forward = lambda states: (lambda found: (seen.add(found.dtype), found)[1])(forward(states))
    with run:
        train(model, run)
    assert seen == {getattr(torch, precision)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("values", "frozen"),
    [
        ({"freeze_embeddings": True}, {"embeddings"}),
        ({"freeze_layers": 1}, {"embeddings", "layer.0"}),
        ({"head_only": True}, {"embeddings", "layer.0", "layer.1"}),
    ],
)
def test_what_is_frozen_stays(values: dict[str, Any], frozen: set[str], tmp_path: Path) -> None:
    run = small_run(tmp_path, steps=4, checkpoint_every=2, **values)
    model = model_for(run)
    before = state_of(model)
    with run:
        train(model, run)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("embeddings", "layer.0", "layer.1", "classifier")
    assert {part for part in parts if not any(part in name for name in changed)} == frozen
    stored = torch.load(run.folder / "checkpoints" / "step-4" / "state.pt", weights_only=True)
    assert not any(part in name for name in stored["model"] for part in frozen)


def test_a_model_of_another_shape_does_not_go_on(tmp_path: Path) -> None:
    trained(small_run(tmp_path, steps=2, checkpoint_every=1))
    run = small_run(tmp_path, at=tmp_path / "other", steps=2)
    model = model_for(run)
    model.classifier.requires_grad_(False)
    from xlmr_torch.optimizers import optimizer_of

    optimizer = optimizer_of(model, run.recipe, 2)
    with pytest.raises(CheckpointError, match=r"trains other weights.*classifier"):
        read_state(
            tmp_path / "run" / "checkpoints" / "step-2", model, optimizer, torch.amp.GradScaler("cpu", enabled=False)
        )


@pytest.mark.parametrize(
    ("task", "values", "how", "text"),
    [
        ("text-classification", {}, {"accumulate": 0}, "accumulate of at least 1, received 0"),
        ("sentence-embedding", {}, {"accumulate": 2}, "compared with all others.*accumulate=2"),
        ("text-classification", {}, {"shard": True}, "expected several processes.*torchrun"),
        ("text-classification", {"lora_rank": 2}, {"shard": True}, "shard or lora_rank, received both"),
        ("text-classification", {"precision": "float16"}, {"shard": True}, "float32 or bfloat16, received float16"),
        ("text-classification", {"freeze_layers": 3}, {}, "freeze_layers of at most 2.*received 3"),
        ("sentence-embedding", {"head_only": True}, {}, "nothing of XLMRobertaModel is left to train"),
        ("sentence-embedding", {"matryoshka": [8, 17]}, {}, "widths of at most 16.*received 17"),
    ],
)
def test_what_cannot_be_served_is_refused(task: str, values: Any, how: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text), small_run(tmp_path, task, **values) as run:
        train(model_for(run), run, **how)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("qery", "lora_targets: expected names of layers, received 'qery'; did you mean 'query'"),
        ("uery", "received 'uery'"),
        ("roberta.query", "received 'roberta.query'"),
    ],
)
def test_adapters_of_a_layer_that_is_not_there(
    target: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, lora_rank=2, lora_targets=["attention.self.query", target])
    model = model_for(run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    with run, pytest.raises(InputError, match=text):
        train(model, run)


def test_adapters_need_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from xlmr_torch.adapters import adapted

    with pytest.raises(MissingBackendError, match="pip install peft"):
        adapted(None, small_recipe(tmp_path, lora_rank=2))  # type: ignore[arg-type]
