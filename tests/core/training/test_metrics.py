"""Figures: against values counted by hand, for each language, and the one answer that is given to everything."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from xlmr_core.errors import InputError, TrainingError
from xlmr_core.training.judging import Judge
from xlmr_core.training.metrics import COUNTERS, FIGURES, is_of_entities, kind_of, measure
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.spans import normalized, overlap, words_of
from xlmr_core.training.task import Answers

CLASSES = "single_label_classification"
LABELS = ("a", "b", "c")


def figures(kind, predicted, gold, languages=None):
    return measure(kind, Answers(predicted, gold, languages or [""] * len(gold)), LABELS).figures


def vectors(*angles):
    return np.array([[math.cos(angle), math.sin(angle)] for angle in angles])


@pytest.mark.parametrize(
    ("kind", "predicted", "gold", "found"),
    [
        ("masked-language-modeling", [2.0, 4.0], [30, 10], {"perplexity": math.exp(2.5), "loss": 2.5}),
        ("causal-language-modeling", [800.0], [1], {"perplexity": math.inf, "loss": 800.0}),
        # Of label 0 and 1: precision 1 and 1/2, recall 1/2 and 1.
        (CLASSES, [0, 1, 1, 2], [0, 0, 1, 2], {"accuracy": 0.75, "f1": (2 / 3 + 2 / 3 + 1) / 3}),
        ("regression", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0], {"pearson": 1.0, "spearman": 1.0, "mse": 14 / 3}),
        ("regression", [1.0, 2.0, 30.0], [1.0, 2.0, 3.0], {"pearson": 0.8808, "spearman": 1.0, "mse": 243.0}),
        ("regression", [1.0, 1.0], [2.0, 4.0], {"pearson": 0.0, "spearman": 0.0, "mse": 5.0}),
        (
            "multi_label_classification",
            [[1, 0, 0], [1, 1, 0]],
            [[1, 0, 0], [0, 1, 0]],
            {"f1": 0.8, "f1_macro": (2 / 3 + 1) / 2, "accuracy": 0.5},
        ),
        ("token-classification", [["a", "b"], ["a"]], [["a", "a"], ["a"]], {"f1": 0.8, "accuracy": 2 / 3}),
        (
            "question-answering",
            ["the Eiffel Tower", "in 1889", ""],
            [["Eiffel Tower!"], ["1889"], []],
            {"f1": (1 + 2 / 3 + 1) / 3, "exact_match": 2 / 3},
        ),
        ("multiple-choice", [0, 1, 2, 3], [0, 1, 2, 0], {"accuracy": 0.75}),
        ("masked-language-modeling", [2.0, math.nan], [5, 0], {"perplexity": math.exp(2.0), "loss": 2.0}),
        (
            "scored-pairs",
            [vectors(0.0, 0.1), vectors(0.0, 0.5), vectors(0.0, 0.3)],
            [5.0, 1.0, 3.0],
            {"spearman": 1.0, "pearson": 0.9829},
        ),
        # The last text of the first side is nearest to the second one of the other.
        (
            "sentence-embedding",
            [vectors(0.0, 0.1), vectors(1.0, 1.1), vectors(1.25, 2.5)],
            [["a", "x"], ["b", "y"], ["c", "z"]],
            {"accuracy": (2 / 3 + 1) / 2},
        ),
        (
            "rerank",
            [[0.9, 0.1], [0.2, 0.5, 0.1], [0.3, 0.3]],
            [[1, 0], [1, 0, 0], [1, 0]],
            {"mrr": 2 / 3, "accuracy": 1 / 3},
        ),
    ],
)
def test_figures(kind, predicted, gold, found):
    counted = figures(kind, predicted, gold)
    assert counted == pytest.approx(found, abs=1e-4)
    assert set(counted) <= set(FIGURES[kind])


def test_every_kind_has_names_of_figures():
    assert set(COUNTERS) == set(FIGURES)


TAGS = ("O", "B-PER", "I-PER", "B-LOC")


def test_entities_count_whole():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], ["O", "B-PER"]]
    measured = measure("entities", Answers(predicted, gold, ["de", "sw"]), TAGS)
    assert measured.figures == pytest.approx({"f1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "accuracy": 5 / 6})
    assert measured.languages["sw"]["f1"] == 1.0 and measured.counts == {"de": 1, "sw": 1}
    assert measured.confusion[2].tolist() == [1, 0, 0, 0]


def test_a_language_without_entities_has_the_same_figures():
    measured = measure("entities", Answers([["B-PER"], ["O"]], [["B-PER"], ["O"]], ["de", "sw"]), TAGS)
    assert measured.languages["sw"] == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("tags", "is_one"), [(TAGS, True), (("NOUN", "VERB"), False), (("O",), False), (("B-PER", "X"), False)]
)
def test_tags_of_entities_are_known(tags, is_one):
    assert is_of_entities(tags) is is_one
    task = SimpleNamespace(problem="", name="token-classification", labels=tags)
    assert kind_of(task) == ("entities" if is_one else "token-classification")


def test_languages_are_counted_each_and_all_together():
    measured = measure(CLASSES, Answers([0, 1, 1, 0], [0, 1, 0, 0], ["sw", "de", "de", ""]), LABELS)
    assert list(measured.languages) == ["de", "sw"] and measured.counts == {"de": 2, "sw": 1}
    assert measured.languages["de"]["accuracy"] == 0.5 and measured.figures["accuracy"] == 0.75
    assert measured.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]] and measured.examples == 4


def test_tokens_are_counted_of_a_language_model():
    measured = measure("masked-language-modeling", Answers([2.0, 3.0], [30, 10], ["de", "sw"]))
    assert measured.examples == 40 and measured.counts == {"de": 30, "sw": 10} and measured.confusion is None


def test_a_language_without_a_label_has_no_figures():
    measured = measure("masked-language-modeling", Answers([2.0, math.nan], [30, 0], ["de", "sw"]))
    assert list(measured.languages) == list(measured.counts) == ["de"] and measured.figures["loss"] == 2.0


@pytest.mark.parametrize(
    ("kind", "predicted", "gold", "answer"),
    [
        (CLASSES, [1, 1, 1], [0, 1, 2], "'b'"),
        (CLASSES, [1, 1, 1], [1, 1, 1], ""),
        (CLASSES, [1, 0, 1], [1, 1, 0], ""),
        ("multi_label_classification", [[1, 0, 1], [1, 0, 1]], [[1, 0, 0], [0, 0, 0]], "['a', 'c']"),
        ("multi_label_classification", [[1, 0, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]], ""),
        ("rerank", [[0.5, 0.5], [0.5, 0.50001, 0.5]], [[1, 0], [1, 0, 0]], "0.5"),
        ("rerank", [[0.6, 0.5], [0.6, 0.5]], [[1, 0], [1, 0]], ""),
        ("multiple-choice", [0, 0], [0, 1], "choice 0"),
        ("token-classification", [["a", "a"], ["a"]], [["a", "b"], ["c"]], "'a'"),
        ("question-answering", ["", ""], [["x"], []], "''"),
        ("regression", [2.0, 2.00001], [0.0, 5.0], "2"),
        ("regression", [2.0, 2.1], [0.0, 5.0], ""),
        ("masked-language-modeling", [2.0, 2.0], [5, 5], ""),
    ],
)
def test_the_one_answer_to_everything(kind, predicted, gold, answer):
    assert measure(kind, Answers(predicted, gold, [""] * len(gold)), LABELS).only_answer == answer


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(TrainingError, match="expected examples to evaluate on, received none"):
        measure(CLASSES, Answers())


@pytest.mark.parametrize(
    ("gold", "languages", "found"),
    [
        ([["a", "x"], ["b", "y"], ["c", "z"], ["d", "u"]], [""] * 4, 1 / 4),
        ([["a", "x"], ["b", "y"], ["c", "z"], ["d", "u"]], ["de", "de", "sw", "sw"], 1 / 2),
        # Two rows of one id, or with the same text on one side, belong together.
        ([["1", "1"], ["1", "1"], ["2", "2"], ["3", "3"]], [""] * 4, (2 + 2 + 1 + 1) / 16),
        ([["a", "x"], ["b", "x"], ["c", "z"], ["d", "u"]], [""] * 4, (2 + 2 + 1 + 1) / 16),
    ],
)
def test_an_encoder_that_says_the_same_of_every_text_finds_by_chance_alone(gold, languages, found):
    same = [np.ones((2, 8))] * 4
    assert figures("sentence-embedding", same, gold, languages) == pytest.approx({"accuracy": found})


def test_any_text_of_the_same_id_is_the_right_one():
    # The second row's text is nearest to the first row's other one, which has its id.
    answers = [vectors(0.0, 0.5), vectors(0.4, 3.0), vectors(2.0, 2.1)]
    assert figures("sentence-embedding", answers, [["1", "1"], ["1", "1"], ["2", "2"]])["accuracy"] == 5 / 6
    assert figures("sentence-embedding", answers, [["1", "1"], ["3", "3"], ["2", "2"]])["accuracy"] == 3 / 6


@pytest.mark.parametrize(("metric", "kind"), [("spearman", "scored-pairs"), ("accuracy", "sentence-embedding")])
def test_pairs_with_scores_have_figures_of_their_own(metric, kind):
    task = SimpleNamespace(problem="", name="sentence-embedding", labels=(), metric=metric, counted=len)
    assert kind_of(task) == kind
    other = {"spearman": "accuracy", "accuracy": "spearman"}[metric]
    with pytest.raises(InputError, match=f"expected a metric of {metric}.*received '{other}'"):
        Judge(Recipe(task="sentence-embedding", metric=other), task)


def test_the_loss_of_an_evaluation_is_the_mean_of_its_labels():
    labels = [[1, 2, 3], [1, -100, -100], [-100, -100, -100]]
    batches = [{"input_ids": np.ones((1, 3)), "labels": np.array([row])} for row in labels]
    losses = iter([1.0, 5.0, math.nan])

    class Looked:
        def __iter__(self):
            return iter(batches)

        def answers(self, results):
            assert len(list(results)) == 3
            return Answers([["a"]], [["a"]], [""])

    task = SimpleNamespace(
        problem="",
        name="token-classification",
        labels=LABELS,
        metric="f1",
        counted=lambda batch: int((batch["labels"] != -100).sum()),
    )
    judge = Judge(Recipe(task="token-classification"), task)
    measured = judge.measured(Looked(), lambda batch: {"loss": next(losses)})
    assert measured.figures["loss"] == (3 * 1.0 + 5.0) / 4


# Answers to questions


@pytest.mark.parametrize(
    ("text", "language", "left"),
    [
        ("The Eiffel-Tower, again!", "", "eiffeltower again"),
        ("The Eiffel  Tower", "sw", "the eiffel tower"),
        ("Die Kirche und der Turm", "de", "kirche und turm"),
        ("los «años» sesenta", "es", "años sesenta"),
        ("$5 <b>", "", "5 b"),
        ("5 € a day", "", "5 € day"),
    ],
)
def test_what_does_not_count_is_left_out(text, language, left):
    assert normalized(text, language) == left


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in 1889", ["in", "1889"]),
        ("東京タワー", ["東", "京", "タワー"]),
        ("北京 2008 ok", ["北", "京", "2008", "ok"]),
        ("5€ x", ["5€", "x"]),
        ("", []),
    ],
)
def test_words_by_spaces_and_in_scripts_without_them_by_letters(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("answer", "right", "language", "found"),
    [
        ("Paris", ["London", "paris."], "", (1.0, 1.0)),
        ("a b c", ["b c d"], "en", (0.0, 0.8)),
        ("北京市", ["北京"], "zh", (0.0, 0.8)),
        ("", [], "", (1.0, 1.0)),
        ("x", [], "", (0.0, 0.0)),
        ("", ["x"], "", (0.0, 0.0)),
    ],
)
def test_exact_match_and_f1_of_the_best_right_text(answer, right, language, found):
    assert overlap(answer, right, language) == pytest.approx(found)
