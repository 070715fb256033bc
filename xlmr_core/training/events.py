"""The curves of a run as events for TensorBoard: ``tensorboard --logdir FOLDER/tensorboard``.

They are written here in a few lines, as the package of TensorBoard imports TensorFlow where that is installed. A file
of events is a row of records, each with its length and checksums (CRC-32C); a record is a protocol buffer ``Event``
with the fields ``wall_time`` (1), ``step`` (2), ``file_version`` (3) and ``summary`` (5), and a summary is a row of
values (1) with ``tag`` (1) and ``simple_value`` (2). Source: ``event.proto`` and ``summary.proto`` of TensorBoard, and
``record_writer.h`` of TensorFlow.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from xlmr_core.atomic_files import saving_to
from xlmr_core.training.log import EVALUATION, LANGUAGES, NORM, RATE, STEP

__all__ = ["Events", "curves_of"]

VERSION = b"brain.Event:2"
# CRC-32C (Castagnoli), bits reversed, and how TensorFlow masks it.
POLYNOMIAL, MASK = 0x82F63B78, 0xA282EAD8
# The largest float of 32 bits.
LARGEST = 3.4028234663852886e38
# Kinds of fields in a protocol buffer.
INTEGER, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5


class Events:
    """The file of events of a run. It holds what the log holds, and is written anew when a run goes on.

    Args:
        folder: of the events; files of events in it are replaced.
        lines: of the log, so far.
        seconds: how long the run has trained.
    """

    def __init__(self, folder: Path, lines: Iterable[Mapping[str, Any]], seconds: float) -> None:
        self._folder = folder
        self._began = time.time() - seconds
        with saving_to(folder, "the events"):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("events.out.tfevents.*"):
                path.unlink()
            self._file: BinaryIO = (folder / f"events.out.tfevents.{int(time.time())}.xlmr").open("wb")
            self._file.write(_record(_double(1, self._began) + _bytes(3, VERSION)))
            self._seconds = 0.0
            for line in lines:
                self._add(line)
            self._file.flush()

    def add(self, line: Mapping[str, Any]) -> None:
        """Write what a line of the log says."""
        with saving_to(self._folder, "the events"):
            self._add(line)
            if EVALUATION in line:
                self._file.flush()

    def _add(self, line: Mapping[str, Any]) -> None:
        self._seconds = line.get("seconds", self._seconds)
        values = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in curves_of(line))
        if values:
            at = _double(1, self._began + self._seconds) + _integer(2, line[STEP])
            self._file.write(_record(at + _bytes(5, values)))

    def close(self) -> None:
        """Write the rest."""
        self._file.close()


def curves_of(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The points of curves in a line of the log: the name of each, and its value."""
    if EVALUATION in line:
        yield from ((f"evaluation/{name}", value) for name, value in line[EVALUATION].items())
        main = next(iter(line[EVALUATION]), "")
        for language, figures in line.get(LANGUAGES, {}).items():
            if main in figures:
                yield f"languages/{language}/{main}", figures[main]
    else:
        yield from ((f"train/{name}", line[name]) for name in ("loss", RATE, NORM) if line.get(name) is not None)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _masked(data: bytes) -> int:
    code = 0xFFFFFFFF
    for byte in data:
        code = _TABLE[(code ^ byte) & 0xFF] ^ (code >> 8)
    code ^= 0xFFFFFFFF
    return (((code >> 15) | (code << 17)) + MASK) & 0xFFFFFFFF


def _row(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_row(byte) for byte in range(256)]


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _integer(field: int, number: int) -> bytes:
    return _key(field, INTEGER) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _key(field, DOUBLE) + struct.pack("<d", number)


def _float(field: int, number: float) -> bytes:
    # A perplexity may be larger than a float of 32 bits.
    return _key(field, FLOAT) + struct.pack("<f", number if abs(number) <= LARGEST else math.copysign(math.inf, number))


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, BYTES) + _varint(len(content)) + content
