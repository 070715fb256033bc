"""What a task is: options, ``encode``, what it wants of the model, ``decode``, and how an answer is printed.

A task knows no framework and runs no model. Inputs become items, each with one row or several (the windows of a long
text, the passages of a query); the pipeline runs the rows in batches and hands each item the outputs of its own rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import TaskOptions

__all__ = ["Arrays", "Item", "Task", "check_texts", "shown", "visible"]

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by the name of the model's argument, or of the model's output."""


@dataclass(frozen=True)
class Item:
    """One encoded input.

    Attributes:
        rows: what goes through the model, arrays without a batch axis: ``input_ids``, ``attention_mask`` and what
            ``Task.fills`` names.
        kept: what else ``decode`` needs.
    """

    rows: Sequence[Arrays]
    kept: Any = None


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

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        self.config = config

    def read(self, inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """The inputs and the options of a call. A task that is called with other arguments declares them here."""
        return inputs, options

    def prepare(self, options: Any) -> Any:
        """The options of a call, looked at once with this tokenizer and this config, before any input is read."""
        return options

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
            outputs: the ``wanted`` outputs of each of its rows, float32 and without a batch axis; they are as long as
                the longest row of the batch was.
            options: as ``prepare`` gave them.
        """

    def gather(self, answers: list[Any], single: bool) -> Any:
        """What a call gives back: its answers in order, of which a ``single`` input has one."""
        return answers[0] if single else answers

    @abstractmethod
    def text(self, answer: Any) -> str:
        """An answer as ``xlmr run`` prints it for people, without a last line end."""

    def check_length(self, length: int, where: str) -> None:
        """Refuse a row that is longer than the model takes."""
        longest = self.config.max_tokens
        if length > longest:
            raise InputError(
                f"expected at most {longest} tokens, which is what this checkpoint takes, received {length}; "
                f"shorten {where}, or in Python pass tokenizer_kwargs={{'truncation': True, 'max_length': {longest}}}"
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
