"""The fields of a sentencepiece model (``xlmr_core/protobuf.py`` reads one), and where its pieces lie.

Nearly all of a model are its pieces, a quarter of a million fields one behind the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from xlmr_core import protobuf

__all__ = ["Spans", "as_bytes", "field", "fields", "scan"]

_PIECE = 0x0A  # the tag of a piece, and within it that of its text
# Bytes that are looked at together, and how many pieces one behind the other are worth that they are taken together.
_WINDOW, _RUN = 1 << 20, 32


class Spans(Sequence[tuple[int, int]]):
    """The (start, end) of pieces; a quarter of a million tuples would take longer to make than to find.

    Args:
        places: int64 of shape (pieces, 2).
    """

    __slots__ = ("_places",)

    def __init__(self, places: np.ndarray[Any, Any]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> Spans: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | Spans:
        if isinstance(index, slice):
            return Spans(self._places[index])
        start, end = self._places[index].tolist()
        return start, end

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._places[:, 0].tolist(), self._places[:, 1].tolist(), strict=True)

    @property
    def longest(self) -> int:
        """How many bytes the longest has."""
        return int((self._places[:, 1] - self._places[:, 0]).max(initial=0))


def scan(data: bytes, wanted: Sequence[int]) -> tuple[Spans, dict[int, list[bytes]]]:
    """Where the pieces (field 1) of a model lie, and the content of other fields.

    Args:
        data: the model.
        wanted: the numbers of those; they are length-delimited.

    Returns:
        the span of each piece's message, and by number the contents of the fields in their order.

    Raises:
        IndexError: damaged.
        TypeError: a field of another type.
    """
    spans = array("q")
    found: dict[int, list[bytes]] = {number: [] for number in wanted}
    pos, size = 0, len(data)
    while pos < size:
        first = pos
        begins, at, places, ends = _runs(data, first)
        after = first + len(begins)
        while pos < after:
            if begins[pos - first]:
                here = int(np.searchsorted(at, pos - first))
                run = places[here : ends[here]]
                spans.frombytes(run.tobytes())
                pos = int(run[-1, 1])
            # Another piece of less than 128 bytes: there may be as many, so no calls here.
            elif data[pos] == _PIECE and (size_of_one := data[pos + 1]) < 0x80:
                spans.append(pos + 2)
                pos += 2 + size_of_one
                spans.append(pos)
            else:
                number, value, pos = field(data, pos)
                if number == 1:
                    spans.extend((pos - len(as_bytes(value)), pos))
                elif number in found:
                    found[number].append(as_bytes(value))
    if pos != size:
        raise IndexError("field runs past the end")
    return Spans(np.array(spans, np.int64).reshape(-1, 2)), found


class _Runs(NamedTuple):
    """What looks like pieces in a window.

    ``begins``: by byte of the window, whether many follow without a gap from there; ``at``: where in the window each
    begins; ``places``: their spans; ``ends``: for each, the number behind the last that follows without a gap.
    """

    begins: memoryview
    at: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]


def _runs(data: bytes, first: int) -> _Runs:
    """What looks like pieces of less than 128 bytes, as every writer lays them out, in a window.

    A piece may hold what looks like one, so only a reader who has come to such a place field by field knows that a
    piece is there. Then all are pieces that follow without a gap, because each ends where the next begins.
    """
    window = np.frombuffer(data, np.uint8, min(_WINDOW, len(data) - first), first)
    inside = max(len(window) - 3, 0)
    tags, sizes, inner_tags, text_sizes = (window[shift : shift + inside] for shift in range(4))
    beside_text = sizes - text_sizes  # tag and length of the text, the score, perhaps the type
    looks_like_one = (tags == _PIECE) & (inner_tags == _PIECE) & (sizes < 0x80)
    looks_like_one &= (beside_text == 7) | (beside_text == 9)
    at = np.flatnonzero(looks_like_one)
    places = np.stack([at, at + sizes[at]], axis=1) + 2
    last = np.append(np.flatnonzero(places[:-1, 1] != at[1:]), len(at) - 1)
    ends = np.repeat(last + 1, np.diff(last, prepend=-1))
    begins = np.zeros(len(window), np.bool_)
    begins[at[ends - np.arange(len(at)) >= _RUN]] = True
    return _Runs(begins.data, at, places + first, ends)


def fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The number and the value of each field of a message; errors and values as of :func:`field`."""
    pos = 0
    while pos < len(message):
        number, value, pos = field(message, pos)
        yield number, value


def field(data: bytes, pos: int) -> tuple[int, bytes | int, int]:
    """One field: its number, its value (integers for varints, bytes for the rest), and the position after it.

    Raises:
        IndexError: damaged.
    """
    try:
        number, value, after = protobuf.field_at(data, pos, len(data))
    except ValueError as error:
        raise IndexError(str(error)) from error
    return number, value if isinstance(value, int) else data[slice(*value)], after


def as_bytes(value: bytes | int) -> bytes:
    """The value of a length-delimited field.

    Raises:
        TypeError: it is of another type.
    """
    if isinstance(value, int):
        raise TypeError("expected a length-delimited field")
    return value
