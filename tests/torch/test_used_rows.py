"""Of the word embeddings a run trains the rows that its texts have, and ends with the weights of all of them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.choice import chosen
from tests.small_runs import ROWS, TASKS, losses, small_run, written
from xlmr_core.errors import InputError
from xlmr_torch.optimizers import optimizer_of
from xlmr_torch.training import model_for, train
from xlmr_torch.used_rows import UsedRows, used_rows

TABLE = "embeddings.word_embeddings.weight"
OF_ALL = ("masked-language-modeling", "causal-language-modeling")
OTHERS = [{"text": "Zebras graze quietly", "label": "sun", "lang": "en"}]
VALUES: dict[str, Any] = {"steps": 6, "checkpoint_every": 2, "weight_decay": 0.5, "layer_decay": 0.8, "dropout": 0.1}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlmr_core.training.run.publish", lambda *arguments, **named: None)


def of_whole_table(*arguments: Any) -> torch.optim.Optimizer:
    """The same optimizer, of which the loop does not know that it is."""
    return optimizer_of(*arguments)


WHOLE = {"make_optimizer": of_whole_table}


def table_of(model: Any) -> torch.nn.Parameter:
    found: torch.nn.Parameter = model.get_input_embeddings().weight
    return found


def ended(run: Any, stop: int = 0, model: Any = None, **how: Any) -> tuple[Any, set[int]]:
    """The model of a run that went to its end, or to a step where it was interrupted, and how many rows it trained."""
    model, after, rows = model or model_for(run), run.after, set()
    place = table_of(model)

    def looks(step: int, *arguments: Any, **named: Any) -> None:
        after(step, *arguments, **named)
        rows.add(len(table_of(model)))
        if step == stop:
            raise KeyboardInterrupt

    run.after = looks
    with run, pytest.raises(KeyboardInterrupt) if stop else nullcontext():
        train(model, run, **how)
    assert table_of(model) is place, "the model has its own table again"
    return model, rows


@pytest.mark.parametrize(
    "task", chosen([task for task in TASKS if task not in OF_ALL], ["rerank", "sentence-embedding"])
)
def test_all_weights_are_those_of_the_whole_table(task: str, tmp_path: Path) -> None:
    looked_at = {"eval": str(written(tmp_path, "eval.jsonl", ROWS[task](7))), "evaluate_every": 3, "patience": 0}
    runs = [small_run(tmp_path, task, at=tmp_path / name, **VALUES, **looked_at) for name in ("used", "all")]
    before = table_of(model_for(runs[0])).detach().clone()
    (used, few), (whole, every) = ended(runs[0]), ended(runs[1], **WHOLE)
    assert max(few) < 200 and every == {len(before)}
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)
    found = used.state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert (table_of(used) / before)[20000:].max() < 0.999, "what no text has decays too"


@pytest.mark.parametrize("task", OF_ALL)
def test_a_table_that_predicts_too_is_trained_whole(task: str, tmp_path: Path) -> None:
    run = small_run(tmp_path, task)
    with used_rows(model_for(run), run.batches.features) as rows:
        assert rows is None


def _second_place(model: Any) -> None:
    model.again = torch.nn.Linear(16, 32000, bias=False)
    model.again.weight = table_of(model)


OWN_WAYS: dict[str, Any] = {
    "stands still": lambda model: table_of(model).requires_grad_(False),
    "has a second place": _second_place,
    "is masked": lambda model: table_of(model).register_hook(torch.zeros_like),
    "is looked at": lambda model: model.get_input_embeddings().register_forward_hook(lambda *given: None),
    "has a longest row": lambda model: setattr(model.get_input_embeddings(), "max_norm", 1.0),
    "is half as wide": lambda model: model.bfloat16(),
}


@pytest.mark.parametrize("way", OWN_WAYS)
def test_a_table_that_is_more_than_trained_is_left_whole(way: str, tmp_path: Path) -> None:
    run = small_run(tmp_path)
    model = model_for(run)
    with used_rows(model, run.batches.features) as rows:
        assert rows is not None
    OWN_WAYS[way](model)
    with used_rows(model, run.batches.features) as rows:
        assert rows is None


def test_a_table_of_the_user_may_lack_a_row_of_padding(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    model = model_for(run)
    model.set_input_embeddings(torch.nn.Embedding(32000, 16))
    model.set_packing("never")
    ended(run, model=model)


def test_a_run_that_was_interrupted_ends_bit_for_bit_as_an_undisturbed_one_and_so_is_it_evaluated(
    tmp_path: Path,
) -> None:
    looked_at = {"eval": str(written(tmp_path, "eval.jsonl", OTHERS)), "evaluate_every": 6, "patience": 0}

    def run(name: str) -> Any:
        return small_run(tmp_path, at=tmp_path / name, **VALUES, **looked_at)

    whole, _ = ended(run("whole"))
    ended(run("broken"), stop=5)
    resumed, _ = ended(run("broken"))
    assert torch.equal(table_of(whole), table_of(resumed))
    # Of words that no text for training has.
    first, second = (evaluations(tmp_path / name) for name in ("whole", "broken"))
    assert first == second != []


@pytest.mark.parametrize(("first", "then"), [({}, WHOLE), (WHOLE, {})], ids=["rows first", "rows later"])
def test_a_state_of_rows_is_one_of_the_whole_table(first: Any, then: Any, tmp_path: Path) -> None:
    whole, _ = ended(small_run(tmp_path, at=tmp_path / "whole", **VALUES))
    ended(small_run(tmp_path, at=tmp_path / "broken", **VALUES), stop=5, **first)
    resumed, _ = ended(small_run(tmp_path, at=tmp_path / "broken", **VALUES), **then)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    over, _ = ended(small_run(tmp_path, at=tmp_path / "broken", **VALUES), **first)
    assert torch.equal(table_of(over), table_of(resumed))


def evaluations(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["evaluation"] for line in lines if "evaluation" in line]


def test_an_id_that_is_not_trained_is_refused_in_training_and_looked_up_else() -> None:
    table = torch.nn.Embedding(10, 4, padding_idx=1)
    rows = UsedRows(table, torch.tensor([1, 3, 5]).numpy())
    ids = torch.tensor([[3, 1, 4]])
    with pytest.raises(InputError, match=r"expected ids of the rows that the run trains on, received also \[4\]"):
        rows(ids)
    rows.others = 0.5
    expected = torch.stack([table.weight[3], table.weight[1], table.weight[4] / 2])
    assert torch.equal(rows.eval()(ids)[0], expected)
    assert torch.equal(rows.state_dict()["weight"][[3, 4]], expected[[0, 2]])


def test_padding_learns_nothing() -> None:
    rows = UsedRows(torch.nn.Embedding(10, 4, padding_idx=1), torch.tensor([1, 3]).numpy())
    rows(torch.tensor([1, 3])).sum().backward()
    assert rows.weight.grad is not None
    assert rows.weight.grad.abs().sum(dim=1).tolist() == [0, 4]
