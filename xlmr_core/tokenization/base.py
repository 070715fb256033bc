"""What both tokenizer classes share: calling, decoding, padding and the special tokens around a text."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import files
from xlmr_core.tokenization.batching import (
    NO_LIMIT,
    LengthPlan,
    TruncationStrategy,
    as_lists,
    check_side,
    pad_row,
    plan_lengths,
    target_length,
    truncate,
)
from xlmr_core.tokenization.encoding import BatchEncoding
from xlmr_core.tokenization.special import AddedToken, SpecialTokens

__all__ = ["CallOptions", "PreTrainedTokenizerBase", "Sample"]

logger = logging.getLogger("xlmr_core.tokenization")

Sample = tuple[Any, Any]
"""One row to encode: a text (str, words, or ids for the sentencepiece class) and its pair or None."""

_CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


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


class PreTrainedTokenizerBase(SpecialTokens, ABC):
    """The common surface of ``XLMRobertaTokenizer`` and ``XLMRobertaTokenizerFast``.

    Args:
        model_max_length: the longest row the model takes, special tokens included; a longer one is reported once.
        padding_side, truncation_side: 'right' or 'left'.
        model_input_names: which inputs a call returns by default.
        clean_up_tokenization_spaces: default of ``decode``.
        split_special_tokens: treat special tokens in a text as ordinary text.
        bos_token ... mask_token, additional_special_tokens, extra_special_tokens: the special tokens.
        added_tokens_decoder: id to token, as ``tokenizer_config.json`` holds it.
        kwargs: kept, and written again by ``save_pretrained``.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": files.VOCAB_FILE,
        "tokenizer_file": files.TOKENIZER_FILE,
    }
    is_fast: ClassVar[bool]

    def __init__(
        self,
        *,
        special: Mapping[str, Any],
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        model_input_names: Sequence[str] = ("input_ids", "attention_mask"),
        clean_up_tokenization_spaces: bool | None = False,
        split_special_tokens: bool = False,
        additional_special_tokens: Sequence[Any] | None = None,
        extra_special_tokens: Mapping[str, Any] | Sequence[Any] | None = None,
        name_or_path: str = "",
        **kwargs: Any,
    ) -> None:
        check_side("padding_side", padding_side)
        check_side("truncation_side", truncation_side)
        self._special = {}
        self._additional = []
        self.init_kwargs = dict(kwargs)
        self.name_or_path = name_or_path
        self.model_max_length = NO_LIMIT if model_max_length is None else int(model_max_length)
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.model_input_names = list(model_input_names)
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.split_special_tokens = split_special_tokens
        self.verbose = bool(kwargs.get("verbose", True))
        self._warned_too_long = False
        for name, token in special.items():
            self._set_special(name, token)
        if isinstance(extra_special_tokens, Mapping):
            for name, token in extra_special_tokens.items():
                self._set_special(name, token)
            self._own_names = list(extra_special_tokens)
        else:
            # A list is how newer files spell additional_special_tokens.
            additional_special_tokens = [*(additional_special_tokens or []), *(extra_special_tokens or [])]
            self._own_names = []
        self.additional_special_tokens = additional_special_tokens or []  # type: ignore[assignment]

    # -- what a subclass provides --------------------------------------------------------------------------------------

    @abstractmethod
    def _encode_batch(self, samples: list[Sample], options: CallOptions, single: bool) -> BatchEncoding:
        """Encode rows; ``single`` drops the batch axis where nothing needs it."""

    @abstractmethod
    def _decode(self, ids: list[int], skip_special_tokens: bool, **kwargs: Any) -> str: ...

    @abstractmethod
    def _add_tokens(self, tokens: list[AddedToken]) -> int: ...

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids without added tokens (``<mask>`` is not an added one)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""

    @property
    @abstractmethod
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token, of every token that is cut out of the text before the model (special tokens too), by id."""

    @abstractmethod
    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any) -> list[str]:
        """Split a text into tokens."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens into a text."""

    # -- vocabulary ----------------------------------------------------------------------------------------------------

    @property
    def vocab(self) -> dict[str, int]:
        """Same as ``get_vocab()``."""
        return self.get_vocab()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Token to id, of the tokens in ``added_tokens_decoder``."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """Token to id, of the tokens in ``added_tokens_decoder``."""
        return self.added_tokens_encoder

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens that are never split.

        Args:
            new_tokens: a str, an AddedToken, or a list of them.
            special_tokens: they are control tokens (dropped by ``skip_special_tokens=True``).

        Returns:
            how many of them are new to the vocabulary (then ``model.resize_token_embeddings(len(tokenizer))``).

        Raises:
            TokenizerError: something that is no token.
        """
        if isinstance(new_tokens, str | Mapping) or hasattr(new_tokens, "content"):
            new_tokens = [new_tokens]
        if not isinstance(new_tokens, Iterable):
            raise TokenizerError(f"expected a token or a list of tokens, got {type(new_tokens).__name__} {new_tokens!r}")
        known_special = set(self.all_special_tokens)
        tokens = []
        for token in new_tokens:
            # A str that names a special token keeps being one.
            marked = special_tokens or (isinstance(token, str) and token in known_special)
            added = AddedToken.of(token, special=True if marked else None)
            check_text(added.content)
            if added.content:
                tokens.append(added)
        count = self._add_tokens(tokens)
        for added in tokens:
            if added.special and added.content not in known_special:
                self._additional.append(added)
                known_special.add(added.content)
        return count

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or the ids of a list; an unknown token has the id of ``unk_token``."""
        if tokens is None:
            return None
        if isinstance(tokens, str):
            return self._token_id(tokens)
        return [self._token_id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of a list (None for an id outside the vocabulary in the fast class)."""
        ids = as_lists(ids)
        if not isinstance(ids, list):
            return self._id_token(_as_id(ids))
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._id_token(_as_id(index)) for index in ids if index not in skipped]

    # -- special tokens around a text ----------------------------------------------------------------------------------

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        """``<s> A </s>`` or ``<s> A </s></s> B </s>``."""
        cls, sep = [_as_id(self.cls_token_id)], [_as_id(self.sep_token_id)]
        if token_ids_1 is None:
            return cls + token_ids_0 + sep
        return cls + token_ids_0 + sep + sep + token_ids_1 + sep

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 where a special token stands, or would stand once they are added; 0 elsewhere."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise TokenizerError("expected one list of ids that has its special tokens already, got a second one")
            special = set(self.all_special_ids)
            return [int(index in special) for index in as_lists(token_ids_0)]
        mask = [1] + [0] * len(token_ids_0) + [1]
        return mask if token_ids_1 is None else mask + [1] + [0] * len(token_ids_1) + [1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros: XLM-R has one token type."""
        return [0] * (len(token_ids_0) + len(token_ids_1 or []) + self.num_special_tokens_to_add(token_ids_1 is not None))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text (2) or a pair (4) gets."""
        return 4 if pair else 2

    @property
    def max_len_single_sentence(self) -> int:
        """Room for a text's own tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """Room for a pair's own tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    # -- calling -------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
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
        **kwargs: Any,
    ) -> BatchEncoding:
        """Turn texts into model inputs.

        Args:
            text: a str, a list of str (a batch), or with ``is_split_into_words`` a list of words (or a batch of those).
            text_pair: the second text of each pair, in the form of ``text``.
            text_target, text_pair_target: encoded in the same way; their ids become ``labels`` if ``text`` is given too.
            add_special_tokens: put ``<s>`` and ``</s>`` around.
            padding: True or 'longest', 'max_length', or False.
            truncation: True or 'longest_first', 'only_first', 'only_second', or False.
            max_length: for both, special tokens included; by default ``model_max_length``.
            stride: how many tokens two windows of one text share (``return_overflowing_tokens``).
            is_split_into_words: the texts are lists of words.
            pad_to_multiple_of: round the padded length up.
            padding_side: 'right' or 'left', instead of the tokenizer's own.
            return_tensors: 'np', 'pt', 'tf' or 'jax'; by default lists.
            return_*: what the result holds beside ``input_ids``.
            verbose: log what is odd about a call.

        Returns:
            lists (or arrays of shape (S,) or (B, S), int64 for 'np') by name.

        Raises:
            TokenizerError: something that is no text, or lengths that cannot be met.
        """
        if text is None and text_target is None:
            raise TokenizerError("expected a text to tokenize, got None; pass text= or text_target=")
        options = self._options(
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            is_split_into_words=is_split_into_words,
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
        encoded = None if text is None else self._encode(text, text_pair, options)
        if text_target is None:
            assert encoded is not None
            return encoded
        target = self._encode(text_target, text_pair_target, options)
        if encoded is None:
            return target
        encoded["labels"] = target["input_ids"]
        return encoded

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """Encode one text or pair; arguments and result as of a call."""
        return self._encode_batch([(text, text_pair)], self._options(**kwargs), single=True)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **kwargs: Any) -> BatchEncoding:
        """Encode a list of texts or of (text, pair) tuples; arguments and result as of a call."""
        if not isinstance(batch_text_or_text_pairs, list | tuple):
            raise TokenizerError(f"expected a list of texts, got {type(batch_text_or_text_pairs).__name__}; pass a list")
        options = self._options(**kwargs)
        samples = _as_samples(batch_text_or_text_pairs, options.is_split_into_words)
        return self._encode_batch(samples, options, single=False)

    def encode(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """The ids of one text or pair; arguments as of a call."""
        return self.encode_plus(text, text_pair, **kwargs)["input_ids"]

    def _encode(self, text: Any, pair: Any, options: CallOptions) -> BatchEncoding:
        words = options.is_split_into_words
        batched = isinstance(text, list | tuple) and (not words or (bool(text) and isinstance(text[0], list | tuple)))
        if not batched:
            return self._encode_batch([(text, pair)], options, single=True)
        if pair is None:
            return self._encode_batch(_as_samples(text, words), options, single=False)
        if not isinstance(pair, list | tuple):
            raise TokenizerError(
                f"expected a list of {len(text)} text pairs beside a list of texts, got {type(pair).__name__}; pass lists for both"
            )
        if len(text) != len(pair):
            raise TokenizerError(f"expected as many texts as text pairs, got {len(text)} and {len(pair)}")
        return self._encode_batch(list(zip(text, pair, strict=True)), options, single=False)

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
                logger.warning("keyword arguments %s are not known to the tokenizer and do nothing", unknown)
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
            verbose=verbose,
        )

    def _wanted(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _warn_if_too_long(self, length: int, max_length: int | None, verbose: bool) -> None:
        if max_length is None and length > self.model_max_length and verbose and not self._warned_too_long:
            self._warned_too_long = True
            logger.warning(
                "Token indices sequence length is longer than the specified maximum sequence length for this model "
                "(%d > %d); pass truncation=True, or the model will refuse it",
                length,
                self.model_max_length,
            )

    # -- from ids ------------------------------------------------------------------------------------------------------

    def prepare_for_model(
        self, ids: list[int], pair_ids: list[int] | None = None, prepend_batch_axis: bool = False, **kwargs: Any
    ) -> BatchEncoding:
        """Truncate, surround with special tokens and pad a list of ids; arguments as of a call."""
        options = self._options(**kwargs)
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
        excess = len(ids) + len(pair_ids or []) + special - (plan.max_length or 0) if plan.truncates else 0
        if excess > 0:
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
            row["overflowing_tokens"] = overflow if excess > 0 else []
            row["num_truncated_tokens"] = excess if plan.truncates else 0
        with_special = options.add_special_tokens
        row["input_ids"] = self.build_inputs_with_special_tokens(ids, pair_ids) if with_special else ids + (pair_ids or [])
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
            the batch, with ``attention_mask``.

        Raises:
            TokenizerError: rows without the model's main input.
        """
        if isinstance(encoded_inputs, list | tuple) and encoded_inputs and isinstance(encoded_inputs[0], Mapping):
            keys = encoded_inputs[0].keys()
            encoded_inputs = {key: [example[key] for example in encoded_inputs] for key in keys}
        main = self.model_input_names[0]
        if not isinstance(encoded_inputs, Mapping) or main not in encoded_inputs:
            got = list(encoded_inputs) if isinstance(encoded_inputs, Mapping) else type(encoded_inputs).__name__
            raise TokenizerError(f"expected encodings that include {main!r}, got {got}; pass what calling the tokenizer returned")
        columns = {key: as_lists(value) for key, value in encoded_inputs.items()}
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
            raise TokenizerError(f"expected {len(columns[main])} rows under every name, got {uneven}")
        rows = [{key: value[i] for key, value in columns.items()} for i in range(len(columns[main]))]
        self._pad_rows(rows, plan, with_mask)
        return BatchEncoding({key: [row[key] for row in rows] for key in rows[0]}, tensor_type=return_tensors)

    def _pad_rows(self, rows: list[dict[str, Any]], plan: LengthPlan, with_mask: bool) -> None:
        main = self.model_input_names[0]
        target = target_length(plan, [len(row[main]) for row in rows])
        fill = {
            main: self.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": self.pad_token_type_id,
            "special_tokens_mask": 1,
            "offset_mapping": (0, 0),
        }
        for row in rows:
            if with_mask and "attention_mask" not in row:
                row["attention_mask"] = [1] * len(row[main])
            if target:
                pad_row(row, target, plan.padding_side, fill)

    # -- decoding ------------------------------------------------------------------------------------------------------

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """The text of ids.

        Args:
            token_ids: an id, a list of ids, or an array or tensor of shape (S,).
            skip_special_tokens: leave the special tokens out.
            clean_up_tokenization_spaces: drop the spaces before punctuation and English contractions.

        Raises:
            TokenizerError: ids that are no integers, or (sentencepiece class) outside the vocabulary.
        """
        ids = as_lists(token_ids)
        ids = [_as_id(index) for index in (ids if isinstance(ids, list) else [ids])]
        text = self._decode(ids, skip_special_tokens, **kwargs)
        clean = self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """The texts of several rows of ids; arguments as of ``decode``."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces, **kwargs) for row in as_lists(sequences)]

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Drop the spaces before punctuation and English contractions."""
        for spaced, tight in _CLEAN_UP:
            out_string = out_string.replace(spaced, tight)
        return out_string

    # -- files ---------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *init_inputs: Any, **kwargs: Any) -> Self:
        """Read a tokenizer from a folder, a built-in name or a hub name.

        Args:
            pretrained_model_name_or_path: the folder or name, or a single ``.model`` or ``tokenizer.json`` file.
            kwargs: override what the files say; ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``subfolder``
                say where to look.

        Raises:
            ModelNotFoundError: no such folder or name.
            TokenizerError: files missing, damaged, or not XLM-R's.
        """
        found = files.find_files(pretrained_model_name_or_path, kwargs)
        return cls(*init_inputs, **files.init_arguments(found, kwargs, fast=cls.is_fast))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Write the tokenizer's files into a folder, each to a temporary name first.

        Args:
            save_directory: made if it does not exist.
            legacy_format: fast class only: True without ``tokenizer.json``, False without the sentencepiece model.
            filename_prefix: put before each file name, with a dash.

        Returns:
            the paths written.
        """
        if kwargs.get("push_to_hub"):
            raise TokenizerError("expected a local folder, got push_to_hub=True; upload the folder with huggingface_hub")
        return files.save(self, save_directory, legacy_format, filename_prefix)

    def __repr__(self) -> str:
        limit = "none" if self.model_max_length >= NO_LIMIT else self.model_max_length
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, model_max_length={limit}, "
            f"is_fast={self.is_fast}, padding_side={self.padding_side!r}, truncation_side={self.truncation_side!r}, "
            f"special_tokens={self.special_tokens_map}, added={len(self) - self.vocab_size})"
        )


def check_text(text: str) -> None:
    """Refuse a str that is no Unicode text.

    Raises:
        TokenizerError: it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"expected Unicode text, got a lone surrogate {text[error.start]!a} at character {error.start}; decode the bytes "
            "with errors='replace', or clean it with text.encode('utf-8', 'replace').decode()"
        ) from None


def _as_samples(batch: Sequence[Any], is_split_into_words: bool) -> list[Sample]:
    def sample(item: Any) -> Sample:
        paired = isinstance(item, list | tuple) and len(item) == 2
        if paired and (isinstance(item[0], list | tuple) if is_split_into_words else _is_pair(item)):
            return item[0], item[1]
        return item, None

    return [sample(item) for item in batch]


def _is_pair(item: Sequence[Any]) -> bool:
    return all(isinstance(part, str | list | tuple) for part in item)


def _as_id(index: Any) -> int:
    try:
        value = int(index)
    except (TypeError, ValueError, OverflowError) as error:
        raise TokenizerError(f"expected a token id, got {type(index).__name__} {index!r}") from error
    if value < 0:
        raise TokenizerError(
            f"expected token ids of at least 0, got {value}; replace the ignored labels (-100) with pad_token_id before decoding"
        )
    return value


def _surround(
    offsets: list[tuple[int, int]], pair_offsets: list[tuple[int, int]] | None, with_special: bool
) -> list[tuple[int, int]]:
    """Offsets for the special tokens too: (0, 0) each, as the fast class gives."""
    edge = [(0, 0)] if with_special else []
    if pair_offsets is None:
        return edge + offsets + edge
    return edge + offsets + edge + edge + pair_offsets + edge
