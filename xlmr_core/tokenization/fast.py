"""``XLMRobertaTokenizerFast``: XLM-R's tokenizer on the tokenizers library."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, ClassVar

from xlmr_core.bounded_files import is_there
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import dictionary, files, pipeline, settings, spm
from xlmr_core.tokenization.base import PreTrainedTokenizerBase
from xlmr_core.tokenization.calling import CallOptions, read_options, warn_if_too_long
from xlmr_core.tokenization.checks import check_text, describe, no_text
from xlmr_core.tokenization.deferred import Deferred
from xlmr_core.tokenization.encoding import BatchEncoding
from xlmr_core.tokenization.json_file import read_tokenizer_json
from xlmr_core.tokenization.lengths import LengthPlan, PaddingStrategy, TruncationStrategy
from xlmr_core.tokenization.pipeline import refusing
from xlmr_core.tokenization.read_apart import made_apart
from xlmr_core.tokenization.slow import XLMRobertaTokenizer
from xlmr_core.tokenization.special import DEFAULT_TOKENS, AddedToken

__all__ = ["XLMRobertaTokenizerFast", "tokenizer_json_from_model"]

logger = logging.getLogger("xlmr_core.tokenization")

_SAMPLES = 512  # pieces compared between a tokenizer.json and the sentencepiece model beside it
# Texts on which settings of a sentencepiece model show: runs of spaces, spaces at the ends, unknown characters.
_PROBES = ("a", " The  model is read. ", "☃ is new\U00010348", "<0x41> a_b", "1234  5 \t\n x", "x\n")


class XLMRobertaTokenizerFast(PreTrainedTokenizerBase):
    """XLM-R's tokenizer on the tokenizers library: exact offsets, words, and windows over long texts.

    Built from ``tokenizer_file`` where given (its content decides), else from ``vocab_file``.

    Args:
        vocab_file: path of ``sentencepiece.bpe.model``.
        tokenizer_file: path of ``tokenizer.json``.
        bos_token ... mask_token: the special tokens, str or AddedToken.
        tokenizer_object: a ``tokenizers.Tokenizer`` instead of a file.
        vocab: (piece, score) pairs in id order, or a dict from piece to score, instead of a file; or a file's path.
        added_tokens_decoder: id to token, as ``tokenizer_config.json`` holds it.
        kwargs: see ``PreTrainedTokenizerBase``.

    Raises:
        TokenizerError: a file is missing, damaged, not XLM-R's, or the two disagree.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": files.VOCAB_FILE,
        "tokenizer_file": files.TOKENIZER_FILE,
    }
    is_fast = True
    slow_tokenizer_class = XLMRobertaTokenizer

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        tokenizer_file: str | os.PathLike[str] | None = None,
        bos_token: Any = "<s>",
        eos_token: Any = "</s>",
        sep_token: Any = "</s>",
        cls_token: Any = "<s>",
        unk_token: Any = "<unk>",
        pad_token: Any = "<pad>",
        mask_token: Any = "<mask>",
        *,
        tokenizer_object: Any = None,
        vocab: Any = None,
        added_tokens_decoder: Mapping[Any, Any] | None = None,
        add_prefix_space: bool | None = None,
        **kwargs: Any,
    ) -> None:
        sampling = kwargs.get("sp_model_kwargs")
        settings.check({"sp_model_kwargs": sampling, "added_tokens_decoder": added_tokens_decoder})
        if isinstance(vocab, str | os.PathLike):
            vocab_file, vocab = vocab, None
        if vocab_file is not None and tokenizer_file is None and str(vocab_file).endswith(".json"):
            vocab_file, tokenizer_file = None, vocab_file
        if isinstance(mask_token, str):
            from_model = tokenizer_object is None and tokenizer_file is None
            mask_token = AddedToken(mask_token, lstrip=True, normalized=from_model, special=True)
        self.vocab_file = None if vocab_file is None else str(vocab_file)
        self._lock = threading.Lock()
        if tokenizer_object is not None:
            self._tokenizer = _checked(_copy(tokenizer_object), "tokenizer_object")
        elif tokenizer_file is not None:
            self._tokenizer = _checked(_read(tokenizer_file), str(tokenizer_file))
            if self.vocab_file is not None:
                _check_agreement(self._tokenizer, str(tokenizer_file), self.vocab_file)
            else:
                ids = self._tokenizer.get_vocab_size(with_added_tokens=False)
                dictionary.check_ids(self._tokenizer.id_to_token, ids, tokenizer_file)
        elif self.vocab_file is not None:
            self._tokenizer = pipeline.from_model(dictionary.read_model_file(self.vocab_file), self.vocab_file)
        elif vocab is not None:
            with refusing("expected vocab= to make a unigram vocabulary; check its pieces and scores"):
                made = pipeline.assembled(spm.read_pairs(vocab), spm.Settings())
            self._tokenizer = _checked(made, "vocab=")
        else:
            raise TokenizerError(files.NO_VOCABULARY)
        prefixed = add_prefix_space is not False or _starts_with_a_space(self._tokenizer)
        settings.check_prefix_space(add_prefix_space, prefixed)
        # Some published files were saved in the middle of use; only the sides are worth keeping.
        padding, truncation = self._tokenizer.padding, self._tokenizer.truncation
        if padding:
            kwargs.setdefault("padding_side", padding["direction"])
        if truncation:
            kwargs.setdefault("truncation_side", truncation["direction"])
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if kwargs.setdefault("sp_model_kwargs", {}):
            logger.warning(
                "sp_model_kwargs=%s does nothing in %s; XLMRobertaTokenizer (use_fast=False) takes it",
                kwargs["sp_model_kwargs"],
                type(self).__name__,
            )
        tokens = (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token)
        super().__init__(dict(zip(DEFAULT_TOKENS, tokens, strict=True)), **kwargs)
        self.add_prefix_space = prefixed
        if add_prefix_space is not None:
            self.init_kwargs["add_prefix_space"] = add_prefix_space
        self._add_missing(added_tokens_decoder or {})

    def _add_missing(self, listed: Mapping[Any, Any]) -> None:
        """Add what the vocabulary's file does not mark as added: tokens listed with their ids, then special ones."""
        known = self.added_tokens_encoder
        tokens = files.tokens_by_id(listed)
        fresh = [token for _, token in sorted(tokens.items()) if token.content not in known]
        have = known.keys() | {token.content for token in fresh}
        special = [token for token in self.all_special_tokens_extended if token.content not in have]
        # In id order, because new ids are given in the order of adding; those in the vocabulary have theirs.
        special.sort(key=lambda token: _unknown_last(self._tokenizer.token_to_id(token.content)))
        self._add_tokens([*fresh, *special])
        for index, token in tokens.items():
            actual = self._tokenizer.token_to_id(token.content)
            if actual != index:
                raise TokenizerError(
                    f"expected {token.content!r} to have id {index} as the tokenizer's configuration says, but in "
                    f"the vocabulary it is {actual}; the files belong to different vocabularies, so use files from one "
                    "place"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # -- vocabulary ----------------------------------------------------------------------------------------------------

    @property
    def backend_tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` underneath."""
        if isinstance(self._tokenizer, Deferred):
            self._tokenizer = self._tokenizer.whole
        return self._tokenizer

    @property
    def decoder(self) -> Any:
        """The decoder of the tokenizers library."""
        return self._tokenizer.decoder

    @property
    def can_save_slow_tokenizer(self) -> bool:
        """Whether the sentencepiece model is there, to be saved too."""
        return self.vocab_file is not None and os.path.isfile(self.vocab_file)

    @property
    def vocab_size(self) -> int:
        """Number of ids without added tokens (``<mask>`` is not an added one)."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token, of every token that is cut out of the text before the model (special tokens too), by id."""
        return {
            index: AddedToken.of(token) for index, token in sorted(self._tokenizer.get_added_tokens_decoder().items())
        }

    def _add_tokens(self, tokens: list[AddedToken]) -> int:
        import tokenizers

        before = len(self)
        for special, group in groupby(tokens, key=lambda token: token.special):
            add = self._tokenizer.add_special_tokens if special else self._tokenizer.add_tokens
            add([tokenizers.AddedToken(**token.to_json()) for token in group])
        return len(self) - before

    def _token_id(self, token: Any) -> int | None:
        if token is None:
            return None
        if not isinstance(token, str):
            raise TokenizerError(f"expected a token (str), received {describe(token)}")
        check_text(token)
        index = self._tokenizer.token_to_id(token)
        if index is None and (unknown := self._special.named.get("unk_token")) is not None:
            index = self._tokenizer.token_to_id(unknown.content)
        return None if index is None else int(index)

    def _id_token(self, index: int) -> str | None:
        return None if index >= 2**32 else self._tokenizer.id_to_token(index)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text or a pair gets."""
        return int(self._tokenizer.num_special_tokens_to_add(pair))

    # -- text to ids ---------------------------------------------------------------------------------------------------

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """Split a text (and a pair, appended) into tokens, each as it stands in the normalized text."""
        return self.encode_plus(text, pair, add_special_tokens=add_special_tokens, **kwargs).tokens()

    def _encode(self, texts: list[Any], pairs: list[Any] | None, single: bool, options: CallOptions) -> BatchEncoding:
        if single and pairs is not None and not pairs[0]:
            pairs = None  # an empty second text of a single call is no second text; in a batch of pairs it is one
        inputs = [
            _input(text, pair, options.is_split_into_words, None if single else row)
            for row, (text, pair) in enumerate(zip(texts, pairs or repeat(None), strict=False))
        ]
        paired = any(isinstance(item, tuple) for item in inputs)
        special = self.num_special_tokens_to_add(paired) if options.add_special_tokens else 0
        options.plan.check(special, stride_matters=True)
        rows = self._run(inputs, options)
        owners: list[int] = []
        if options.return_overflowing_tokens:
            windows = [[encoding, *encoding.overflowing] for encoding in rows]
            owners = [number for number, of_one in enumerate(windows) for _ in of_one]
            rows = [window for of_one in windows for window in of_one]
        data = _columns(rows, options)
        if options.return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = owners
        warn_if_too_long(map(len, data["input_ids"]), options, self)
        if single and options.return_tensors is None and not options.return_overflowing_tokens:
            data = {key: value[0] if isinstance(value[0], list) else value for key, value in data.items()}
        return BatchEncoding(data, encoding=rows, tensor_type=options.return_tensors)

    def _run(self, inputs: list[Any], options: CallOptions) -> list[Any]:
        # Lengths are settings of the tokenizers object, so another thread must not change them in between.
        with self._lock:
            self._set_lengths(options.plan)
            self._tokenizer.encode_special_tokens = options.split_special_tokens
            with refusing("the tokenizers library refused the text; pass other lengths or another truncation", inputs):
                return list(
                    self._tokenizer.encode_batch(
                        inputs,
                        add_special_tokens=options.add_special_tokens,
                        is_pretokenized=options.is_split_into_words,
                    )
                )

    def set_truncation_and_padding(
        self,
        padding_strategy: PaddingStrategy | str,
        truncation_strategy: TruncationStrategy | str,
        max_length: int | None,
        stride: int,
        pad_to_multiple_of: int | None,
        padding_side: str | None,
    ) -> None:
        """Set the lengths of ``backend_tokenizer``, for code that calls it itself; a call of ours sets its own."""
        asked = {
            "padding": padding_strategy,
            "truncation": truncation_strategy,
            "max_length": max_length,
            "stride": stride,
            "pad_to_multiple_of": pad_to_multiple_of,
            "padding_side": padding_side,
            "verbose": False,
        }
        with self._lock:
            self._set_lengths(read_options(self, asked).plan)

    def _set_lengths(self, plan: LengthPlan) -> None:
        if plan.truncates:
            self._tokenizer.enable_truncation(
                max_length=plan.max_length,
                stride=plan.stride,
                strategy=plan.truncation.value,
                direction=plan.truncation_side,
            )
        else:
            self._tokenizer.no_truncation()
        if plan.pads:
            self._tokenizer.enable_padding(
                length=plan.max_length if plan.padding is PaddingStrategy.MAX_LENGTH else None,
                direction=plan.padding_side,
                pad_id=self.pad_token_id,
                pad_token=self.pad_token,
                pad_type_id=self.pad_token_type_id,
                pad_to_multiple_of=plan.multiple_of,
            )
        else:
            self._tokenizer.no_padding()

    # -- ids to text ---------------------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces into a text."""
        return str(self._tokenizer.decoder.decode(tokens))

    def _decode(self, ids: list[int], skip_special_tokens: bool, spaces_between_special_tokens: bool) -> str:
        return str(
            self._tokenizer.decode([index for index in ids if index < 2**32], skip_special_tokens=skip_special_tokens)
        )

    # -- a new vocabulary ----------------------------------------------------------------------------------------------

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[Any],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Any = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> XLMRobertaTokenizerFast:
        """Train a tokenizer with the same normalization and special tokens on other texts.

        Args:
            text_iterator: texts, or lists of texts.
            vocab_size: how many ids, special tokens included.
            length: how many items the iterator has, for the progress bar.
            new_special_tokens: str or AddedToken, beside those there are.
            special_tokens_map: new names for special tokens; XLM-R's keep theirs, so only names that stay are taken.
            kwargs: arguments of ``tokenizers.trainers.UnigramTrainer``.

        Returns:
            a new tokenizer; ``<mask>`` has id 4, so it has no sentencepiece counterpart.

        Raises:
            TokenizerError: too little text for the vocabulary, or a renamed special token.
        """
        renamed = {old: new for old, new in (special_tokens_map or {}).items() if old != new}
        if renamed:
            raise TokenizerError(
                f"expected XLM-R's special tokens to keep their names, received special_tokens_map {renamed}; leave it "
                "out, and add tokens of your own with new_special_tokens"
            )
        import tokenizers

        content = json.loads(self._tokenizer.to_str())
        unknown = str(self.unk_token)
        content |= {"added_tokens": [], "model": {**content["model"], "unk_id": 0, "vocab": [[unknown, 0.0]]}}
        fresh = tokenizers.Tokenizer.from_str(json.dumps(content))
        special = [token for token in self.added_tokens_decoder.values() if token.special]
        special += [AddedToken.of(token, special=True) for token in new_special_tokens or []]
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=vocab_size,
            special_tokens=[tokenizers.AddedToken(**token.to_json()) for token in special],
            unk_token=unknown,
            **{"show_progress": False, **kwargs},
        )
        with refusing("training failed; pass more text or a smaller vocab_size"):
            fresh.train_from_iterator(text_iterator, trainer=trainer, length=length)
        known: dict[str, Any] = {name: token for name, token in self._special.named.items() if name in DEFAULT_TOKENS}
        added = [*self._special.additional, *special[len(special) - len(new_special_tokens or []) :]]
        return type(self)(
            tokenizer_object=fresh,
            model_max_length=self.model_max_length,
            padding_side=self.padding_side,
            truncation_side=self.truncation_side,
            additional_special_tokens=added,
            **known,
        )

    # -- files ---------------------------------------------------------------------------------------------------------

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write ``sentencepiece.bpe.model`` into an existing folder; returns its path.

        Raises:
            TokenizerError: this tokenizer was built from a ``tokenizer.json`` alone.
        """
        if not self.can_save_slow_tokenizer:
            raise TokenizerError(
                "expected a sentencepiece model to save, but this tokenizer came from tokenizer.json; use "
                "save_pretrained"
            )
        assert self.vocab_file is not None
        contents = {files.VOCAB_FILE: dictionary.read_model_file(self.vocab_file)}
        return files.write_files(Path(save_directory), contents, filename_prefix)

    def _vocabulary_contents(self, legacy_format: bool | None) -> dict[str, str | bytes]:
        contents: dict[str, str | bytes] = {}
        if legacy_format is not False and self.vocab_file is not None and self.can_save_slow_tokenizer:
            contents[files.VOCAB_FILE] = dictionary.read_model_file(self.vocab_file)
        elif legacy_format:
            raise TokenizerError(
                "expected a sentencepiece model for legacy_format=True, but this tokenizer came from tokenizer.json"
            )
        if not legacy_format:
            with self._lock:
                self._tokenizer.no_padding()
                self._tokenizer.no_truncation()
                contents[files.TOKENIZER_FILE] = self._tokenizer.to_str(pretty=True)
        return contents


def tokenizer_json_from_model(vocab_file: str | os.PathLike[str]) -> str:
    """The content of the ``tokenizer.json`` that belongs to a ``sentencepiece.bpe.model``.

    Args:
        vocab_file: path of the sentencepiece model.

    Returns:
        JSON, as the tokenizers library reads it.

    Raises:
        TokenizerError: the file is missing, damaged, or not XLM-R's.
    """
    return str(XLMRobertaTokenizerFast(vocab_file=vocab_file).backend_tokenizer.to_str(pretty=True))


def _read(path: str | os.PathLike[str]) -> Any:
    from tokenizers import Tokenizer

    if not is_there(Path(path)):
        raise TokenizerError(f"expected a tokenizer.json at {path}, found no file; check the path")
    with refusing(f"expected a tokenizer.json at {path}, but it is damaged or of another kind"):
        made = made_apart(path)
        return Tokenizer.from_str(read_tokenizer_json(path)) if made is None else made


def _copy(tokenizer: Any) -> Any:
    return type(tokenizer).from_str(tokenizer.to_str())


def _checked(tokenizer: Any, source: str) -> Any:
    """Refuse what is not XLM-R's: another model type, other first ids, another template of special tokens."""
    kind = type(tokenizer.model).__name__
    if kind != "Unigram":
        raise TokenizerError(f"expected a Unigram model in {source}, received {kind}; this is not an XLM-R tokenizer")
    first = tuple(tokenizer.id_to_token(index) for index in range(len(spm.FAIRSEQ_SPECIAL)))
    if first != spm.FAIRSEQ_SPECIAL:
        raise TokenizerError(
            f"expected ids 0 to 3 of {source} to be {spm.FAIRSEQ_SPECIAL}, received {first}; this is not an XLM-R "
            "tokenizer"
        )
    for index, token in enumerate(first):
        found = tokenizer.token_to_id(token)
        if found != index:  # as converters write a model that has such a piece of its own
            raise TokenizerError(
                f"expected {token} once in {source}, received it as id {index} and as id {found}; remove the file, and "
                "the fast class is built from the sentencepiece model"
            )
    padding, truncation = tokenizer.padding, tokenizer.truncation
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with refusing(f"expected {source} to know the tokens that it puts around a text; copy the file again"):
        template = tokenizer.encode("", "").ids
    if padding:
        tokenizer.enable_padding(**padding)
    if truncation:
        tokenizer.enable_truncation(**truncation)
    if template != [0, 2, 2, 2]:
        raise TokenizerError(
            f"expected {source} to put <s> A </s></s> B </s> around a pair, received ids {template} around nothing; "
            "this is not an XLM-R tokenizer"
        )
    return tokenizer


def _check_agreement(tokenizer: Any, tokenizer_file: str, vocab_file: str) -> None:
    """Refuse a tokenizer.json and a sentencepiece model of different vocabularies (by size, and by some pieces), and
    one that does not follow the settings of a model unlike the published ones.
    """
    data = dictionary.read_model_file(vocab_file)
    spans, model_settings = spm.scan_model(data, vocab_file)
    expected = len(spans) + 2  # <pad> and <mask>
    actual = tokenizer.get_vocab_size(with_added_tokens=False)
    # Some converters keep <mask> among the added tokens only.
    if actual not in (expected, expected - 1):
        raise _disagreement(tokenizer_file, vocab_file, f"{actual} entries and {expected - 2} pieces")
    numbers = range(len(spm.FAIRSEQ_SPECIAL) - 1, len(spans), max(1, len(spans) // _SAMPLES))
    pieces, _, _ = spm.read_pieces(data, [spans[number] for number in numbers])
    for number, piece in zip(numbers, pieces, strict=True):
        if tokenizer.id_to_token(number + 1) not in (piece, spm.own_name(piece)):
            raise _disagreement(
                tokenizer_file, vocab_file, f"id {number + 1} is {tokenizer.id_to_token(number + 1)!r} and {piece!r}"
            )
    charsmap = _charsmap(tokenizer)
    if charsmap != model_settings.charsmap:
        raise _disagreement(
            tokenizer_file,
            vocab_file,
            f"normalization tables (precompiled_charsmap) of {len(charsmap)} and {len(model_settings.charsmap)} bytes",
        )
    makes_spaces = pipeline.makes_spaces(charsmap)
    across_words = any("▁" in piece[1:] for piece in pieces)
    if model_settings.unusual or across_words or not makes_spaces or spm.has_kinds(data, spans):
        built = pipeline.from_model(data, vocab_file)
        model = spm.SentencePieceModel.from_bytes(data, vocab_file)
        own = [model.pieces[number] for number in list(model.kinds)[3 : 3 + _SAMPLES]]
        own += [piece.replace("▁", " ") for piece in model.pieces if "▁" in piece[1:]][:_SAMPLES]
        for text in (*_PROBES, *(f"a {piece} b" for piece in own if piece not in spm.RESERVED)):
            if built.encode(text).ids != tokenizer.encode(text).ids:
                fields = ", ".join(model_settings.unusual) or (
                    "pieces across words"
                    if across_words
                    else "pieces of a type of their own"
                    if makes_spaces
                    else "normalization that leaves white space alone"
                )
                raise TokenizerError(
                    f"expected {tokenizer_file} to do what {vocab_file} says ({fields}), received other ids for "
                    f"{text!r}; remove {tokenizer_file}, and the fast class is built from the model"
                )


def _charsmap(tokenizer: Any) -> bytes:
    """The normalization table of a tokenizers object."""
    if tokenizer.normalizer is None:
        return b""
    waiting = [json.loads(tokenizer.normalizer.__getstate__())]
    while waiting:
        step = waiting.pop()
        if step.get("type") == "Precompiled":
            return base64.b64decode(step["precompiled_charsmap"] or "")
        waiting += step.get("normalizers", [])
    return b""


def _starts_with_a_space(tokenizer: Any) -> bool:
    """Whether a text gets a space in front."""
    words = tokenizer.pre_tokenizer.pre_tokenize_str("a") if tokenizer.pre_tokenizer is not None else [("a", (0, 1))]
    return bool(words) and words[0][0] != "a"


def _disagreement(tokenizer_file: str, vocab_file: str, what: str) -> TokenizerError:
    return TokenizerError(
        f"expected one vocabulary in {tokenizer_file} and {vocab_file}, received different ones ({what}); remove the "
        "one that does not belong to the model"
    )


def _unknown_last(index: int | None) -> float:
    return float("inf") if index is None else index


def _input(text: Any, pair: Any, words: bool, row: int | None) -> Any:
    """What the tokenizers library takes for a row (None: the only one): a text or a (text, pair) tuple."""
    for side in (text,) if pair is None else (text, pair):
        good = (
            isinstance(side, list | tuple) and all(isinstance(word, str) for word in side)
            if words
            else isinstance(side, str)
        )
        if not good:
            raise no_text(side, words, row)
    if words:
        text, pair = list(text), None if pair is None else list(pair)
    return text if pair is None else (text, pair)


def _columns(rows: list[Any], options: CallOptions) -> dict[str, Any]:
    data: dict[str, Any] = {"input_ids": [row.ids for row in rows]}
    if options.return_token_type_ids:
        data["token_type_ids"] = [row.type_ids for row in rows]
    if options.return_attention_mask:
        data["attention_mask"] = [row.attention_mask for row in rows]
    if options.return_special_tokens_mask:
        data["special_tokens_mask"] = [row.special_tokens_mask for row in rows]
    if options.return_offsets_mapping:
        data["offset_mapping"] = [row.offsets for row in rows]
    if options.return_length:
        data["length"] = [len(ids) for ids in data["input_ids"]]
    return data
