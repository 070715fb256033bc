"""The training loop: it trains every task, goes on where it was killed, and does what the recipe says."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.torch.small_runs import ROWS, TASKS, losses, small_recipe, small_run, written
from xlmr_core.errors import CheckpointError, InputError, MissingBackendError
from xlmr_core.training.card import RUN_AS
from xlmr_torch import auto, pipeline
from xlmr_torch.training import model_for, train

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("task", TASKS)
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
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.torch.small_runs import small_run
from xlmr_torch.training import model_for, train
run = small_run(Path({folder!r}), steps=200, checkpoint_every=1, dropout=0.1)
after = run.after
def slow(*arguments, **named):
    time.sleep(0.1)
    after(*arguments, **named)
run.after = slow
train(model_for(run), run)
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    code = KILLED.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoints" / "step-3").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    values = {"steps": 200, "checkpoint_every": 1, "dropout": 0.1}
    run = small_run(tmp_path, **values)
    first: list[int] = []
    goes_on = run.goes_on
    run.goes_on = lambda step: (first.append(step), step < 6 and goes_on(step))[1]  # type: ignore[method-assign]
    run.finish = lambda *a, **k: run._flush()  # type: ignore[method-assign]
    trained(run)
    assert 3 <= first[0] < 6
    undisturbed = small_run(tmp_path, at=tmp_path / "undisturbed", **values)
    other = undisturbed.goes_on
    undisturbed.goes_on = lambda step: step < 6 and other(step)  # type: ignore[method-assign]
    undisturbed.finish = lambda *a, **k: undisturbed._flush()  # type: ignore[method-assign]
    trained(undisturbed)
    assert losses(run) == losses(undisturbed)


@pytest.mark.parametrize("task", ["masked-language-modeling", "text-classification"])
def test_parts_of_a_batch_train_as_the_batch_does(task: str, tmp_path: Path) -> None:
    values = {"steps": 4, "dropout": 0.0}
    whole, divided = (small_run(tmp_path, task, at=tmp_path / name, **values) for name in ("whole", "divided"))
    expected, found = trained(whole), trained(divided, accumulate=3)  # of five rows, two parts have two
    assert losses(divided) == pytest.approx(losses(whole), rel=1e-4)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-3, msg=name)


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
    from xlmr_torch.training_state import read_state

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
    run = small_run(tmp_path, task, **values)
    with run, pytest.raises(InputError, match=text):
        train(model_for(run), run, **how)


def test_adapters_need_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from xlmr_torch.adapters import adapted

    with pytest.raises(MissingBackendError, match="pip install peft"):
        adapted(None, small_recipe(tmp_path, lora_rank=2))  # type: ignore[arg-type]
