"""Two processes under torchrun, with copies of the model (DDP) and with parts of it (FSDP2), train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import ROWS, losses, small_run, written
from xlmr_torch import auto
from xlmr_torch.training import model_for, train

ROOT = Path(__file__).resolve().parents[2]
# A batch of five rows is no multiple of two; of a single row the second process has none.
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "masked-language-modeling": ({}, ("copies", "shards")),
    "text-classification": ({"batch_size": 1}, ("copies", "shards")),  # interrupted, and gone on with
    "sentence-embedding": ({"matryoshka": [8], "clip_norm": 0.0, "learning_rate": 0.1}, ("copies",)),
}


def plain(model: torch.nn.Module, recipe: Any, layers: int) -> torch.optim.Optimizer:
    """Unlike AdamW it tells gradients from their double."""
    return torch.optim.SGD([{"params": list(model.parameters()), "share": 1.0}], lr=recipe.learning_rate)


def how_of(task: str, way: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"shard": True} if way == "shards" else {}
    if task == "sentence-embedding":
        return {**found, "make_optimizer": plain}
    return {**found, "accumulate": 2} if way == "copies" else found


def run_of(folder: Path, task: str, way: str) -> Any:
    values = {"steps": 4, "dropout": 0.0, "checkpoint_every": 2, "evaluate_every": 3, "layer_decay": 0.9}
    values |= {"eval": str(folder / task / "eval.jsonl"), "learning_rate": 0.003}
    return small_run(folder / task, task, at=folder / task / way, **{**values, **CASES[task][0]})


def everything(folder: Path) -> None:
    """What each of the two processes does."""
    for task, (_, ways) in CASES.items():
        for way in ways:
            run, how = run_of(folder, task, way), how_of(task, way)
            if task == "text-classification":  # interrupted in the middle, and gone on with
                run.goes_on = lambda step, goes_on=run.goes_on: step < 3 and goes_on(step)
                run.finish = lambda *arguments, close=run.close, **named: close()
                train(model_for(run), run, **how)
                run = run_of(folder, task, way)
            train(model_for(run), run, **how)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from xlmr_core.training import run
run.publish = lambda *arguments, **named: None
from tests.torch.test_processes import everything
everything(Path({folder!r}))
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of two processes."""
    folder = tmp_path_factory.mktemp("together")
    for task in CASES:
        (folder / task).mkdir()
        written(folder / task, "eval.jsonl", ROWS[task](7))
        run_of(folder, task, "alone")  # writes the data, once
    script = folder / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), folder=str(folder)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("task", CASES)
def test_two_processes_train_as_one(task: str, together: Path) -> None:
    run = run_of(together, task, "alone")
    model = model_for(run)
    with run:
        outcome = train(model, run, **how_of(task))
    assert outcome is not None and outcome.evaluation is not None
    expected = model.state_dict()
    for way in CASES[task][1]:
        other = run_of(together, task, way)
        assert losses(other) == pytest.approx(losses(run), rel=2e-4), way
        with other.open():
            assert other.done
            found = other.outcome.evaluation
        assert found.all == pytest.approx(outcome.evaluation.all, rel=1e-3), way
        bare = {"add_pooling_layer": False} if task == "sentence-embedding" else {}
        again = getattr(auto, run.task.auto).from_pretrained(other.folder, **bare)
        assert again.config.architectures == [type(model).__name__]
        assert type(again) is type(model)
        for name, value in again.named_parameters():
            torch.testing.assert_close(value.data, expected[name], rtol=0, atol=1e-3, msg=f"{way} {name}")


@pytest.mark.parametrize("task", [task for task, (_, ways) in CASES.items() if len(ways) > 1])
def test_a_checkpoint_of_shards_is_one_of_copies(task: str, together: Path) -> None:
    folder = together / task
    one, other = (
        torch.load(folder / way / "checkpoints" / "step-4" / "state.pt", weights_only=True)
        for way in ("copies", "shards")
    )
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        torch.testing.assert_close(other["model"][name], value, rtol=0, atol=1e-3)
    moments = one["optimizer"]["state"], other["optimizer"]["state"]
    assert moments[0].keys() == moments[1].keys()
    for number, own in moments[0].items():
        assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in moments[1][number].items()}
