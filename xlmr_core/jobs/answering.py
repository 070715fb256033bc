"""Answering many inputs of which some are faulty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from xlmr_core.errors import XLMRError

__all__ = ["answer_each"]


def answer_each(pipeline: Any, inputs: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
    """Of each input the answer, or the error that says why there is none, and whether something of it was cut off.

    A faulty one is found by halves, so that the others still run together.

    Args:
        pipeline: of a task.
        inputs: as the pipeline takes them; an error in the place of one comes back.
    """
    answers = _by_halves(pipeline, [given for given in inputs if not isinstance(given, XLMRError)])
    for given in inputs:
        yield (given, False) if isinstance(given, XLMRError) else next(answers)


def _by_halves(pipeline: Any, inputs: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
    if not inputs:
        return
    try:
        answers = list(pipeline(iter(inputs)))
    except XLMRError as error:
        if len(inputs) == 1:
            yield error, False
            return
        middle = len(inputs) // 2
        yield from _by_halves(pipeline, inputs[:middle])
        yield from _by_halves(pipeline, inputs[middle:])
        return
    cut = set(pipeline.truncated)
    assert len(answers) == len(inputs)
    for index, answer in enumerate(answers):
        yield answer, index in cut
