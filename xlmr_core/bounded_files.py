"""Reading files whatever they hold: only ordinary ones are opened, sizes are looked at before anything is made of them,
and what is wrong with a file becomes one sentence.

docs/formats.md states the bound: ten seconds, and one gigabyte of memory over the size of the file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from xlmr_core.errors import XLMRError
from xlmr_core.wording import shown

__all__ = ["DAMAGE", "check_memory", "is_there", "opened", "parse_json", "read_bytes", "read_json", "refusing", "why"]

# Of a file that is read whole: the largest known, a tokenizer.json of 900 000 pieces, has 61 MB.
MOST_BYTES = 1 << 27
# What a value of JSON takes in memory, by the character that comes with it, and what all may take together.
BYTES_OF_JSON = {b"{": 240, b"[": 72, b",": 64}
MOST_JSON_MEMORY = 1 << 30
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")

# What reading a damaged file may raise, here and in the standard library and NumPy. A programmer's mistake
# (AssertionError, NameError) is none of them.
DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError, OSError),
    *(EOFError, struct.error, zlib.error),
)
_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "it is a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a named pipe and no file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device and no file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device and no file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket and no file"),
)


def opened(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        OSError: if there is none, or if it is something else: a pipe would be waited for, and a device never ends.
    """
    mode = os.stat(path).st_mode
    for is_one, number, text in _KINDS:
        if is_one(mode):
            raise OSError(number, text, os.fspath(path))
    return open(path, "rb", buffering=buffering)


def is_there(path: Path) -> bool:
    """Whether there is something of that name, be it a file or what :func:`opened` refuses."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The content of a file.

    Raises:
        OSError: if it cannot be read, or is no file.
        ValueError: if it is too large.
    """
    with opened(path) as file:
        data = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else b""
        if len(data) > most or os.fstat(file.fileno()).st_size > most:
            raise ValueError(f"it has more than {most} bytes")
    return data


def check_memory(data: bytes) -> None:
    """Refuse a text in JSON whose values would take too much memory.

    Raises:
        ValueError: that.
    """
    needed = 3 * len(data) + sum(size * data.count(sign) for sign, size in BYTES_OF_JSON.items())
    if needed > MOST_JSON_MEMORY:
        raise ValueError(f"it has {len(data)} bytes and would take {needed >> 20} MiB of memory")


def parse_json(data: bytes, object_of_pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a text in JSON says.

    Args:
        data: the text.
        object_of_pairs: what makes an object of its keys and values; by default a dictionary.

    Raises:
        ValueError: if it is none, or if it would take too much memory.
    """
    check_memory(data)
    try:
        text = data.decode("utf-8")
        values = json.loads(text, object_pairs_hook=object_of_pairs)
        if _HALF_CHARACTER.search(text):
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"it has half a character, {error.object[error.start]!a}") from None
    return values


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a file in JSON says; errors as of :func:`read_bytes` and :func:`parse_json`."""
    return parse_json(read_bytes(path))


def why(error: BaseException) -> str:
    """What an error says, in a few words: what is wrong with a file, without its name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    said = shown(str(error), 200, quoted=False)
    return said if type(error) is ValueError and said else f"{type(error).__name__}: {said}".removesuffix(": ")


@contextlib.contextmanager
def refusing(error_class: type[XLMRError], message: str) -> Iterator[None]:
    """Make an error of this library of whatever a damaged file does to the code in the block.

    Args:
        error_class: of the error.
        message: what was expected and what to do, with ``{why}`` for what is wrong.
    """
    try:
        yield
    except XLMRError:
        raise
    except BaseException as error:
        # A panic of Rust code is no Exception.
        if not isinstance(error, DAMAGE) and type(error).__name__ not in ("PanicException", "SafetensorError"):
            raise
        raise error_class(message.replace("{why}", why(error))) from error
