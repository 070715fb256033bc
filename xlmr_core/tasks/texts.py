"""Texts and pairs of texts to rows of tokens, and what happens to those that are too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError, TooLongError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Item, Task

__all__ = [
    "TokenizerOptions",
    "check_arguments",
    "encode_texts",
    "places_of",
    "row_of",
    "tokenizer_arguments",
    "windows",
]

# Two windows that follow each other share a quarter of their tokens.
SHARED = 4


@dataclass(frozen=True)
class TokenizerOptions(TaskOptions):
    """The arguments of the tokenizer that a call can pass.

    Attributes:
        truncation: cut texts that are longer than ``max_length``: True, or how a pair is cut.
        max_length: tokens of a text or pair at most; by default what the model takes.
        padding: ``"max_length"`` fills up every text. Any other padding is done where texts run together.
        add_special_tokens: whether ``<s>`` and ``</s>`` are put around a text.
        tokenizer_kwargs: further arguments.
    """

    truncation: bool | str | None = option(None, "cut texts that are too long", python_only=True)
    max_length: int | None = option(None, "tokens of a text at most", least=1)
    padding: bool | str | None = option(None, "fill up texts", python_only=True)
    add_special_tokens: bool | None = option(None, "with <s> and </s>", python_only=True)
    tokenizer_kwargs: Mapping[str, Any] | None = option(None, "arguments of the tokenizer", python_only=True)


def tokenizer_arguments(options: TokenizerOptions) -> dict[str, Any]:
    """The arguments of the tokenizer that were passed."""
    said = {name: getattr(options, name) for name in ("truncation", "max_length", "padding", "add_special_tokens")}
    return {name: value for name, value in said.items() if value is not None} | dict(options.tokenizer_kwargs or {})


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of the tokenizer that a task sets itself.

    Raises:
        InputError: naming them.
    """
    reserved = sorted({"return_tensors", "return_overflowing_tokens"} & set(arguments))
    if reserved:
        raise InputError(f"arguments of the tokenizer cannot set {', '.join(reserved)}; leave it out")


def row_of(ids: Sequence[int] | NDArray[np.int64], attention: Sequence[int] | None = None) -> Arrays:
    """A row of tokens."""
    ids_S = np.asarray(ids, np.int64)
    mask_S = np.ones_like(ids_S) if attention is None else np.asarray(attention, np.int64)
    return {"input_ids": ids_S, "attention_mask": mask_S}


def places_of(offsets: Any, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where tokens begin in a text and where they end (S,).

    One that stands for nothing, as the sentencepiece class says of a lone ▁, has the character behind it, as the fast
    class says.
    """
    start_S, end_S = np.array(offsets, np.int64).reshape(-1, 2).T
    return start_S, np.where(end_S > start_S, end_S, np.minimum(start_S + 1, len(text)))


def windows(length: int, room: int, shared: int, side: str = "right") -> list[tuple[int, int]]:
    """Windows of a text, each as its first token and the one after its last.

    Args:
        length: tokens of the text.
        room: tokens of a window at most.
        shared: tokens that a window shares with the next, less than ``room``.
        side: where the tokenizer cuts; the first window is at the other end, so that it is what is kept of the text.
    """
    starts = range(0, max(length - shared, 1), room - shared)
    found = [(start, min(start + room, length)) for start in starts]
    return [(length - end, length - start) for start, end in found] if side == "left" else found


def encode_texts(
    task: Task,
    texts: Sequence[tuple[str, str | None]],
    arguments: Mapping[str, Any],
    on_overflow: str | None,
    where: Sequence[str],
    whole: bool = False,
    windowed: str = "first",
) -> list[Item]:
    """An item for each text or pair, of one row, or of a row for each window, which ``kept`` then says.

    Args:
        task: whose tokenizer and model.
        texts: each with the second of its pair, or None.
        arguments: of the tokenizer.
        on_overflow: see :class:`xlmr_core.tasks.options.TaskOptions`.
        where: what an error calls each.
        whole: leave them as long as they are; the task cuts them itself.
        windowed: which of a pair is read in windows, each with the whole of the other: ``first`` or ``second``.

    Raises:
        InputError: naming the first that is too long and may not be cut, or an argument that cannot be passed on.
    """
    check_arguments(arguments)
    arguments = {"verbose": False, **arguments}
    truncation = arguments.pop("truncation", None)
    fills_up = arguments.get("padding") == "max_length"
    if not fills_up:
        arguments.pop("padding", None)
    if truncation is None and "max_length" in arguments and not fills_up:
        truncation = True  # as published
    own_limit = arguments if fills_up else {**arguments, "max_length": None}
    limit = arguments.get("max_length") or task.longest
    cut = truncation not in (None, False, "do_not_truncate")
    items = []
    for index, (ids, attention) in enumerate(_encode(task.tokenizer, texts, own_limit)):
        if whole:
            items.append(Item([row_of(ids, attention)]))
        elif len(ids) <= limit or not (cut or on_overflow):
            task.check_length(len(ids), where[index])
            items.append(Item([row_of(ids, attention)]))
        elif on_overflow == "error":
            raise TooLongError(
                f"expected at most {limit} tokens, received {len(ids)}; shorten {where[index]}, or pass "
                "on_overflow='truncate'"
            )
        elif on_overflow == "window":
            items.append(_in_windows(task.tokenizer, *texts[index], limit, where[index], windowed))
        else:
            how = {**arguments, "truncation": truncation if cut else True, "max_length": limit}
            ((ids, attention),) = _encode(task.tokenizer, [texts[index]], how)
            task.check_length(len(ids), where[index])
            items.append(Item([row_of(ids, attention)], truncated=True))
    return items


def _encode(
    tokenizer: Any, texts: Sequence[tuple[str, str | None]], arguments: Mapping[str, Any]
) -> list[tuple[list[int], list[int]]]:
    """Ids and attention mask of each; texts alone and pairs are two calls of the tokenizer."""
    found: list[Any] = [None] * len(texts)
    arguments = {**arguments, "return_attention_mask": True}
    for paired in (False, True):
        places = [index for index, (_, pair) in enumerate(texts) if (pair is not None) is paired]
        if places:
            columns = [[texts[index][side] for index in places] for side in range(1 + paired)]
            encoded = tokenizer(*columns, **arguments)
            for index, ids, attention in zip(places, encoded["input_ids"], encoded["attention_mask"], strict=True):
                found[index] = (ids, attention)
    return found


def _in_windows(tokenizer: Any, text: str, pair: str | None, limit: int, where: str, windowed: str) -> Item:
    """A row for each of the overlapping windows of one text of a pair, each with the whole of the other."""
    plain = {"add_special_tokens": False, "verbose": False}
    both = [tokenizer(one, **plain)["input_ids"] for one in (text, pair) if one is not None]
    whole = tokenizer.build_inputs_with_special_tokens
    place = 1 if windowed == "second" and len(both) == 2 else 0

    def around(ids: Sequence[int]) -> Any:
        return whole(*(ids if index == place else own for index, own in enumerate(both)))

    room = limit - len(around([]))
    if room < SHARED:
        kept, read = ("second", "first") if place == 0 else ("first", "second")
        raise InputError(f"expected a {kept} text that leaves room for the {read}, {where} leaves none; shorten it")
    found = windows(len(both[place]), room, room // SHARED)
    return Item([row_of(around(both[place][start:end])) for start, end in found], kept=found)
