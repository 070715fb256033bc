"""From ids to the columns of a batch: cut, surrounded with special tokens, and padded; the one way of all ids."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.calling import CallOptions, Settings, warn_if_too_long
from xlmr_core.tokenization.lengths import TruncationStrategy, cut, cut_off, losses, pad_columns

__all__ = ["EncodedTexts", "Offsets", "Template", "fill_of", "to_columns"]

Offsets = list[tuple[int, int]]


@dataclass(slots=True)
class EncodedTexts:
    """The ids of a batch's texts and of their pairs (None: a text without one), and on request where tokens stand.

    The lists belong to whoever holds this: they are changed in place.
    """

    ids: list[list[int]]
    offsets: list[Offsets] | None = None
    pair_ids: list[list[int] | None] | None = None
    pair_offsets: list[Offsets | None] | None = None


class Template(Settings, Protocol):
    """What of a tokenizer stands around a text; a subclass may have its own way."""

    pad_token_type_id: int

    def _edges(self) -> tuple[int, int] | None:
        """The ids before and after every text, or None where a subclass builds rows in its own way."""

    def build_inputs_with_special_tokens(self, ids: list[int], pair_ids: list[int] | None = None, /) -> list[int]:
        """A whole row."""

    def get_special_tokens_mask(self, ids: list[int], pair_ids: list[int] | None = None, /) -> list[int]:
        """1 where a row has special tokens."""

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a row gets."""


def to_columns(texts: EncodedTexts, options: CallOptions, template: Template, single: bool) -> dict[str, list[Any]]:
    """What a call returns, by name: a list with an item for each row.

    Args:
        texts: the ids.
        options: what is asked for.
        template: the special tokens.
        single: the call was for one text, whose ``length`` counts the padding.
    """
    plan = options.plan
    columns: dict[str, list[Any]] = {}
    if plan.truncates or options.return_overflowing_tokens:
        columns = _truncated(texts, options, template)
    if options.return_special_tokens_mask:
        mask = _special_tokens_mask(texts, options, template)
    ids = columns["input_ids"] = _surrounded(texts, options, template)
    lengths = [len(row) for row in ids]
    if options.return_token_type_ids:
        columns["token_type_ids"] = [[0] * length for length in lengths]
        if not options.add_special_tokens:
            for row, pair in zip(columns["token_type_ids"], texts.pair_ids or (), strict=False):
                if pair:
                    row[-len(pair) :] = [1] * len(pair)
    if options.return_special_tokens_mask:
        columns["special_tokens_mask"] = mask
    if texts.offsets is not None:
        columns["offset_mapping"] = _surrounded_offsets(texts, options)
    warn_if_too_long(lengths, options, template)
    if options.return_length:
        columns["length"] = lengths
    if options.return_attention_mask:
        columns["attention_mask"] = [[1] * length for length in lengths]
    if target := plan.target(lengths):
        pad_columns(columns, target, plan.padding_side, fill_of(template))
    if options.return_length and single:
        columns["length"] = [len(row) for row in columns["input_ids"]]
    return columns


def fill_of(template: Template, main: str = "input_ids") -> dict[str, Any]:
    """What the rows of each column are filled with."""
    return {
        main: template.pad_token_id,
        "attention_mask": 0,
        "token_type_ids": template.pad_token_type_id,
        "special_tokens_mask": 1,
        "offset_mapping": (0, 0),
    }


def _truncated(texts: EncodedTexts, options: CallOptions, template: Template) -> dict[str, list[Any]]:
    """Cut the texts to ``max_length``; returns what was cut off, where that is asked for."""
    plan, wants_overflow = options.plan, options.return_overflowing_tokens
    side = plan.truncation_side
    special = [template.num_special_tokens_to_add(pair) if options.add_special_tokens else 0 for pair in (False, True)]
    limit = plan.max_length
    excesses = [
        0 if limit is None else len(ids) + len(pair or ()) + special[pair is not None] - limit
        for ids, pair in zip(texts.ids, texts.pair_ids or repeat(None), strict=False)
    ]
    overflowing: list[list[int]] = [[] for _ in excesses] if wants_overflow else []
    for row, excess in enumerate(excesses):
        if excess <= 0 or not plan.truncates:
            continue
        ids, pair = texts.ids[row], texts.pair_ids[row] if texts.pair_ids else None
        if limit is not None and limit < special[pair is not None]:
            plan.check(special[pair is not None], stride_matters=False)
        if wants_overflow and pair is not None and plan.truncation is TruncationStrategy.LONGEST_FIRST:
            raise TokenizerError(
                "Not possible to return overflowing tokens for pair of sequences with the `longest_first`. Please "
                "select another truncation strategy than `longest_first`, for instance `only_second` or `only_first`."
            )
        from_first, from_second = losses(len(ids), None if pair is None else len(pair), excess, plan.truncation)
        if wants_overflow:
            cut_text = pair if pair is not None and from_second else ids
            overflowing[row] = cut_off(cut_text, from_first + from_second, plan.stride, side)
        texts.ids[row] = cut(ids, from_first, side)
        if texts.offsets:
            texts.offsets[row] = cut(texts.offsets[row], from_first, side)
        if texts.pair_ids and pair is not None:
            texts.pair_ids[row] = cut(pair, from_second, side)
            if texts.pair_offsets:
                texts.pair_offsets[row] = cut(texts.pair_offsets[row] or [], from_second, side)
    return {"overflowing_tokens": overflowing, "num_truncated_tokens": excesses} if wants_overflow else {}


def _surrounded(texts: EncodedTexts, options: CallOptions, template: Template) -> list[list[int]]:
    """Whole rows: the ids of each text and its pair, with special tokens around them."""
    rows = texts.ids
    if not options.add_special_tokens:
        return rows if texts.pair_ids is None else [a + (b or []) for a, b in zip(rows, texts.pair_ids, strict=True)]
    edges = template._edges() if rows and texts.pair_ids is None else None
    if edges is None:
        build = template.build_inputs_with_special_tokens
        return [build(ids, pair) for ids, pair in zip(rows, texts.pair_ids or repeat(None), strict=False)]
    first, last = edges
    for row in rows:  # in place: ten thousand more lists would wake the garbage collector
        row.insert(0, first)
        row.append(last)
    return rows


def _special_tokens_mask(texts: EncodedTexts, options: CallOptions, template: Template) -> list[list[int]]:
    rows = zip(texts.ids, texts.pair_ids or repeat(None), strict=False)
    if options.add_special_tokens:
        return [template.get_special_tokens_mask(ids, pair) for ids, pair in rows]
    return [[0] * (len(ids) + len(pair or ())) for ids, pair in rows]


def _surrounded_offsets(texts: EncodedTexts, options: CallOptions) -> list[Offsets]:
    """Offsets for the special tokens too: (0, 0) each, as the fast class gives."""
    edge = [(0, 0)] if options.add_special_tokens else []
    rows = zip(texts.offsets or (), texts.pair_offsets or repeat(None), strict=False)
    return [edge + own + edge + ([] if pair is None else edge + pair + edge) for own, pair in rows]
