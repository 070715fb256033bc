"""``XLMRobertaTokenizer``: XLM-R's tokenizer on the sentencepiece library."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from xlmr_core.bounded_files import why
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import dictionary, files, from_json, settings, spm
from xlmr_core.tokenization.base import PreTrainedTokenizerBase, overridden
from xlmr_core.tokenization.calling import CallOptions, warn_of_unknown
from xlmr_core.tokenization.checks import check_text, describe, no_text
from xlmr_core.tokenization.encoding import Aligned, BatchEncoding
from xlmr_core.tokenization.finder import AddedTokens, Part
from xlmr_core.tokenization.lengths import PaddingStrategy
from xlmr_core.tokenization.rows import EncodedTexts, Offsets, to_columns
from xlmr_core.tokenization.special import DEFAULT_TOKENS, AddedToken
from xlmr_core.wording import shown

__all__ = ["XLMRobertaTokenizer"]

_OFFSET = 1  # fairseq has <pad> before the file's pieces, so a piece's id is one more than its number in the file
_SPACE = "▁"
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
_NO_WORD = (0, 0)  # what stands for special tokens and padding where others have the number of a word
_THREADED_FROM = 16  # texts; below this, starting threads costs more than it gains


class XLMRobertaTokenizer(PreTrainedTokenizerBase):
    """XLM-R's tokenizer on the sentencepiece library.

    Ids: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, then the pieces of the file, ``<mask>`` last.

    Args:
        vocab_file: path of ``sentencepiece.bpe.model``.
        tokenizer_file: path of a ``tokenizer.json`` to make the sentencepiece model of, where there is no file of one.
        vocab: (piece, score) pairs in id order, or a dict from piece to score, instead of a file; or a file's path.
        bos_token ... mask_token: the special tokens, str or AddedToken.
        sp_model_kwargs: arguments of ``SentencePieceProcessor``; subword sampling is
            ``{"enable_sampling": True, "nbest_size": -1, "alpha": 0.1}``.
        added_tokens_decoder: id to token, as ``tokenizer_config.json`` holds it.
        kwargs: see ``PreTrainedTokenizerBase``.

    Raises:
        TokenizerError: the file is missing, damaged, or not XLM-R's.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": files.VOCAB_FILE}
    is_fast = False

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        bos_token: Any = "<s>",
        eos_token: Any = "</s>",
        sep_token: Any = "</s>",
        cls_token: Any = "<s>",
        unk_token: Any = "<unk>",
        pad_token: Any = "<pad>",
        mask_token: Any = "<mask>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        tokenizer_file: str | os.PathLike[str] | None = None,
        vocab: Any = None,
        added_tokens_decoder: Mapping[Any, Any] | None = None,
        add_prefix_space: bool | None = None,
        **kwargs: Any,
    ) -> None:
        settings.check({"sp_model_kwargs": sp_model_kwargs, "added_tokens_decoder": added_tokens_decoder})
        if isinstance(vocab, str | os.PathLike):
            vocab_file, vocab = vocab, None
        if vocab_file is not None and tokenizer_file is None and str(vocab_file).endswith(".json"):
            vocab_file, tokenizer_file = None, vocab_file
        if isinstance(mask_token, str):
            mask_token = AddedToken(mask_token, lstrip=True, special=True)
        tokens = (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token)
        super().__init__(dict(zip(DEFAULT_TOKENS, tokens, strict=True)), **kwargs)
        if add_prefix_space is not None:
            self.init_kwargs["add_prefix_space"] = add_prefix_space
        self.vocab_file = None if vocab_file is None else str(vocab_file)
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self.init_kwargs["sp_model_kwargs"] = self.sp_model_kwargs
        listed = files.tokens_by_id(added_tokens_decoder or {})
        if vocab_file is not None:
            self._load(dictionary.read_model_file(vocab_file), str(vocab_file))
        elif tokenizer_file is not None:
            model, in_file = from_json.model_of_json(tokenizer_file)
            self._load(model, str(tokenizer_file))
            listed = in_file | listed
        elif vocab is not None:
            self._load(from_json.model_of_pairs(spm.read_pairs(vocab), "vocab="), "vocab=")
        else:
            raise TokenizerError(files.NO_VOCABULARY)
        settings.check_prefix_space(add_prefix_space, self._spm_settings.add_dummy_prefix)
        self._added = AddedTokens(listed)
        self._check_places()
        missing = [token for token in self.all_special_tokens_extended if token.content not in self._added.by_text]
        self.add_tokens(missing, special_tokens=True)

    def _load(self, model: bytes, source: str) -> None:
        import sentencepiece

        spans, self._spm_settings = spm.scan_model(model, source)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(
                model_proto=spm.in_id_order(model, spans), **self.sp_model_kwargs
            )
        except TypeError as error:
            raise TokenizerError(
                f"expected sp_model_kwargs that sentencepiece knows, received {shown(self.sp_model_kwargs)}: "
                f"{why(error)}"
            ) from error
        except (RuntimeError, OSError, ValueError) as error:
            raise TokenizerError(f"expected a sentencepiece model in {source}, received: {why(error)}") from error
        self._model, self._source = model, source
        self._sp_model: Any = None
        self.fairseq_offset = _OFFSET
        self._mask_index = len(self._processor)
        self.fairseq_tokens_to_ids = {token: index for index, token in enumerate(spm.FAIRSEQ_SPECIAL)}
        self.fairseq_tokens_to_ids["<mask>"] = self._mask_index
        self.fairseq_ids_to_tokens = {index: token for token, index in self.fairseq_tokens_to_ids.items()}
        self._unk_index = self.fairseq_tokens_to_ids["<unk>"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_processor": None, "_sp_model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load(self._model, self._source)

    @property
    def sp_model(self) -> Any:
        """The file as sentencepiece reads it: a piece's number is its id less ``fairseq_offset``, and ``<unk>`` is 0.

        Made when it is first asked for; the tokenizer itself uses one whose numbers are ids.
        """
        if self._sp_model is None:
            import sentencepiece

            self._sp_model = sentencepiece.SentencePieceProcessor(model_proto=self._model, **self.sp_model_kwargs)
        return self._sp_model

    # -- vocabulary ----------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of ids without added tokens: the pieces, ``<pad>`` and ``<mask>``."""
        return self._mask_index + 1

    def __len__(self) -> int:
        return max(self.vocab_size, max(self._added.by_id, default=0) + 1)

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""
        vocabulary = {self._piece(index): index for index in range(self.vocab_size)}
        return vocabulary | self._added.by_text

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token, of every token that is cut out of the text before the model (special tokens too), by id."""
        return dict(sorted(self._added.by_id.items()))

    def _check_places(self) -> None:
        for index, token in self._added.by_id.items():
            known = self._base_id(token.content)
            if (known is not None and known != index) or (known is None and index < self.vocab_size):
                raise TokenizerError(
                    f"expected id {index} to be {self._piece(index) if index < self.vocab_size else 'free'!r} in "
                    f"{self._source}, but the tokenizer's other files say it is {token.content!r}; they belong to "
                    "different vocabularies, so use files from one place"
                )

    def _keeps_its_flags(self, token: str) -> bool:
        return token in self._added.by_text

    def _add_tokens(self, tokens: list[AddedToken]) -> int:
        size = before = len(self)
        ids = dict(self._added.by_text)
        for token in tokens:
            index = ids.get(token.content)
            if index is None:
                index = self._base_id(token.content)
            if index is None:
                index, size = size, size + 1
            ids[token.content] = index
        self._added.put({ids[token.content]: token for token in tokens})
        return size - before

    def _base_id(self, token: str) -> int | None:
        if token in self.fairseq_tokens_to_ids:
            return self.fairseq_tokens_to_ids[token]
        check_text(token)
        index: int = self._processor.piece_to_id(token)
        return None if index == self._unk_index else index

    def _token_id(self, token: Any) -> int | None:
        if token is None:
            return None
        if not isinstance(token, str):
            raise TokenizerError(f"expected a token (str), received {describe(token)}")
        index = self._added.by_text.get(token)
        if index is None:
            index = self._base_id(token)
        return self._unk_index if index is None else index

    def _id_token(self, index: int) -> str:
        if index in self._added.by_id:
            return self._added.by_id[index].content
        if index >= self.vocab_size:
            raise TokenizerError(
                f"expected a token id below {len(self)}, received {index}; these ids are of another vocabulary"
            )
        return self._piece(index)

    def _piece(self, index: int) -> str:
        special = self.fairseq_ids_to_tokens.get(index)
        return self._processor.id_to_piece(index) if special is None else special

    # -- text to ids ---------------------------------------------------------------------------------------------------

    def prepare_for_tokenization(
        self, text: str, is_split_into_words: bool = False, **kwargs: Any
    ) -> tuple[str, dict[str, Any]]:
        """The text to tokenize, and the keyword arguments that are left; for a subclass that changes texts first."""
        return text, kwargs

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Split a text into tokens: pieces as they stand in the normalized text, also where they have no id.

        Args:
            text: the text.
            kwargs: ``split_special_tokens``. Others, such as the fast class's ``add_special_tokens`` and ``pair``, are
                logged and do nothing, as in the original.
        """
        if not isinstance(text, str):
            raise no_text(text, False)
        whole = bool(kwargs.pop("split_special_tokens", self.split_special_tokens))
        text, kwargs = self.prepare_for_tokenization(text, **kwargs)
        if kwargs:
            warn_of_unknown(self, kwargs)
        tokens: list[str] = []
        for part, _, index in self._split(text, whole):
            tokens += [part] if index is not None else self._processor.encode(part, out_type=str)
        return tokens

    def _split(self, text: str, whole: bool) -> list[Part]:
        """A text in parts, added tokens cut out; ``whole``: nothing is cut out."""
        if not whole:
            return self._added.split(text)
        check_text(text)
        return [(text, 0, None)] if text else []

    def _encode(self, texts: list[Any], pairs: list[Any] | None, single: bool, options: CallOptions) -> BatchEncoding:
        if any(text is None for text in texts):
            raise no_text(
                None, options.is_split_into_words, None if single else [text is None for text in texts].index(True)
            )
        encoded = EncodedTexts(*self._side(texts, options, single))
        if pairs is not None:
            encoded.pair_ids, encoded.pair_offsets = self._side(pairs, options, single)
        columns = to_columns(encoded, options, self, single)
        rows = columns["input_ids"]
        if single and options.return_tensors is None:
            columns = {name: of_rows[0] for name, of_rows in columns.items()}
        batch = BatchEncoding(columns, tensor_type=options.return_tensors)
        batch._aligned = lambda row: self._alignment(texts, pairs, options, rows, row)
        return batch

    def _alignment(
        self, texts: list[Any], pairs: list[Any] | None, options: CallOptions, rows: list[list[int]], row: int
    ) -> Aligned:
        """Which word and which text each token of a row is of: the row is encoded again, with numbers for offsets."""
        if not -len(rows) <= row < len(rows):
            raise TokenizerError(f"expected a row below {len(rows)}, received {row}")
        again = copy.copy(options)
        again.plan = dataclasses.replace(options.plan, padding=PaddingStrategy.DO_NOT_PAD)
        again.return_overflowing_tokens = again.return_special_tokens_mask = again.verbose = False
        ids, numbers = self._numbered(texts[row], options, 0)
        encoded = EncodedTexts([ids], [numbers])
        if pairs is not None and pairs[row] is not None:
            ids, numbers = self._numbered(pairs[row], options, 1)
            encoded.pair_ids, encoded.pair_offsets = [ids], [numbers]
        numbers = to_columns(encoded, again, self, single=True)["offset_mapping"][0]
        padding = len(rows[row]) - len(numbers)
        if self.sp_model_kwargs.get("enable_sampling") or padding < 0 or (padding and not options.plan.pads):
            raise TokenizerError(
                f"expected {len(rows[row])} tokens in row {row}, found {len(numbers)} on encoding it again, because of "
                "sampling or of a template of special tokens of your own; use XLMRobertaTokenizerFast"
            )
        gap = [_NO_WORD] * padding
        numbers = gap + numbers if options.plan.padding_side == "left" else numbers + gap
        return Aligned(
            self.convert_ids_to_tokens(rows[row]),
            [None if pair == _NO_WORD else pair[0] - 1 for pair in numbers],
            [None if pair == _NO_WORD else pair[1] - 1 for pair in numbers],
        )

    def _numbered(self, text: Any, options: CallOptions, sequence: int) -> tuple[list[int], Offsets]:
        """For each token (number of its word + 1, number of its text + 1) in the place of offsets, and 0 for its id."""
        units = self._units(text, options.is_split_into_words, None)
        if isinstance(units, _Ids):
            raise TokenizerError("expected a text to number the words of, received ids; pass a text")
        words: list[int] = []
        for number, unit in enumerate(units, 1):
            for part, _, index in self._split(unit, bool(options.split_special_tokens)):
                pieces = [part] if index is not None else self._processor.encode(part, out_type=str)
                for place, piece in enumerate(pieces):
                    begins = place == 0 or piece.startswith(_SPACE)
                    words.append(number if options.is_split_into_words else (words[-1] if words else 0) + begins)
        return [0] * len(words), [(word, sequence + 1) for word in words]

    def _side(self, texts: list[Any], options: CallOptions, single: bool) -> tuple[list[Any], list[Any] | None]:
        """The ids of a batch's texts or of its pairs (None: no pair), and on request where the tokens stand."""
        words, whole = options.is_split_into_words, bool(options.split_special_tokens)
        if not options.return_offsets_mapping and not words and all(type(text) is str for text in texts):
            if overridden(self.prepare_for_tokenization, XLMRobertaTokenizer.prepare_for_tokenization):
                texts = [self.prepare_for_tokenization(text)[0] for text in texts]
            return self._ids(texts, whole), None
        rows: list[Any] = [
            None if text is None else self._units(text, words, None if single else row)
            for row, text in enumerate(texts)
        ]
        if options.return_offsets_mapping:
            aligned = [(None, None) if units is None else self._aligned(units, whole) for units in rows]
            return [ids for ids, _ in aligned], [offsets for _, offsets in aligned]
        strings = [unit for row in rows if row is not None and not isinstance(row, _Ids) for unit in row]
        encoded = iter(self._ids(strings, whole))
        for number, row in enumerate(rows):
            if isinstance(row, _Ids):
                rows[number] = list(row)
            elif row is not None:
                rows[number] = [index for _ in row for index in next(encoded)]
        return rows, None

    def _ids(self, texts: list[str], whole: bool) -> list[list[int]]:
        """The ids of each text, from one call of sentencepiece."""
        joined = "\n".join(texts)
        if whole or not self._added.stand_in(joined):  # the usual case: there is nothing to cut out
            try:
                joined.encode()
            except UnicodeEncodeError:
                for text in texts:
                    check_text(text)
            return self._ids_of_plain(texts)
        split = [self._added.split(text) for text in texts]
        encoded = iter(self._ids_of_plain([part for parts in split for part, _, index in parts if index is None]))
        return [
            [piece for _, _, index in parts for piece in (next(encoded) if index is None else (index,))]
            for parts in split
        ]

    def _ids_of_plain(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts without added tokens in them, in one call of sentencepiece."""
        threads = min(os.cpu_count() or 1, len(texts)) if len(texts) >= _THREADED_FROM else 1
        ids: list[list[int]] = self._processor.encode(texts, out_type=int, num_threads=threads)
        return ids

    def _aligned(self, units: list[str] | _Ids, whole: bool) -> tuple[list[int], Offsets]:
        """Ids of a text, and where in it each token stands (sentencepiece's own code-point positions)."""
        if isinstance(units, _Ids):
            raise TokenizerError("expected a text to give offsets of, received ids; offsets are positions in a text")
        ids: list[int] = []
        offsets: Offsets = []
        for unit in units:
            for part, at, index in self._split(unit, whole):
                if index is not None:
                    ids.append(index)
                    offsets.append((at, at + len(part)))
                    continue
                found = self._processor.encode(part, return_type="offset_mapping")
                ids += found["ids"]
                offsets += [(at + start, at + end) for start, end in found["offsets"]]
        return ids, offsets

    def _units(self, text: Any, words: bool, row: int | None) -> list[str] | _Ids:
        """A text as the strings that are encoded on their own, or as the ids that it is already; ``row`` for errors."""
        if isinstance(text, str) and not words:
            return [self.prepare_for_tokenization(text)[0]]
        if isinstance(text, list | tuple):
            if all(isinstance(item, str) for item in text):
                if words:
                    return [self.prepare_for_tokenization(word, is_split_into_words=True)[0] for word in text]
                return _Ids(self.convert_tokens_to_ids(text))
            if not words and all(isinstance(item, int) for item in text):
                return _Ids(text)
        raise no_text(text, words, row, "a text (str), a list of tokens or a list of ids")

    # -- ids to text ---------------------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces into a text."""
        if self._spm_settings.byte_fallback:
            tokens = _with_bytes_joined(tokens)
        return "".join(tokens).replace(_SPACE, " ").strip()

    def _decode(self, ids: list[int], skip_special_tokens: bool, spaces_between_special_tokens: bool) -> str:
        special, additional = set(self.all_special_tokens), set(self.additional_special_tokens)
        texts: list[str] = []
        run: list[str] = []
        for token in self.convert_ids_to_tokens(ids, skip_special_tokens):
            # The named tokens are joined like pieces, also where a user replaced them; other added tokens stand apart.
            index = self._added.by_text.get(token)
            if index is None or (token in special and (token not in additional or index < self.vocab_size)):
                run.append(token)
                continue
            texts += [joined] if run and (joined := self.convert_tokens_to_string(run)) else []
            texts.append(token)
            run = []
        if run:
            texts.append(self.convert_tokens_to_string(run))
        return (" " if spaces_between_special_tokens else "").join(texts)

    # -- files ---------------------------------------------------------------------------------------------------------

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write ``sentencepiece.bpe.model`` into an existing folder; returns its path."""
        return files.write_files(Path(save_directory), self._vocabulary_contents(None), filename_prefix)

    def _vocabulary_contents(self, legacy_format: bool | None) -> dict[str, bytes]:
        return {files.VOCAB_FILE: self._model}


def _with_bytes_joined(tokens: list[str]) -> list[str]:
    """Each run of byte pieces as the text of its bytes, or a replacement character for each where it is none."""
    joined: list[str] = []
    for is_byte, run in groupby(tokens, key=lambda token: _BYTE_PIECE.fullmatch(token) is not None):
        if not is_byte:
            joined += run
            continue
        data = bytes(int(token[3:5], 16) for token in run)
        try:
            joined.append(data.decode())
        except UnicodeDecodeError:
            joined.append("\ufffd" * len(data))
    return joined


class _Ids(list[int]):
    """Ids that a caller gave instead of a text."""
