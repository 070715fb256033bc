"""Processors of users: whatever is called with the ids so far and the scores, and gives other scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.generation.rows import as_list
from xlmr_core.wording import an

__all__ = ["NOTHING_LEFT", "LogitsProcessor", "LogitsProcessorList", "allowed_tokens"]

# What a loop says, as an InputError, where a row that goes on has no token left: the largest of its scores is minus
# infinity or not a number, or infinity where tokens are drawn. In a program of the user nothing can be raised: the row
# ends there.
NOTHING_LEFT = (
    "expected a token that may follow, received scores that are all minus infinity, or one that is no number; let a "
    "logits_processor leave at least one, pass remove_invalid_values=True, or check the weights of the model"
)


class LogitsProcessor:
    """Base of processors of a user's own."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Other scores.

        Args:
            input_ids: (R, length) of the framework, the prompt first.
            scores: (R, V) float32: logits, or log-probabilities in beam search.

        Returns:
            Scores (R, V).
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__(input_ids, scores); write one")


class LogitsProcessorList(list[Any]):
    """Several processors, one after the other."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Scores (R, V) after all of them. A processor that takes more than two arguments gets those it names.

        Raises:
            InputError: for a processor that gives no scores of the same shape and framework.
        """
        for processor in self:
            names = list(inspect.signature(processor).parameters)
            more = {name: kwargs[name] for name in names[2:] if name in kwargs}
            scores = _checked(processor, processor(input_ids, scores, **more), scores)
        return scores


def _checked(processor: Any, found: Any, scores: Any) -> Any:
    """What a processor gave for some scores, if it is scores again."""
    shape = tuple(scores.shape)
    if not _packages(found) & _packages(scores):
        received = "None; does it return them?" if found is None else f"{an(type(found).__name__)}; convert it"
        expected = f"scores {shape} as {an(type(scores).__name__)}"
    elif tuple(found.shape) != shape:
        received, expected = f"{tuple(found.shape)}; change values, and not the shape", f"scores of the shape {shape}"
    elif "float" not in str(found.dtype):
        received, expected = f"{found.dtype}; convert it", f"scores of {scores.dtype}"
    else:
        return found
    raise InputError(f"a logits_processor must return {expected}, {_name(processor)} returned {received}")


def _packages(x: Any) -> set[str]:
    """The packages that the classes of an array are of."""
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        return set()
    return {base.__module__.partition(".")[0] for base in type(x).__mro__} - {"builtins", "abc", "typing"}


def _name(processor: Any) -> str:
    return str(getattr(processor, "__name__", type(processor).__name__))


def allowed_tokens(
    allowed: Callable[[int, Any], Iterable[int]], rows: Iterable[Any], rows_per_prompt: int, vocab_size: int
) -> NDArray[np.bool_]:
    """Which tokens ``prefix_allowed_tokens_fn`` lets follow (De Cao et al. 2021).

    Args:
        allowed: called with the number of a prompt and the ids of a row so far.
        rows: ids (length,) of the framework, one row after the other.
        rows_per_prompt: how many rows belong to one prompt.
        vocab_size: V.

    Returns:
        Truth values (R, V); the others get minus infinity.

    Raises:
        InputError: if a row may not go on at all.
    """
    found = []
    for number, row in enumerate(rows):
        ids = [int(token) for token in as_list(allowed(number // rows_per_prompt, row))]
        if not ids or min(ids) < 0 or max(ids) >= vocab_size:
            raise InputError(
                f"prefix_allowed_tokens_fn must give at least one token's id below {vocab_size}, it gave {ids} for "
                f"prompt {number // rows_per_prompt}; let an end token follow where nothing else may"
            )
        mask = np.zeros(vocab_size, dtype=bool)
        mask[ids] = True
        found.append(mask)
    return np.stack(found)
