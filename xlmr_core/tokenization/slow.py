"""``XLMRobertaTokenizer``: XLM-R's tokenizer on the sentencepiece library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import files, spm
from xlmr_core.tokenization.base import PreTrainedTokenizerBase
from xlmr_core.tokenization.calling import Sample
from xlmr_core.tokenization.checks import check_text, describe
from xlmr_core.tokenization.encoding import BatchEncoding
from xlmr_core.tokenization.finder import TokenFinder
from xlmr_core.tokenization.lengths import TruncationStrategy, target_length
from xlmr_core.tokenization.rows import CallOptions
from xlmr_core.tokenization.special import DEFAULT_TOKENS, AddedToken

__all__ = ["XLMRobertaTokenizer"]

_OFFSET = 1  # fairseq has <pad> before the file's pieces, so a piece's id is one more than its number in the file
_SPACE = "▁"
_THREADED_FROM = 16  # texts; below this, starting threads costs more than it gains

Offsets = list[tuple[int, int]]


class XLMRobertaTokenizer(PreTrainedTokenizerBase):
    """XLM-R's tokenizer on the sentencepiece library.

    Ids: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, then the pieces of the file, ``<mask>`` last.

    Args:
        vocab_file: path of ``sentencepiece.bpe.model``.
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
        vocab_file: str | os.PathLike[str],
        bos_token: Any = "<s>",
        eos_token: Any = "</s>",
        sep_token: Any = "</s>",
        cls_token: Any = "<s>",
        unk_token: Any = "<unk>",
        pad_token: Any = "<pad>",
        mask_token: Any = "<mask>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        added_tokens_decoder: Mapping[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(mask_token, str):
            mask_token = AddedToken(mask_token, lstrip=True, special=True)
        special = dict(
            zip(
                DEFAULT_TOKENS,
                (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token),
                strict=True,
            )
        )
        super().__init__(special=special, **kwargs)
        self.vocab_file = str(vocab_file)
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self.init_kwargs["sp_model_kwargs"] = self.sp_model_kwargs
        self._load(spm.read_model_file(vocab_file), self.vocab_file)
        listed = {int(index): AddedToken.of(token) for index, token in (added_tokens_decoder or {}).items()}
        self._added: dict[int, AddedToken] = dict(sorted(listed.items()))
        self._check_places()
        self._index_added()
        self.add_tokens(
            [token for token in self.all_special_tokens_extended if token.content not in self._by_text],
            special_tokens=True,
        )

    def _load(self, model: bytes, source: str) -> None:
        import sentencepiece

        spans, _ = spm.scan_model(model, source)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(
                model_proto=spm.in_id_order(model, spans), **self.sp_model_kwargs
            )
        except TypeError as error:
            raise TokenizerError(
                f"expected sp_model_kwargs that sentencepiece knows, received {self.sp_model_kwargs}: {error}"
            ) from error
        except (RuntimeError, OSError, ValueError) as error:
            raise TokenizerError(f"expected a sentencepiece model in {source}, received: {error}") from error
        self._model = model
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
        self._load(self._model, self.vocab_file)

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
        return max(self.vocab_size, max(self._added, default=0) + 1)

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""
        vocabulary = {self._piece(index): index for index in range(self.vocab_size)}
        return vocabulary | self._by_text

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token, of every token that is cut out of the text before the model (special tokens too), by id."""
        return dict(sorted(self._added.items()))

    def _check_places(self) -> None:
        for index, token in self._added.items():
            known = self._base_id(token.content)
            if (known is not None and known != index) or (known is None and index < self.vocab_size):
                raise TokenizerError(
                    f"expected id {index} to be {self._piece(index) if index < self.vocab_size else 'free'!r} in {self.vocab_file}, but "
                    f"the tokenizer's other files say it is {token.content!r}; they belong to different vocabularies, so use files from "
                    "one place"
                )

    def _keeps_its_flags(self, token: str) -> bool:
        return token in self._by_text

    def _add_tokens(self, tokens: list[AddedToken]) -> int:
        ids = self._by_text
        size = before = len(self)
        for token in tokens:
            index = ids.get(token.content)
            if index is None:
                index = self._base_id(token.content)
            if index is None:
                index, size = size, size + 1
            ids[token.content] = index
            self._added[index] = token
        self._index_added()
        return size - before

    def _index_added(self) -> None:
        self._by_text = {token.content: index for index, token in self._added.items()}
        self._finder = TokenFinder(self._by_text)

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
            raise TokenizerError(f"expected a token (str), received {type(token).__name__} {token!r}")
        index = self._by_text.get(token) if self._added else None
        if index is None:
            index = self._base_id(token)
        return self._unk_index if index is None else index

    def _id_token(self, index: int) -> str:
        if index in self._added:
            return self._added[index].content
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
            kwargs: ``split_special_tokens``. Others, such as the fast class's ``add_special_tokens`` and ``pair``, are logged and
                do nothing, as in the original.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"expected a text (str), received {describe(text)}")
        whole = bool(kwargs.pop("split_special_tokens", self.split_special_tokens))
        text, kwargs = self.prepare_for_tokenization(text, **kwargs)
        if kwargs:
            self._warn_of_unknown(kwargs)
        tokens: list[str] = []
        for part, _, index in self._split(text, whole):
            tokens += [part] if index is not None else self._processor.encode(part, out_type=str)
        return tokens

    def _split(self, text: str, whole: bool) -> list[tuple[str, int, int | None]]:
        """Cut added tokens out: (text, where it starts, id or None) parts, white space stripped where a token says so."""
        check_text(text)
        parts: list[tuple[str, int, int | None]] = []
        end = 0
        for start, found in () if whole else self._finder.find(text):
            if start > end:
                parts.append((text[end:start], end, None))
            end = start + len(found)
            parts.append((found, start, self._by_text[found]))
        if end < len(text):
            parts.append((text[end:], end, None))
        for number, (content, start, index) in enumerate(parts):
            if index is not None:
                self._strip_around(parts, number, content, start, self._added[index])
        return [part for part in parts if part[0]]

    @staticmethod
    def _strip_around(
        parts: list[tuple[str, int, int | None]], number: int, content: str, start: int, token: AddedToken
    ) -> None:
        left = parts[number - 1] if number and parts[number - 1][2] is None else None
        right = parts[number + 1] if number + 1 < len(parts) and parts[number + 1][2] is None else None
        # Whether it is a word of its own is asked of the neighbours as they were before the token took their white space.
        joins_left = token.single_word and left and left[0] and not left[0].endswith(" ")
        joins_right = token.single_word and right and right[0] and not right[0].startswith(" ")
        if token.rstrip and right:
            stripped = right[0].lstrip()
            right = parts[number + 1] = (stripped, right[1] + len(right[0]) - len(stripped), None)
        if token.lstrip and left:
            left = parts[number - 1] = (left[0].rstrip(), left[1], None)
        if joins_left and left:
            parts[number - 1], parts[number] = (left[0] + content, left[1], None), ("", start, None)
        elif joins_right and right:
            parts[number], parts[number + 1] = ("", start, None), (content + right[0], start, None)

    def _ids_of_plain(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts without added tokens in them, in one call of sentencepiece."""
        threads = min(os.cpu_count() or 1, len(texts)) if len(texts) >= _THREADED_FROM else 1
        ids: list[list[int]] = self._processor.encode(texts, out_type=int, num_threads=threads)
        return ids

    def _ids_of_texts(self, texts: list[str], whole: bool) -> list[list[int]]:
        """Ids of each text, all plain parts in one call of sentencepiece."""
        plain: list[str] = []
        layout: list[list[int]] = []  # a text's parts: the number of a plain part, or ~id of an added token
        for text in texts:
            parts = []
            for part, _, index in self._split(text, whole):
                if index is None:
                    parts.append(len(plain))
                    plain.append(part)
                else:
                    parts.append(~index)
            layout.append(parts)
        encoded = self._ids_of_plain(plain) if plain else []
        return [encoded[parts[0]] if len(parts) == 1 and parts[0] >= 0 else _joined(encoded, parts) for parts in layout]

    def _with_offsets(self, text: str, whole: bool) -> tuple[list[int], Offsets]:
        """Ids of a text, and where in it each token stands (sentencepiece's own code-point positions)."""
        ids: list[int] = []
        offsets: Offsets = []
        for part, at, index in self._split(text, whole):
            if index is not None:
                ids.append(index)
                offsets.append((at, at + len(part)))
                continue
            found = self._processor.encode(part, return_type="offset_mapping")
            ids += found["ids"]
            offsets += [(at + start, at + end) for start, end in found["offsets"]]
        return ids, offsets

    def _encode_batch(self, samples: list[Sample], options: CallOptions, single: bool) -> BatchEncoding:
        columns = None if single else self._plain_columns(samples, options)
        if columns is not None:
            return BatchEncoding(columns, tensor_type=options.return_tensors)
        rows = self._rows(samples, options)
        self._pad_rows(rows, options.plan, options.return_attention_mask)
        if single:
            row = rows[0]
            if options.return_length:
                row["length"] = len(row["input_ids"])
            return BatchEncoding(row, tensor_type=options.return_tensors, prepend_batch_axis=True)
        names = list(rows[0]) if rows else ["input_ids", *(["attention_mask"] if options.return_attention_mask else [])]
        return BatchEncoding({name: [row[name] for row in rows] for name in names}, tensor_type=options.return_tensors)

    def _plain_columns(self, samples: list[Sample], options: CallOptions) -> dict[str, list[Any]] | None:
        """A batch of single texts without added tokens in them, which is the case that has to be fast; ``None`` for any other."""
        plan = options.plan
        texts = [text for text, pair in samples if pair is None and type(text) is str]
        if (
            len(texts) < max(1, len(samples))
            or options.is_split_into_words
            or options.return_overflowing_tokens
            or options.return_special_tokens_mask
            or options.return_offsets_mapping
            or plan.truncation is TruncationStrategy.ONLY_SECOND
            or type(self).build_inputs_with_special_tokens is not XLMRobertaTokenizer.build_inputs_with_special_tokens
            or type(self).prepare_for_tokenization is not XLMRobertaTokenizer.prepare_for_tokenization
        ):
            return None
        joined = "\n".join(texts)
        if not options.split_special_tokens and any(self._finder.find(joined)):
            return None
        try:
            joined.encode()
        except UnicodeEncodeError:
            return None  # which text it is, the other way says
        edges = self.build_inputs_with_special_tokens([]) if options.add_special_tokens else []
        plan.check(len(edges), stride_matters=False)
        ids = self._ids_of_plain(texts)
        if plan.truncates and plan.max_length is not None:
            room = plan.max_length - len(edges)
            left = plan.truncation_side == "left"
            ids = [row if len(row) <= room else row[len(row) - room :] if left else row[:room] for row in ids]
        if edges:
            first, last = edges
            for row in ids:  # in place: ten thousand more lists would wake the garbage collector
                row.insert(0, first)
                row.append(last)
        lengths = [len(row) for row in ids]
        too_long = next((length for length in lengths if length > self.model_max_length), 0)
        self._warn_if_too_long(too_long, plan.max_length, options.verbose)
        columns: dict[str, list[Any]] = {"input_ids": ids}
        if options.return_token_type_ids:
            columns["token_type_ids"] = [[0] * length for length in lengths]
        if options.return_length:
            columns["length"] = lengths
        if options.return_attention_mask:
            columns["attention_mask"] = [[1] * length for length in lengths]
        target = target_length(plan, lengths)
        fills = {"input_ids": self.pad_token_id, "token_type_ids": self.pad_token_type_id, "attention_mask": 0}
        for name, fill in fills.items():
            if target and name in columns:
                gaps = [[fill] * (target - length) for length in lengths]
                rows = zip(columns[name], gaps, strict=True)
                columns[name] = [gap + row if plan.padding_side == "left" else row + gap for row, gap in rows]
        return columns

    def _rows(self, samples: list[Sample], options: CallOptions) -> list[dict[str, Any]]:
        if any(text is None for text, _ in samples):
            raise TokenizerError("expected a text (str), received None; check the items of the batch")
        sides = [self._encode_side([sample[side] for sample in samples], options) for side in (0, 1)]
        rows = []
        for (ids, offsets), (pair_ids, pair_offsets) in zip(*sides, strict=True):
            assert ids is not None
            row = self._prepare(ids, pair_ids, options, offsets, pair_offsets)
            if options.return_length:
                row["length"] = len(row["input_ids"])
            rows.append(row)
        return rows

    def _encode_side(self, texts: list[Any], options: CallOptions) -> list[tuple[list[int] | None, Offsets | None]]:
        """Ids and (on request) offsets of one side of the samples; a text may be None (no pair), words or ids."""
        whole = options.split_special_tokens
        if options.return_offsets_mapping:
            return [(None, None) if text is None else self._aligned(text, options) for text in texts]
        found: list[list[int] | None] = [None] * len(texts)
        strings: list[str] = []
        owner: list[int] = []
        for row, text in enumerate(texts):
            if text is None:
                continue
            units = self._units(text, options.is_split_into_words)
            if isinstance(units, _Ids):
                found[row] = list(units)
                continue
            found[row] = []
            strings += units
            owner += [row] * len(units)
        for row, ids in zip(owner, self._ids_of_texts(strings, whole), strict=True):
            have = found[row]
            found[row] = have + ids if have else ids
        return [(ids, None) for ids in found]

    def _aligned(self, text: Any, options: CallOptions) -> tuple[list[int], Offsets]:
        units = self._units(text, options.is_split_into_words)
        if isinstance(units, _Ids):
            raise TokenizerError("expected a text to give offsets of, received ids; offsets are positions in a text")
        ids: list[int] = []
        offsets: Offsets = []
        for unit in units:
            unit_ids, unit_offsets = self._with_offsets(unit, options.split_special_tokens)
            ids += unit_ids
            offsets += unit_offsets
        return ids, offsets

    def _units(self, text: Any, words: bool) -> list[str] | _Ids:
        """A text as the strings that are encoded on their own, or as the ids that it is already."""
        if isinstance(text, str) and not words:
            return [self.prepare_for_tokenization(text)[0]]
        if isinstance(text, list | tuple):
            if all(isinstance(item, str) for item in text):
                if words:
                    return [self.prepare_for_tokenization(word, is_split_into_words=True)[0] for word in text]
                return _Ids(self.convert_tokens_to_ids(text))
            if not words and all(isinstance(item, int) for item in text):
                return _Ids(text)
        wanted = (
            "a list of words (is_split_into_words=True)" if words else "a text (str), a list of tokens or a list of ids"
        )
        raise TokenizerError(f"expected {wanted}, received {describe(text)}; check the items of the batch")

    # -- ids to text ---------------------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces into a text."""
        return "".join(tokens).replace(_SPACE, " ").strip()

    def _decode(self, ids: list[int], skip_special_tokens: bool, spaces_between_special_tokens: bool) -> str:
        special, additional = set(self.all_special_tokens), set(self.additional_special_tokens)
        texts: list[str] = []
        run: list[str] = []
        for token in self.convert_ids_to_tokens(ids, skip_special_tokens):
            # The named tokens are joined like pieces, also where a user replaced them; other added tokens stand apart.
            index = self._by_text.get(token)
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


class _Ids(list[int]):
    """Ids that a caller gave instead of a text."""


def _joined(encoded: list[list[int]], parts: list[int]) -> list[int]:
    ids: list[int] = []
    for part in parts:
        if part < 0:
            ids.append(~part)
        else:
            ids += encoded[part]
    return ids
