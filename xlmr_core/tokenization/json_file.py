"""``tokenizer.json`` before the tokenizers library gets it, which reserves what a size in it asks for, and ends the
process where that is too much.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any

from xlmr_core.bounded_files import DAMAGE, check_memory, parse_json, read_bytes, why
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import spm
from xlmr_core.wording import counted, shown

__all__ = ["check", "check_added", "check_pieces", "read_added_tokens", "read_json", "read_tokenizer_json"]

# Of texts other than a normalization table; the library frees a piece letter by letter, each within the one before.
MOST_TEXT_BYTES = 1 << 15
MOST_ADDED_TOKENS = 100_000
# Bytes in which the few added tokens of an ordinary file stand.
_HEAD = 1 << 16
# Of the regular expressions of steps: how often a part may be asked for in braces, one within the other.
MOST_REPEATED = 1000
# Keys may be spelled with escapes, which no writer does for letters; such a file is written anew before it is looked
# at.
_ESCAPED_LETTER = re.compile(r"\\u00[4-7][0-9a-fA-F]")
_TABLE = re.compile(r'"precompiled_charsmap"\s*:\s*"([^"]*)"')
_REGEX = re.compile(r'"Regex"\s*:\s*"((?:[^"\\]|\\.)*)"')
_TIMES = re.compile(r"\{(\d{0,9}),?(\d*)\}")
_ADDED_TOKENS_KEY = re.compile(r'"added_tokens"\s*:\s*(?=\[)')


def read_json(path: str | os.PathLike[str]) -> Any:
    """What one of a tokenizer's files in JSON says.

    Raises:
        TokenizerError: if it cannot be read, or is damaged.
    """
    return _parsed(path, _bytes(path))


def _bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_bytes(path)
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"expected a JSON file at {path}, but it cannot be read ({why(error)}); check the path"
        ) from error


def _parsed(path: str | os.PathLike[str], data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise TokenizerError(
            f"expected JSON in {path}, but it is damaged ({why(error)}); download or copy it again"
        ) from error


def read_tokenizer_json(path: str | os.PathLike[str]) -> str:
    """The content of a ``tokenizer.json`` that may be given to the tokenizers library.

    Raises:
        TokenizerError: if it cannot be read, or asks for more than a tokenizer does.
    """
    data = _bytes(path)
    try:
        text = _spelled_out(data)
        check(text, str(path))
    except TokenizerError:
        raise
    except DAMAGE as error:
        raise TokenizerError(
            f"expected a tokenizer.json at {path}, but it is damaged ({why(error)}); copy it again"
        ) from error
    return text


def _spelled_out(data: bytes) -> str:
    """A text in JSON without escaped letters."""
    text = data.decode("utf-8")
    # The first look is a hundred times as fast as the second.
    if "\\u00" in text and _ESCAPED_LETTER.search(text):
        text = json.dumps(parse_json(data), ensure_ascii=False)
    return text


def read_added_tokens(path: str | os.PathLike[str]) -> list[Any]:
    """The ``added_tokens`` of a ``tokenizer.json``, without a look at its vocabulary (17 MB in published files).

    Raises:
        TokenizerError: if the file cannot be read, or is damaged up to there.
    """
    data = _bytes(path)
    try:
        start = data.find(b'"added_tokens"')
        found = None
        if start >= 0 and b"\\u00" not in data:
            found = _added_tokens(data[start : start + _HEAD].decode("utf-8", "ignore"))
        if found is None:
            check_memory(data)
            found = _added_tokens(_spelled_out(data), whole=True) or []
    except DAMAGE as error:
        raise TokenizerError(
            f"expected JSON in {path}, but it is damaged ({why(error)}); download or copy it again"
        ) from error
    check_added(len(found), str(path))
    return found


def _added_tokens(text: str, *, whole: bool = False) -> list[Any] | None:
    """The list behind the key; ``None`` if a text that is not the ``whole`` ends before it does."""
    match = _ADDED_TOKENS_KEY.search(text)
    if match is None:
        return None
    try:
        return list(json.JSONDecoder().raw_decode(text, match.end())[0])
    except ValueError:
        if whole:
            raise
        return None


def check(text: str, source: str) -> None:
    """Refuse a ``tokenizer.json`` that asks for more than a tokenizer does.

    Args:
        text: of the file, its letters not escaped.
        source: its name.

    Raises:
        TokenizerError: that.
    """
    for table in _TABLE.findall(text):
        spm.check_charsmap(base64.b64decode(table), source)
    for pattern in _REGEX.findall(text):
        repeated = 1
        for least, most in _TIMES.findall(pattern):
            repeated *= max(1, int(most[:9] or least or 1))
        if repeated > MOST_REPEATED:
            raise TokenizerError(
                f"expected regular expressions of words in {source}, received {shown(pattern)}, which repeats "
                f"{repeated} times; use the tokenizer.json of the model"
            )
    # An escaped quote joins two texts here and so makes none shorter.
    longest = max(map(len, _TABLE.sub("", text).replace('\\"', "__").split('"')))
    check_added(text.count('"single_word"'), source)
    check_pieces(text.count("["), longest, source)


def check_pieces(count: int, longest: int, source: str) -> None:
    """Refuse pieces that are no tokenizer's.

    Args:
        count: how many there are.
        longest: letters of the longest.
        source: the name of the file.

    Raises:
        TokenizerError: that.
    """
    if longest > MOST_TEXT_BYTES:
        raise TokenizerError(
            f"expected pieces of a few letters in {source}, received one of {longest}; it is damaged, copy it again"
        )
    if count > spm.MOST_PIECES:
        raise TokenizerError(
            f"expected at most {spm.MOST_PIECES} pieces in {source}, received {count}; it is damaged, copy it again"
        )


def check_added(count: int, source: str) -> None:
    """Refuse more added tokens than a tokenizer has.

    Raises:
        TokenizerError: that.
    """
    if count > MOST_ADDED_TOKENS:
        raise TokenizerError(
            f"expected at most {counted(MOST_ADDED_TOKENS, 'added token')} in {source}, received {count}; train a "
            "vocabulary that has them for pieces"
        )
