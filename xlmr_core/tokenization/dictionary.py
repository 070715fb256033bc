"""``dict.txt``, fairseq's own list of a model's vocabulary, where it lies beside the tokenizer.

The rows of a model that fairseq trained follow ``dict.txt`` (its four special tokens, the lines, ``<mask>``), and
``fairseq-preprocess`` sorts the lines by how often each piece came up. The pieces of the sentencepiece model are in
another order then, and ids that follow it find the rows of other pieces. So ids follow ``dict.txt`` here: the pieces of
the model are read in its order, and every file that is written has that order. What has no such order is refused.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from xlmr_core.bounded_files import DAMAGE, read_bytes, read_json, why
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import spm

__all__ = [
    "DICTIONARY_FILE",
    "check_ids",
    "check_json_ids",
    "in_order_of",
    "order_differs",
    "read_dictionary",
    "read_model_file",
]

logger = logging.getLogger("xlmr_core.tokenization")

DICTIONARY_FILE = "dict.txt"
# A line for each piece; XLM-V's 900 000 would have 20 MB.
MOST_BYTES = 1 << 25
# What fairseq fills a vocabulary up with, so that its size is a multiple of something: a row that no text finds.
_FILLER = re.compile(r"madeupword\d{4}")
_REMEDY = "take the file away that is not of this model"


def read_model_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a ``.model`` file, its pieces in the order of the ``dict.txt`` beside it, if there is one.

    Raises:
        TokenizerError: there is no such file, or the two are of different vocabularies.
    """
    data, ordered = _with_order(Path(path))
    if ordered != data:
        logger.warning(
            "%s lists the pieces in another order than %s; ids follow it, as the rows of a model of fairseq do",
            Path(path).parent / DICTIONARY_FILE,
            Path(path).name,
        )
    return ordered


def order_differs(vocab_file: Path) -> bool:
    """Whether the ``dict.txt`` beside a ``.model`` lists its pieces in another order.

    Raises:
        TokenizerError: one of them cannot be read, or they are of different vocabularies.
    """
    if not (vocab_file.parent / DICTIONARY_FILE).is_file() or not vocab_file.is_file():
        return False
    data, ordered = _with_order(vocab_file)
    return ordered != data


def _with_order(vocab_file: Path) -> tuple[bytes, bytes]:
    """A ``.model`` file as it is, and with its pieces in the order of the dictionary."""
    data = spm.read_file(vocab_file)
    dictionary = vocab_file.parent / DICTIONARY_FILE
    if not dictionary.is_file():
        return data, data
    symbols: list[str] = []
    try:
        symbols = read_dictionary(dictionary)
        return data, in_order_of(symbols, data, str(vocab_file), str(dictionary))
    except TokenizerError:
        ids = len(spm.scan_model(data, str(vocab_file))[0]) + 2  # <pad> and <mask>
        if not _is_a_stranger(dictionary, symbols, ids):
            raise
        return data, data


def _is_a_stranger(dictionary: Path, symbols: Sequence[str], ids: int) -> bool:
    """Whether the embedding has the rows of the tokenizer beside a dictionary, and not those of the dictionary."""
    try:
        rows = read_json(dictionary.parent / "config.json")["vocab_size"]
    except DAMAGE:
        return False
    if rows != ids or rows == len(symbols) + len(spm.FAIRSEQ_SPECIAL) + 1:
        return False
    logger.warning("%s is of another vocabulary than the tokenizer and the model beside it, and not used", dictionary)
    return True


def read_dictionary(path: Path) -> list[str]:
    """The symbols that a ``dict.txt`` lists, without ``<mask>`` at its end.

    Raises:
        TokenizerError: the file cannot be read, or is none of fairseq's.
    """
    try:
        lines = read_bytes(path, MOST_BYTES).decode("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"expected fairseq's dictionary in {path}, but it cannot be read ({why(error)}); copy it again"
        ) from error
    if lines[-1] == "":
        lines.pop()
    symbols = []
    for number, line in enumerate(lines, 1):
        symbol, space, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not space or not symbol or not count.strip().isdigit():
            raise TokenizerError(
                f"expected a piece and its count in each line of {path}, as fairseq writes them, received "
                f"{line[:60]!r} in line {number}; copy the file again, or move it away if it is not of this model"
            )
        symbols.append(symbol)
    if symbols and symbols[-1] == spm.MASK:
        symbols.pop()
    misplaced = [symbol for symbol, count in Counter(symbols).items() if count > 1 or symbol in spm.RESERVED]
    if misplaced:
        raise TokenizerError(
            f"expected each piece once in {path} and no special token but {spm.MASK} at its end, received "
            f"{_some(misplaced)} there; XLM-R's ids have no place for them, so make the dictionary without"
        )
    return symbols


def in_order_of(symbols: Sequence[str], model: bytes, source: str, dictionary: str) -> bytes:
    """A sentencepiece model with its pieces in the order of a dictionary; the same bytes where they are in it.

    Args:
        symbols: what the dictionary lists.
        model: the content of the ``.model`` file.
        source, dictionary: names of the two files for messages.

    Raises:
        TokenizerError: they do not hold the same pieces.
    """
    spans, _ = spm.scan_model(model, source)
    pieces = spm.SentencePieceModel.from_bytes(model, source).pieces
    first = len(spm.SPM_SPECIAL)
    if pieces[first:] == list(symbols):
        return model
    # Those that XLM-R's layout has elsewhere are in no dictionary.
    own = [piece for piece in pieces[first:] if piece not in spm.RESERVED]
    number_of = {piece: number for number, piece in enumerate(pieces) if number >= first}
    foreign = [symbol for symbol in symbols if symbol not in number_of and not _FILLER.fullmatch(symbol)]
    missing = set(own).difference(symbols)
    if foreign or missing:
        raise TokenizerError(
            f"expected the pieces of {source} in {dictionary}, in any order; it lacks {_some(sorted(missing))} and "
            f"has {_some(foreign)} beside them, so no tokenizer's file can give fairseq's ids; {_REMEDY}, or encode "
            "with fairseq"
        )
    return spm.reordered(model, spans, [number_of.get(symbol, symbol) for symbol in symbols])


def check_ids(id_to_token: Callable[[int], str | None], ids: int, tokenizer_file: str | os.PathLike[str]) -> None:
    """Refuse a ``tokenizer.json`` whose ids are not those of the ``dict.txt`` beside it.

    Args:
        id_to_token: what it calls an id.
        ids: how many it has.
        tokenizer_file: its path.

    Raises:
        TokenizerError: an id is another piece's.
    """
    dictionary = Path(tokenizer_file).parent / DICTIONARY_FILE
    if not dictionary.is_file():
        return
    symbols: list[str] = []
    try:
        symbols = read_dictionary(dictionary)
        for index, symbol in enumerate(symbols, len(spm.FAIRSEQ_SPECIAL)):
            found = id_to_token(index)
            if found != symbol and not _FILLER.fullmatch(symbol):
                raise TokenizerError(
                    f"expected one vocabulary in {tokenizer_file} and {dictionary}, received different ones (id "
                    f"{index} is {found!r} and {symbol!r}), and the rows of a model of fairseq follow "
                    f"{DICTIONARY_FILE}; {_REMEDY}"
                )
    except TokenizerError:
        if not _is_a_stranger(dictionary, symbols, ids):
            raise


def check_json_ids(tokenizer_file: Path) -> None:
    """:func:`check_ids` of a file, without the tokenizers library.

    Raises:
        TokenizerError: an id is another piece's, or the file is damaged.
    """
    if not (tokenizer_file.parent / DICTIONARY_FILE).is_file():
        return
    try:
        content = read_json(tokenizer_file)
        names = [piece for piece, _ in content["model"]["vocab"]]
    except DAMAGE as error:
        raise TokenizerError(
            f"expected a unigram tokenizer in {tokenizer_file}, but it is damaged or of another kind ({why(error)}); "
            "copy it again"
        ) from error
    check_ids(lambda index: names[index] if index < len(names) else None, len(names), tokenizer_file)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{len(names)} ({shown}{', ...' if len(names) > 3 else ''})" if names else "none"
