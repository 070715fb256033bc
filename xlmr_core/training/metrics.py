"""What answers are worth: the figures of an evaluation, over all its examples and for each language.

Counting is left to scikit-learn and seqeval (the extra ``train``). All figures but losses, errors and perplexity are
shares of one.

=============================  =====================================================================================
task                           figures, the one that says what is best first
=============================  =====================================================================================
language modelling             ``perplexity``, exp of the ``loss``, which is the mean over tokens
text-classification            ``accuracy``, ``f1`` (mean over the labels that there are)
regression                     ``pearson``, ``spearman``, ``mse``
several labels for a text      ``f1`` (over all labels together), ``f1_macro`` (mean over labels), ``accuracy``
                               (texts with all their labels right)
token-classification           ``f1``, ``precision``, ``recall`` of entities where tags are of the kind ``B-PER``
                               (seqeval, as published for CoNLL 2003), else ``f1`` (mean over tags); ``accuracy``
question-answering             ``f1``, ``exact_match`` (``spans.py``)
multiple-choice                ``accuracy``
sentence-embedding             ``accuracy``: how often a text is nearest, of all in its language, to one that belongs to
                               it, both ways; of those that are equally near each counts its share
scored-pairs                   ``spearman``, ``pearson`` of cosines
rerank                         ``mrr``, mean of one over the place of the right passage; ``accuracy``: first place
=============================  =====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import TrainingError
from xlmr_core.training.spans import overlap
from xlmr_core.training.task import Answers, TrainingTask

__all__ = ["COMPARED", "FEWEST", "FIGURES", "LOWER", "SCORED_PAIRS", "Measured", "is_of_entities", "kind_of", "measure"]

Figures: TypeAlias = dict[str, float]
# Examples of a language below which its figures tell little; they are counted all the same.
FEWEST = 20
# Of the spread of the right numbers: predicted ones that are spread less are all the same.
FLAT = 1e-3
# What a cosine has to be larger by to be larger.
EQUAL = 1e-9
SCORED_PAIRS = "scored-pairs"


@dataclass(frozen=True)
class Measured:
    """The figures of an evaluation.

    Attributes:
        figures: by name, over all examples.
        languages: the same for each language, by its code; empty where a file says none, and without a language of
            which no token has a label.
        counts: examples of each language; of language models, tokens that have a label.
        examples: how many there are of all languages; the same.
        confusion: how often each label (rows) was answered by each (columns), integers (K, K).
        only_answer: the one answer that all examples got although several are right; else empty.
    """

    figures: Figures
    languages: Mapping[str, Figures] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    examples: int = 0
    confusion: NDArray[np.int64] | None = None
    only_answer: str = ""


def kind_of(task: TrainingTask) -> str:
    """What is counted of a task: its problem, where it has several, else its name."""
    kind = task.problem or task.name
    if kind == "token-classification" and is_of_entities(task.labels):
        return "entities"
    return SCORED_PAIRS if kind == "sentence-embedding" and task.metric == "spearman" else kind


def measure(kind: str, answers: Answers, labels: Sequence[str] = ()) -> Measured:
    """The figures of the answers to an evaluation.

    Args:
        kind: as :func:`kind_of` says.
        answers: to its examples.
        labels: the names of labels, in the order of their numbers.

    Raises:
        TrainingError: for an evaluation without examples.
    """
    if not answers.predicted:
        raise TrainingError("expected examples to evaluate on, received none; give a file that has some as eval")
    rows: dict[str, list[int]] = {}
    for number, language in enumerate(answers.languages):
        if language:
            rows.setdefault(language, []).append(number)
    counts = {language: _size(kind, answers, where) for language, where in sorted(rows.items())}
    counts = {language: count for language, count in counts.items() if count}
    return Measured(
        figures=_figures(kind, answers, range(len(answers.predicted))),
        languages={language: _figures(kind, answers, rows[language]) for language in counts},
        counts=counts,
        examples=_size(kind, answers, range(len(answers.predicted))),
        confusion=_confusion(kind, answers, labels),
        only_answer=_only_answer(kind, answers, labels),
    )


def is_of_entities(tags: Iterable[str]) -> bool:
    """Whether tags are of the kind ``B-PER``, ``I-PER``, ``O``."""
    there = set(tags)
    return any(tag[:2] in ("B-", "I-") for tag in there) and all(tag == "O" or tag[1:2] == "-" for tag in there)


def _figures(kind: str, answers: Answers, rows: Iterable[int]) -> Figures:
    sides = (answers.predicted, answers.gold, answers.languages)
    counted = COUNTERS[kind](*([side[row] for row in rows] for side in sides))
    return {name: float(value) for name, value in counted.items()}


def _size(kind: str, answers: Answers, rows: Iterable[int]) -> int:
    """How many examples; of language models, whose rows are batches, how many tokens."""
    rows = list(rows)
    return sum(int(answers.gold[row]) for row in rows) if COUNTERS[kind] is _language_modeling else len(rows)


def _confusion(kind: str, answers: Answers, labels: Sequence[str]) -> NDArray[np.int64] | None:
    """Of labels that exclude each other."""
    if not labels or COUNTERS[kind] not in (_classes, *TAGS):
        return None
    right, answered = list(answers.gold), list(answers.predicted)
    if COUNTERS[kind] in TAGS:
        numbers = {label: number for number, label in enumerate(labels)}
        right, answered = ([numbers[tag] for tags in side for tag in tags] for side in (right, answered))
    counts: NDArray[np.int64] = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (np.array(right, int), np.array(answered, int)), 1)
    return counts


def _only_answer(kind: str, answers: Answers, labels: Sequence[str]) -> str:
    """The one answer to everything, where several are right."""
    if kind not in COMPARED:
        return ""
    predicted, gold = answers.predicted, answers.gold
    counter = COUNTERS[kind]
    if counter in TAGS:
        predicted, gold = ([tag for tags in side for tag in tags] for side in (predicted, gold))
    elif counter is _questions:
        gold = [right[0] if right else "" for right in gold]
    elif counter is _ranks:
        predicted, gold = ([score for scores in side for score in scores] for side in (predicted, gold))
    elif counter is _several_labels:
        predicted, gold = (list(map(tuple, side)) for side in (predicted, gold))
    if counter in (_numbers, _ranks):
        is_flat = len(predicted) > 1 and np.std(predicted) < FLAT * np.std(gold)
        return f"{np.mean(predicted):.4g}" if is_flat else ""
    if len(set(predicted)) != 1 or len(set(gold)) == 1:
        return ""
    answer = predicted[0]
    if counter is _classes and labels:
        answer = labels[int(answer)]
    elif counter is _several_labels and labels:
        answer = [label for label, one in zip(labels, answer, strict=True) if one]
    return f"choice {answer}" if counter is _choices else repr(answer)


# ---- Counting, by task. Each takes what was answered, what is right, and the language of all of it


def _language_modeling(losses: Sequence[float], tokens: Sequence[int], languages: Sequence[str]) -> Figures:
    # A batch without a label has no loss.
    both = [(loss, count) for loss, count in zip(losses, tokens, strict=True) if count]
    loss = sum(loss * count for loss, count in both) / sum(count for _, count in both) if both else math.nan
    return {"perplexity": math.exp(loss) if loss < 700 else math.inf, "loss": loss}


def _classes(predicted: Sequence[Any], gold: Sequence[Any], languages: Sequence[str]) -> Figures:
    from sklearn.metrics import accuracy_score, f1_score

    there = sorted(set(gold))
    f1 = f1_score(gold, predicted, labels=there, average="macro", zero_division=0)
    return {"accuracy": accuracy_score(gold, predicted), "f1": f1}


def _numbers(predicted: Sequence[float], gold: Sequence[float], languages: Sequence[str]) -> Figures:
    return {**_correlations(predicted, gold), "mse": float(np.mean((np.array(predicted) - np.array(gold)) ** 2))}


def _correlations(predicted: Sequence[float], gold: Sequence[float]) -> Figures:
    """Of numbers that are all the same, or a single one, there is no correlation: 0."""
    from scipy.stats import rankdata  # comes with scikit-learn

    x, y = np.array(predicted, float), np.array(gold, float)
    return {"pearson": _pearson(x, y), "spearman": _pearson(rankdata(x), rankdata(y))}


def _pearson(x: NDArray[Any], y: NDArray[Any]) -> float:
    if len(x) < 2 or not x.std() or not y.std():
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _several_labels(predicted: Sequence[Any], gold: Sequence[Any], languages: Sequence[str]) -> Figures:
    from sklearn.metrics import accuracy_score, f1_score

    answered, right = np.array(predicted, int), np.array(gold, int)
    there = np.flatnonzero(right.any(axis=0))
    return {
        "f1": f1_score(right, answered, average="micro", zero_division=0),
        "f1_macro": f1_score(right, answered, labels=there, average="macro", zero_division=0) if len(there) else 0.0,
        "accuracy": accuracy_score(right, answered),
    }


def _tags(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], languages: Sequence[str]) -> Figures:
    answered, right = ([tag for tags in side for tag in tags] for side in (predicted, gold))
    flat = _classes(answered, right, languages)
    return {"f1": flat["f1"], "accuracy": flat["accuracy"]}


def _entities(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], languages: Sequence[str]) -> Figures:
    from seqeval.metrics import f1_score, precision_score, recall_score

    both = [list(map(list, gold)), list(map(list, predicted))]
    scores = (("f1", f1_score), ("precision", precision_score), ("recall", recall_score))
    figures = {name: score(*both, zero_division=0) for name, score in scores}
    return {**figures, "accuracy": _tags(predicted, gold, languages)["accuracy"]}


def _questions(predicted: Sequence[str], gold: Sequence[Sequence[str]], languages: Sequence[str]) -> Figures:
    both = np.array([overlap(*one) for one in zip(predicted, gold, languages, strict=True)])
    return {"f1": both[:, 1].mean(), "exact_match": both[:, 0].mean()}


def _choices(predicted: Sequence[int], gold: Sequence[int], languages: Sequence[str]) -> Figures:
    return {"accuracy": float(np.mean(np.array(predicted) == np.array(gold)))}


def _embeddings(predicted: Sequence[Any], gold: Sequence[Any], languages: Sequence[str]) -> Figures:
    vectors, right = _directions(predicted), 0.0
    for language in sorted(set(languages)):
        own = [row for row, one in enumerate(languages) if one == language]
        firsts, others = zip(*(gold[row] for row in own), strict=True)
        right += _nearest(vectors[own, 0], vectors[own, 1], firsts, others)
        right += _nearest(vectors[own, 1], vectors[own, 0], others, firsts)
    return {"accuracy": right / (2 * len(vectors))}


def _scored_pairs(predicted: Sequence[Any], gold: Sequence[float], languages: Sequence[str]) -> Figures:
    vectors = _directions(predicted)
    figures = _correlations((vectors[:, 0] * vectors[:, 1]).sum(axis=-1).tolist(), gold)
    return {name: figures[name] for name in ("spearman", "pearson")}


def _directions(predicted: Sequence[Any]) -> NDArray[np.float64]:
    """The first two vectors of each, of length one, (N, 2, D)."""
    vectors = np.stack([np.asarray(pair, np.float64)[:2] for pair in predicted])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors


def _nearest(
    from_ND: NDArray[Any], to_ND: NDArray[Any], firsts: Sequence[str], others: Sequence[str], at_once: int = 1024
) -> float:
    """How many vectors are nearest to one that belongs to them: that of a row with the same text on either side.

    Args:
        from_ND, to_ND: of the same rows.
        firsts, others: the texts of the two, or the ids in place of both.
        at_once: rows that are compared with all.
    """
    first_N, other_N = (np.unique(np.array(side), return_inverse=True)[1] for side in (firsts, others))
    right = 0.0
    for begin in range(0, len(from_ND), at_once):
        own = slice(begin, begin + at_once)
        cosines = from_ND[own] @ to_ND.T
        nearest = cosines >= cosines.max(axis=1, keepdims=True) - EQUAL
        belongs = (first_N[own, None] == first_N) | (other_N[own, None] == other_N)
        right += float(((nearest & belongs).sum(axis=1) / nearest.sum(axis=1)).sum())
    return right


def _ranks(predicted: Sequence[Any], gold: Sequence[Any], languages: Sequence[str]) -> Figures:
    """The right passage is the first of each; of equal scores it counts as the last."""
    places = np.array([1 + int((np.asarray(scores)[1:] >= np.asarray(scores)[0]).sum()) for scores in predicted])
    return {"mrr": float(np.mean(1 / places)), "accuracy": float(np.mean(places == 1))}


TAGS = (_tags, _entities)
Counter: TypeAlias = Callable[[Sequence[Any], Sequence[Any], Sequence[str]], Mapping[str, float]]
COUNTERS: dict[str, Counter] = {
    "masked-language-modeling": _language_modeling,
    "causal-language-modeling": _language_modeling,
    "single_label_classification": _classes,
    "multi_label_classification": _several_labels,
    "regression": _numbers,
    "token-classification": _tags,
    "entities": _entities,
    "question-answering": _questions,
    "multiple-choice": _choices,
    "sentence-embedding": _embeddings,
    SCORED_PAIRS: _scored_pairs,
    "rerank": _ranks,
}
# Kinds of which ``Measured.only_answer`` says whether all answers are one; of a reranker all scores.
_WITH_ANSWERS = (_classes, _several_labels, _numbers, *TAGS, _questions, _choices, _ranks)
COMPARED = tuple(kind for kind, counter in COUNTERS.items() if counter in _WITH_ANSWERS)
# The names of figures, by which a recipe can say what is best.
_LOSS = ("perplexity", "loss")
FIGURES: dict[str, Sequence[str]] = {
    "masked-language-modeling": _LOSS,
    "causal-language-modeling": _LOSS,
    "single_label_classification": ("accuracy", "f1"),
    "multi_label_classification": ("f1", "f1_macro", "accuracy"),
    "regression": ("pearson", "spearman", "mse"),
    "token-classification": ("f1", "accuracy"),
    "entities": ("f1", "precision", "recall", "accuracy"),
    "question-answering": ("f1", "exact_match"),
    "multiple-choice": ("accuracy",),
    "sentence-embedding": ("accuracy",),
    SCORED_PAIRS: ("spearman", "pearson"),
    "rerank": ("mrr", "accuracy"),
}
# Of these, less is better.
LOWER = ("perplexity", "loss", "mse")
