"""Feature extraction: a vector for each token of a text, ``<s>`` and ``</s>`` among them.

A text is answered by a list of one list of vectors, (1, S, D), as published; a list of texts by a list of those. The
vectors of a text are the same whatever runs beside it: where the original pipeline also gives vectors for the padding
of a batch, none are given here. Padding that is asked for (``padding="max_length"``) has its vectors.

With ``on_overflow="window"`` a long text has a vector for each of its tokens too, each from the window in which it
stands furthest from an edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Item, Task, check_texts, shown
from xlmr_core.tasks.texts import encode_texts

__all__ = ["FeatureExtraction", "FeatureExtractionOptions", "joined"]


@dataclass(frozen=True)
class FeatureExtractionOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        truncation: cut texts that are too long.
        tokenize_kwargs: further arguments of the tokenizer, e.g. ``{"max_length": 128}``.
        return_tensors: a tensor of the framework in place of lists.
    """

    truncation: bool | str | None = option(None, "cut texts that are too long", python_only=True)
    tokenize_kwargs: Mapping[str, Any] | None = option(None, "arguments of the tokenizer", python_only=True)
    return_tensors: bool = option(False, "tensors in place of lists", python_only=True)


class FeatureExtraction(Task):
    """The task; see the module."""

    Options = FeatureExtractionOptions
    wanted = ("last_hidden_state",)

    def prepare(self, options: FeatureExtractionOptions) -> FeatureExtractionOptions:
        """The options; ``truncation`` may be said in one place only."""
        if options.truncation is not None and "truncation" in (options.tokenize_kwargs or {}):
            raise InputError("expected truncation once, received it in tokenize_kwargs too; leave one of them out")
        return options

    def encode(self, inputs: Sequence[str], options: FeatureExtractionOptions) -> list[Item]:
        """Tokenize texts."""
        check_texts(inputs)
        arguments = dict(options.tokenize_kwargs or {})
        if options.truncation is not None:
            arguments["truncation"] = options.truncation
        where = [shown(inputs, index) for index in range(len(inputs))]
        texts = [(text, None) for text in inputs]
        items = encode_texts(self, texts, arguments, options.on_overflow, where)
        if arguments.get("padding") == "max_length":
            # A mask of two axes is not packed, so that padding has vectors too.
            for row in (row for item in items for row in item.rows):
                row["attention_mask"] = np.tile(row["attention_mask"], (row["input_ids"].size, 1))
        return items

    def decode(self, item: Item, outputs: Sequence[Arrays], options: FeatureExtractionOptions) -> Any:
        """The vectors (1, S, D) of a text."""
        parts = [
            found["last_hidden_state"][: row["input_ids"].size] for row, found in zip(item.rows, outputs, strict=True)
        ]
        vectors_1SD = (parts[0] if item.kept is None else joined(parts, item.kept))[None]
        # A copy, so that a tensor does not keep the whole batch.
        return np.array(vectors_1SD, np.float32) if options.return_tensors else vectors_1SD.tolist()

    def text(self, answer: Any) -> str:
        """The first numbers of each vector."""
        return "\n".join("  " + " ".join(f"{number:8.4f}" for number in vector[:8]) for vector in answer[0])

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """A row a token."""
        return [{"token": index, "vector": vector} for index, vector in enumerate(answer[0])]


def joined(parts: Sequence[NDArray[Any]], windows: Sequence[tuple[int, int]]) -> NDArray[Any]:
    """The vectors of a text from those of its windows: what two windows share is cut in the middle.

    Args:
        parts: the vectors of each window, those of ``<s>`` and ``</s>`` around them.
        windows: each as its first token and the one after its last.
    """
    cuts = [0, *((start + end) // 2 for (_, end), (start, _) in pairwise(windows)), windows[-1][1]]
    own = [
        part[1 + first - start : 1 + end - start]
        for part, (start, _), (first, end) in zip(parts, windows, pairwise(cuts), strict=True)
    ]
    return np.concatenate([parts[0][:1], *own, parts[-1][-1:]])
