"""``Batches``: the batch of a step, a pure function of the seed and the step; ``Evaluation``: all rows once, in order.

Nothing is carried from one step to the next, so a run that goes on needs the number of its step and nothing else, and
every process of a run over several devices can ask for its own part.

An epoch is laid out at once: which rows it reads (languages drawn by ``alpha``), in random order; rows of similar
length share a batch, because pools of the random order are sorted; the batches come in random order again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.features import Features
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import Answers, TrainingTask

__all__ = ["Batches", "Evaluation", "cut_by_tokens", "language_quotas"]

# Batches of a pool, whose rows are sorted by length together.
POOL = 50
# What chance is for: NumPy takes a seed that ends with zeros for the seed without them, so this stands first.
ORDER, BATCH, LANGUAGE, EVALUATION = 1, 2, 3, 4


class Batches:
    """The batches of a run.

    Args:
        task: what makes arrays of rows.
        features: the rows.
        recipe: ``seed``, ``batch_size`` and ``alpha`` are read.
        multiple: rows are padded to a multiple of this, for backends that compile for each shape.

    Raises:
        InputError: if there are no rows.
    """

    def __init__(self, task: TrainingTask, features: Features, recipe: Recipe, multiple: int = 1) -> None:
        if not len(features):
            raise InputError("expected rows to train on, received none; check train and languages of the recipe")
        self.task, self.features, self.recipe, self.multiple = task, features, recipe, multiple
        kinds, counts = np.unique(features.kinds, return_counts=True)
        self._kinds = kinds
        self._size = min(recipe.batch_size, int(counts.min())) if len(kinds) == 1 else recipe.batch_size
        self._laid_out: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        # With languages drawn anew, the rows of a kind are other ones in each epoch, but as many batches are cut.
        self._count = sum(-(-int(count) // self._size) for count in counts)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._count

    def __getitem__(self, step: int) -> Arrays:
        """The batch of a step, counted from 0; see ``task.py`` for what is in it."""
        random = np.random.default_rng([BATCH, self.recipe.seed, step])
        features = self.task.draw(self.features, self.numbers(step), random)
        return self.task.collate(features, random, self.multiple)

    def numbers(self, step: int) -> NDArray[np.int64]:
        """Which features make the batch of a step, (B,)."""
        epoch, place = divmod(step, len(self))
        if self._laid_out[0] != epoch:
            self._laid_out = (epoch, self._lay_out(epoch))
        return self._laid_out[1][place]

    def _lay_out(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([ORDER, self.recipe.seed, epoch])
        lengths, found = self.features.lengths, []
        for kind in self._kinds:
            (members,) = np.nonzero(self.features.kinds == kind)
            order = random.permutation(self._drawn(members, epoch))
            # The last batch is filled up from the beginning, so that all have one shape.
            order = np.resize(order, -(-len(order) // self._size) * self._size)
            for begin in range(0, len(order), POOL * self._size):
                pool = order[begin : begin + POOL * self._size]
                pool = pool[np.argsort(-lengths[pool], kind="stable")]
                found += list(pool.reshape(-1, self._size))
        return [found[place] for place in random.permutation(len(found))]

    def _drawn(self, members: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch: as many as there are, but of each language its share to the power ``alpha``."""
        language = self.features.language[members]
        codes, counts = np.unique(language, return_counts=True)
        if self.recipe.alpha == 1.0 or len(codes) == 1:
            return members
        quotas = language_quotas(counts, self.recipe.alpha)
        drawn = []
        for code, count, quota in zip(codes.tolist(), counts.tolist(), quotas, strict=True):
            own = members[language == code]
            places = np.arange(epoch * quota, (epoch + 1) * quota)
            for turn in range(int(places[0]) // count, int(places[-1]) // count + 1) if quota else ():
                random = np.random.default_rng([LANGUAGE, self.recipe.seed, code, turn])
                drawn.append(random.permutation(own)[places[places // count == turn] % count])
        return np.concatenate(drawn)


class Evaluation:
    """All rows once, those of one length together: ``evaluation[i]`` is a batch, ``answers`` what a metric reads.

    Args:
        task: what makes arrays of rows.
        features: the rows.
        recipe: ``seed`` and ``batch_size`` are read.
        multiple: as of :class:`Batches`.

    Raises:
        InputError: if there are no rows.
    """

    def __init__(self, task: TrainingTask, features: Features, recipe: Recipe, multiple: int = 1) -> None:
        if not len(features):
            raise InputError("expected rows to evaluate on, received none; check eval and test of the recipe")
        self.task, self.features, self.recipe, self.multiple = task, features, recipe, multiple
        # What a batch has one answer for is kept apart by language.
        kinds = features.language if task.by_batch else features.kinds
        order = np.lexsort((-features.lengths, kinds))
        ends = np.flatnonzero(np.diff(kinds[order])) + 1
        self._batches = [
            part[begin : begin + recipe.batch_size]
            for part in np.split(order, ends)
            for begin in range(0, len(part), recipe.batch_size)
        ]

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Arrays]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Arrays:
        """A batch; the last of a kind has fewer rows than ``batch_size``."""
        random = np.random.default_rng([EVALUATION, self.recipe.seed, index])
        features = self.task.draw(self.features, self._batches[index], random)
        return self.task.collate(features, random, self.multiple)

    def numbers(self, index: int) -> NDArray[np.int64]:
        """Which features make a batch, (B,)."""
        return self._batches[index]

    def answers(self, results: Iterable[tuple[Arrays, Arrays]]) -> Answers:
        """What a metric reads.

        Args:
            results: each batch of this evaluation, in order, and the outputs of the model for it, float32:
                those that ``task.outputs`` names.
        """
        if self.task.by_batch:
            return self._answers_of_batches(results)
        waiting: dict[int, dict[int, Arrays]] = {}
        found: dict[int, tuple[object, object]] = {}
        for index, (_, outputs) in enumerate(results):
            numbers = self._batches[index]
            for row, number in enumerate(numbers.tolist()):
                example = int(self.features.example[number])
                own = waiting.setdefault(example, {})
                own[number] = {name: _row(outputs[name], len(numbers), row) for name in self.task.outputs}
                if len(own) == self.features.windows(example):
                    features = self.features.take(sorted(own))
                    given = [own[number] for number in sorted(own)]
                    found[example] = self.task.answer(self.features.examples[example], features, given)
                    del waiting[example]
        order = sorted(found)
        return Answers(
            [found[example][0] for example in order],
            [found[example][1] for example in order],
            [self.features.language_of(example) for example in order],
        )

    def _answers_of_batches(self, results: Iterable[tuple[Arrays, Arrays]]) -> Answers:
        answers = Answers()
        for index, (batch, outputs) in enumerate(results):
            answers.predicted.append(float(outputs["loss"]))
            answers.gold.append(self.task.counted(batch))
            answers.languages.append(self.features.languages[int(self.features.language[self._batches[index][0]])])
        return answers


def _row(array: NDArray[np.generic], rows: int, row: int) -> NDArray[np.generic]:
    """What a model gave for one row: (...), or (k, ...) where each row of the batch is several of the model."""
    return array[row] if len(array) == rows else array.reshape(-1, rows, *array.shape[1:])[:, row]


def language_quotas(counts: NDArray[np.int64], alpha: float) -> list[int]:
    """How many rows of each language make an epoch, as many as there are rows in all: exponential smoothing as in
    Conneau et al. 2020, section 3, ``q = n ** alpha / sum(n ** alpha)``.

    Args:
        counts: rows of each language, above 0.
        alpha: 1.0 keeps the shares, 0.0 makes them equal.
    """
    weights = np.asarray(counts, np.float64) ** alpha
    exact = weights / weights.sum() * int(np.sum(counts))
    quotas = np.floor(exact).astype(np.int64)
    most_left = np.argsort(quotas - exact, kind="stable")[: int(np.sum(counts)) - int(quotas.sum())]
    quotas[most_left] += 1
    return [int(quota) for quota in quotas]


def cut_by_tokens(lengths: NDArray[np.integer], tokens: int, seed: int, pool: int) -> list[NDArray[np.int64]]:
    """All rows in random order as batches of about so many padded tokens, rows of similar length together.

    Args:
        lengths: tokens of each row.
        tokens: of a batch, padding counted; a longer row is a batch of its own.
        seed: of the order.
        pool: rows that are sorted together.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    found: list[NDArray[np.int64]] = []
    for begin in range(0, len(order), pool):
        block = order[begin : begin + pool]
        block = block[np.argsort(-lengths[block], kind="stable")]
        cut: list[NDArray[np.int64]] = []
        while len(block):
            size = max(1, tokens // int(lengths[block[0]]))
            cut.append(block[:size])
            block = block[size:]
        found += [cut[i] for i in random.permutation(len(cut))]
    return found
