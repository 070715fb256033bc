"""Pieces that are found many at once are those that are found field by field, in whole models and in damaged ones."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.core.tokenization_models import piece, small_model, with_pieces
from xlmr_core import protobuf
from xlmr_core.tokenization import wire

MINI = Path(__file__).parents[2] / "weights" / "xlmr-mini" / "sentencepiece.bpe.model"
WANTED = (2, 3, 5)
Found = tuple[list[tuple[int, int]], dict[int, list[bytes]]]


def field_by_field(data: bytes) -> Found | None:
    """What :func:`wire.scan` finds; ``None``: damaged."""
    spans: list[tuple[int, int]] = []
    found: dict[int, list[bytes]] = {number: [] for number in WANTED}
    pos = 0
    try:
        while pos < len(data):
            if data[pos] == 0x0A and data[pos + 1] < 0x80:
                spans.append((pos + 2, pos + 2 + data[pos + 1]))
                pos = spans[-1][1]
                continue
            number, value, pos = wire.field(data, pos)
            if number == 1:
                spans.append((pos - len(wire.as_bytes(value)), pos))
            elif number in found:
                found[number].append(wire.as_bytes(value))
    except (IndexError, TypeError):
        return None
    return (spans, found) if pos == len(data) else None


def scanned(data: bytes) -> Found | None:
    try:
        spans, found = wire.scan(data, WANTED)
    except (IndexError, TypeError):
        return None
    return list(spans), found


def field(number: int, content: bytes) -> bytes:
    return protobuf.number(number << 3 | 2) + protobuf.number(len(content)) + content


def random_model(rng: random.Random) -> bytes:
    """Pieces in rows, with among them: long ones, those of other layouts, those that look as if pieces lay in them, and
    other fields.
    """
    parts: list[bytes] = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.randrange(10)
        text = "".join(rng.choices("aé的\U00010348▁\n\x0a\x12\x15\x18", k=rng.randrange(1, 12)))
        if kind < 4:
            kinds = rng.choices((1, 1, 1, 3, 4, 6, 300), k=rng.randrange(60))
            parts += [
                piece(text[: rng.randrange(1, 12)], rng.choice((0.0, -1.5, 1e-38, rng.random())), k) for k in kinds
            ]
        elif kind == 4:
            parts.append(piece("x" * rng.choice((118, 119, 120, 121, 122, 127, 128, 129, 5000)), -1.0))
        elif kind == 5:
            parts.append(field(1, b"\x15\0\0\x80\xbf" + field(1, text.encode())))
        elif kind == 6:
            inner = b"".join(piece("b", -2.0) for _ in range(rng.randrange(9)))
            parts.append(field(1, field(1, inner[rng.randrange(2) :] + rng.randbytes(rng.randrange(3)))))
        elif kind == 7:
            inner = b"".join(piece(text, -2.0) for _ in range(rng.randrange(50)))
            parts.append(field(rng.choice((2, 3, 4, 5, 15)), inner))
        elif kind == 8:
            parts.append(
                rng.choice((b"\x08\x01", b"\x10\x96\x01", b"\x78\x05", b"\x0d\0\0\0\0", b"\x0a\0", b"\x8a\0\x01a"))
            )
        else:
            parts.append(field(15, rng.randbytes(rng.randrange(300))))
    return b"".join(parts)


def damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            del changed[at : at + rng.randrange(1, 5)]
        elif kind == 2:
            changed[at:at] = rng.choice((b"\x0a", b"\x0a\x0a", b"\0", piece("c", -3.0), rng.randbytes(3)))
        else:
            changed[at : at + 1] = bytes([rng.choice((0x0A, 0x12, 0x00, 0x7F, 0x80, 0xFF))])
    return bytes(changed)


# Small ones, so that a row goes over the end of a window, and begins and ends where it may.
@pytest.mark.parametrize(("window", "run"), [(1 << 20, 32), (1 << 20, 1), (256, 1), (97, 3), (16, 1), (1, 1)])
def test_pieces_are_those_of_a_reader_field_by_field(window: int, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_WINDOW", window)
    monkeypatch.setattr(wire, "_RUN", run)
    rng = random.Random(window + run)
    whole = 0
    for _ in range(60):
        data = random_model(rng)
        for changed in (data, *(damaged(rng, data) for _ in range(3))):
            expected = field_by_field(changed)
            whole += expected is not None
            assert scanned(changed) == expected, changed
    assert 40 < whole < 230, "too few that are whole, or damaged"


@pytest.mark.parametrize(
    "data", [b"", b"\x0a", b"\x0a\x05", b"\x0a\x80", b"\x0a\x0a\x0a", b"\x08\x01", b"\0", piece("a", 0.0)]
)
def test_the_shortest(data: bytes) -> None:
    assert scanned(data) == field_by_field(data)


def test_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained ones; of those nearly all pieces are found without a look at each."""
    looked_at: list[int] = []
    monkeypatch.setattr(wire, "array", lambda code: Counting(looked_at))
    for data in (small_model(), with_pieces(small_model(), 3000), MINI.read_bytes()):
        expected = field_by_field(data)
        assert expected is not None
        looked_at.clear()
        assert scanned(data) == expected
        assert len(looked_at) <= 2 * 40, "most pieces were looked at one by one"


class Counting:
    """An array of integers that tells what was put in one by one."""

    def __init__(self, told: list[int]) -> None:
        self._told, self._parts = told, b""

    def append(self, value: int) -> None:
        self._told.append(value)
        self.frombytes(np.int64(value).tobytes())

    def extend(self, values: tuple[int, ...]) -> None:
        for value in values:
            self.append(value)

    def frombytes(self, part: bytes) -> None:
        self._parts += part

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.frombuffer(self._parts, np.int64)


def test_spans_are_a_sequence_of_pairs() -> None:
    data = b"".join(piece(text, -1.0) for text in ("a", "bc", "é"))
    spans, _ = wire.scan(data, WANTED)
    pairs = list(spans)
    assert pairs == [(2, 10), (12, 21), (23, 32)]
    assert all(type(value) is int for pair in (*pairs, spans[1], spans[-1]) for value in pair)
    assert (len(spans), spans[0], spans[-1], list(spans[1:])) == (3, pairs[0], pairs[2], pairs[1:])
    assert (spans.longest, spans[:0].longest) == (9, 0)
    with pytest.raises(IndexError):
        spans[3]
