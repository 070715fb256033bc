"""The wire format of protobuf, as far as ONNX files and sentencepiece models need it: messages are written as bytes,
and read where they lie.

A message is a row of fields, each a number with the kind of its value, and the value: an integer of 7 bits a byte, 4 or
8 bytes, or a length and that many bytes (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["Span", "field", "field_at", "fields", "header", "integers", "number", "placed_fields", "text", "value_of"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
# Where the bytes of a field lie: the first, and the one after the last.
Span = tuple[int, int]


# ---- Writing


def number(value: int) -> bytes:
    """An integer; a negative one takes ten bytes."""
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def header(key: int, length: int, width: int = 1) -> bytes:
    """What stands before the bytes of a field; the length takes at least ``width`` bytes."""
    found = bytearray(number(length))
    while len(found) < width:
        found[-1] |= 128
        found.append(0)
    return number(key << 3 | _BYTES) + found


def field(key: int, value: int | float | bytes | str) -> bytes:
    """A field: an integer, a number of 4 bytes, a text, or a message."""
    if isinstance(value, int):
        return number(key << 3 | _VARINT) + number(value)
    if isinstance(value, float):
        return number(key << 3 | _FIXED32) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return header(key, len(content)) + content


# ---- Reading


def fields(data: memoryview, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: the number of each, and an integer or where its bytes lie.

    Args:
        data: what the message lies in.
        begin, end: of the message.

    Raises:
        ValueError: if it is none.
    """
    for key, value, _ in placed_fields(data, begin, end):
        yield key, value


def placed_fields(data: memoryview, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, int | Span, Span]]:
    """The same, and with each where it lies as a whole, with what stands before its bytes."""
    end = len(data) if end is None else end
    while begin < end:
        start = begin
        key, value, begin = field_at(data, begin, end)
        yield key, value, (start, begin)


def field_at(data: memoryview | bytes, begin: int, end: int) -> tuple[int, int | Span, int]:
    """The field that begins at a place: its number, an integer or where its bytes lie, and the place behind it.

    Raises:
        ValueError: if it does not end before ``end``, or is of no kind.
    """
    key, begin = _varint(data, begin, end)
    kind = key & 7
    if kind == _VARINT:
        value, begin = _varint(data, begin, end)
        return key >> 3, value, begin
    length = _SIZES.get(kind)
    if kind == _BYTES:
        length, begin = _varint(data, begin, end)
    if length is None or begin + length > end:
        raise ValueError(f"a field of kind {kind} at byte {begin} does not fit")
    return key >> 3, (begin, begin + length), begin + length


def value_of(data: memoryview, value: int | Span) -> bytes:
    """The bytes of a field.

    Raises:
        ValueError: for an integer.
    """
    if isinstance(value, int):
        raise ValueError(f"expected bytes, received the number {value}")
    return bytes(data[value[0] : value[1]])


def text(data: memoryview, value: int | Span) -> str:
    """The text of a field; errors as of :func:`value_of`."""
    return value_of(data, value).decode()


def integers(data: memoryview, value: int | Span) -> list[int]:
    """The integers of a field, one or several behind each other."""
    if isinstance(value, int):
        return [value]
    found, (begin, end) = [], value
    while begin < end:
        one, begin = _varint(data, begin, end)
        found.append(one)
    return found


def _varint(data: memoryview | bytes, begin: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if begin >= end:
            break
        byte = data[begin]
        begin += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, begin
    raise ValueError(f"an integer at byte {begin} does not end")
