"""Small sentencepiece models for the tokenizer tests, so that they need no recorded file."""

from __future__ import annotations

import functools
import io
import random
import struct

TEXTS = [
    "Plants create energy through a process known as photosynthesis.",
    "Bonjour, je suis un modèle de langue et je parle français.",
    "Все люди рождаются свободными и равными в своём достоинстве.",
    "すべての人間は、生まれながらにして自由であり、平等である。",
    "جميع الناس يولدون أحرارا متساوين في الكرامة والحقوق.",
    "ＦＵＬＬ width ① ½ ﬁne x² Å café naïve",
    "The capital of France is Paris, and the river runs through the city.",
]
# With white space, special tokens and characters that no piece has.
MIXED = ["Paris <mask>.", "", "a\n\tb  c", "unknown ☃ sign", "</s> and <pad>", *TEXTS]


@functools.cache
def small_model() -> bytes:
    """A trained unigram model with XLM-R's normalization and first pieces."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=written,
        vocab_size=120,
        model_type="unigram",
        normalization_rule_name="nmt_nfkc",
        character_coverage=0.98,
        minloglevel=2,
    )
    return written.getvalue()


def with_pieces(model: bytes, count: int, seed: int = 0) -> bytes:
    """The same model with random pieces added up to ``count``."""
    letters = "abcdefghijklmnopqrstuvwxyzабвгдежзийклмнопрстуфхцчшщ的一是不了人我在有他"
    generator = random.Random(seed)
    rest = _skip_pieces(model)
    pieces = [model[start:end] for start, end in rest[0]]
    made: set[str] = set()
    while len(pieces) + len(made) < count:
        made.add("▁" * generator.randrange(2) + "zq" + "".join(generator.choices(letters, k=generator.randrange(2, 9))))
    return b"".join([*pieces, *(piece(text, -10 - generator.random() * 6) for text in sorted(made)), rest[1]])


def piece(text: str, score: float, kind: int = 1) -> bytes:
    """One piece as the file holds it."""
    content = text.encode()
    message = b"\x0a" + _varint(len(content)) + content + b"\x15" + struct.pack("<f", score)
    message += b"" if kind == 1 else b"\x18" + _varint(kind)
    return b"\x0a" + _varint(len(message)) + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _skip_pieces(model: bytes) -> tuple[list[tuple[int, int]], bytes]:
    spans, pos = [], 0
    while model[pos] == 0x0A:
        length, size, shift = 0, pos + 1, 0
        while True:
            byte = model[size]
            length |= (byte & 127) << shift
            size, shift = size + 1, shift + 7
            if byte < 128:
                break
        spans.append((pos, size + length))
        pos = size + length
    return spans, model[pos:]
