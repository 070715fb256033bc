"""Reads ``sentencepiece.bpe.model`` without a protobuf package.

The file is one protobuf message. Only the wire format is needed: a field is a tag (number and type) and a value, and
everything used here is length-delimited, a 32-bit float, or a variable-length integer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlmr_core.errors import TokenizerError

__all__ = [
    "FAIRSEQ_SPECIAL",
    "SentencePieceModel",
    "in_id_order",
    "read_model_file",
    "read_pieces",
    "scan_model",
    "xlmr_vocabulary",
]

FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""The first four ids of every XLM-R vocabulary, in order (fairseq's dictionary)."""

_SPM_SPECIAL = ("<unk>", "<s>", "</s>")  # the first three pieces of the sentencepiece file itself
# What stands for <pad>, which the file lacks: a text, the score 0, type "control". A file may have a <pad> of its own,
# hence the name.
_PAD_TEXT = b"<pad> of fairseq"
_PAD_PIECE = b"\x0a" + bytes([len(_PAD_TEXT)]) + _PAD_TEXT + b"\x15\0\0\0\0" + b"\x18\x03"
_UNIGRAM = 1  # TrainerSpec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a sentencepiece model that a tokenizer needs.

    ``pieces`` and ``scores`` are parallel lists in the file's own order (``<unk>``, ``<s>``, ``</s>``, then the
    vocabulary); ``charsmap`` is the precompiled normalization table.
    """

    pieces: list[str]
    scores: list[float]
    charsmap: bytes

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "the sentencepiece model") -> SentencePieceModel:
        """Parse a serialized model.

        Raises:
            TokenizerError: the bytes are not a whole sentencepiece unigram model with XLM-R's first pieces.
        """
        spans, charsmap = scan_model(data, source)
        try:
            pieces, scores = read_pieces(data, spans)
        except (IndexError, UnicodeDecodeError) as error:
            raise _damaged(source) from error
        return cls(pieces, scores, charsmap)


def xlmr_vocabulary(model: SentencePieceModel) -> list[tuple[str, float]]:
    """XLM-R's (piece, score) list in id order: fairseq's four, the pieces after the file's three, then ``<mask>``."""
    special = [(token, 0.0) for token in FAIRSEQ_SPECIAL]
    ordinary = list(zip(model.pieces, model.scores, strict=True))[len(_SPM_SPECIAL) :]
    return [*special, *ordinary, ("<mask>", 0.0)]


def read_model_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a ``.model`` file.

    Raises:
        TokenizerError: there is no such file.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"expected a sentencepiece model at {path}, but it cannot be read ({error.strerror}); "
            "pass vocab_file= the path of sentencepiece.bpe.model"
        ) from error


def scan_model(data: bytes, source: str) -> tuple[list[tuple[int, int]], bytes]:
    """Check the file's structure and find where each piece lies.

    Returns:
        the (start, end) span of each piece message, and the precompiled normalization table.

    Raises:
        TokenizerError: damaged, or not a unigram model whose first pieces are ``<unk> <s> </s>``.
    """
    spans: list[tuple[int, int]] = []
    trainer: bytes | None = None
    normalizer: bytes | None = None
    try:
        pos, size = 0, len(data)
        while pos < size:
            # A piece of less than 128 bytes: nearly all of a quarter of a million fields, so no calls here.
            if data[pos] == 0x0A and (length := data[pos + 1]) < 0x80:
                start = pos + 2
                pos = start + length
                spans.append((start, pos))
                continue
            number, value, pos = _field(data, pos)
            if number == 1:
                spans.append((pos - len(_as_bytes(value)), pos))
            elif number == 2:
                trainer = _as_bytes(value)
            elif number == 3:
                normalizer = _as_bytes(value)
        if pos != size or trainer is None or normalizer is None:
            raise _damaged(source)
        model_type = dict(_fields(trainer)).get(3, _UNIGRAM)
        charsmap = _as_bytes(dict(_fields(normalizer)).get(2, b""))
        first = tuple(read_pieces(data, spans[:3])[0])
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(source) from error
    if model_type != _UNIGRAM:
        raise TokenizerError(
            f"expected a unigram sentencepiece model in {source}, received model type {model_type!r}; this is not an "
            "XLM-R vocabulary"
        )
    if first != _SPM_SPECIAL:
        raise TokenizerError(
            f"expected the first pieces of {source} to be {' '.join(_SPM_SPECIAL)}, received {' '.join(first)!r}; "
            "this is not an XLM-R vocabulary"
        )
    return spans, charsmap


def in_id_order(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """The same model with ``<s> <pad> </s> <unk>`` as first pieces, so that sentencepiece's numbers are XLM-R's ids.

    Args:
        data: a model that :func:`scan_model` has checked.
        spans: what it found.
    """
    unk, bos, eos = (data[start:end] for start, end in spans[:3])
    rest, done = [], 0
    for start, end in spans[:3]:
        rest.append(data[done : start - len(_header(end - start))])
        done = end
    first = [_header(len(piece)) + piece for piece in (bos, _PAD_PIECE, eos, unk)]
    return b"".join([*first, *rest, data[done:]])


def read_pieces(data: bytes, spans: list[tuple[int, int]]) -> tuple[list[str], list[float]]:
    """The texts and scores of the piece messages at ``spans``."""
    pieces: list[str] = []
    score_at = np.zeros(len(spans), dtype=np.int64)
    for index, (start, end) in enumerate(spans):
        # The order every writer uses: field 1 (text), field 2 (score), perhaps field 3 (type).
        text_start = start + 2
        text_end = text_start + data[start + 1]
        if data[start] == 0x0A and data[start + 1] < 0x80 and text_end + 5 <= end and data[text_end] == 0x15:
            pieces.append(data[text_start:text_end].decode())
            score_at[index] = text_end + 1
            continue
        pos = start
        while pos < end:
            number, value, pos = _field(data, pos)
            if number == 1:
                pieces.append(_as_bytes(value).decode())
            elif number == 2:
                score_at[index] = pos - 4
        if pos != end or len(pieces) != index + 1 or not score_at[index]:
            raise IndexError("piece without text or score")
    raw = np.frombuffer(data, dtype=np.uint8)[score_at[:, None] + np.arange(4)]
    scores = np.ascontiguousarray(raw).view("<f4").reshape(-1).astype(np.float64).tolist()
    return pieces, scores


def _header(length: int) -> bytes:
    """The tag and the length in front of a piece."""
    header = bytearray([0x0A])
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*header, length])


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    pos = 0
    while pos < len(message):
        number, value, pos = _field(message, pos)
        yield number, value


def _field(data: bytes, pos: int) -> tuple[int, bytes | int, int]:
    """One field: its number, its value (integers for varints, bytes for the rest), and the position after it."""
    tag, pos = _varint(data, pos)
    wire = tag & 7
    if wire == _VARINT:
        value, pos = _varint(data, pos)
        return tag >> 3, value, pos
    if wire == _BYTES:
        length, pos = _varint(data, pos)
    elif wire in (_FIXED32, _FIXED64):
        length = 4 if wire == _FIXED32 else 8
    else:
        raise IndexError(f"wire type {wire}")
    if pos + length > len(data):
        raise IndexError("field runs past the end")
    return tag >> 3, data[pos : pos + length], pos + length


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
    raise IndexError("integer of more than 64 bits")


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise TypeError("expected a length-delimited field")
    return value


def _damaged(source: str) -> TokenizerError:
    return TokenizerError(
        f"expected a sentencepiece model in {source}, but the file is truncated or not a sentencepiece model; "
        "download or copy it again"
    )
