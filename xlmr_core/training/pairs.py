"""Texts that belong together: sentence embeddings, and rerankers.

What does not belong to a text are the others of its batch (embeddings; Chen et al. 2017, section 4.2, call it in-batch
negatives), or passages that are drawn from those of its language (rerankers).
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.jobs.rows import list_in
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.parts import rows_in
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import Example, Feature, TrainingTask, is_number, text_in
from xlmr_core.wording import shown

if TYPE_CHECKING:
    from xlmr_core.training.features import Features

__all__ = ["NO_SCORE", "SCORE", "Rerank", "SentenceEmbedding"]

# What a row of an embedding is: a pair with a score, two texts, three, or one of those that share an id.
SCORED, PAIR, TRIPLE, PARALLEL = range(4)
SCORE, NO_SCORE = "score", "no score"
# Passages that are tried at once for the negatives of a query; one may stand in the data several times.
TRIED = 256


class SentenceEmbedding(TrainingTask):
    """A vector for a text, near to those of texts that belong to it.

    A file has pairs (``text`` and ``other``), triples (and ``negative``), pairs with a ``score``, or texts with an
    ``id``: those of one id, such as a sentence in several languages, belong together, and at each step another of them
    is drawn. A text whose id stands alone belongs to itself, seen through other dropout (Gao et al. 2021).
    """

    name = "sentence-embedding"
    auto = "AutoModel"
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "text": ("anchor", "query", "text1", "sentence1", "sentence", "premise", "question"),
        "other": ("positive", "text_en", "text2", "sentence2", "hypothesis", "passage", "context"),
        "negative": (),
        "score": ("similarity",),
        "id": (),
    }
    optional: ClassVar[Sequence[str]] = ("other", "negative", "score", "id")
    outputs: ClassVar[Sequence[str]] = ("embeddings",)
    at_once = True

    def __init__(self, recipe: Recipe, tokenizer: Any, labels: Sequence[str] = (), problem: str = "") -> None:
        super().__init__(recipe, tokenizer, (), "")
        # Data says by its labels whether pairs have scores; see labels_of.
        self.metric = "spearman" if SCORE in labels else "accuracy"
        self._members: tuple[int, dict[str, NDArray[np.int64]]] = (0, {})

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """A text with what belongs to it; see the class."""
        found: Example = {"text": text_in(row, "text")}
        if "other" not in row:
            own = row.get("id")
            if not isinstance(own, str | int):
                raise InputError(f"expected a column 'other' or an 'id', received {shown(own, 60)}")
            return {**found, "id": str(own)}
        found["other"] = text_in(row, "other")
        score = row.get("score")
        if score not in (None, ""):
            if not is_number(score):
                raise InputError(f"expected a score, a finite number, received {shown(score, 60)}")
            return {**found, "score": float(score)}
        return {**found, "negative": text_in(row, "negative")} if row.get("negative") else found

    @classmethod
    def labels_of(cls, example: Example) -> Sequence[Any]:
        """``score`` of a pair that has one, ``no score`` of any other row."""
        return (SCORE,) if "score" in example else (NO_SCORE,)

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Each text by itself."""
        sides = ("text", "other", "negative")
        texts = [example[side] for example in examples for side in sides if side in example]
        limit = self.recipe.max_length
        rows = iter(self.tokenizer(texts, truncation=True, max_length=limit, verbose=False)["input_ids"])
        found = []
        for example in examples:
            own = [np.array(next(rows), np.int64) for side in sides if side in example]
            together: str = example["id"] if "id" in example else example["other"]
            arrays: Arrays = {"input_ids": own[0], "group": np.array(zlib.crc32(together.encode("utf-8", "replace")))}
            if "score" in example:
                arrays["labels"] = np.array(example["score"], np.float32)
            found.append([Feature(arrays, {"texts": own, "id": example.get("id", "")})])
        return found

    def ids(self, feature: Feature) -> Sequence[NDArray[np.int64]]:
        """Of all texts of a row."""
        texts: Sequence[NDArray[np.int64]] = feature.kept["texts"]
        return texts

    def kind(self, feature: Feature) -> int:
        """What a row is, see ``SCORED``: a batch has as many texts of each."""
        if "labels" in feature.arrays:
            return SCORED
        return {1: PARALLEL, 2: PAIR, 3: TRIPLE}[len(feature.kept["texts"])]

    def counted(self, batch: Arrays) -> int:
        """Rows, whatever they are: a pair, a triple, or one with a score."""
        return rows_in(batch)

    def draw(self, features: Features, numbers: NDArray[np.int64], random: np.random.Generator) -> list[Feature]:
        """Rows of an id get another text of it."""
        found = features.take(numbers)
        if self.kind(found[0]) != PARALLEL:
            return found
        members = self._of_ids(features)
        drawn = []
        for number, feature in zip(numbers.tolist(), found, strict=True):
            others = members[feature.kept["id"]]
            others = others[others != number]
            other = features.take([random.choice(others)])[0] if len(others) else feature
            texts = [*feature.kept["texts"], *other.kept["texts"]]
            drawn.append(Feature(feature.arrays, {**feature.kept, "texts": texts}))
        return drawn

    def _of_ids(self, features: Features) -> dict[str, NDArray[np.int64]]:
        """Which features each id has; looked for once."""
        if self._members[0] != id(features):
            found: dict[str, list[int]] = {}
            for number, feature in enumerate(features.take(range(len(features)))):
                found.setdefault(feature.kept["id"], []).append(number)
            self._members = (id(features), {own: np.array(numbers) for own, numbers in found.items()})
        return self._members[1]

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """All first texts, then those that belong to them, then those that do not."""
        sides = zip(*(feature.kept["texts"] for feature in features), strict=True)
        rows = [Feature({"input_ids": row}) for side in sides for row in side]
        name = "labels" if "labels" in features[0].arrays else "group"
        return {**self.padded(rows, multiple), name: np.stack([feature.arrays[name] for feature in features])}

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """The vectors (k, D), and the score of a pair that has one, else its texts, or its id in place of both."""
        texts = [example.get("id", example["text"]), example.get("id", example.get("other"))]
        return outputs[0]["embeddings"], example.get("score", texts)


class Rerank(TrainingTask):
    """How well a passage answers a query: one logit for both together, by binary cross-entropy.

    A row is a query with its passage, and perhaps a list of passages that are none; otherwise ``recipe.negatives`` of
    the passages of the same language are drawn at each step, but none that stands in any row as that of the query.
    """

    name = "rerank"
    auto = "AutoModelForSequenceClassification"
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "query": ("question", "anchor", "text"),
        "passage": ("positive", "context", "text2", "text_en"),
        "negatives": ("negative",),
    }
    optional: ClassVar[Sequence[str]] = ("negatives",)
    metric = "mrr"
    at_once = True

    def __init__(self, recipe: Recipe, tokenizer: Any, labels: Sequence[str] = (), problem: str = "") -> None:
        super().__init__(recipe, tokenizer, labels, problem)
        self._right: WeakKeyDictionary[Features, dict[tuple[int, ...], list[list[int]]]] = WeakKeyDictionary()

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """A query, its passage, and perhaps others: a text, or a list of texts, in a cell of csv as JSON."""
        found: Example = {"query": text_in(row, "query"), "passage": text_in(row, "passage")}
        others = row.get("negatives")
        if isinstance(others, str) and others:
            several = list_in(others)
            others = [others] if several is None else several
        if others in (None, "", []):
            return found
        if not isinstance(others, list) or not all(isinstance(one, str) and one.strip() for one in others):
            raise InputError(f"expected negatives to be a list of texts, received {shown(others, 60)}")
        return {**found, "negatives": others}

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """The query and each passage, a row each; passages are kept, to be drawn for other queries."""
        found = []
        for example in examples:
            texts = [example["query"], example["passage"], *example.get("negatives", ())]
            ids = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            kept = {"query": ids[0], "passages": ids[1:], "is_drawn": "negatives" not in example}
            found.append([Feature({"input_ids": self._row(ids[0], ids[1])}, kept)])
        return found

    def _row(self, query: list[int], passage: list[int]) -> NDArray[np.int64]:
        """``<s> query </s></s> passage </s>``; the end of what is longer is cut off."""
        whole = self.tokenizer.build_inputs_with_special_tokens
        room = self.recipe.max_length - len(whole([], []))
        own = query[: max(room // 2, room - len(passage))]
        return np.array(whole(own, passage[: room - len(own)]), np.int64)

    def check_rows(self, features: Features) -> None:
        """Each query without passages of its own finds as many in its language as are to be drawn."""
        wanted = self.recipe.negatives
        rows = features.take(range(len(features)))
        passages = [
            (int(code), tuple(row.kept["passages"][0])) for code, row in zip(features.language, rows, strict=True)
        ]
        of_language, of_passage = Counter(code for code, _ in passages), Counter(passages)
        right = self._right_of(features)
        for number, (row, (code, _)) in enumerate(zip(rows, passages, strict=True)):
            if not row.kept["is_drawn"]:
                continue
            if not wanted:
                raise InputError(
                    "expected other passages to compare that of a query with, received a row without negatives and the "
                    "recipe's negatives=0; leave that out, or give each row its negatives"
                )
            own = {tuple(passage) for passage in right[tuple(row.kept["query"])]}
            if of_language[code] - sum(of_passage[code, passage] for passage in own) < wanted:
                raise InputError(
                    f"expected {wanted} other passages for each query, found fewer in "
                    f"{features.language_of(int(features.example[number])) or 'the data'}; give more rows, or fewer "
                    "negatives in the recipe"
                )

    def ids(self, feature: Feature) -> Sequence[NDArray[np.int64]]:
        """Of the row, and of what other rows are made of it."""
        kept = feature.kept
        return [feature.arrays["input_ids"], *(np.array(own, np.int64) for own in (kept["query"], *kept["passages"]))]

    def kind(self, feature: Feature) -> int:
        """How many passages are none: a batch has as many for each query."""
        return -1 if feature.kept["is_drawn"] else len(feature.kept["passages"])

    def draw(self, features: Features, numbers: NDArray[np.int64], random: np.random.Generator) -> list[Feature]:
        """Queries without such passages get some of their language, of which none is right for them."""
        found = features.take(numbers)
        if not found[0].kept["is_drawn"]:
            return found
        right, drawn = self._right_of(features), []
        for number, feature in zip(numbers.tolist(), found, strict=True):
            (others,) = np.nonzero(features.language == features.language[number])
            own = right[tuple(feature.kept["query"])]
            passages: list[list[int]] = []
            # A passage may stand there several times, with other queries.
            order = random.permutation(others)
            for begin in range(0, len(order), TRIED):
                for other in features.take(order[begin : begin + TRIED]):
                    passage = other.kept["passages"][0]
                    if passage not in own and len(passages) < self.recipe.negatives:
                        passages.append(passage)
                if len(passages) == self.recipe.negatives:
                    break
            passages.insert(0, feature.kept["passages"][0])
            drawn.append(Feature(feature.arrays, {**feature.kept, "passages": passages}))
        return drawn

    def _right_of(self, features: Features) -> dict[tuple[int, ...], list[list[int]]]:
        """The passages that stand in some row as that of a query, by query; looked for once in rows to train on, and
        once in those to evaluate on.
        """
        if features not in self._right:
            found = self._right[features] = {}
            for row in features.take(range(len(features))):
                own = found.setdefault(tuple(row.kept["query"]), [])
                if row.kept["passages"][0] not in own:
                    own.append(row.kept["passages"][0])
        return self._right[features]

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """All right passages, then the others, each with its query; labels 1 and 0."""
        sides = zip(*(feature.kept["passages"] for feature in features), strict=True)
        rows = [
            Feature({"input_ids": self._row(feature.kept["query"], passage)})
            for side in sides
            for feature, passage in zip(features, side, strict=True)
        ]
        labels = np.zeros((len(rows), 1), np.float32)
        labels[: len(features)] = 1
        return {**self.padded(rows, multiple), "labels": labels}

    def settings(self) -> dict[str, Any]:
        """One logit, whose loss is binary cross-entropy."""
        return {"num_labels": 1, "problem_type": "multi_label_classification"}

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """The scores of the passages, of which the first is the right one."""
        scores = outputs[0]["logits"].reshape(-1).tolist()
        return scores, [1, *[0] * (len(scores) - 1)]
