"""What the ready-made models are compared with: nothing that knows of order, context or other languages.

Each looks at the same training rows and the same test rows as the model beside it.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from weights.maker import languages, parallel, pieces
from xlmr_core.training.batches import Evaluation
from xlmr_core.training.judging import Judge
from xlmr_core.training.metrics import Measured, kind_of, measure
from xlmr_core.training.run import Run
from xlmr_core.training.task import Answers, Feature

AROUND = 8  # pieces on either side of an answer
STRENGTH, ROUNDS = 10.0, 100  # of the regression: the inverse of its penalty, and its steps at most

Beside: TypeAlias = Callable[[Evaluation], Measured]
"""What a baseline finds of the rows of a test."""


def bag_of_pieces(run: Run) -> Beside:
    """How often each piece of the vocabulary is in a text, and one linear layer (logistic regression) on these counts.

    The two texts of a pair are counted apart.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    size, rows = len(run.task.tokenizer), _all(run.batches.features)
    model = LogisticRegression(C=STRENGTH, max_iter=ROUNDS)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        model.fit(counts(rows, size), _labels(rows))

    def measured(test: Evaluation) -> Measured:
        right = _all(test.features)
        return _measured(test, model.predict(counts(right, size)).tolist(), _labels(right))

    return measured


def counts(rows: Sequence[Feature], size: int) -> Any:
    """Counts of the pieces of texts and of pairs, each row of length one, (N, 2 size), sparse."""
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    columns, ends = [], [0]
    for row in rows:
        ids = row.arrays["input_ids"]
        side = np.cumsum(ids == pieces.END) > 0
        columns.append((ids + size * side)[ids >= pieces.FIRST])
        ends.append(ends[-1] + len(columns[-1]))
    found = np.concatenate(columns)
    matrix = csr_matrix((np.ones(len(found), np.float32), found, ends), shape=(len(rows), 2 * size))
    matrix.sum_duplicates()
    return normalize(matrix)


def bag_of_lines(run: Run) -> Beside:
    """The same for languages, by steps of Adam on all lines that the model beside it learned from in either way."""
    data, names = Path(run.recipe.train[0]).parents[1], list(run.task.labels)
    texts, labels_N = languages.lines_of(data, names)
    ids, size = languages.ids_of(texts)
    own = _all(run.batches.features)
    ids += map(pieces.pieces_of, own)
    bag = pieces.bag_of(ids, np.append(labels_N, _labels(own)), size, len(names), width=0)

    def measured(test: Evaluation) -> Measured:
        right = _all(test.features)
        predicted = pieces.logits_of(bag, [*map(pieces.pieces_of, right)]).argmax(axis=1)
        return _measured(test, predicted.tolist(), _labels(right))

    return measured


def tag_of_word(run: Run) -> Beside:
    """The tag that a word has most often in its language, else in any, else the tag that most words have."""
    own: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    any_language: dict[str, Counter[str]] = defaultdict(Counter)
    all_tags: Counter[str] = Counter()
    for example in run.batches.features.examples:
        for word, tag in zip(example["tokens"], example["tags"], strict=True):
            own[example["language"], word][tag] += 1
            any_language[word][tag] += 1
            all_tags[tag] += 1
    usual = all_tags.most_common(1)[0][0]

    def tag_of(language: str, word: str) -> str:
        known = own.get((language, word)) or any_language.get(word)
        return known.most_common(1)[0][0] if known else usual

    def measured(test: Evaluation) -> Measured:
        examples = test.features.examples
        predicted = [[tag_of(one["language"], word) for word in one["tokens"]] for one in examples]
        return _measured(test, predicted, [list(one["tags"]) for one in examples])

    return measured


def bag_of_sentences(run: Run) -> Beside:
    """Sums of vectors of pieces, which were trained as the model beside it was: what that starts from."""
    vectors_VF = torch.from_numpy(pieces.read_vectors(run.folder.parent / parallel.VECTORS)[0])

    def measured(test: Evaluation) -> Measured:
        sides = [[pieces.inner(ids) for ids in row.kept["texts"]] for row in _all(test.features)]
        predicted = [pieces.sums(vectors_VF, pair).numpy() for pair in sides]
        gold = [[one["text"], one["other"]] for one in test.features.examples]
        return _measured(test, predicted, gold)

    return measured


def words_of_question(run: Run) -> Beside:
    """So many pieces as answers have, near which most of the question's stand, rare and near ones for more, and which
    have none of these themselves.
    """
    rows = _all(run.batches.features)
    seen_V = np.bincount(np.concatenate([np.unique(row.arrays["input_ids"]) for row in rows]))
    spans = [(int(row.arrays["start_positions"]), int(row.arrays["end_positions"])) for row in rows]
    usual = int(np.median([end - start + 1 for start, end in spans if start]))
    nearness = np.bartlett(usual + 2 * AROUND + 2)[1:-1]

    def predict(batch: Any) -> dict[str, Any]:
        ids_BS = batch["input_ids"]
        sides = {name: np.full(ids_BS.shape, -1.0, np.float32) for name in ("start_logits", "end_logits")}
        for row, ids_S in enumerate(ids_BS):
            first, second, last = np.flatnonzero(ids_S == pieces.END)[:3]
            context = ids_S[second + 1 : last]
            if len(context) < usual:
                continue
            rare = np.log(len(rows) / (1 + np.take(seen_V, context, mode="clip")))
            shared = np.where(np.isin(context, ids_S[1:first]), rare, 0)
            inside = np.convolve(shared, np.ones(usual), mode="valid")
            around = np.convolve(shared, nearness)[AROUND + usual - 1 :][: len(inside)]
            best = int((around - 3 * inside).argmax())
            place = second + 1 + best
            sides["start_logits"][row, place] = sides["end_logits"][row, place + usual - 1] = around[best]
        return sides

    return lambda test: Judge(run.recipe, run.task).measured(test, predict)


def _all(features: Any) -> list[Feature]:
    return list(features.take(range(len(features))))


def _labels(rows: Sequence[Feature]) -> list[int]:
    return [int(row.arrays["labels"]) for row in rows]


def _measured(test: Evaluation, predicted: list[Any], gold: list[Any]) -> Measured:
    spoken = [test.features.language_of(number) for number in range(len(predicted))]
    return measure(kind_of(test.task), Answers(predicted, gold, spoken), test.task.labels)


# By name: what to call it, and the function.
BASELINES: dict[str, tuple[str, Callable[[Run], Beside]]] = {
    "bag": ("a bag of pieces with one linear layer, which learned from the same rows", bag_of_pieces),
    "lines": ("a bag of pieces with one linear layer, which learned from the same rows and lines", bag_of_lines),
    "word": ("the tag that each word usually has in the same rows", tag_of_word),
    "sentences": ("a bag of pieces, which learned from the same rows", bag_of_sentences),
    "question": ("the words around which most words of the question stand", words_of_question),
}
