"""A ``tokenizer.json`` read in two parts: the vocabulary by Python, all else by the tokenizers library.

The library makes a tree of values of the whole file before it makes a vocabulary of them, which takes most of the time
of a start where there are a quarter of a million pieces. Its own constructor takes pieces and scores as they are, and
what comes out is the same tokenizer, to the last bit of each score; ``deferred.py`` says when it is made. Files in
another form than every writer's are left to the library.
"""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np

from xlmr_core.bounded_files import check_memory, read_bytes
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import json_file
from xlmr_core.tokenization.deferred import Deferred, Vocabulary

__all__ = ["made_apart"]

_KEY = '"vocab"'
_VOCABULARY = re.compile(r'"vocab"\s*:\s*(?=\[)')
# What the library writes of a model and of an added token, and reads of it.
_MODEL = {"type", "unk_id", "vocab", "byte_fallback"}
_ADDED: dict[str, type] = {
    "id": int,
    "content": str,
    "single_word": bool,
    "lstrip": bool,
    "rstrip": bool,
    "normalized": bool,
    "special": bool,
}
# A vocabulary of one piece stands in the place of the true one while the library reads the rest.
_STAND_IN = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}
# So many digits an integer of 64 bits holds.
_MOST_DIGITS = 18
_POWERS = np.array([float(f"1e{exponent}") for exponent in range(_MOST_DIGITS + 1)])


def made_apart(path: str | os.PathLike[str]) -> Any:
    """The tokenizer of a file; ``None`` where it is for the library to read, or to refuse.

    Args:
        path: of the ``tokenizer.json``.

    Raises:
        TokenizerError: it asks for more than a tokenizer does.
    """
    try:
        data = read_bytes(path)
        check_memory(data)
        return _made(data.decode("utf-8"), str(path))
    except TokenizerError:
        raise
    except Exception:  # whatever it is, the library meets the same file again and says so
        return None


def _made(text: str, source: str) -> Any:
    import tokenizers

    places = list(_places(text))
    if len(places) != 1:
        return None
    (start,) = places
    with _no_collections():
        pairs, end = json.JSONDecoder(**_NUMBERS).raw_decode(text, start)
        if set(map(type, pairs)) != {list} or set(map(len, pairs)) != {2}:
            return None
        pieces, numbers = zip(*pairs, strict=True)
        del pairs
        if set(map(type, pieces)) != {str} or set(map(type, numbers)) != {_Number}:
            return None
        if "\\u" in text:  # no half of a character, which the library would meet later
            "".join(pieces).encode()
        rest = f"{text[:start]}[]{text[end:]}"
        json_file.check_pieces(pieces, source)
        content = json.loads(rest)
        model, added = content.get("model"), content.pop("added_tokens", [])
        if not (_is_unigram(model) and isinstance(added, list) and all(map(_is_added, added))):
            return None
        content["model"] = _STAND_IN
        rest = json.dumps(content, ensure_ascii=False)
        json_file.check(rest, source)
        scores = _as_the_library_reads(numbers)
        vocabulary = Vocabulary(pieces, scores, model["unk_id"], model.get("byte_fallback", False))
        tokenizer = tokenizers.Tokenizer.from_str(rest)
        made = Deferred(tokenizer, vocabulary, [token["content"] for token in added])
    for special, group in groupby(added, key=lambda token: token["special"]):
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        add([tokenizers.AddedToken(**{name: token[name] for name in _ADDED if name != "id"}) for token in group])
    # The library gives ids in the order of adding, whatever the file says; then it says so.
    return made if all(tokenizer.token_to_id(token["content"]) == token["id"] for token in added) else None


def _places(text: str) -> Iterator[int]:
    """Where lists begin that a key calls a vocabulary. No text in JSON has a quote in it that no backslash stands
    before, so that what looks like the key is one.
    """
    at = text.find(_KEY)
    while at >= 0:
        found = _VOCABULARY.match(text, at)
        if found is not None:
            yield found.end()
        at = text.find(_KEY, at + 1)


def _is_unigram(model: Any) -> bool:
    return (
        isinstance(model, dict)
        and model.keys() <= _MODEL
        and model.get("type") == "Unigram"
        and model.get("vocab") == []  # what was cut out is this one
        and type(model.get("unk_id")) is int
        and type(model.get("byte_fallback", False)) is bool
    )


def _is_added(token: Any) -> bool:
    return isinstance(token, dict) and {name: type(value) for name, value in token.items()} == _ADDED


class _Number(str):
    """A number with a point or an exponent, as it is written."""


def _as_the_library_reads(numbers: Sequence[str]) -> list[float]:
    """Numbers as its reader of JSON makes them: the digits as an integer, over a power of ten. That is not always the
    nearest float, and scores that differ in the last bit decide otherwise between ways to spell a text.

    Raises:
        ValueError: an exponent, or more digits than an integer holds.
    """
    text = ",".join(numbers) + ","
    signs = np.frombuffer(text.encode("ascii"), np.uint8)
    ends, points = np.flatnonzero(signs == ord(",")), np.flatnonzero(signs == ord("."))
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_negative = signs[starts] == ord("-")
    if len(points) != len(numbers) or "e" in text or "E" in text:
        raise ValueError("expected numbers of digits with a point, received others")
    if (ends - starts - 1 - is_negative).max() > _MOST_DIGITS:
        raise ValueError(f"expected numbers of at most {_MOST_DIGITS} digits, received longer ones")
    digits = np.fromstring(text[:-1].replace(".", ""), np.int64, sep=",")
    values = np.abs(digits) / _POWERS[ends - points - 1]
    found: list[float] = np.where(is_negative, -values, values).tolist()
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"expected a number, received {constant}")


# An integer in the place of a score stays one, which no score is.
_NUMBERS: dict[str, Any] = {"parse_float": _Number, "parse_constant": _refuse}


@contextmanager
def _no_collections() -> Iterator[None]:
    """No collection of garbage meanwhile: a list for each piece would wake it hundreds of times."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
