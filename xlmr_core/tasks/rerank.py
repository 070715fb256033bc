"""Rerank: passages in the order in which they answer a query, by a model that reads both together.

A query and a list of passages are answered by a list of ``{"index", "score"}``, best first; several queries with a list
of passages each, or one for all, by a list of such lists. All pairs of all queries run together, by tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks import TaskRow
from xlmr_core.tasks.activations import activation_called
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.sentence_folder import FolderTask, SentenceFolder
from xlmr_core.tasks.task import Arrays, Item, check_finite, check_texts, pair_of_texts
from xlmr_core.tasks.texts import encode_texts

__all__ = ["PAIR_SCORES", "PairScores", "Ranked", "Rerank", "RerankOptions", "activation_of", "read_pair"]

KEYS = ("query", "passages")


class Ranked(TypedDict):
    """A passage by its place in the call, its score, and with ``return_documents`` its text."""

    index: int
    score: float
    text: NotRequired[str]


@dataclass(frozen=True)
class RerankOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        top_k: how many passages; all of them if nothing is said.
        return_documents: whether each has its ``text``.
        function_to_apply: what makes a score of the model's number: ``"sigmoid"`` or ``"none"``; by default what the
            model's files say, and where they say nothing sigmoid.
        max_length: tokens of a query and a passage at most; what is too long is cut, of the longer of the two first.
    """

    top_k: int | None = option(None, "how many passages, best first", least=1)
    return_documents: bool = option(False, "with the text of each")
    function_to_apply: str | None = option(None, "what makes a score of a number", choices=("sigmoid", "none"))
    max_length: int | None = option(None, "tokens of a pair at most", least=1)


class Rerank(FolderTask):
    """The task; see the module."""

    Options = RerankOptions
    wanted = ("logits",)
    single = (dict,)
    columns: ClassVar[Sequence[str]] = KEYS
    list_columns: ClassVar[Sequence[str]] = ("passages",)

    def read(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """A query, or several, and passages; or a dictionary of both, or several of those."""
        if not inputs and "query" in options:
            inputs = (options.pop("query"), options.pop("passages", None))
        elif len(inputs) == 1 and "passages" in options:
            inputs = (*inputs, options.pop("passages"))
        if len(inputs) == 1 and not isinstance(inputs[0], str):
            return inputs[0], options
        if len(inputs) != 2:
            raise InputError(f"expected a query and its passages, received {len(inputs)} arguments; pass both")
        query, passages = inputs
        if isinstance(passages, str) or passages is None:
            raise InputError(f"expected a list of passages, received {passages!r:.100}; pass a list")
        if isinstance(query, str):
            return {"query": query, "passages": passages}, options
        if not isinstance(query, Iterable):
            raise InputError(f"expected a query, or several, received {query!r:.100}; pass a text or a list")
        queries, passages = list(query), list(passages)
        if all(isinstance(one, str) for one in passages):
            passages = [passages] * len(queries)
        if len(queries) != len(passages):
            raise InputError(
                f"expected a list of passages for each query, received {len(passages)} for {len(queries)} queries; "
                "pass one for each, or one list for all"
            )
        return [{"query": one, "passages": own} for one, own in zip(queries, passages, strict=True)], options

    def prepare(self, options: RerankOptions) -> RerankOptions:
        """The options with what the model's files say.

        Raises:
            InputError: for a model with several labels, whose numbers give no order.
        """
        if self.config.num_labels != 1:
            raise InputError(
                f"rerank needs a model with one label, received {self.config.num_labels} labels; choose a reranker, or "
                "text-classification"
            )
        limit = min(options.max_length or self.longest, self.config.max_tokens)
        word = options.function_to_apply or str(activation_of(self.config, self.folder))
        activation_called("identity" if word == "none" else word)
        return replace(options, max_length=limit)

    def encode(self, inputs: Sequence[Any], options: RerankOptions) -> list[Item]:
        """A row a passage.

        Raises:
            InputError: naming the first that is no query with passages.
        """
        asked = [_query_and_passages(given, index) for index, given in enumerate(inputs)]
        pairs: list[tuple[str, str | None]] = [(query, passage) for query, own in asked for passage in own]
        where = [f"the passage {passage!r:.60}" for _, passage in pairs]
        arguments = {"truncation": True, "max_length": options.max_length}
        # What is read in windows is the passage, and each window with the whole query.
        encoded = iter(encode_texts(self, pairs, arguments, options.on_overflow, where, windowed="second"))
        items = []
        for _, own in asked:
            found = [next(encoded) for _ in own]
            kept = own, [len(item.rows) for item in found]
            items.append(
                Item([row for item in found for row in item.rows], kept, any(item.truncated for item in found))
            )
        return items

    def decode(self, item: Item, outputs: Sequence[Arrays], options: RerankOptions) -> list[Ranked]:
        """Passages best first, equal ones in the order of the call; of several windows of one the best counts."""
        passages, counts = item.kept
        numbers = np.array([found["logits"][0] for found in outputs], np.float64)
        check_finite(numbers)
        ends = np.cumsum(counts)
        best = np.array([numbers[end - count : end].max() for end, count in zip(ends, counts, strict=True)])
        function = options.function_to_apply or activation_of(self.config, self.folder)
        scores = activation_called("identity" if function == "none" else function)(best.reshape(-1)).tolist()
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[: options.top_k]
        ranked: list[Ranked] = [{"index": index, "score": scores[index]} for index in order]
        if options.return_documents:
            for row in ranked:
                row["text"] = passages[row["index"]]
        return ranked

    def text(self, answer: list[Ranked]) -> str:
        """A score and a passage a line."""
        return "\n".join(
            f"  {row['score']:.4f}  {row['index']}" + (f"  {row['text']}" if "text" in row else "") for row in answer
        )

    @classmethod
    def from_line(cls, line: str) -> Any:
        """A query and its passages with tabs between them, or an object of JSON."""
        if line.lstrip().startswith("{"):
            return super().from_line(line)
        query, *passages = line.split("\t")
        return {"query": query, "passages": passages}


@dataclass(frozen=True)
class PairScoresOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        max_length: tokens of a pair at most.
    """

    max_length: int | None = option(None, "tokens of a pair at most", least=1)


class PairScores(FolderTask):
    """The numbers (K,) that a model gives pairs of texts, as a library asks for them; no task of ``TASKS``."""

    Options = PairScoresOptions
    wanted = ("logits",)
    single = ()

    def encode(self, inputs: Sequence[Any], options: PairScoresOptions) -> list[Item]:
        """A row a pair; also of an empty second text, which is one as any other."""
        pairs: list[tuple[str, str | None]] = [read_pair(pair, index) for index, pair in enumerate(inputs)]
        where = [f"the pair of {text!r:.60} (index {index})" for index, (text, _) in enumerate(pairs)]
        arguments = {"truncation": True, "max_length": options.max_length or self.longest}
        return encode_texts(self, pairs, arguments, options.on_overflow, where)

    def decode(self, item: Item, outputs: Sequence[Arrays], options: PairScoresOptions) -> NDArray[np.float32]:
        """The numbers, of windows their mean."""
        numbers: NDArray[np.float32] = np.mean([found["logits"] for found in outputs], axis=0)
        check_finite(numbers)
        return numbers

    def text(self, answer: NDArray[np.float32]) -> str:
        """The numbers."""
        return "  " + " ".join(f"{number:.4f}" for number in answer)


PAIR_SCORES = TaskRow(
    name="pair-scores",
    auto="AutoModelForSequenceClassification",
    place="xlmr_core.tasks.rerank:PairScores",
    summary="the numbers that a model gives a pair of texts",
    example="",
)


def read_pair(given: Any, index: int) -> tuple[str, str]:
    """Two texts, of whatever gives them one after the other; see :func:`pair_of_texts`."""
    gives = isinstance(given, Iterable) and not isinstance(given, str | list | tuple)
    return pair_of_texts(list(given) if gives else given, index)


def activation_of(config: Any, folder: SentenceFolder) -> Any:
    """What a model's files say makes scores of its numbers; where they say nothing, a sigmoid if there is one label."""
    own = getattr(config, "sentence_transformers", None)
    named = folder.activation or (own.get("activation_fn") if isinstance(own, Mapping) else None)
    named = named or getattr(config, "sbert_ce_default_activation_function", None)
    return named or ("sigmoid" if config.num_labels == 1 else "identity")


def _query_and_passages(given: Any, index: int) -> tuple[str, list[str]]:
    if isinstance(given, Mapping) and set(given) == set(KEYS) and not isinstance(given["passages"], str):
        query, passages = given["query"], list(given["passages"])
        check_texts([query])
        check_texts(passages)
        return query, passages
    raise InputError(
        f"expected {{'query': a text, 'passages': a list of texts}}, received {given!r:.100} at index {index}; pass "
        "both"
    )
