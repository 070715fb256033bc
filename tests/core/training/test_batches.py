"""Batches: a function of the seed and the step, every row once an epoch, languages by their power, little padding."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests import small_runs
from xlmr_core.errors import InputError
from xlmr_core.training.batches import Batches, Evaluation, cut_by_tokens, language_quotas
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import Feature, TrainingTask


class Rows(TrainingTask):
    """Rows whose ids are their own number, as long as they are told."""

    name, auto, columns, metric = "text-classification", "", {}, "accuracy"

    @classmethod
    def read(cls, row):
        raise NotImplementedError

    def encode(self, examples):
        raise NotImplementedError

    def collate(self, features, random, multiple=1):
        batch = self.padded(features, multiple)
        return {**batch, "drawn": random.integers(0, 1 << 30, len(features))}

    def answer(self, example, features, outputs):
        return [float(output["logits"].sum()) for output in outputs], example


class Some(SimpleNamespace):
    """Features as :class:`xlmr_core.training.features.Features` has them."""

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, numbers):
        return [Feature({"input_ids": np.full(self.lengths[n], n)}) for n in np.asarray(numbers).tolist()]

    def windows(self, example: int) -> int:
        return int((self.example == example).sum())

    def language_of(self, example: int) -> str:
        return self.languages[int(self.language[self.example == example][0])]


def some(lengths, language=None, kinds=None, example=None) -> Some:
    zeros = np.zeros(len(lengths), np.int64)
    language = zeros if language is None else np.array(language)
    example = np.arange(len(lengths)) if example is None else np.array(example)
    return Some(
        lengths=np.array(lengths),
        language=language,
        languages=[f"l{n}" for n in range(int(language.max(initial=0)) + 1)],
        kinds=zeros if kinds is None else np.array(kinds),
        example=example,
        examples=list(range(int(example.max(initial=-1)) + 1)),
    )


def batches_of(features: Some, multiple: int = 1, **values) -> Batches:
    recipe = Recipe(task="text-classification", **{"batch_size": 4, "max_length": 64, **values})
    return Batches(Rows(recipe, SimpleNamespace(pad_token_id=-1)), features, recipe, multiple)


LENGTHS = np.random.default_rng(0).integers(3, 60, 403).tolist()


def read(batches: Batches, epoch: int = 0) -> list[int]:
    steps = range(epoch * len(batches), (epoch + 1) * len(batches))
    return [number for step in steps for number in batches.numbers(step).tolist()]


def test_a_batch_is_a_function_of_the_seed_and_the_step() -> None:
    one, other = batches_of(some(LENGTHS), seed=3), batches_of(some(LENGTHS), seed=3)
    steps = [250, 7, 101, 100, 99, 0]
    asked = {step: one[step] for step in steps}
    for step in sorted(steps):
        for name, array in other[step].items():
            assert np.array_equal(array, asked[step][name]), (step, name)
    assert not np.array_equal(asked[7]["drawn"], batches_of(some(LENGTHS), seed=4)[7]["drawn"])
    assert not np.array_equal(asked[7]["drawn"], asked[0]["drawn"])


def test_an_epoch_reads_every_row_in_an_order_of_its_own() -> None:
    batches = batches_of(some(LENGTHS))
    assert len(batches) == 101
    first, second = read(batches), read(batches, 1)
    for order in (first, second):
        counts = Counter(order)
        assert set(counts) == set(range(403)) and sum(counts.values()) == 404, "one fills up the last batch"
    assert first != second
    assert {len(batches.numbers(step)) for step in range(101)} == {4}


def test_rows_of_one_length_share_a_batch() -> None:
    batches = batches_of(some(LENGTHS))
    padded = sum(batches[step]["input_ids"].size for step in range(len(batches)))
    assert padded < 1.1 * sum(LENGTHS)
    lengths = [batches[step]["input_ids"].shape[1] for step in range(50)]
    assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True), "short and long ones take turns"


def test_a_few_rows_are_one_batch() -> None:
    batches = batches_of(some([5, 6]), batch_size=32)
    assert len(batches) == 1 and sorted(batches.numbers(17).tolist()) == [0, 1]
    with pytest.raises(InputError, match="expected rows to train on"):
        batches_of(some([]))


def test_kinds_never_mix_and_all_batches_have_one_size() -> None:
    kinds = [0] * 9 + [1] * 3
    batches = batches_of(some([5] * 12, kinds=kinds))
    assert len(batches) == 4
    for step in range(8):
        numbers = batches.numbers(step)
        assert len(numbers) == 4 and len({kinds[n] for n in numbers}) == 1
    assert set(read(batches)) == set(range(12))


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [1000, 100, 10]), (0.0, [370, 370, 370]), (0.5, [784, 248, 78])])
def test_quotas_follow_the_power_and_sum_up(alpha: float, expected: list[int]) -> None:
    quotas = language_quotas(np.array([1000, 100, 10]), alpha)
    assert sum(quotas) == 1110 and quotas == pytest.approx(expected, abs=1)
    weights = np.array([1000, 100, 10]) ** alpha
    assert np.array(quotas) / 1110 == pytest.approx(weights / weights.sum(), abs=1e-3)


def test_languages_are_drawn_by_alpha_and_every_row_of_each_has_its_turn() -> None:
    language = [0] * 300 + [1] * 20
    batches = batches_of(some([5] * 320, language), alpha=0.3, batch_size=8)
    quotas = language_quotas(np.array([300, 20]), 0.3)
    over = Counter()
    for epoch in range(3):
        order = read(batches, epoch)
        counts = Counter(language[n] for n in order)
        assert [counts[0], counts[1]] == quotas
        over.update(order)
    # Three epochs read the thin language again and again, none of its rows a second time before all others.
    of_thin = [over[n] for n in range(300, 320)]
    assert max(of_thin) - min(of_thin) <= 1 and sum(of_thin) == 3 * quotas[1]
    of_large = [over[n] for n in range(300)]
    assert max(of_large) - min(of_large) <= 1


@pytest.mark.parametrize(("multiple", "widths"), [(16, {16, 32, 48, 60}), (64, {60})])
def test_rows_are_padded_to_a_multiple_and_never_past_the_longest(multiple: int, widths: set[int]) -> None:
    batches = batches_of(some(LENGTHS), multiple, max_length=60)
    found = {batches[step]["input_ids"].shape[1] for step in range(len(batches))}
    assert found == widths


def evaluation_of(features: Some, **values) -> Evaluation:
    recipe = Recipe(task="text-classification", **{"batch_size": 4, "max_length": 64, **values})
    return Evaluation(Rows(recipe, SimpleNamespace(pad_token_id=0)), features, recipe)


def test_an_evaluation_has_every_row_once_and_answers_by_example() -> None:
    # Examples 0 and 2 have one window, example 1 has three.
    features = some([9, 4, 5, 6, 7], language=[0, 1, 1, 1, 0], example=[0, 1, 1, 1, 2])
    evaluation = evaluation_of(features, batch_size=2)
    assert len(evaluation) == 3
    assert sorted(n for index in range(3) for n in evaluation.numbers(index).tolist()) == [0, 1, 2, 3, 4]

    def model(batch):
        return {"logits": batch["input_ids"].astype(np.float32)}

    answers = evaluation.answers((batch, model(batch)) for batch in evaluation)
    assert answers.predicted == [[0.0], [4.0, 10.0, 18.0], [28.0]]
    assert (answers.gold, answers.languages) == ([0, 1, 2], ["l0", "l1", "l0"])
    with pytest.raises(InputError, match="expected rows to evaluate on"):
        evaluation_of(some([]))


def test_several_rows_of_the_model_for_one_of_the_batch_come_together() -> None:
    evaluation = evaluation_of(some([3, 3, 3]), batch_size=4)
    outputs = {"logits": np.arange(6.0).reshape(6, 1)}  # two for each: 0 and 3, 1 and 4, 2 and 5
    answers = evaluation.answers([(evaluation[0], outputs)])
    found = {int(n): answers.predicted[int(n)] for n in evaluation.numbers(0)}
    assert [found[int(n)] for n in evaluation.numbers(0)] == [[3.0], [5.0], [7.0]]


def test_cutting_by_tokens_holds_every_row_once_with_little_padding() -> None:
    lengths = np.random.default_rng(1).integers(3, 40, size=300)
    found = cut_by_tokens(lengths, 256, seed=3, pool=300)
    assert sorted(np.concatenate(found)) == list(range(300))
    padded = [len(batch) * int(lengths[batch].max()) for batch in found]
    assert sum(padded) < 1.15 * lengths.sum() and max(padded) <= 256
    again = cut_by_tokens(lengths, 256, 3, pool=300)
    assert [batch.tolist() for batch in found] == [batch.tolist() for batch in again]


@pytest.mark.parametrize("task", small_runs.TASKS)
def test_ids_of_all_batches_are_known_but_where_they_are_drawn(task: str, tmp_path: Path) -> None:
    run = small_runs.small_run(tmp_path, task, rows=40)
    found = run.batches.features.ids()
    if task == "masked-language-modeling":
        assert found is None
        return
    assert found is not None and (np.diff(found) > 0).all()
    for step in range(3 * len(run.batches)):  # with what is drawn
        assert {*np.unique(run.batches[step]["input_ids"]).tolist()} <= {*found.tolist()}


def test_ids_of_rows_that_are_read_late_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlmr_core.training.features.MOST_AT_ONCE", 0)
    assert small_runs.small_run(tmp_path).batches.features.ids() is None
