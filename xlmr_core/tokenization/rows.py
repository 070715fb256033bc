"""From ids to the columns of a batch: cut, surrounded with special tokens, and padded; the one way of all ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.calling import CallOptions, Tokenizer, read_options, warn_if_too_long
from xlmr_core.tokenization.encoding import BatchEncoding, as_lists, framework_of
from xlmr_core.tokenization.lengths import TruncationStrategy, cut, cut_off, losses, pad_columns

__all__ = ["EncodedTexts", "Offsets", "pad_rows", "to_columns"]

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


def to_columns(texts: EncodedTexts, options: CallOptions, tokenizer: Tokenizer, single: bool) -> dict[str, list[Any]]:
    """What a call returns, by name: a list with an item for each row.

    Args:
        texts: the ids.
        options: what is asked for.
        tokenizer: its settings and special tokens.
        single: the call was for one text, whose ``length`` counts the padding.
    """
    plan = options.plan
    columns: dict[str, list[Any]] = {}
    if plan.truncates or options.return_overflowing_tokens:
        columns = _truncated(texts, options, tokenizer)
    if options.return_special_tokens_mask:
        mask = _special_tokens_mask(texts, options, tokenizer)
    ids = columns["input_ids"] = _surrounded(texts, options, tokenizer)
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
    warn_if_too_long(lengths, options, tokenizer)
    if options.return_length:
        columns["length"] = lengths
    if options.return_attention_mask:
        columns["attention_mask"] = [[1] * length for length in lengths]
    if target := plan.target(lengths):
        pad_columns(columns, target, plan.padding_side, _fill_of(tokenizer))
    if options.return_length and single:
        columns["length"] = [len(row) for row in columns["input_ids"]]
    return columns


def _fill_of(tokenizer: Tokenizer, main: str = "input_ids") -> dict[str, Any]:
    """What the rows of each column are filled with."""
    return {
        main: tokenizer.pad_token_id,
        "attention_mask": 0,
        "token_type_ids": tokenizer.pad_token_type_id,
        "special_tokens_mask": 1,
        "offset_mapping": (0, 0),
    }


def _truncated(texts: EncodedTexts, options: CallOptions, tokenizer: Tokenizer) -> dict[str, list[Any]]:
    """Cut the texts to ``max_length``; returns what was cut off, where that is asked for."""
    plan, side, limit = options.plan, options.plan.truncation_side, options.plan.max_length
    special = [tokenizer.num_special_tokens_to_add(pair) if options.add_special_tokens else 0 for pair in (False, True)]
    pairs = texts.pair_ids or [None] * len(texts.ids)
    excesses = [0] * len(pairs)
    if limit is not None:
        excesses = [
            len(ids) + len(pair or ()) + special[pair is not None] - limit
            for ids, pair in zip(texts.ids, pairs, strict=True)
        ]
    overflowing: list[list[int]] = [[] for _ in pairs] if options.return_overflowing_tokens else []
    for paired in {pair is not None for pair in pairs}:
        plan.check(special[paired], stride_matters=False)
    for row, excess in enumerate(excesses if plan.truncates else ()):
        if excess <= 0:
            continue
        ids, pair = texts.ids[row], pairs[row]
        first, second = losses(len(ids), None if pair is None else len(pair), excess, plan.truncation)
        texts.ids[row] = cut(ids, first, side)
        if texts.offsets:
            texts.offsets[row] = cut(texts.offsets[row], first, side)
        if texts.pair_ids and pair is not None:
            texts.pair_ids[row] = cut(pair, second, side)
            if texts.pair_offsets:
                texts.pair_offsets[row] = cut(texts.pair_offsets[row] or [], second, side)
        if options.return_overflowing_tokens:
            if pair is not None and plan.truncation is TruncationStrategy.LONGEST_FIRST:
                raise TokenizerError(
                    "Not possible to return overflowing tokens for pair of sequences with the `longest_first`. Please "
                    "select another truncation strategy than `longest_first`, for instance `only_second` or "
                    "`only_first`."
                )
            overflowing[row] = cut_off(pair if pair and second else ids, first + second, plan.stride, side)
    if not options.return_overflowing_tokens:
        return {}
    return {"overflowing_tokens": overflowing, "num_truncated_tokens": excesses}


def _surrounded(texts: EncodedTexts, options: CallOptions, tokenizer: Tokenizer) -> list[list[int]]:
    """Whole rows: the ids of each text and its pair, with special tokens around them."""
    rows = texts.ids
    if not options.add_special_tokens:
        return rows if texts.pair_ids is None else [a + (b or []) for a, b in zip(rows, texts.pair_ids, strict=True)]
    edges = tokenizer._edges() if rows and texts.pair_ids is None else None
    if edges is None:
        build = tokenizer.build_inputs_with_special_tokens
        return [build(ids, pair) for ids, pair in zip(rows, texts.pair_ids or repeat(None), strict=False)]
    first, last = edges
    for row in rows:  # in place: ten thousand more lists would wake the garbage collector
        row.insert(0, first)
        row.append(last)
    return rows


def _special_tokens_mask(texts: EncodedTexts, options: CallOptions, tokenizer: Tokenizer) -> list[list[int]]:
    rows = zip(texts.ids, texts.pair_ids or repeat(None), strict=False)
    if options.add_special_tokens:
        return [tokenizer.get_special_tokens_mask(ids, pair) for ids, pair in rows]
    return [[0] * (len(ids) + len(pair or ())) for ids, pair in rows]


def _surrounded_offsets(texts: EncodedTexts, options: CallOptions) -> list[Offsets]:
    """Offsets for the special tokens too: (0, 0) each, as the fast class gives."""
    edge = [(0, 0)] if options.add_special_tokens else []
    rows = zip(texts.offsets or (), texts.pair_offsets or repeat(None), strict=False)
    return [edge + own + edge + ([] if pair is None else edge + pair + edge) for own, pair in rows]


def pad_rows(encoded: Any, arguments: dict[str, Any], tokenizer: Tokenizer) -> BatchEncoding:
    """Rows that were encoded before, padded to one length; see ``PreTrainedTokenizerBase.pad``."""
    if isinstance(encoded, list | tuple) and encoded and isinstance(encoded[0], Mapping):
        encoded = {key: [example[key] for example in encoded] for key in encoded[0]}
    main = tokenizer.model_input_names[0]
    if not isinstance(encoded, Mapping) or main not in encoded:
        given = list(encoded) if isinstance(encoded, Mapping) else type(encoded).__name__
        raise TokenizerError(
            f"expected encodings that include {main!r}, received {given}; pass what calling the tokenizer returned"
        )
    options = read_options(tokenizer, arguments)
    framework = framework_of(encoded[main])
    fill = _fill_of(tokenizer, main)
    # Labels beside lists of ids keep their dtype; those beside arrays lose it with the ids, as in the original.
    columns = {key: as_lists(value) if framework or key in fill else value for key, value in encoded.items()}
    one_row = bool(columns[main]) and not isinstance(columns[main][0], list)
    if one_row:
        columns = {key: [value] for key, value in columns.items()}
    lengths = [len(row) for row in columns[main]]
    if options.return_attention_mask and not (lengths and "attention_mask" in columns):
        columns["attention_mask"] = [[1] * length for length in lengths]
    if lengths:
        uneven = {key: len(value) for key, value in columns.items() if len(value) != len(lengths)}
        if uneven:
            raise TokenizerError(f"expected {len(lengths)} rows under every name, received {uneven}")
        columns = {key: [value[row] for row in range(len(lengths))] for key, value in columns.items()}
    if target := options.plan.target(lengths):
        pad_columns(columns, target, options.plan.padding_side, fill)
    if one_row:
        columns = {key: rows[0] for key, rows in columns.items()}
    return BatchEncoding(columns, tensor_type=framework if options.return_tensors is None else options.return_tensors)
