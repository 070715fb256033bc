"""Sentence similarity: how alike texts are, by their vectors.

A text and a text are answered by a number, a text and a list by an array (m,), a list and a list by an array (n, m), of
each with each. Each text goes through the model once. How vectors are compared the model's folder says; more is more
alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.sentence_embedding import SentenceEmbedding, SentenceEmbeddingOptions
from xlmr_core.tasks.sentence_folder import POOLINGS
from xlmr_core.tasks.task import Arrays, Item
from xlmr_core.tasks.vectors import SIMILARITIES, similarity

__all__ = ["SentenceSimilarity", "SentenceSimilarityOptions"]

KEYS = ("source", "target")


@dataclass(frozen=True)
class SentenceSimilarityOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        similarity: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``; by default what the model's folder says.
        prompt, prompt_name, pooling, dimensions, max_length: as of sentence-embedding; the prompt stands before the
            texts of both sides.
        source_prompt_name, target_prompt_name: of one side, such as ``query`` and ``passage``.
    """

    similarity: str | None = option(None, "how vectors are compared", choices=tuple(SIMILARITIES))
    prompt: str | None = option(None, "what stands before each text")
    prompt_name: str | None = option(None, "the name of one of the model's prompts")
    source_prompt_name: str | None = option(None, "the prompt of the first texts alone")
    target_prompt_name: str | None = option(None, "the prompt of the second texts alone")
    dimensions: int | None = option(None, "numbers of a vector", least=1)
    pooling: str | None = option(None, "how the states of tokens become a vector", choices=tuple(POOLINGS))
    max_length: int | None = option(None, "tokens of a text at most", least=1)


@dataclass(frozen=True)
class _Settled(SentenceSimilarityOptions):
    """The options of a call, and what they mean for the vectors of each side."""

    sides: tuple[SentenceEmbeddingOptions, ...] = option((), "of each side", python_only=True)


class SentenceSimilarity(SentenceEmbedding):
    """The task; see the module."""

    Options = SentenceSimilarityOptions
    single = (str, dict)
    together = True
    columns: ClassVar[Sequence[str]] = KEYS

    def read(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Two arguments, texts or lists of them; or a dictionary of ``source`` and ``target``, or several of those."""
        if len(inputs) == 2:
            return {"source": inputs[0], "target": inputs[1]}, options
        if not inputs and {"sources", "targets"} <= set(options):
            return {"source": options.pop("sources"), "target": options.pop("targets")}, options
        if len(inputs) != 1 or isinstance(inputs[0], str):
            raise InputError(f"expected two texts, or two lists of texts, received {len(inputs)}; pass both")
        return inputs[0], options

    def prepare(self, options: Any) -> Any:
        """The options with what the folder says, for each side."""
        shared = {own.name for own in fields(TaskOptions)} | {"prompt", "prompt_name", "dimensions", "pooling"}
        said = {name: getattr(options, name) for name in (*shared, "max_length")}
        sides = []
        for name in (options.source_prompt_name, options.target_prompt_name):
            own = said if name is None else {**said, "prompt_name": name, "prompt": None}
            sides.append(super().prepare(SentenceEmbeddingOptions(**own)))
        return _Settled(
            **{own.name: getattr(options, own.name) for own in fields(SentenceSimilarityOptions)}, sides=tuple(sides)
        )

    @classmethod
    def put_off(cls, options: Any) -> tuple[Any, None]:
        """Nothing needs all pairs."""
        return options, None

    def one_by_one(self, options: Any) -> None:
        """Pairs may come one by one."""

    def outputs(self, options: Any) -> Sequence[str]:
        """As of the vectors."""
        return super().outputs(options.sides[0])

    def encode(self, inputs: Sequence[Any], options: Any) -> list[Item]:
        """An item of all texts of both sides.

        Raises:
            InputError: naming the first that has no two sides of texts.
        """
        sides = [_sides(given, index) for index, given in enumerate(inputs)]
        encoded = []
        for place, own in enumerate(options.sides):
            texts: list[str] = []
            for pair in sides:
                side = pair[place]
                texts += [side] if isinstance(side, str) else side
            encoded.append(iter(SentenceEmbedding.encode(self, texts, own)))
        items = []
        for pair in sides:
            found = [
                [next(encoded[place]) for _ in range(1 if isinstance(side, str) else len(side))]
                for place, side in enumerate(pair)
            ]
            both = [*found[0], *found[1]]
            kept = found, tuple(isinstance(side, str) for side in pair)
            items.append(Item([row for item in both for row in item.rows], kept, any(item.truncated for item in both)))
        return items

    def decode(self, item: Item, outputs: Sequence[Arrays], options: Any) -> Any:
        """The similarity of each text with each of the other side."""
        found, single = item.kept
        waiting, vectors = iter(outputs), []
        for side, own in zip(found, options.sides, strict=True):
            rows = [SentenceEmbedding.decode(self, one, [next(waiting) for _ in one.rows], own) for one in side]
            vectors.append(np.stack(rows) if rows else np.zeros((0, self._size(own)), np.float32))
        name = options.similarity or self.folder.similarity
        if name not in SIMILARITIES:
            raise InputError(f"similarity must be one of {', '.join(SIMILARITIES)}, received {name!r}")
        scores_NM = similarity(vectors[0], vectors[1], name)
        scores_M = scores_NM[0] if single[0] else scores_NM
        scores = scores_M[..., 0] if single[1] else scores_M
        return float(scores) if all(single) else scores

    def gather(self, answers: list[Any], single: bool, options: Any) -> Any:
        """An answer for each pair of sides."""
        return answers[0] if single else answers

    def text(self, answer: Any) -> str:
        """The numbers."""
        return "\n".join("  " + " ".join(f"{value:.4f}" for value in row) for row in np.atleast_2d(answer))

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """A row a pair."""
        return [{"score": score} for score in np.ravel(answer).tolist()]


def _sides(given: Any, index: int) -> tuple[str | list[str], str | list[str]]:
    if isinstance(given, Mapping) and set(given) == set(KEYS) and all(isinstance(given[key], Iterable) for key in KEYS):
        sides = [given[key] if isinstance(given[key], str) else list(given[key]) for key in KEYS]
        return sides[0], sides[1]
    raise InputError(
        f"expected two texts, or {{'source': ..., 'target': ...}}, received {given!r:.100} at index {index}; pass both"
    )
