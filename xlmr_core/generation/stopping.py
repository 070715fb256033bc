"""When rows end for another reason than an end token or their length: criteria of users, texts, and time.

A criterion is called with ids (R, length) of the framework, as they would come back now, and the scores of the last
step. It answers for each row, or for all, whether it is done; of which framework the answer is does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.generation.rows import as_list, as_rows
from xlmr_core.wording import counted, shown

__all__ = [
    "EosTokenCriteria",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "check_tokenizer",
]


class StoppingCriteria:
    """Base of criteria."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Whether rows are done.

        Args:
            input_ids: (R, length), the prompt first.
            scores: (R, V) of the last step.

        Returns:
            Truth values (R,), or one for all rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__(input_ids, scores); write one")


def _all_rows(input_ids: Any, done: bool) -> NDArray[np.bool_]:
    return np.full(int(input_ids.shape[0]), done)


class MaxLengthCriteria(StoppingCriteria):
    """Done with so many tokens, prompt included.

    Args:
        max_length: how many.
        max_position_embeddings: of the published signature; generation checks the model's limit before it begins.
    """

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length = max_length
        self.max_position_embeddings = max_position_embeddings

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> NDArray[np.bool_]:
        return _all_rows(input_ids, int(input_ids.shape[-1]) >= self.max_length)


class MaxTimeCriteria(StoppingCriteria):
    """Done after so many seconds; the step that is under way ends first.

    Args:
        max_time: how many.
        initial_timestamp: since when, of ``time.time()``; by default since now.
    """

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> NDArray[np.bool_]:
        return _all_rows(input_ids, time.time() - self.initial_timestamp > self.max_time)


class EosTokenCriteria(StoppingCriteria):
    """A row is done with one of these tokens.

    Args:
        eos_token_id: one id, or several.
    """

    def __init__(self, eos_token_id: Any) -> None:
        ids = as_list(eos_token_id)
        self.eos_token_id: list[int] = [ids] if isinstance(ids, int) else list(ids)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> NDArray[np.bool_]:
        return np.isin([row[-1] for row in as_rows(input_ids)], self.eos_token_id)


class StopStringCriteria(StoppingCriteria):
    """A row is done when its last token ends or passes one of these texts.

    Args:
        tokenizer: of the model; its ``convert_ids_to_tokens`` is asked.
        stop_strings: one text, or several.

    Raises:
        InputError: for what is no tokenizer, or no text.
    """

    def __init__(self, tokenizer: Any, stop_strings: str | Sequence[str]) -> None:
        check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not all(isinstance(text, str) and text for text in self.stop_strings) or not self.stop_strings:
            raise InputError(f"stop_strings must be texts that are not empty, received {stop_strings!r}")
        # Every token has at least one character.
        self._most_tokens = max(map(len, self.stop_strings)) + 1

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> NDArray[np.bool_]:
        return np.array([self._is_done(row[-self._most_tokens :]) for row in as_rows(input_ids)])

    def _is_done(self, ids: list[int]) -> bool:
        pieces = [str(piece).replace("▁", " ") for piece in self.tokenizer.convert_ids_to_tokens(ids)]
        before, text = len("".join(pieces[:-1])), "".join(pieces)
        # Found so late that the last token takes part in it.
        return any(text.find(stop, max(0, before - len(stop) + 1)) >= 0 for stop in self.stop_strings)


class StoppingCriteriaList(list[Any]):
    """Several criteria: a row is done if one says so."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> NDArray[np.bool_]:
        """Truth values (R,) of NumPy, whatever the criteria answer with.

        Raises:
            InputError: for a criterion that answers with anything else than truth values, one or as many as rows.
        """
        done = _all_rows(input_ids, False)
        for criterion in self:
            done = done | _answer(criterion, criterion(input_ids, scores, **kwargs), len(done))
        return done

    @property
    def max_length(self) -> int | None:
        """The length of the first criterion that is about one."""
        return next((one.max_length for one in self if isinstance(one, MaxLengthCriteria)), None)


def _answer(criterion: Any, answer: Any, rows: int) -> NDArray[np.bool_]:
    """What a criterion answered, (R,) or for all rows at once."""
    answer = [as_list(one) for one in answer] if isinstance(answer, list | tuple) else as_list(answer)
    found = np.asarray(answer, dtype=object)
    others = [one for one in found.flat if not isinstance(one, bool | int | np.bool_ | np.integer)]
    name = getattr(criterion, "__name__", type(criterion).__name__)
    if found.shape not in ((), (1,), (rows,)):
        received = f"the shape {found.shape}"
    elif others:
        received = shown(others[0])
    else:
        return found.astype(bool)
    raise InputError(
        f"a criterion of stopping_criteria must return truth values, one for each of {counted(rows, 'row')} or one for "
        f"all, {name} returned {received}"
    )


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what cannot tell the tokens of ids, which ``stop_strings`` are looked for in.

    Raises:
        InputError: for that.
    """
    if not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
        raise InputError(
            "stop_strings needs the tokenizer, an object with convert_ids_to_tokens(ids), received "
            f"{shown(tokenizer)}; pass tokenizer=AutoTokenizer.from_pretrained(...)"
        )


def own_criteria(
    max_time: float | None, stop_strings: tuple[str, ...], tokenizer: Any, given: Iterable[Any] | None
) -> StoppingCriteriaList:
    """The criteria that need the host: of time, of texts, and the user's."""
    criteria = StoppingCriteriaList()
    if max_time is not None:
        criteria.append(MaxTimeCriteria(max_time))
    if stop_strings:
        criteria.append(StopStringCriteria(tokenizer, stop_strings))
    criteria.extend(given or ())
    return criteria
