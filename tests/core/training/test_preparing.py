"""What tells the data and the model of a run from others: a run goes on with the same alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.training.toy import Toy, recipe_of, run_in, train
from xlmr_core.errors import TrainingError
from xlmr_core.training.preparing import fingerprint, fingerprint_of_model
from xlmr_core.training.recipe import Recipe


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_files_of_one_name_in_several_folders_are_all_told(tmp_path: Path) -> None:
    files = [written(tmp_path / code / "train.jsonl", code) for code in ("en", "de")]
    before = fingerprint(files)
    assert list(before) == ["en/train.jsonl", "de/train.jsonl"] and len(fingerprint([files[0], files[0]])) == 2
    written(files[0], "other")
    after = fingerprint(files)
    assert before["en/train.jsonl"] != after["en/train.jsonl"] and before["de/train.jsonl"] == after["de/train.jsonl"]
    assert list(fingerprint(files[:1])) == ["train.jsonl"] and list(fingerprint([tmp_path / "en"])) == ["train.jsonl"]


def test_the_weights_that_training_starts_from_are_told(tmp_path: Path) -> None:
    config = written(tmp_path / "config.json", "{}")
    weights = written(tmp_path / "model.safetensors", "one")
    tokenizer = written(tmp_path / "tokenizer_config.json", "{}")
    written(tmp_path / "README.md", "one")
    recipe = Recipe(task="rerank", model=str(tmp_path))
    for path in (weights, tokenizer):
        before = fingerprint_of_model(recipe)
        assert list(before) == ["config.json", "model.safetensors", "tokenizer_config.json"]
        written(path, "two")
        assert fingerprint_of_model(recipe) != before
    for place in (tmp_path, config):
        fresh = recipe.replace(model="", config=str(place))
        assert list(fingerprint_of_model(fresh)) == ["config.json", "tokenizer_config.json"]
    # Fresh weights with the tokenizer of a model.
    assert "tokenizer.json" in fingerprint_of_model(recipe.replace(model="xlmr-mini", config=str(config)))
    assert {"model.safetensors", "tokenizer.json"} <= {*fingerprint_of_model(Recipe(task="rerank", model="xlmr-mini"))}


@pytest.mark.parametrize(
    "other",
    [
        {"train": {"b": "2", "a": "1"}, "model": {"w": "1"}},
        {"train": {"a": "1", "b": "2"}, "model": {"w": "2"}},
    ],
    ids=["order", "model"],
)
def test_a_run_of_other_files_or_another_order_is_refused(tmp_path: Path, other: dict) -> None:
    data = {"train": {"a": "1", "b": "2"}, "model": {"w": "1"}}
    recipe = {"columns": {"text": "x", "label": "y"}}

    def before(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with run_in(tmp_path, data=data, recipe=recipe) as run, pytest.raises(KeyboardInterrupt):
        train(Toy(), run, before)
    again = {"columns": {"label": "y", "text": "x"}}
    assert recipe_of(**recipe) == recipe_of(**again)
    changed = next(name for name in data if repr(other[name]) != repr(data[name]))
    with pytest.raises(TrainingError, match=f"was begun with another {changed}"):
        run_in(tmp_path, data=other, recipe=again).open()
    run_in(tmp_path, data=data, recipe=again).open().close()
