"""Zips whose records are stored as they are: of ``torch.save``, and Keras's ``.keras``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

from xlmr_core.bounded_files import opened

__all__ = ["KERAS_WEIGHTS", "ZIP", "has_record", "read_directory", "span_of"]

ZIP = b"PK\x03\x04"
# The record of a ``.keras`` that holds the weights, and the name of a file of weights alone.
KERAS_WEIGHTS = "model.weights.h5"
# Some 50 000 records; the largest known file, with all that an optimizer keeps, has 3000.
MOST_DIRECTORY_BYTES = 1 << 22


def read_directory(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """The records of a zip, by name.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with zipfile.ZipFile(_Limited(file)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError, MemoryError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # struct.error has no common base
        raise ValueError(f"{type(error).__name__}: {error}") from error
    records = {member.filename: member for member in members}
    if len(records) < len(members):
        raise ValueError("a record is there twice")
    return records


class _Limited:
    """A file of which the directory of a zip is read, but no absurd one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, count: int = -1) -> bytes:
        if count > MOST_DIRECTORY_BYTES:
            raise ValueError(f"its directory has {count} bytes")
        return self._file.read(count)


def has_record(path: Path, name: str) -> bool:
    """Whether a file is a whole zip with a record of that name."""
    try:
        with opened(path) as file:
            return name in read_directory(file)
    except (OSError, ValueError):
        return False


def span_of(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Where the content of a record begins and ends.

    Args:
        file: the zip.
        member: the record.
        size: of the file.

    Raises:
        ValueError: if it does not lie in the file as it is.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"its record {member.filename} is compressed or encrypted, which its writer never does")
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(ZIP):
        raise ValueError(f"its record {member.filename} has no header")
    name_size, extra_size = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    begin = member.header_offset + 30 + name_size + extra_size
    if member.compress_size != member.file_size or begin + member.file_size > size:
        raise ValueError(f"its record {member.filename} reaches beyond the file")
    return begin, begin + member.file_size
