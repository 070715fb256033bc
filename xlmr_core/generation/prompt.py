"""The prompt of a generation, arranged so that every row ends in the last column.

New tokens come after the last column, so no row may be padded there: a row that is padded on the right is moved to the
right. Columns at the left that no row has anything in are left out. What comes back is the prompt as it came, and then
the new tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.checks import Seen, check_integers, check_mask, check_range, check_shape, see_array
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError

__all__ = ["Prompt", "arrange_prompt", "bucket", "infer_mask", "next_position", "zero_based_position_ids"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prompt:
    """The prompts of one call.

    Attributes:
        came: (B, C) ids as they came; the beginning of what comes back.
        ids: (B, P) ids, padded on the left only.
        mask: (B, P) of 0 and 1: what is attended to; 0 in all that was padding.
        token_type_ids: (B, P), arranged in the same way, or ``None``. A new token has the type of the last one.
        position_ids: (B, P) for ``position_numbering="zero_based"``; ``None`` leaves them to the forward pass.
        counted: (B,) how many tokens have a position of their own; see :func:`next_position`.
        longest: columns of the longest row without its padding.
    """

    came: Any
    ids: Any
    mask: Any
    token_type_ids: Any
    position_ids: Any
    counted: Any
    longest: int

    @property
    def batch(self) -> int:
        """B."""
        return int(self.ids.shape[0])

    @property
    def width(self) -> int:
        """P."""
        return int(self.ids.shape[1])


def arrange_prompt(
    config: XLMRobertaConfig,
    ids: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    token_type_ids: NDArray[Any] | None = None,
    position_numbering: str = "model",
    width: Callable[[int], int] | None = None,
) -> Prompt:
    """Arrange prompts.

    Args:
        config: of the decoder; its ``pad_token_id`` fills up.
        ids: (B, C) integers, padded on either side.
        mask: (B, C) of 0 and 1; without it, padding is what has the padding id.
        token_type_ids: (B, C).
        position_numbering: one of ``POSITION_NUMBERINGS``.
        width: gives P for the longest row's length; by default that itself. See :func:`bucket`.

    Raises:
        InputError: for ids or a mask of a wrong shape, or a row without a token.
    """
    pad = config.pad_token_id
    check_prompt(config, ids, mask, token_type_ids)
    ids = np.asarray(ids, dtype=np.int64)
    mask = infer_mask(config, ids) if mask is None else np.asarray(mask).astype(np.int64)
    empty = np.flatnonzero(mask.sum(axis=1) == 0)
    if empty.size:
        raise InputError(
            f"expected at least one token in every prompt, row {empty[0]} has none; begin it with bos_token_id, or "
            "leave it out"
        )
    columns = np.arange(ids.shape[1])
    ends_B = np.where(mask == 1, columns + 1, 0).max(axis=1)
    # A token that is masked but is no padding has a position, and stays.
    begins_B = np.where((mask == 1) | (ids != pad), columns, ids.shape[1]).min(axis=1)
    longest = int((ends_B - begins_B).max())
    columns_P = longest if width is None else max(longest, width(longest))
    # Column p of a row that ends at e comes from column p - P + e.
    source_BP = np.arange(columns_P)[None, :] - columns_P + ends_B[:, None]
    there_BP = source_BP >= begins_B[:, None]
    source_BP = np.maximum(source_BP, 0)

    def arranged(x_BC: NDArray[Any], fill: int) -> Ids:
        return np.where(there_BP, np.take_along_axis(x_BC, source_BP, axis=1), fill).astype(np.int64)

    ids_BP, mask_BP = arranged(ids, pad), arranged(mask, 0)
    zero_based = position_numbering == "zero_based"
    types = None
    if token_type_ids is not None:
        types = arranged(np.broadcast_to(np.asarray(token_type_ids), ids.shape), 0)
    return Prompt(
        came=ids,
        ids=ids_BP,
        mask=mask_BP,
        token_type_ids=types,
        position_ids=zero_based_position_ids(mask_BP) if zero_based else None,
        counted=mask_BP.sum(axis=1) if zero_based else (ids_BP != pad).sum(axis=1),
        longest=longest,
    )


def check_prompt(config: XLMRobertaConfig, ids: Any, mask: Any = None, token_type_ids: Any = None) -> None:
    """Refuse a prompt that no model takes.

    Raises:
        InputError: for ids, a mask or token types of a wrong shape, kind or range.
    """
    seen = _seen("input_ids", ids)
    if len(seen.shape) != 2 or 0 in seen.shape:
        raise InputError(f"input_ids must have the shape (batch, length) with a token at least, received {seen.shape}")
    check_integers(seen, "pass the tokenizer's output")
    meaning = "the vocabulary (vocab_size); the tokenizer does not belong to this checkpoint"
    check_range("input_ids", np.asarray(ids), 0, config.vocab_size - 1, meaning)
    if mask is not None:
        seen_mask = _seen("attention_mask", mask)
        check_shape("attention_mask", seen_mask.shape, seen.shape, cure="pass the tokenizer's own mask")
        check_mask(seen_mask)
    if token_type_ids is not None:
        types = _seen("token_type_ids", token_type_ids)
        check_shape("token_type_ids", types.shape, seen.shape, (1, seen.shape[1]))
        check_integers(types)
        check_range("token_type_ids", np.asarray(token_type_ids), 0, config.type_vocab_size - 1, "type_vocab_size")


def _seen(name: str, x: Any) -> Seen:
    seen = see_array(name, np.asarray(x))
    assert seen is not None
    return seen


def infer_mask(config: XLMRobertaConfig, ids: NDArray[Any]) -> Ids:
    """(B, C): the mask of prompts that came without one: padding at either end is not attended to.

    Args:
        config: its ``pad_token_id`` is padding.
        ids: (B, C).
    """
    is_token = ids != config.pad_token_id
    before = np.logical_or.accumulate(is_token, axis=1)
    after = np.logical_or.accumulate(is_token[:, ::-1], axis=1)[:, ::-1]
    return (before & after).astype(np.int64)


def zero_based_position_ids(mask: NDArray[Any]) -> Ids:
    """(B, P): 0, 1, 2, ... over what is attended to, and 1 elsewhere: the original library's generation since 4.46."""
    return np.where(mask == 1, np.cumsum(mask, axis=1) - 1, 1).astype(np.int64)


def next_position(config: XLMRobertaConfig, position_numbering: str) -> int:
    """The position of the first token of a row: that of the new token number n is this + counted + n."""
    return 0 if position_numbering == "zero_based" else config.pad_token_id + 1


def bucket(length: int, most: int | None = None) -> int:
    """A length rounded up to a power of two from 8 on, so that compiled programs serve many; never above ``most``."""
    rounded = max(8, 1 << (length - 1).bit_length())
    return rounded if most is None else max(length, min(rounded, most))
