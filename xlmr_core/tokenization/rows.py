"""Rows of ids: what the arguments of a call mean, and ids cut, surrounded with special tokens and padded."""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.encoding import BatchEncoding, as_lists, framework_of
from xlmr_core.tokenization.lengths import (
    LengthPlan,
    TruncationStrategy,
    pad_row,
    plan_lengths,
    target_length,
    truncate,
)
from xlmr_core.tokenization.special import SpecialTokens

__all__ = ["CallOptions", "Rows"]

logger = logging.getLogger("xlmr_core.tokenization")


@dataclass(frozen=True)
class CallOptions:
    """The arguments of a call, checked and with their defaults filled in."""

    plan: LengthPlan
    add_special_tokens: bool = True
    is_split_into_words: bool = False
    split_special_tokens: bool = False
    return_tensors: str | None = None
    return_token_type_ids: bool = False
    return_attention_mask: bool = True
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    verbose: bool = True


class Rows(SpecialTokens, ABC):
    """What both tokenizer classes do with ids."""

    model_max_length: int
    padding_side: str = "right"
    truncation_side: str = "right"
    model_input_names: list[str] = ["input_ids", "attention_mask"]  # noqa: RUF012 (a subclass or an instance may have its own)
    split_special_tokens: bool
    deprecation_warnings: dict[str, bool]

    # -- arguments -----------------------------------------------------------------------------------------------------

    def _options(
        self,
        *,
        padding: bool | str | None = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        verbose: bool = True,
        pad_to_max_length: bool = False,
        truncation_strategy: str | None = None,
        split_special_tokens: bool | None = None,
        **kwargs: Any,
    ) -> CallOptions:
        # The last two names of lengths are those of the first releases; scripts from 2020 still pass them.
        if pad_to_max_length and not padding:
            padding = "longest" if max_length is None else "max_length"
        if truncation is None and truncation_strategy is not None:
            truncation = truncation_strategy
        unknown = sorted(set(kwargs) - set(CallOptions.__dataclass_fields__))
        if unknown:
            if verbose:
                self._warn_of_unknown(unknown)
            kwargs = {key: value for key, value in kwargs.items() if key not in unknown}
        return CallOptions(
            plan=self._plan(padding, truncation, max_length, stride, pad_to_multiple_of, padding_side, verbose),
            return_tensors=return_tensors,
            return_token_type_ids=self._wanted("token_type_ids", return_token_type_ids),
            return_attention_mask=self._wanted("attention_mask", return_attention_mask),
            split_special_tokens=self.split_special_tokens if split_special_tokens is None else split_special_tokens,
            verbose=verbose,
            **kwargs,
        )

    def _warn_once(self, name: str, message: str) -> None:
        """Log a warning the first time; scripts silence one by setting its name in ``deprecation_warnings``."""
        if not self.deprecation_warnings.get(name):
            self.deprecation_warnings[name] = True
            logger.warning(message)

    def _warn_of_unknown(self, names: Iterable[str]) -> None:
        fresh = [name for name in sorted(names) if not self.deprecation_warnings.get(f"keyword-{name}")]
        if fresh:
            self.deprecation_warnings |= {f"keyword-{name}": True for name in fresh}
            logger.warning("keyword arguments %s are not known to the tokenizer and do nothing", fresh)

    def _plan(
        self,
        padding: bool | str | None,
        truncation: bool | str | None,
        max_length: int | None,
        stride: int,
        multiple_of: int | None,
        padding_side: str | None,
        verbose: bool,
    ) -> LengthPlan:
        return plan_lengths(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            multiple_of=multiple_of,
            padding_side=padding_side or self.padding_side,
            truncation_side=self.truncation_side,
            model_max_length=self.model_max_length,
            has_pad_token=self.pad_token_id is not None,
            advise=self._warn_once if verbose else lambda *_: None,
        )

    def _wanted(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _warn_if_too_long(self, length: int, max_length: int | None, verbose: bool) -> None:
        if verbose and max_length is None and length > self.model_max_length:
            self._warn_once(
                "sequence-length-is-longer-than-the-specified-maximum",
                "Token indices sequence length is longer than the specified maximum sequence length for this model "
                f"({length} > {self.model_max_length}); pass truncation=True, or the model will refuse it",
            )

    # -- from ids ------------------------------------------------------------------------------------------------------

    def prepare_for_model(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        prepend_batch_axis: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Truncate, surround with special tokens and pad a list of ids; arguments as of a call.

        ``return_offsets_mapping`` does nothing here: ids have no positions in a text.
        """
        options = self._options(
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_tensors=return_tensors,
            return_token_type_ids=return_token_type_ids,
            return_attention_mask=return_attention_mask,
            return_overflowing_tokens=return_overflowing_tokens,
            return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping,
            return_length=return_length,
            verbose=verbose,
            **kwargs,
        )
        row = self._prepare(list(ids), None if pair_ids is None else list(pair_ids), options, None, None)
        self._pad_rows([row], options.plan, options.return_attention_mask)
        if options.return_length:
            row["length"] = len(row["input_ids"])
        return BatchEncoding(row, tensor_type=options.return_tensors, prepend_batch_axis=prepend_batch_axis)

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """Cut ids off a text or pair: (text, pair, cut off with ``stride`` kept beside them)."""
        strategy = TruncationStrategy(truncation_strategy)
        return truncate(ids, pair_ids, num_tokens_to_remove, strategy, stride, self.truncation_side)

    def _prepare(
        self,
        ids: list[int],
        pair_ids: list[int] | None,
        options: CallOptions,
        offsets: list[tuple[int, int]] | None,
        pair_offsets: list[tuple[int, int]] | None,
    ) -> dict[str, Any]:
        plan = options.plan
        paired = pair_ids is not None
        special = self.num_special_tokens_to_add(paired) if options.add_special_tokens else 0
        plan.check(special, stride_matters=False)
        row: dict[str, Any] = {}
        overflow: list[int] = []
        excess = 0 if plan.max_length is None else len(ids) + len(pair_ids or []) + special - plan.max_length
        if plan.truncates and excess > 0:
            if options.return_overflowing_tokens and plan.truncation is TruncationStrategy.LONGEST_FIRST and paired:
                raise TokenizerError(
                    "Not possible to return overflowing tokens for pair of sequences with the `longest_first`. "
                    "Please select another truncation strategy than `longest_first`, for instance `only_second` or `only_first`."
                )
            cut = (excess, plan.truncation, plan.stride, plan.truncation_side)
            if offsets is not None:
                offsets, pair_offsets, _ = truncate(offsets, pair_offsets, *cut)  # type: ignore[arg-type, assignment]
            ids, pair_ids, overflow = truncate(ids, pair_ids, *cut)
        if options.return_overflowing_tokens:
            row["overflowing_tokens"] = overflow
            row["num_truncated_tokens"] = excess
        with_special = options.add_special_tokens
        row["input_ids"] = (
            self.build_inputs_with_special_tokens(ids, pair_ids) if with_special else ids + (pair_ids or [])
        )
        if options.return_token_type_ids:
            row["token_type_ids"] = [0] * len(row["input_ids"])
            if not with_special and pair_ids:
                row["token_type_ids"] = [0] * len(ids) + [1] * len(pair_ids)
        if options.return_special_tokens_mask:
            mask = self.get_special_tokens_mask(ids, pair_ids) if with_special else [0] * len(row["input_ids"])
            row["special_tokens_mask"] = mask
        if offsets is not None:
            row["offset_mapping"] = _surround(offsets, pair_offsets, with_special)
        self._warn_if_too_long(len(row["input_ids"]), plan.max_length, options.verbose)
        return row

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pad encoded rows to one length (as a data collator needs it).

        Args:
            encoded_inputs: a list of encodings, or one encoding of a row or a batch; lists, arrays or tensors.
            others: as of a call.

        Returns:
            the batch, with ``attention_mask``; arrays or tensors of a framework come back as such, unless ``return_tensors`` says else.

        Raises:
            TokenizerError: rows without the model's main input, or a column that makes no tensor.
        """
        if isinstance(encoded_inputs, list | tuple) and encoded_inputs and isinstance(encoded_inputs[0], Mapping):
            keys = encoded_inputs[0].keys()
            encoded_inputs = {key: [example[key] for example in encoded_inputs] for key in keys}
        main = self.model_input_names[0]
        if not isinstance(encoded_inputs, Mapping) or main not in encoded_inputs:
            received = list(encoded_inputs) if isinstance(encoded_inputs, Mapping) else type(encoded_inputs).__name__
            raise TokenizerError(
                f"expected encodings that include {main!r}, received {received}; pass what calling the tokenizer returned"
            )
        given = framework_of(encoded_inputs[main])
        return_tensors = given if return_tensors is None else return_tensors
        fill = self._fill()
        # Labels beside lists of ids keep their dtype; those beside arrays lose it with the ids, as in the original.
        columns = {key: as_lists(value) if given or key in fill else value for key, value in encoded_inputs.items()}
        with_mask = self._wanted("attention_mask", return_attention_mask)
        plan = self._plan(padding, False, max_length, 0, pad_to_multiple_of, padding_side, verbose)
        if not columns[main]:
            empty: dict[str, Any] = {**columns, "attention_mask": []} if with_mask else columns
            return BatchEncoding(empty, tensor_type=return_tensors)
        if not isinstance(columns[main][0], list):
            self._pad_rows([columns], plan, with_mask)
            return BatchEncoding(columns, tensor_type=return_tensors)
        uneven = {key: len(value) for key, value in columns.items() if len(value) != len(columns[main])}
        if uneven:
            raise TokenizerError(f"expected {len(columns[main])} rows under every name, received {uneven}")
        rows = [{key: value[i] for key, value in columns.items()} for i in range(len(columns[main]))]
        self._pad_rows(rows, plan, with_mask)
        return BatchEncoding({key: [row[key] for row in rows] for key in rows[0]}, tensor_type=return_tensors)

    def _pad_rows(self, rows: list[dict[str, Any]], plan: LengthPlan, with_mask: bool) -> None:
        main = self.model_input_names[0]
        target = target_length(plan, [len(row[main]) for row in rows])
        fill = self._fill()
        for row in rows:
            if with_mask and "attention_mask" not in row:
                row["attention_mask"] = [1] * len(row[main])
            if target:
                pad_row(row, target, plan.padding_side, fill)

    def _fill(self) -> dict[str, Any]:
        """What each padded column is filled with."""
        return {
            self.model_input_names[0]: self.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": self.pad_token_type_id,
            "special_tokens_mask": 1,
            "offset_mapping": (0, 0),
        }


def _surround(
    offsets: list[tuple[int, int]], pair_offsets: list[tuple[int, int]] | None, with_special: bool
) -> list[tuple[int, int]]:
    """Offsets for the special tokens too: (0, 0) each, as the fast class gives."""
    edge = [(0, 0)] if with_special else []
    if pair_offsets is None:
        return edge + offsets + edge
    return edge + offsets + edge + edge + pair_offsets + edge
