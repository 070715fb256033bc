"""Calling a tokenizer: from texts, in the forms that a call takes them in, to rows for ``_encode_batch``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.encoding import BatchEncoding
from xlmr_core.tokenization.rows import CallOptions, Rows

__all__ = ["Calling", "Sample"]

Sample = tuple[Any, Any]
"""One row to encode: a text (str, words, or ids for the sentencepiece class) and its pair or None."""


class Calling(Rows):
    """The calls of both tokenizer classes; ``_encode_batch`` is theirs."""

    @abstractmethod
    def _encode_batch(self, samples: list[Sample], options: CallOptions, single: bool) -> BatchEncoding:
        """Encode rows; ``single`` drops the batch axis where nothing needs it."""

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
            lists, or arrays of shape (S,) or (B, S), by name; integers are int64 for 'np' and 'pt', int32 for 'tf' and 'jax'.

        Raises:
            TokenizerError: something that is no text, or lengths that cannot be met.
        """
        if text is None and text_target is None:
            raise TokenizerError("expected a text to tokenize, received None; pass text= or text_target=")
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

    def encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
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
        """Encode one text or pair; arguments and result as of a call."""
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
        return self._encode_batch([(text, text_pair)], options, single=True)

    def batch_encode_plus(
        self,
        batch_text_or_text_pairs: Sequence[Any],
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
        split_special_tokens: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Encode a list of texts or of (text, pair) tuples; arguments and result as of a call.

        ``split_special_tokens`` can turn splitting on; where the tokenizer itself splits, it does so here too.
        """
        if not isinstance(batch_text_or_text_pairs, list | tuple):
            raise TokenizerError(
                f"expected a list of texts, received {type(batch_text_or_text_pairs).__name__}; pass a list"
            )
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
            split_special_tokens=split_special_tokens or self.split_special_tokens,
            **kwargs,
        )
        samples = _as_samples(batch_text_or_text_pairs, options.is_split_into_words)
        return self._encode_batch(samples, options, single=False)

    def encode(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """The ids of one text or pair; arguments as of a call."""
        encoded = self.encode_plus(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            padding_side=padding_side,
            return_tensors=return_tensors,
            **kwargs,
        )
        return encoded["input_ids"]

    def _encode(self, text: Any, pair: Any, options: CallOptions) -> BatchEncoding:
        words = options.is_split_into_words
        batched = isinstance(text, list | tuple) and (not words or (bool(text) and isinstance(text[0], list | tuple)))
        if not batched:
            return self._encode_batch([(text, pair)], options, single=True)
        if pair is None:
            return self._encode_batch(_as_samples(text, words), options, single=False)
        if not isinstance(pair, list | tuple):
            raise TokenizerError(
                f"expected a list of {len(text)} text pairs beside a list of texts, received {type(pair).__name__}; pass lists for both"
            )
        if len(text) != len(pair):
            raise TokenizerError(f"expected as many texts as text pairs, received {len(text)} and {len(pair)}")
        return self._encode_batch(list(zip(text, pair, strict=True)), options, single=False)


def _as_samples(batch: Sequence[Any], is_split_into_words: bool) -> list[Sample]:
    def sample(item: Any) -> Sample:
        paired = isinstance(item, list | tuple) and len(item) == 2
        if paired and (isinstance(item[0], list | tuple) if is_split_into_words else _is_pair(item)):
            return item[0], item[1]
        return item, None

    return [sample(item) for item in batch]


def _is_pair(item: Sequence[Any]) -> bool:
    return all(isinstance(part, str | list | tuple) for part in item)
