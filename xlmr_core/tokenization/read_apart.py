"""A ``tokenizer.json`` read in two parts: the vocabulary by Python and NumPy, all else by the tokenizers library.

The library makes a tree of values of the whole file before it makes a vocabulary of them, which takes most of the time
of a start where there are a quarter of a million pieces. Its own constructor takes pieces and scores as they are, and
what comes out is the same tokenizer, to the last bit of each score; ``deferred.py`` says when it is made. Files in
another form than every writer's are left to the library.
"""

from __future__ import annotations

import json
import os
from itertools import groupby
from typing import Any

from xlmr_core.bounded_files import check_memory, read_bytes
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import json_file
from xlmr_core.tokenization.deferred import Deferred, Vocabulary
from xlmr_core.tokenization.vocabulary_list import taken_out

__all__ = ["made_apart"]

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
        return _made(data, str(path))
    except TokenizerError:
        raise
    except Exception:  # whatever it is, the library meets the same file again and says so
        return None


def _made(data: bytes, source: str) -> Any:
    import tokenizers

    taken = taken_out(data)
    if taken is None:
        return None
    pieces, scores, rest = taken
    longest = max(map(len, pieces), default=0)
    json_file.check_pieces(len(pieces), longest, source)
    content = json.loads(rest)
    model, added = content.get("model"), content.pop("added_tokens", [])
    if not (_is_unigram(model) and isinstance(added, list) and all(map(_is_added, added))):
        return None
    content["model"] = _STAND_IN
    rest = json.dumps(content, ensure_ascii=False)
    json_file.check(rest, source)
    vocabulary = Vocabulary(pieces, scores, longest, model["unk_id"], model.get("byte_fallback", False))
    tokenizer = tokenizers.Tokenizer.from_str(rest)
    made = Deferred(tokenizer, vocabulary, [token["content"] for token in added])
    for special, group in groupby(added, key=lambda token: token["special"]):
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        add([tokenizers.AddedToken(**{name: token[name] for name in _ADDED if name != "id"}) for token in group])
    # The library gives ids in the order of adding, whatever the file says; then it says so.
    return made if all(tokenizer.token_to_id(token["content"]) == token["id"] for token in added) else None


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
