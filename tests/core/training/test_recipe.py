"""Recipes: every value is looked at, the file says the same, and what nobody says comes from the task and the model."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from xlmr_core.errors import InputError
from xlmr_core.training.recipe import BY_TASK, CURVES, EVERY, TASK_NAMES, Recipe
from xlmr_core.training.schedules import SCHEDULES, factor
from xlmr_core.training.tasks import TRAINING


def test_every_task_of_the_table_can_be_named() -> None:
    assert tuple(TRAINING) == TASK_NAMES


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_file_of_a_recipe_is_the_recipe(tmp_path: Path, task: str) -> None:
    recipe = Recipe(
        task=task,
        train=('a "b"\\c.jsonl', "ünï\x7f.tsv"),
        columns={"text": "my text"},
        matryoshka=(64, 128),
        learning_rate=3e-5,
        head_only=True,
        languages=["en"],
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    again = Recipe.from_toml(path)
    assert again == recipe
    # What the file does not have is what nothing holds for.
    left_out = {own.name for own in fields(Recipe)} - set(tomllib.loads(recipe.to_toml()))
    assert left_out == {own.name for own in fields(Recipe) if getattr(recipe, own.name) is None}


@pytest.mark.parametrize("task", TASK_NAMES)
def test_what_is_not_said_is_the_tasks(task: str) -> None:
    recipe = Recipe(task=task)
    for name, value in {**EVERY, **BY_TASK[task]}.items():
        assert getattr(recipe, name) == value, name
    assert recipe.learning_rate is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"task": "text-clasification"}, "did you mean 'text-classification'"),
        ({"learning_rat": 1e-5}, "did you mean 'learning_rate'"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, received 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"batch_size": True}, "batch_size must be an integer"),
        ({"warmup": 1.5}, "warmup is a share, expected at most 1.0, received 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number of at least 0"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"schedule": "linar"}, "did you mean 'linear'"),
        ({"head_only": 1}, "head_only must be true or false"),
        ({"train": 3}, "expected train to be texts"),
        ({"train": 3.5}, "expected train to be a list"),
        ({"columns": "text"}, "expected columns as name=column"),
        ({"matryoshka": "0"}, "expected matryoshka to be widths"),
        ({"model": 3}, "model must be a text"),
        ({"head_only": True, "lora_rank": 8}, "head_only or lora_rank, received both"),
        ({"lora_rank": 8, "lora_targets": []}, "expected lora_targets beside lora_rank, received none"),
        ({"steps": 0, "epochs": 0}, "expected steps or epochs above 0"),
        ({"max_length": 64, "doc_stride": 64}, "doc_stride below max_length, 64"),
        ({"beta2": 1.0}, "below 1.0"),
        ({"temperature": 0}, "expected temperature above 0"),
        ({"masking_rate": 0}, "expected masking_rate above 0"),
        ({"dropout": 1.0}, "expected dropout below 1.0"),
        *(
            ({"schedule": name}, "schedule must be one of 'linear', 'cosine', ")
            for name in sorted({*SCHEDULES} - {*CURVES})
        ),
    ],
)
def test_a_value_that_will_not_do_is_refused(values: dict, told: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.of({"task": "text-classification", **values})
    assert told in str(caught.value)


def test_each_schedule_that_a_recipe_can_name_is_another() -> None:
    curves = {tuple(round(factor(name, step, 3, 20), 6) for step in range(20)) for name in CURVES}
    assert len(curves) == len(CURVES)


def test_the_command_line_and_a_file_say_the_same() -> None:
    said = Recipe(task="rerank", train="a.csv", columns=["text=sentence"], matryoshka=["64", "32"], seed=3)
    assert said == Recipe(task="rerank", train=("a.csv",), columns={"text": "sentence"}, matryoshka=(64, 32), seed=3)


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("task = 'rerank'\nseed = = 3\n")
    with pytest.raises(InputError, match=r"r\.toml.*line 2"):
        Recipe.from_toml(path)
    path.write_text("task = 'rerank'\nseeed = 3\n")
    with pytest.raises(InputError, match=r"r\.toml does not know 'seeed'; did you mean 'seed'"):
        Recipe.from_toml(path)


def test_what_is_given_beside_a_file_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("task = 'rerank'\nseed = 3\nsteps = 5\n")
    recipe = Recipe.from_toml(path, seed=4, steps=None)
    assert (recipe.seed, recipe.steps) == (4, 5)


def test_the_model_and_the_data_complete_a_recipe() -> None:
    recipe = Recipe(task="text-classification", epochs=2.5)
    small, large = (recipe.completed(width, batches=41) for width in (256, 1024))
    assert (small.steps, small.evaluate_every, small.checkpoint_every) == (103, 11, 11)
    assert small.learning_rate > large.learning_rate == 1e-5
    assert recipe.replace(lora_rank=8).completed(768, 10).learning_rate == pytest.approx(2e-4)
    kept = recipe.replace(steps=7, evaluate_every=3, learning_rate=0.5).completed(768, 10)
    assert (kept.steps, kept.evaluate_every, kept.checkpoint_every, kept.learning_rate) == (7, 3, 3, 0.5)
    assert kept.completed(64, 1000) == kept


def test_a_first_try_is_small() -> None:
    recipe = Recipe(task="rerank", train="a.csv", eval="b.csv", test="c.csv", seed=3)
    small = {"steps": 2, "checkpoint_every": 2, "batch_size": 4, "eval": (), "test": ()}
    assert recipe.first_try(2, train=recipe.eval) == recipe.replace(**small, train=("b.csv",))
    assert recipe.first_try(2, batch_size=1) == recipe.replace(**{**small, "batch_size": 1})
