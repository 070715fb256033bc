"""``PreTrainedTokenizerBase``: the published surface of both tokenizer classes, over the parts that do the work."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

from xlmr_core.errors import NoTextError, TokenizerError
from xlmr_core.tokenization import calling, files, settings
from xlmr_core.tokenization.calling import (
    CallArguments,
    CallOptions,
    bound,
    published,
    read_batch,
    read_options,
    read_texts,
    warn_of_unknown,
)
from xlmr_core.tokenization.checks import as_id, describe
from xlmr_core.tokenization.encoding import BatchEncoding, as_lists
from xlmr_core.tokenization.lengths import NO_LIMIT, TruncationStrategy, check_side, truncate
from xlmr_core.tokenization.rows import EncodedTexts, pad_rows, to_columns
from xlmr_core.tokenization.special import DEFAULT_TOKENS, AddedToken, SpecialTokens, TokenId, TokenText
from xlmr_core.uploads import PushToHub, upload_after

__all__ = ["PreTrainedTokenizerBase", "overridden"]

_CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def overridden(method: Any, ours: Any) -> bool:
    """Whether a tokenizer's bound method is one of a user's own in place of ours."""
    return getattr(method, "__func__", None) is not ours


class PreTrainedTokenizerBase(PushToHub, ABC):
    """The common surface of ``XLMRobertaTokenizer`` and ``XLMRobertaTokenizerFast``.

    Args:
        model_max_length: the longest row the model takes, special tokens included; a longer one is reported once.
        padding_side, truncation_side: 'right' or 'left'; by default the class's own, 'right'.
        model_input_names: which inputs a call returns by default; by default the class's own.
        clean_up_tokenization_spaces: default of ``decode``.
        split_special_tokens: treat special tokens in a text as ordinary text.
        bos_token ... mask_token, additional_special_tokens, extra_special_tokens: the special tokens.
        added_tokens_decoder: id to token, as ``tokenizer_config.json`` holds it.
        model_specific_special_tokens: more special tokens by names of their own (also any other ``..._token``).
        chat_template: kept and saved; nothing here uses it.
        add_prefix_space: True: a text starts with a space, as XLM-R's does; False is refused, see docs/tokenizers.md.
        merges_file: None: a unigram vocabulary has no merges.
        kwargs: kept, and written again by ``save_pretrained``; the name of a method is refused.
    """

    vocab_files_names: ClassVar[dict[str, str]]
    pretrained_vocab_files_map: ClassVar[dict[str, dict[str, str]]] = {}
    slow_tokenizer_class: ClassVar[type[PreTrainedTokenizerBase] | None] = None
    is_fast: ClassVar[bool]
    SPECIAL_TOKENS_ATTRIBUTES: list[str] = [*DEFAULT_TOKENS, "additional_special_tokens"]  # noqa: RUF012

    # A subclass or an instance may have its own.
    padding_side: str = "right"
    truncation_side: str = "right"
    model_input_names: list[str] = ["input_ids", "attention_mask"]  # noqa: RUF012
    pad_token_type_id: int = 0

    bos_token, eos_token, unk_token, sep_token = TokenText(), TokenText(), TokenText(), TokenText()
    pad_token, cls_token, mask_token = TokenText(), TokenText(), TokenText()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = TokenId(), TokenId(), TokenId(), TokenId()
    pad_token_id, cls_token_id, mask_token_id = TokenId(), TokenId(), TokenId()

    def __init__(
        self,
        special: Mapping[str, Any],
        /,
        *,
        model_max_length: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        model_input_names: Sequence[str] | None = None,
        clean_up_tokenization_spaces: bool | None = False,
        split_special_tokens: bool = False,
        additional_special_tokens: Sequence[Any] | None = None,
        extra_special_tokens: Mapping[str, Any] | Sequence[Any] | None = None,
        model_specific_special_tokens: Mapping[str, Any] | None = None,
        name_or_path: str = "",
        chat_template: Any = None,
        max_len: int | None = None,
        merges_file: Any = None,
        **kwargs: Any,
    ) -> None:
        if merges_file is not None:
            raise TokenizerError(
                f"expected no merges_file, received {describe(merges_file)}: XLM-R's vocabulary is unigram, and "
                "the score of each piece stands in the place of merges; leave it out"
            )
        limit = max_len if model_max_length is None else model_max_length  # the first releases wrote max_len
        own = {name: kwargs.pop(name) for name in list(kwargs) if settings.names_a_token(name, kwargs[name])}
        settings.check(
            {
                "model_max_length": limit,
                "model_input_names": model_input_names,
                "split_special_tokens": split_special_tokens,
                "additional_special_tokens": additional_special_tokens,
                "extra_special_tokens": extra_special_tokens,
                "model_specific_special_tokens": model_specific_special_tokens,
            }
        )
        own |= dict(model_specific_special_tokens or {})
        named = extra_special_tokens if isinstance(extra_special_tokens, Mapping) else {}
        settings.refuse_names_of(type(self), kwargs, [*own, *named])
        settings.advise_on_names(kwargs)
        self._special = SpecialTokens(special, additional_special_tokens, extra_special_tokens, own)
        self.SPECIAL_TOKENS_ATTRIBUTES = [*self.SPECIAL_TOKENS_ATTRIBUTES, *self._special.own_names]
        self.init_inputs: tuple[Any, ...] = ()
        self.init_kwargs = {**special, **kwargs}
        self.name_or_path = name_or_path
        self.model_max_length = NO_LIMIT if limit is None or limit >= NO_LIMIT else int(limit)
        self.padding_side = self.padding_side if padding_side is None else padding_side
        self.truncation_side = self.truncation_side if truncation_side is None else truncation_side
        check_side("padding_side", self.padding_side)
        check_side("truncation_side", self.truncation_side)
        self.model_input_names = list(self.model_input_names if model_input_names is None else model_input_names)
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.split_special_tokens = split_special_tokens
        self.verbose = bool(kwargs.get("verbose", True))
        self.deprecation_warnings: dict[str, bool] = {}  # which warnings were given
        self.chat_template = chat_template

    # -- what the two classes do, each with its library ----------------------------------------------------------------

    @abstractmethod
    def _encode(self, texts: list[Any], pairs: list[Any] | None, single: bool, options: CallOptions) -> BatchEncoding:
        """Rows of texts and of their pairs (None: there are none); ``single``: one row, and no batch axis in lists."""

    @abstractmethod
    def _token_id(self, token: Any) -> int | None: ...

    @abstractmethod
    def _id_token(self, index: int) -> str | None: ...

    @abstractmethod
    def _vocabulary_contents(self, legacy_format: bool | None) -> Mapping[str, str | bytes]:
        """The files that hold the vocabulary: name to content."""

    @abstractmethod
    def _decode(self, ids: list[int], skip_special_tokens: bool, spaces_between_special_tokens: bool) -> str: ...

    @abstractmethod
    def _add_tokens(self, tokens: list[AddedToken]) -> int: ...

    def _keeps_its_flags(self, token: str) -> bool:
        """Whether a token is added already and stays as it is where a str names it again."""
        return False

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
    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Split a text into tokens."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens into a text."""

    # -- a call --------------------------------------------------------------------------------------------------------

    @published(calling.CALL)
    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        *args: Any,
        **kwargs: Unpack[CallArguments],
    ) -> BatchEncoding:
        """Turn texts into model inputs.

        Args:
            text: a str, a list of str (a batch), or with ``is_split_into_words`` a list of words (or a batch of those).
            text_pair: the second text of each pair, in the form of ``text``.
            text_target, text_pair_target: encoded in the same way; their ids become ``labels`` if ``text`` is given
                too.
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
            lists, or arrays of shape (S,) or (B, S), by name; integers are int64 for 'np' and 'pt', int32 for 'tf' and
            'jax'.

        Raises:
            NoTextError: something that is no text; a TokenizerError and a TypeError.
            TokenizerError: lengths that cannot be met.
        """
        if text is None and text_target is None:
            raise NoTextError("expected a text to tokenize, received None; pass text= or text_target=")
        options = read_options(self, bound(calling.CALL, args, kwargs))
        words = options.is_split_into_words
        if text is None:
            return self._encode(*read_texts(text_target, text_pair_target, words), options)
        encoded = self._encode(*read_texts(text, text_pair, words), options)
        if text_target is not None:
            target = self._encode(*read_texts(text_target, text_pair_target, words), options)
            encoded["labels"] = target["input_ids"]
        return encoded

    @published(calling.CALL)
    def encode_plus(
        self, text: Any, text_pair: Any = None, *args: Any, **kwargs: Unpack[CallArguments]
    ) -> BatchEncoding:
        """Encode one text or pair; arguments and result as of a call."""
        options = read_options(self, bound(calling.CALL, args, kwargs))
        return self._encode([text], None if text_pair is None else [text_pair], True, options)

    @published(calling.BATCH_ENCODE_PLUS)
    def batch_encode_plus(
        self, batch_text_or_text_pairs: Sequence[Any], *args: Any, **kwargs: Unpack[CallArguments]
    ) -> BatchEncoding:
        """Encode a list of texts or of (text, pair) tuples; arguments and result as of a call.

        ``split_special_tokens`` can turn splitting on; where the tokenizer itself splits, it does so here too.
        """
        if not isinstance(batch_text_or_text_pairs, list | tuple):
            raise NoTextError(
                f"expected a list of texts, received {type(batch_text_or_text_pairs).__name__}; pass a list"
            )
        arguments = bound(calling.BATCH_ENCODE_PLUS, args, kwargs)
        arguments["split_special_tokens"] = arguments.get("split_special_tokens") or self.split_special_tokens
        options = read_options(self, arguments)
        return self._encode(*read_batch(batch_text_or_text_pairs, options.is_split_into_words), False, options)

    @published(calling.ENCODE)
    def encode(self, text: Any, text_pair: Any = None, *args: Any, **kwargs: Unpack[CallArguments]) -> Any:
        """The ids of one text or pair; arguments as of a call."""
        return self.encode_plus(text, text_pair, **bound(calling.ENCODE, args, kwargs))["input_ids"]

    @published(calling.PREPARE_FOR_MODEL)
    def prepare_for_model(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        *args: Any,
        prepend_batch_axis: bool = False,
        **kwargs: Unpack[CallArguments],
    ) -> BatchEncoding:
        """Truncate, surround with special tokens and pad a list of ids; arguments as of a call.

        ``return_offsets_mapping`` does nothing here: ids have no positions in a text.
        """
        arguments = bound(calling.PREPARE_FOR_MODEL, args, kwargs)
        prepend_batch_axis = arguments.pop("prepend_batch_axis", prepend_batch_axis)
        options = read_options(self, arguments)
        texts = EncodedTexts([list(ids)], pair_ids=None if pair_ids is None else [list(pair_ids)])
        row = {name: rows[0] for name, rows in to_columns(texts, options, self, single=True).items()}
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
            the batch, with ``attention_mask``; arrays or tensors of a framework come back as such, unless
            ``return_tensors`` says else.

        Raises:
            TokenizerError: rows without the model's main input, or a column that makes no tensor.
        """
        arguments = CallArguments(
            padding=padding,
            truncation=False,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_tensors=return_tensors,
            return_attention_mask=return_attention_mask,
            verbose=verbose,
        )
        return pad_rows(encoded_inputs, dict(arguments), self)

    # -- special tokens ------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Tokens with names of their own (`extra_special_tokens` of tokenizer_config.json): `.image_token`,
        # `.image_token_id`.
        named = self.__dict__["_special"].named if "_special" in self.__dict__ else {}
        if name in named:
            return named[name].content
        if name.removesuffix("_id") in named:
            return self._token_id(named[name.removesuffix("_id")].content)
        why = settings.NOT_HERE.get(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}" + (f": {why}" if why else ""))

    def __setattr__(self, name: str, value: Any) -> None:
        special = self.__dict__.get("_special")
        token = name.removesuffix("_id")
        if special is None or token not in special.own_names:
            super().__setattr__(name, value)
        else:
            special.set(token, self._id_token(value) if name != token and value is not None else value)

    @property
    def additional_special_tokens(self) -> list[str]:
        """The special tokens beyond the seven named ones."""
        return [token.content for token in self._special.additional]

    @additional_special_tokens.setter
    def additional_special_tokens(self, value: Sequence[Any] | None) -> None:
        self._special.set_additional(value)

    @property
    def additional_special_tokens_ids(self) -> list[int | None]:
        """Ids of ``additional_special_tokens``."""
        return [self._token_id(token) for token in self.additional_special_tokens]

    @additional_special_tokens_ids.setter
    def additional_special_tokens_ids(self, value: Sequence[int] | None) -> None:
        self._special.set_additional([self._id_token(as_id(index)) for index in value or []])

    @property
    def extra_special_tokens(self) -> dict[str, str]:
        """The special tokens with names of their own: attribute name to token text."""
        named = self._special.named
        return {name: named[name].content for name in self._special.own_names if name in named}

    @property
    def all_special_tokens_extended(self) -> list[AddedToken]:
        """Every special token once, with its flags."""
        return self._special.all()

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, in the order of the attributes."""
        return [token.content for token in self.all_special_tokens_extended]

    @property
    def all_special_ids(self) -> list[int | None]:
        """Ids of ``all_special_tokens``."""
        return [self._token_id(token) for token in self.all_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """Attribute name to token text."""
        tokens: dict[str, str | list[str]] = {name: token.content for name, token in self._special.named.items()}
        additional = self.additional_special_tokens
        return {**tokens, "additional_special_tokens": additional} if additional else tokens

    @property
    def special_tokens_map_extended(self) -> dict[str, AddedToken | list[AddedToken]]:
        """Attribute name to token with its flags."""
        tokens: dict[str, AddedToken | list[AddedToken]] = dict(self._special.named)
        additional = list(self._special.additional)
        return {**tokens, "additional_special_tokens": additional} if additional else tokens

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, Any],
        replace_additional_special_tokens: bool = True,
        *,
        replace_extra_special_tokens: bool = True,
    ) -> int:
        """Set special tokens by attribute name and add those that are not in the vocabulary.

        Args:
            special_tokens_dict: e.g. ``{"pad_token": "[PAD]", "additional_special_tokens": ["<q>"]}``.
            replace_additional_special_tokens: replace the list of additional ones, or extend it.
            replace_extra_special_tokens: version 5's name of the same.

        Returns:
            how many tokens the vocabulary grew by.

        Raises:
            TokenizerError: a key that is no special-token attribute, or a value that is no token.
        """
        replace = replace_additional_special_tokens and replace_extra_special_tokens
        tokens = self._special.update(special_tokens_dict, replace, self.SPECIAL_TOKENS_ATTRIBUTES)
        return self.add_tokens(tokens, special_tokens=True)

    def sanitize_special_tokens(self) -> int:
        """Add special tokens that are not in the vocabulary yet, such as one that was assigned; how many they are."""
        return self.add_tokens(self.all_special_tokens_extended, special_tokens=True)

    @classmethod
    def convert_added_tokens(cls, obj: Any, save: bool = False, add_type_field: bool = True) -> Any:
        """Tokens in a structure of lists and dicts, from the form that ``tokenizer_config.json`` holds, or into it.

        Args:
            obj: the structure; whatever is no token stays as it is.
            save: into that form.
            add_type_field: with ``{"__type": "AddedToken"}`` in it, or without the flag ``special``.
        """
        return settings.converted_tokens(obj, save, add_type_field)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """``<s> A </s>`` or ``<s> A </s></s> B </s>``."""
        cls, sep = [as_id(self.cls_token_id)], [as_id(self.sep_token_id)]
        if token_ids_1 is None:
            return cls + token_ids_0 + sep
        return cls + token_ids_0 + sep + sep + token_ids_1 + sep

    def _edges(self) -> tuple[int, int] | None:
        if overridden(self.build_inputs_with_special_tokens, PreTrainedTokenizerBase.build_inputs_with_special_tokens):
            return None
        return as_id(self.cls_token_id), as_id(self.sep_token_id)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 where a special token stands, or would stand once they are added; 0 elsewhere."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise TokenizerError(
                    "expected one list of ids that has its special tokens already, received a second one"
                )
            special = set(self.all_special_ids)
            return [int(index in special) for index in as_lists(token_ids_0)]
        mask = [1] + [0] * len(token_ids_0) + [1]
        return mask if token_ids_1 is None else mask + [1] + [0] * len(token_ids_1) + [1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros: XLM-R has one token type."""
        special = self.num_special_tokens_to_add(token_ids_1 is not None)
        return [0] * (len(token_ids_0) + len(token_ids_1 or []) + special)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text (2) or a pair (4) gets."""
        return 4 if pair else 2

    # -- targets -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Texts are targets in this block. XLM-R's targets are encoded like its texts, so it changes nothing.

        Newer code passes ``text_target=`` to a call.
        """
        yield

    def prepare_seq2seq_batch(
        self,
        src_texts: list[str],
        tgt_texts: list[str] | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: bool | str = "longest",
        return_tensors: str | None = None,
        truncation: bool | str = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Texts and their targets as one batch; newer code passes ``text_target=`` to a call.

        Args:
            src_texts, tgt_texts: the texts, and the targets whose ids become ``labels``.
            max_length, max_target_length: of the texts and of the targets; by default ``model_max_length``, and
                ``max_length``.
            others: as of a call; ``src_lang`` and ``tgt_lang`` do nothing.
        """
        options = {"padding": padding, "truncation": truncation, "return_tensors": return_tensors, **kwargs}
        options = {name: value for name, value in options.items() if name not in ("src_lang", "tgt_lang")}
        length = max_length
        if length is None and self.model_max_length < NO_LIMIT:
            length = self.model_max_length
        batch = self(src_texts, max_length=length, **options)
        if tgt_texts is not None:
            target_length = length if max_target_length is None else max_target_length
            batch["labels"] = self(text_target=tgt_texts, max_length=target_length, **options)["input_ids"]
        return batch

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
            raise TokenizerError(f"expected a token or a list of tokens, received {describe(new_tokens)}")
        known_special = set(self.all_special_tokens)
        tokens = []
        for token in new_tokens:
            if isinstance(token, str) and self._keeps_its_flags(token):
                continue
            # A str that names a special token keeps being one.
            marked = special_tokens or (isinstance(token, str) and token in known_special)
            added = AddedToken.of(token, special=True if marked else None)
            if added.content:
                tokens.append(added)
        count = self._add_tokens(tokens)
        for added in tokens:
            if added.special and added.content not in known_special:
                self._special.additional.append(added)
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
            return self._id_token(as_id(ids))
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._id_token(as_id(index)) for index in ids if index not in skipped]

    @property
    def max_len_single_sentence(self) -> int:
        """Room for a text's own tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @max_len_single_sentence.setter
    def max_len_single_sentence(self, value: int) -> None:
        self._refuse_another_length("max_len_single_sentence", value)

    @property
    def max_len_sentences_pair(self) -> int:
        """Room for a pair's own tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    @max_len_sentences_pair.setter
    def max_len_sentences_pair(self, value: int) -> None:
        self._refuse_another_length("max_len_sentences_pair", value)

    def _refuse_another_length(self, name: str, value: int) -> None:
        if value != getattr(self, name):
            raise TokenizerError(
                f"expected {name} to stay {getattr(self, name)}, which follows model_max_length, received {value!r}; "
                "set model_max_length"
            )

    # -- decoding ------------------------------------------------------------------------------------------------------

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        *,
        spaces_between_special_tokens: bool = True,
        use_source_tokenizer: bool = False,
        **kwargs: Any,
    ) -> str:
        """The text of ids.

        Args:
            token_ids: an id, a list of ids, or an array or tensor of shape (S,).
            skip_special_tokens: leave the special tokens out.
            clean_up_tokenization_spaces: drop the spaces before punctuation and English contractions.
            spaces_between_special_tokens: sentencepiece class only: set added tokens apart with spaces.
            use_source_tokenizer: without effect: there is one vocabulary.
            kwargs: anything else does nothing and is logged.

        Raises:
            TokenizerError: ids that are no integers, or (sentencepiece class) outside the vocabulary.
        """
        ids = as_lists(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            raise TokenizerError("expected the ids of one text, received several rows; call batch_decode")
        ids = [as_id(index) for index in (ids if isinstance(ids, list) else [ids])]
        if kwargs:
            warn_of_unknown(self, kwargs)
        text = self._decode(ids, skip_special_tokens, spaces_between_special_tokens)
        clean = clean_up_tokenization_spaces
        clean = self.clean_up_tokenization_spaces if clean is None else clean
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """The texts of several rows of ids; arguments as of ``decode``."""
        return [
            self.decode(row, skip_special_tokens, clean_up_tokenization_spaces, **kwargs) for row in as_lists(sequences)
        ]

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Drop the spaces before punctuation and English contractions."""
        for spaced, tight in _CLEAN_UP:
            out_string = out_string.replace(spaced, tight)
        return out_string

    # -- files ---------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *init_inputs: Any,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = "main",
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Read a tokenizer from a folder, a built-in name or a hub name.

        Args:
            pretrained_model_name_or_path: the folder or name, or a single ``.model`` or ``tokenizer.json`` file.
            cache_dir, force_download, local_files_only, token, revision: for names on the hub, see
                ``xlmr_core.hub.resolve``.
            trust_remote_code: does nothing; no code is ever fetched.
            kwargs: override what the files say; ``subfolder`` says where to look.

        Raises:
            ModelNotFoundError: no such folder or name.
            TokenizerError: files missing, damaged, or not XLM-R's.
            InputError: a published argument whose value cannot be served, such as ``use_auth_token``.
        """
        kwargs |= {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
        }
        found, given = files.find_files(pretrained_model_name_or_path, kwargs)
        return files.build(cls, init_inputs, found, given, fast=cls.is_fast)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Write the tokenizer's files into a folder, all or none, whenever it is interrupted.

        Files of an earlier save that this one does not write (``tokenizer.json``, the sentencepiece model,
        ``added_tokens.json``) are removed, because the next load would mix them with the new ones.

        Args:
            save_directory: made if it does not exist.
            legacy_format: fast class only: True without ``tokenizer.json``, False without the sentencepiece model.
            filename_prefix: put before each file name, with a dash.
            push_to_hub: upload the files afterwards.
            kwargs: of the upload, as in ``push_to_hub``; ``repo_id`` is by default the folder's name.

        Returns:
            the paths written.

        Raises:
            TokenizerError: a folder that is a file.
            CheckpointError: a disk that is full, or no right to write; the old files are then intact.
            TypeError: an argument that nobody knows.
        """
        names = (files.VOCAB_FILE, files.TOKENIZER_FILE, files.CONFIG_FILE, files.SPECIAL_FILE, files.ADDED_FILE)
        always = tuple(name if filename_prefix is None else f"{filename_prefix}-{name}" for name in names)
        with upload_after(self, Path(save_directory), push_to_hub, kwargs, always):
            folder = files.make_folder(save_directory)
            contents: dict[str, str | bytes] = {
                files.CONFIG_FILE: files.dump(self._config()),
                files.SPECIAL_FILE: self._special.to_json(),
            }
            added = {token: index for token, index in self.added_tokens_encoder.items() if index >= self.vocab_size}
            if added:
                contents[files.ADDED_FILE] = files.dump(added)
            contents |= self._vocabulary_contents(legacy_format)
            return files.replace_files(folder, contents, filename_prefix)

    def _config(self) -> dict[str, Any]:
        """The content of ``tokenizer_config.json``: unknown keys as they came, everything known as it is now."""
        content: dict[str, Any] = {
            **self.init_kwargs,
            "added_tokens_decoder": {str(index): token.to_json() for index, token in self.added_tokens_decoder.items()},
            # A token that was set to None is null: without it the next load would take the default.
            **{name: getattr(self, name) for name in DEFAULT_TOKENS},
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "extra_special_tokens": self.extra_special_tokens,
            "model_max_length": self.model_max_length,
            "tokenizer_class": "XLMRobertaTokenizer",
        }
        usual = {
            "chat_template": None,
            "additional_special_tokens": [],
            "padding_side": "right",
            "truncation_side": "right",
            "split_special_tokens": False,
            "model_input_names": ["input_ids", "attention_mask"],
        }
        unusual = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return content | unusual

    def __repr__(self) -> str:
        limit = "none" if self.model_max_length >= NO_LIMIT else self.model_max_length
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={limit}, is_fast={self.is_fast}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map}, "
            f"added={len(self) - self.vocab_size})"
        )
