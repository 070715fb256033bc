"""Reads and writes ``sentencepiece.bpe.model`` without a protobuf package.

The file is one protobuf message (``ModelProto``), of which only the wire format is needed (``wire.py``).

What the fields of the message do to an encoding, and what becomes of them (``pipeline.py`` says how the tokenizers
library is given them):

============================================  ==========================  =============================================
field                                         sentencepiece class         fast class
============================================  ==========================  =============================================
``pieces`` (text, score), both in any order   as sentencepiece reads it   the same
``pieces.score`` left out                     0                           0
``pieces.type`` unknown                       the first piece             the same
``pieces.type`` control, unused, byte         never found in a text       the same
``pieces.type`` user-defined                  found before other pieces   the same; refused where normalizing changes it
a piece named ``<pad>``, ``<mask>``, ...      has another name            the same
``trainer_spec.model_type``                   any                         unigram; others are refused
``trainer_spec.split_by_whitespace``          as the pieces are           the same
``trainer_spec.treat_whitespace_as_suffix``   served                      refused
``trainer_spec.byte_fallback``                served                      served
``normalizer_spec.precompiled_charsmap``      served                      served; refused where a rule of a user's own
                                                                          takes more than the library looks at
``normalizer_spec.add_dummy_prefix``          served                      served
``normalizer_spec.remove_extra_whitespaces``  served                      served
``normalizer_spec.escape_whitespaces``        served                      served
``trainer_spec`` or ``normalizer_spec`` out   defaults of sentencepiece   the same; refused where both are, which a cut
                                                                          file looks like
``denormalizer_spec``, ``unk_surface``        for decoding by sentencepiece; neither class decodes by it, as published
``self_test_data``                            checked by sentencepiece    not read
all others                                    training only
============================================  ==========================  =============================================
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from numbers import Real
from typing import Any

import numpy as np

from xlmr_core import protobuf
from xlmr_core.bounded_files import read_bytes, why
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import wire
from xlmr_core.tokenization.checks import describe

__all__ = [
    "FAIRSEQ_SPECIAL",
    "MASK",
    "RESERVED",
    "Kind",
    "ModelType",
    "SentencePieceModel",
    "Settings",
    "charsmap_of",
    "check_charsmap",
    "has_kinds",
    "in_id_order",
    "make_model",
    "own_name",
    "read_file",
    "read_pairs",
    "read_pieces",
    "reordered",
    "scan_model",
    "xlmr_vocabulary",
]

FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""The first four ids of every XLM-R vocabulary, in order (fairseq's dictionary)."""
MASK = "<mask>"
"""The last id of every XLM-R vocabulary."""
RESERVED = frozenset((*FAIRSEQ_SPECIAL, MASK))

SPM_SPECIAL = ("<unk>", "<s>", "</s>")
"""The first three pieces of the sentencepiece file itself."""
# What stands for <pad>, which the file lacks: a text, the score 0, type "control". A file may have a <pad> of its own,
# hence the name.
_PAD_TEXT = "<pad> of fairseq"
# The score of what is in the vocabulary and never in a text: worse than any other way to spell it.
_NEVER = -1e5
_KIND_AT_END = re.compile(rb"\x18[\x03-\x06](?:\x0a|\x12|\x1a|\Z)")
# The largest known vocabulary has 901 629. Both libraries put a piece into a tree letter by letter, each within the one
# before, and long ones end the process.
MOST_PIECES, MOST_PIECE_BYTES = 1_200_000, 4096


class Kind(IntEnum):
    """``ModelProto.SentencePiece.Type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    """``TrainerSpec.ModelType``."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Settings:
    """What a model says about encoding beside its pieces; a field that is left out has sentencepiece's default."""

    model_type: int = 1
    split_by_whitespace: bool = True
    treat_whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    rule_name: str = ""
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True

    @property
    def unusual(self) -> list[str]:
        """The fields, with their values, in which it is unlike every published model."""
        usual = Settings()
        return [
            f"{name}={ModelType(value).name.lower() if name == 'model_type' else value}"
            for name, value in vars(self).items()
            if name not in ("rule_name", "charsmap") and value != getattr(usual, name)
        ]


# By number of the field in TrainerSpec and in NormalizerSpec.
_TRAINER = {3: "model_type", 22: "split_by_whitespace", 24: "treat_whitespace_as_suffix", 35: "byte_fallback"}
_NORMALIZER = {
    1: "rule_name",
    2: "charsmap",
    3: "add_dummy_prefix",
    4: "remove_extra_whitespaces",
    5: "escape_whitespaces",
}
_KIND_OF_SETTING: dict[str, Any] = {item.name: type(item.default) for item in dataclasses.fields(Settings)}


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a sentencepiece model that a tokenizer needs.

    ``pieces`` and ``scores`` are parallel lists in the file's own order (``<unk>``, ``<s>``, ``</s>``, then the
    vocabulary); ``kinds`` has, by number, those that are not of the kind ``NORMAL``; ``taken`` the names of XLM-R's own
    tokens that pieces bear.
    """

    pieces: list[str]
    scores: list[float]
    kinds: dict[int, int] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    taken: frozenset[str] = frozenset()

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "the sentencepiece model") -> SentencePieceModel:
        """Parse a serialized model.

        Raises:
            TokenizerError: the bytes are not a whole sentencepiece model with XLM-R's first pieces.
        """
        spans, settings = scan_model(data, source)
        try:
            pieces, scores, kinds = read_pieces(data, spans)
        except (IndexError, UnicodeDecodeError) as error:
            raise _damaged(source) from error
        if any(kind == Kind.UNKNOWN and number for number, kind in kinds.items()):
            raise TokenizerError(f"expected one unknown piece in {source}, the first, received several; train it again")
        names = set(pieces)
        if len(names) != len(pieces):
            raise TokenizerError(f"expected each piece of {source} once, received one twice; copy the file again")
        return cls(pieces, scores, kinds, settings, RESERVED.difference(SPM_SPECIAL) & names)


def own_name(piece: str) -> str:
    """The token of a piece of the file: itself, unless XLM-R's layout has a token of that name elsewhere.

    The ids of such pieces (``spm_train --pad_id=3``, ``--user_defined_symbols=<mask>``) stay where they are, and no
    text gets them: ``<pad>`` is 1 and ``<mask>`` the last id, as in every XLM-R.
    """
    return f"{piece} of sentencepiece" if piece in RESERVED else piece


def xlmr_vocabulary(model: SentencePieceModel) -> list[tuple[str, float]]:
    """XLM-R's (token, score) list in id order: fairseq's four, the pieces after the file's three, then ``<mask>``.

    The scores are those by which sentencepiece chooses: a user-defined piece is nearly free, and what is never found in
    a text costs too much.
    """
    vocabulary = list(zip(model.pieces, model.scores, strict=True))
    if model.kinds.keys() - {0, 1, 2}:
        # sentencepiece takes the smallest positive number for the start of this maximum.
        best = max(
            [0.0, *(score for number, score in enumerate(model.scores) if number > 2 and number not in model.kinds)]
        )
        for number, kind in model.kinds.items():
            piece = model.pieces[number]
            vocabulary[number] = (piece, len(piece.encode()) * best - 0.1 if kind == Kind.USER_DEFINED else _NEVER)
    if model.taken:
        vocabulary = [
            (own_name(piece), _NEVER) if piece in model.taken else (piece, score) for piece, score in vocabulary
        ]
    vocabulary[: len(SPM_SPECIAL)] = [(token, 0.0) for token in FAIRSEQ_SPECIAL]
    vocabulary.append((MASK, 0.0))
    return vocabulary


# Reading


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a ``.model`` file.

    Raises:
        TokenizerError: there is no such file.
    """
    try:
        return read_bytes(path)
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"expected a sentencepiece model at {path}, but it cannot be read ({why(error)}); "
            "pass vocab_file= the path of sentencepiece.bpe.model"
        ) from error


def scan_model(data: bytes, source: str) -> tuple[wire.Spans, Settings]:
    """Check the file's structure and find where each piece lies.

    Returns:
        the (start, end) span of each piece message, and what the model says about encoding.

    Raises:
        TokenizerError: damaged, or not a model whose first pieces are ``<unk> <s> </s>``.
    """
    try:
        spans, specs = wire.scan(data, (2, 3, 5))
        # Parts of one message add up, as everywhere in protobuf.
        trainer, normalizer, denormalizer = (b"".join(parts) for parts in specs.values())
        settings = _settings(trainer, normalizer)
        pieces, _, kinds = read_pieces(data, spans[:3])
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(source) from error
    if not specs[2] and not specs[3]:
        raise TokenizerError(
            f"expected trainer_spec or normalizer_spec behind the pieces of {source}, found neither: it is "
            "truncated or not told apart from such a file; download, copy or save it again"
        )
    if settings.model_type not in set(ModelType):
        raise TokenizerError(
            f"expected a model_type of {', '.join(item.name.lower() for item in ModelType)} in {source}, received the "
            f"number {settings.model_type}; it is of another version, or damaged"
        )
    if tuple(pieces) != SPM_SPECIAL:
        raise TokenizerError(
            f"expected the first pieces of {source} to be {' '.join(SPM_SPECIAL)}, received {' '.join(pieces)!r}; "
            "this is not an XLM-R vocabulary"
        )
    if kinds.get(0) != Kind.UNKNOWN:
        raise TokenizerError(
            f"expected the first piece of {source} to be of the type UNKNOWN, which sentencepiece needs; train it again"
        )
    if spans.longest > MOST_PIECE_BYTES or len(spans) > MOST_PIECES:
        raise TokenizerError(
            f"expected at most {MOST_PIECES} pieces of at most {MOST_PIECE_BYTES} bytes in {source}, received "
            f"{len(spans)} of up to {max(spans.longest, 0x7F)}; it is damaged, copy the file again"
        )
    for table in (settings.charsmap, _settings(b"", denormalizer).charsmap):
        check_charsmap(table, source)
    return spans, settings


def _settings(trainer: bytes, normalizer: bytes) -> Settings:
    values: dict[str, Any] = {}
    for message, names in ((trainer, _TRAINER), (normalizer, _NORMALIZER)):
        for number, value in wire.fields(message):
            name = names.get(number)
            if name is None:
                continue
            kind = _KIND_OF_SETTING[name]
            if isinstance(value, bytes) != (kind in (str, bytes)):
                continue  # protobuf takes a field of another wire type for one that it does not know
            values[name] = value.decode(errors="replace") if isinstance(value, bytes) and kind is str else kind(value)
    return Settings(**values)


def check_charsmap(table: bytes, source: str) -> None:
    """Refuse a normalization table whose numbers lead out of it: the libraries reserve what its first bytes ask for,
    and follow the others without a look.

    It is the length of a double array, the array (``pipeline.py`` says how it is read), and texts that end with a zero.

    Raises:
        TokenizerError: a damaged table.
    """
    if not table:
        return
    size = int.from_bytes(table[:4], "little")
    if len(table) > 4 and 0 < size <= len(table) - 4 and size % 4 == 0:
        units = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64)
        texts = table[4 + size :]
        leaves = units >> 31 == 1
        children = (np.arange(len(units)) ^ ((units >> 10) << ((units & 0x200) >> 6))) | 0xFF
        if (
            texts.endswith(b"\0")
            and (children[~leaves] < len(units)).all()
            and ((units[leaves] & 0x7FFFFFFF) < len(texts)).all()
        ):
            return
    raise TokenizerError(f"expected a normalization table in {source}, received a damaged one; copy the file again")


def charsmap_of(model: bytes) -> bytes:
    """The normalization table of a model that may have no pieces."""
    normalizer = b"".join(wire.as_bytes(value) for number, value in wire.fields(model) if number == 3)
    return _settings(b"", normalizer).charsmap


def read_pieces(data: bytes, spans: Sequence[tuple[int, int]]) -> tuple[list[str], list[float], dict[int, int]]:
    """The texts and scores of the piece messages at ``spans``, and by number the kinds that are not ``NORMAL``."""
    pieces: list[str] = []
    kinds: dict[int, int] = {}
    score_at = np.zeros(len(spans), dtype=np.int64)
    for index, (start, end) in enumerate(spans):
        # The order every writer uses: field 1 (text), field 2 (score), perhaps field 3 (type).
        text_start = start + 2
        text_end = text_start + data[start + 1]
        after = text_end + 5
        if data[start] == 0x0A and text_start < text_end < start + 130 and after <= end and data[text_end] == 0x15:
            if after == end:
                pieces.append(data[text_start:text_end].decode())
                score_at[index] = text_end + 1
                continue
            if after + 2 == end and data[after] == 0x18:
                pieces.append(data[text_start:text_end].decode())
                score_at[index] = text_end + 1
                kinds[index] = data[after + 1]
                continue
        text = b""
        pos = start
        while pos < end:
            number, value, pos = wire.field(data, pos)
            if number == 1:
                text = wire.as_bytes(value)
            elif number == 2 and isinstance(value, bytes) and len(value) == 4:
                score_at[index] = pos - 4
            elif number == 3 and isinstance(value, int):
                kinds[index] = value
        if pos != end or not text:
            raise IndexError("a piece without a text")
        pieces.append(text.decode())
    raw = np.frombuffer(data, dtype=np.uint8)[score_at[:, None] + np.arange(4)]
    scores = np.ascontiguousarray(raw).view("<f4").reshape(-1).astype(np.float64)
    scores[score_at == 0] = 0.0  # optional, and that is its default
    return pieces, scores.tolist(), {index: kind for index, kind in kinds.items() if kind != Kind.NORMAL}


def has_kinds(data: bytes, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether pieces behind the first three are of a kind of their own, as writers lay them out (type behind score)."""
    found = len(spans) > 3 and _KIND_AT_END.search(data, spans[3][0], spans[-1][1] + 1)
    return bool(found) and bool(read_pieces(data, spans[3:])[2])


def read_pairs(vocabulary: Any) -> list[tuple[str, float]]:
    """The argument ``vocab=`` as (piece, score) pairs in id order.

    Raises:
        TokenizerError: it is something else, or has no scores.
    """
    pairs = list(vocabulary.items() if isinstance(vocabulary, Mapping) else _listed(vocabulary))
    good = [
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], Real)
        and not isinstance(pair[1], bool)
        for pair in pairs
    ]
    # Ids in the place of scores; a vocabulary of one piece could be either.
    numbered = all(good) and len(pairs) > 1 and sorted(score for _, score in pairs) == list(range(len(pairs)))
    if not pairs or not all(good) or numbered:
        received = "ids" if numbered else describe(pairs[good.index(False)] if pairs else vocabulary)
        raise TokenizerError(
            "expected vocab= to hold (piece, score) pairs in id order, or a dict from piece to score, received "
            f"{received}; a unigram vocabulary chooses pieces by their scores, so pass vocab_file= or tokenizer_file= "
            "where you have none"
        )
    return [(piece, float(score)) for piece, score in pairs]


def _listed(vocabulary: Any) -> Iterable[Any]:
    return vocabulary if isinstance(vocabulary, list | tuple) else [vocabulary]


# Writing


def in_id_order(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """The same model with ``<s> <pad> </s> <unk>`` as first pieces, so that sentencepiece's numbers are XLM-R's ids.

    Args:
        data: a model that :func:`scan_model` has checked.
        spans: what it found.
    """
    unk, bos, eos = (data[start:end] for start, end in spans[:3])
    parts = [_piece(bos), _piece(_message(_PAD_TEXT, 0.0, Kind.CONTROL)), _piece(eos), _piece(unk)]
    done = 0
    for number in [0, 1, 2, *_named_like_reserved(data, spans)]:
        start, end = spans[number]
        parts.append(data[done : start - len(protobuf.header(1, end - start))])
        if number > 2:
            text = read_pieces(data, [spans[number]])[0][0]
            parts.append(_piece(_message(own_name(text), 0.0, Kind.CONTROL)))
        done = end
    return b"".join([*parts, data[done:]])


def _named_like_reserved(data: bytes, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Numbers of the pieces behind the first three that :func:`own_name` names anew."""
    texts = [bytes([0x0A, len(name)]) + name.encode() for name in RESERVED]
    if not any(data.find(text, spans[2][1]) >= 0 for text in texts):
        return []
    pieces = read_pieces(data, spans)[0]
    return [number for number, piece in enumerate(pieces) if number > 2 and piece in RESERVED]


def reordered(data: bytes, spans: Sequence[tuple[int, int]], order: Iterable[int | str]) -> bytes:
    """The same model with its pieces behind the first three in another order.

    Args:
        data: a model that :func:`scan_model` has checked.
        spans: what it found.
        order: numbers of pieces, each once; a text is a place that no piece takes.
    """
    messages = [data[start:end] for start, end in spans]
    chosen = [_message(item, 0.0, Kind.UNUSED) if isinstance(item, str) else messages[item] for item in order]
    rest, done = [], 0
    for start, end in spans:
        rest.append(data[done : start - len(protobuf.header(1, end - start))])
        done = end
    return b"".join([*map(_piece, [*messages[:3], *chosen]), *rest, data[done:]])


def make_model(pieces: Iterable[tuple[str, float]], charsmap: bytes = b"") -> bytes:
    """A unigram model of XLM-R's layout.

    Args:
        pieces: text and score of each piece behind ``<unk> <s> </s>``.
        charsmap: the normalization table.
    """
    special = [(SPM_SPECIAL[0], Kind.UNKNOWN), (SPM_SPECIAL[1], Kind.CONTROL), (SPM_SPECIAL[2], Kind.CONTROL)]
    messages = [_message(text, 0.0, kind) for text, kind in special]
    messages += [_message(text, score) for text, score in pieces]
    normalizer = protobuf.field(2, charsmap) if charsmap else b""
    trainer = protobuf.field(3, ModelType.UNIGRAM)
    return b"".join([*map(_piece, messages), protobuf.field(2, trainer), protobuf.field(3, normalizer)])


def _message(text: str, score: float, kind: int = Kind.NORMAL) -> bytes:
    """A piece's message: text, score, and the type where it is not the default."""
    message = protobuf.field(1, text) + protobuf.field(2, float(score))
    return message if kind == Kind.NORMAL else message + protobuf.field(3, kind)


def _piece(message: bytes) -> bytes:
    return protobuf.field(1, message)


def _damaged(source: str) -> TokenizerError:
    return TokenizerError(
        f"expected a sentencepiece model in {source}, but the file is truncated or not a sentencepiece model; "
        "download or copy it again"
    )
