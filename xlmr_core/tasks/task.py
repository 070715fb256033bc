"""What a task is: options, ``encode``, what it wants of the model, ``decode``, and how an answer is printed.

A task knows no framework and runs no model. Inputs become items, each with one row or several (the windows of a long
text, the passages of a query); the pipeline runs the rows in batches and hands each item the outputs of its own rows.
"""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.bounded_files import why
from xlmr_core.errors import InputError, TooLongError
from xlmr_core.tasks.options import TaskOptions

if TYPE_CHECKING:
    from xlmr_core.generation.streamers import Ends
    from xlmr_core.tasks.runner import Runner

__all__ = [
    *("Arrays", "AtTheEnd", "Item", "Task", "check_finite", "check_texts", "pair_of_texts", "plain", "shown"),
    *("softmax", "top_places", "visible"),
]

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by the name of the model's argument, or of the model's output."""
AtTheEnd: TypeAlias = Callable[[Iterable[Any]], Callable[[Any], Any]]
"""Looks at all answers, and gives what makes of each the one that was asked for."""


@dataclass(frozen=True)
class Item:
    """One encoded input.

    Attributes:
        rows: what goes through the model, arrays without a batch axis: ``input_ids``, ``attention_mask`` and what
            ``Task.fills`` names.
        kept: what else ``decode`` needs.
        truncated: whether something of the input was cut off, which the pipeline then says.
    """

    rows: Sequence[Arrays]
    kept: Any = None
    truncated: bool = False


class Task(ABC):
    """The base of all tasks.

    Args:
        tokenizer: an XLM-R tokenizer.
        config: the model's configuration.
    """

    Options: ClassVar[type[TaskOptions]] = TaskOptions
    """The dataclass of its options."""
    wanted: ClassVar[Sequence[str]]
    """Which outputs of the model it needs, by name."""
    fills: ClassVar[Mapping[str, int]] = {}
    """The arguments that its rows have beside ``input_ids`` and ``attention_mask``, and what pads them in a batch."""
    single: ClassVar[tuple[type, ...]] = (str,)
    """The types of one input; a list or tuple that is none of them holds several."""
    pads_left: ClassVar[bool] = False
    """Whether shorter rows of a batch are filled up at their beginning."""
    together: ClassVar[bool] = False
    """Whether ``batch_size`` counts inputs, all rows of which may run together; else it counts rows."""
    columns: ClassVar[Sequence[str]] = ()
    """What the columns of a line of ``xlmr run`` are, with tabs between them, and the keys of a line of JSON; none
    where a line is one text."""
    optional_columns: ClassVar[Sequence[str]] = ()
    """Those of them that a file need not have."""
    list_columns: ClassVar[Sequence[str]] = ()
    """Those of them that hold a list of texts."""

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        self.config = config

    @classmethod
    def read_beside(cls, name_or_path: str | os.PathLike[str], **where: Any) -> Any:
        """What the task needs of the files beside a model's weights and its tokenizer; most need nothing.

        Args:
            name_or_path: of the model; empty where it has none.
            **where: as for :func:`xlmr_core.hub.resolve`.
        """
        return None

    def set_up(self, runner: Runner, beside: Any) -> None:  # noqa: B027
        """Take what :meth:`read_beside` read; what stands on the token states goes to the runner."""

    def files_beside(self) -> dict[str, bytes]:
        """What is saved beside the model and its tokenizer, by path: what :meth:`read_beside` reads again."""
        return {}

    def outputs(self, options: Any) -> Sequence[str]:
        """Which outputs of the runner a call needs, by name; by default what is ``wanted`` in every call."""
        return self.wanted

    def run(self, runner: Runner, arrays: Arrays, options: Any) -> Arrays:
        """A batch of rows through the model: what it gives by name, a row's at the row's place."""
        return runner.run(arrays, self.outputs(options))

    def weight(self, row: Arrays, options: Any) -> int:
        """As how many tokens a row counts where tokens that run together are counted."""
        return int(row["input_ids"].size)

    def beside(self, row: Arrays, options: Any) -> Any:
        """What rows that run together have to share."""
        return None

    def read(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """The inputs and the options of a call. A task that is called with other arguments declares them here."""
        if not inputs and "inputs" in options:
            inputs = (options.pop("inputs"),)
        if len(inputs) != 1:
            raise InputError(f"expected one argument, a text or several, received {len(inputs)}; pass options by name")
        return inputs[0], options

    def prepare(self, options: Any) -> Any:
        """The options of a call, looked at once with this tokenizer and this config, before any input is read."""
        return options

    @classmethod
    def put_off(cls, options: Any) -> tuple[Any, AtTheEnd | None]:
        """Options with which inputs may come one by one, and what makes of all answers together those that were asked
        for, where it takes all of them.
        """
        return options, None

    def one_by_one(self, options: Any) -> None:  # noqa: B027
        """Refuse options that need all inputs of a call together, where they come one by one."""

    @abstractmethod
    def encode(self, inputs: Sequence[Any], options: Any) -> list[Item]:
        """An item for each input.

        Raises:
            InputError: naming the first input that cannot be answered.
        """

    @abstractmethod
    def decode(self, item: Item, outputs: Sequence[Arrays], options: Any) -> Any:
        """The answer to an input, in plain Python.

        Args:
            item: what ``encode`` made of it.
            outputs: what the task wanted of each of its rows, float32 and without a batch axis; they are as long as the
                longest row of the batch was.
            options: as ``prepare`` gave them.
        """

    def gather(self, answers: list[Any], single: bool, options: Any) -> Any:
        """What a call gives back: its answers in order, of which a ``single`` input has one."""
        return answers[0] if single else answers

    @abstractmethod
    def text(self, answer: Any) -> str:
        """An answer as ``xlmr run`` prints it for people, without a last line end."""

    def waiting(self, options: Any, said: Mapping[str, Any]) -> tuple[Ends | None, Mapping[str, Any]]:
        """The streamer that a call's tokens go to, whose reader waits for an end even if the call fails; and the
        options of the call with it.

        Args:
            options: of the pipeline.
            said: the options of the call, of which nothing is checked yet.
        """
        return None, said

    def streamer(self, given: Any, options: Any, write: Callable[[str], object]) -> Any:
        """What writes the answer to one input while it comes, as :meth:`text` would at the end.

        Args:
            given: the input.
            options: of the pipeline.
            write: takes a piece of text.

        Returns:
            The option ``streamer`` of a call; ``None`` where answers come whole, as those of most tasks do.
        """
        return None

    @classmethod
    def from_line(cls, line: str) -> Any:
        """The input that a line of ``xlmr run`` holds: a text, columns with tabs between them, or an object of JSON.

        Raises:
            InputError: for JSON that cannot be read, and for more columns than there are.
        """
        if not cls.columns:
            return _text_of(line)
        if line.lstrip().startswith("{"):
            return read_object(line, cls.columns)
        parts = line.split("\t")
        if len(parts) > len(cls.columns):
            raise InputError(
                f"expected at most {len(cls.columns)} columns ({', '.join(cls.columns)}), received {len(parts)}; "
                "give a line of JSON where a text has tabs in it"
            )
        return line if len(parts) == 1 else dict(zip(cls.columns, parts, strict=False))

    def plain(self, answer: Any) -> Any:
        """An answer of plain Python, as JSON holds it."""
        return plain(answer)

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """An answer as the rows of a table, which is what ``xlmr run --format csv`` prints."""
        if isinstance(answer, list):
            return [row for one in answer for row in self.rows(one)]
        return [answer] if isinstance(answer, dict) else [{"answer": answer}]

    @property
    def longest(self) -> int:
        """Tokens of a row at most: what the tokenizer says, or the model where that is less."""
        return int(min(self.tokenizer.model_max_length, self.config.max_tokens))

    def check_length(self, length: int, where: str) -> None:
        """Refuse a row that is longer than the model takes."""
        longest = self.config.max_tokens
        if length > longest:
            raise TooLongError(
                f"expected at most {longest} tokens, which is what this checkpoint takes, received {length}; "
                f"shorten {where}, or pass on_overflow='truncate'"
            )


def check_texts(texts: Sequence[Any]) -> None:
    """Refuse what is no text, by its index."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"expected texts, received {type(text).__name__} {text!r} at index {index}")


def shown(texts: Sequence[str], index: int) -> str:
    """How an error names a text: by its beginning, and among several by its index."""
    text = texts[index]
    excerpt = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {excerpt!r}" + (f" (index {index})" if len(texts) > 1 else "")


def visible(text: str) -> str:
    """The text, quoted and escaped where it would not be seen otherwise."""
    return text if text.strip() and text.isprintable() else repr(text)


def _text_of(line: str) -> str:
    """The text in ``{"text": ...}``, which may have line ends in it; any other line is a text itself."""
    if line.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if list(found) == ["text"] and isinstance(found["text"], str):
                return found["text"]
    return line


def pair_of_texts(given: Any, index: int) -> tuple[str, str]:
    """Two texts that belong together.

    Raises:
        InputError: for anything else, by its index.
    """
    if (
        not isinstance(given, list | tuple | np.ndarray)
        or len(given) != 2
        or not all(isinstance(text, str) for text in given)
    ):
        raise InputError(f"expected pairs of texts, received {given!r:.100} at index {index}; pass two texts")
    return given[0], given[1]


def read_object(line: str, keys: Sequence[str]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        InputError: if it is none, or has other keys.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected an object of JSON, received {line[:60]!r}: {why(error)}; mend the line") from error
    unknown = sorted(set(found) - set(keys))
    if unknown:
        raise InputError(f"expected the keys {', '.join(keys)}, received {', '.join(unknown)}; leave the others out")
    return dict(found)


def plain(value: Any) -> Any:
    """A value with lists in the place of arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def check_finite(logits: NDArray[np.floating[Any]]) -> None:
    """Refuse what no score can be made of.

    Raises:
        InputError: for NaN and infinity.
    """
    if not np.isfinite(logits).all():
        wrong = logits[~np.isfinite(logits)].flat[0]
        raise InputError(
            f"expected finite logits, the model gave {wrong}; check the checkpoint, or load it with dtype='float32'"
        )


def top_places(scores: NDArray[Any], count: int) -> NDArray[np.intp]:
    """The places of the highest scores, in ascending order. All that tie with the last stay in: who sorts them decides
    ties, and not a partition.

    Args:
        scores: one a place.
        count: how many, at least one.
    """
    if count >= len(scores):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -count)[-count])


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities along the last axis.

    Raises:
        InputError: for logits that are not finite.
    """
    check_finite(logits)
    scaled: NDArray[np.float64] = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    chances: NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return chances
