"""Which files of examples there are, and the rows of each: what ``xlmr run`` reads, and CoNLL and SQuAD.

Every reader gives rows with the number of the line where each begins (of csv and parquet: of the row), and an error in
the place of a row that cannot be read.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from xlmr_core.bounded_files import opened, parse_json, refusing
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.jobs.rows import READERS as TABLES
from xlmr_core.wording import shown

__all__ = ["ENDINGS", "Record", "counted_in", "files_of", "language_of", "records"]

Record: TypeAlias = str | Mapping[str, Any] | XLMRError

PACKED: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".xz": lzma.open}
# Where a token and its tag stand in a line of CoNLL-U; in the older CoNLL these are the first and the last column.
CONLLU_COLUMNS, CONLLU_TOKEN, CONLLU_TAG = 10, 1, 3
# The codes by which the name of a file says its language: those of ISO 639-1, and a few of three letters. Other names
# of two or three letters say something else, such as qa.jsonl and val.json.
_CODES = """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en
    eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv
    ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne
    ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st
    su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo yue za zh zu arq ary ceb
    fil pcm
"""
_TAG = re.compile(r"[A-Z]-|[A-Z_]+$|#$")  # B-PER, O, SYM, and that of # in the Penn Treebank
_LANGUAGE = re.compile(r"([a-z]{2,3})(-[A-Z][a-z]{3})?(-[A-Z]{2})?")  # zh, zh-Hant, pt-BR


def _read_conll(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    """Sentences of a token a line with its tag in the last column; a blank line ends one.

    A line with ``#`` before a sentence is a comment where it says ``name=value``, has another number of columns than
    the lines of tokens, or is a lone ``#`` before what is no tag (``O``, ``B-PER``, ``SYM``); else it has a token.
    """

    def is_comment(cells: list[str], width: int, begins: bool) -> bool:
        if not begins or not cells[0].startswith("#"):
            return False
        is_named = "=" in "".join(cells[1:]) or (cells[0] == "#" and not _TAG.match(cells[-1]))
        return is_named or len(cells) != (width or 2)

    return _sentences(file, lambda cells: (cells[0], cells[-1]), least=2, is_comment=is_comment)


def _read_conllu(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    """Sentences of Universal Dependencies: the syntactic words and their UPOS."""

    def word(cells: list[str]) -> tuple[str, str] | None:
        # 3-4 is the written form of two words, 5.1 a word that is not written.
        return (cells[CONLLU_TOKEN], cells[CONLLU_TAG]) if cells[0].isdecimal() else None

    def is_comment(cells: list[str], width: int, begins: bool) -> bool:
        return cells[0].startswith("#")

    return _sentences(file, word, least=CONLLU_COLUMNS, by="\t", is_comment=is_comment)


def _sentences(
    file: BinaryIO,
    word: Callable[[list[str]], tuple[str, str] | None],
    *,
    least: int,
    is_comment: Callable[[list[str], int, bool], bool],
    by: str | None = None,
) -> Iterator[tuple[int, Record]]:
    """Sentences.

    Args:
        file: read to its end.
        word: the token and the tag in the cells of a line, if it has one.
        least: cells of a line with a token.
        is_comment: whether a line has no token, by its cells, how many the lines with tokens have (0 before the first
            of them), and whether it stands before a sentence.
        by: what stands between cells; any white space by default.
    """
    tokens: list[str] = []
    tags: list[str] = []
    begin, width, wrong = 0, 0, None
    # A last blank line ends the last sentence too.
    for number, raw in enumerate((line for lines in (file, (b"",)) for line in lines), 1):
        try:
            line = raw.decode("utf-8").strip("\r\n" if by else "\r\n ")
        except UnicodeDecodeError:
            wrong, begin, line = "other bytes than UTF-8", number, ""
        if not line.strip():
            if wrong:
                expected = f"at least {least} columns, a token and its tag among them"
                yield begin, InputError(f"expected {expected}, received {wrong}; mend the line")
            elif tokens:
                yield begin, {"tokens": tokens, "tags": tags}
            tokens, tags, begin, wrong = [], [], 0, None
            continue
        cells = line.split(by)
        if is_comment(cells, width, not tokens) or cells[0] == "-DOCSTART-" or wrong:
            continue
        begin = begin or number
        if len(cells) < least:
            begin, wrong = number, shown(line, 60)
            continue
        found, width = word(cells), width or len(cells)
        if found:
            tokens.append(found[0])
            tags.append(found[1])


def _read_json(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    """A list of objects, or SQuAD's ``data``, ``paragraphs`` and ``qas``."""
    with refusing(InputError, "expected JSON, a list of objects or as of SQuAD: {why}; mend the file"):
        found = parse_json(file.read())
    rows = found.get("data") if isinstance(found, Mapping) else found
    if not isinstance(rows, list):
        raise InputError(f"expected a list of objects, or an object with 'data', received {shown(found, 60)}")
    number = 0
    for row in rows:
        for one in _questions(row) if isinstance(row, Mapping) and "paragraphs" in row else (row,):
            number += 1
            wrong = InputError(f"expected an object, received {shown(one, 60)}; mend the file")
            yield number, one if isinstance(one, Mapping) else wrong


def _questions(article: Mapping[str, Any]) -> Iterator[Any]:
    for paragraph in article["paragraphs"]:
        for question in paragraph.get("qas", ()):
            yield {"title": article.get("title", ""), "context": paragraph.get("context"), **question}


READERS: dict[str, Callable[[BinaryIO], Iterable[tuple[int, Any]]]] = {
    **{ending: table.read for ending, table in TABLES.items()},
    ".json": _read_json,
    ".conllu": _read_conllu,
    **dict.fromkeys((".conll", ".bio", ".iob2"), _read_conll),
}
ENDINGS = tuple(READERS)
# Formats whose rows are counted, and not their lines.
BY_ROW = (".csv", ".tsv", ".parquet", ".json")


def ending_of(path: Path) -> tuple[str, str]:
    """The ending that says the format, and that which says how a file is packed, empty for none."""
    packed = path.suffix if path.suffix in PACKED else ""
    return (Path(path.stem).suffix if packed else path.suffix), packed


def files_of(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files of a list of files and folders; of a folder, all that can be read, by name.

    Raises:
        InputError: for a path where nothing is, for a folder without such files, and for another ending.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file() and ending_of(file)[0] in READERS)
            if not inside:
                raise InputError(f"expected a folder with files of {', '.join(ENDINGS)}, received {path}, without any")
            found += inside
            continue
        if not path.exists():
            raise InputError(f"expected a file or folder of examples, received {path}, where there is none")
        if ending_of(path)[0] not in READERS:
            raise InputError(
                f"expected a name that ends with one of {', '.join(ENDINGS)} (.gz or .xz may follow), received "
                f"{path.name}; rename or convert the file"
            )
        found.append(path)
    return found


def language_of(path: Path) -> str:
    """The language that the name of a file says (``de.txt.xz``), empty if none."""
    name = path.name.split(".")[0]
    said = _LANGUAGE.fullmatch(name)
    return name if said and said[1] in _CODES.split() else ""


def counted_in(path: Path) -> str:
    """What the numbers of :func:`records` count, ``line`` or ``row``."""
    return "row" if ending_of(path)[0] in BY_ROW else "line"


def records(path: Path) -> Iterator[tuple[int, Record]]:
    """The rows of a file, each with its number.

    Raises:
        InputError: if the whole file cannot be read.
    """
    ending, packed = ending_of(path)
    with refusing(InputError, f"expected to read {path}: {{why}}; check the file"), opened(path) as file:
        content = cast(BinaryIO, PACKED[packed](file)) if packed else file
        try:
            yield from READERS[ending](content)
        except (XLMRError, lzma.LZMAError) as error:
            raise InputError(f"{path}: {error}") from error
