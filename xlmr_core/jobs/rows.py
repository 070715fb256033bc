"""Reading the rows of a file: which columns a task takes of it, and what of a row it cannot take.

A row that cannot be read is a row with an error, and the next one is read all the same. Only what is wrong with the
whole file (no such column, no UTF-8 in its header, another format) is refused.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from xlmr_core.arguments import suggestion
from xlmr_core.bounded_files import why
from xlmr_core.errors import JobError, XLMRError
from xlmr_core.jobs import parquet_file
from xlmr_core.tasks.task import Task
from xlmr_core.wording import counted

__all__ = ["READERS", "Columns", "Reader", "Row", "columns_of", "list_in", "read_rows"]

# Of a cell of csv; more is a quotation mark that does not end.
MOST_CHARACTERS = 1 << 24
# What a file of answers calls its own columns.
RESERVED = ("row", "answer", "truncated", "error")


@dataclass(frozen=True)
class Row:
    """A row of the input.

    Attributes:
        number: from 1; the line's number where a line is a row.
        given: what the task takes of it, by the task's own names of columns.
        kept: other columns that the file of answers shall have.
        input: what the pipeline is given, or the error that says why there is nothing.
    """

    number: int
    given: Mapping[str, Any]
    kept: Mapping[str, Any]
    input: Any


# A row as a file has it: a line, the values of its columns by their names, or an error.
Record = str | Mapping[str, Any] | XLMRError


@dataclass(frozen=True)
class Reader:
    """How files of an ending are read.

    Attributes:
        look: looks through a file for the names of its columns (none where a row is a line) and how many rows it has.
        read: gives its rows, each with its number.
    """

    look: Callable[[BinaryIO], tuple[Sequence[str], int]]
    read: Callable[[BinaryIO], Iterator[tuple[int, Record]]]


def _read_lines(file: BinaryIO) -> Iterator[tuple[int, str | XLMRError]]:
    """Lines without their ends; blank ones are left out but counted, a byte order mark is dropped."""
    for number, raw in enumerate(file, 1):
        content = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if content.strip():
            try:
                yield number, content.rstrip(b"\r\n").decode("utf-8")
            except UnicodeDecodeError:
                yield number, JobError("expected UTF-8, received other bytes; convert the input")


def _look_at_lines(file: BinaryIO) -> tuple[Sequence[str], int]:
    return (), sum(1 for _ in _read_lines(file))


def _read_json_lines(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    for number, line in _read_lines(file):
        if isinstance(line, XLMRError):
            yield number, line
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            wrong = (
                f"{error.msg} (character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else why(error)
            )
            yield number, JobError(f"expected an object of JSON, received {line[:60]!r}: {wrong}; mend the line")
            continue
        if isinstance(found, dict | str):
            yield number, found
        else:
            yield number, JobError(f"expected an object of JSON, received {line[:60]!r}; mend the line")


def _look_at_json_lines(file: BinaryIO) -> tuple[Sequence[str], int]:
    names: dict[str, None] = {}
    count = 0
    for _, record in _read_json_lines(file):
        names |= dict.fromkeys(record) if isinstance(record, Mapping) else {}
        count += 1
    return list(names), count


class _CsvLines(Iterator[str]):
    """The lines of a file of csv. What is no UTF-8 becomes halves of characters, which are looked for in each row.

    Attributes:
        begin: the line in which the row begins that is read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self.begin = 1

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file).decode("utf-8", "surrogateescape")
        self._taken.append(line)
        return line.removeprefix("\ufeff") if self.begin == len(self._taken) == 1 else line

    def next_row(self, lines: int | None = None) -> None:
        """Go on behind the row, or behind its first lines."""
        lines = len(self._taken) if lines is None else lines
        self._again.extendleft(reversed(self._taken[lines:]))
        self._taken.clear()
        self.begin += lines


def _read_cells(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Cells of rows, first the names of columns, and the line in which each begins.

    A quotation mark that does not end would take all that follows it into a cell: only its own line is a bad row.
    """
    csv.field_size_limit(MOST_CHARACTERS)
    lines = _CsvLines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.begin, error
            lines.next_row(1)
            continue
        if cells:  # blank lines are no rows
            yield lines.begin, cells
        lines.next_row()


def _names_of_csv(rows: Iterator[tuple[int, list[str] | csv.Error]]) -> list[str]:
    _, names = next(rows, (1, []))
    if isinstance(names, csv.Error):
        raise JobError(f"expected the names of columns in the first line, received {_wrong_in(names)}; mend it")
    if not _is_utf8(names):
        raise JobError("expected UTF-8, received other bytes in the first line; convert the file")
    return names


def _look_at_csv(file: BinaryIO, delimiter: str) -> tuple[Sequence[str], int]:
    rows = _read_cells(file, delimiter)
    return _names_of_csv(rows), sum(1 for _ in rows)


def _read_csv(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, Record]]:
    """Rows are counted from below the first line, whatever lines they take."""
    rows = _read_cells(file, delimiter)
    names = _names_of_csv(rows)
    for number, (line, cells) in enumerate(rows, 1):
        if isinstance(cells, csv.Error):
            yield number, JobError(f"expected cells of csv in line {line}, received {_wrong_in(cells)}; mend the line")
        elif len(cells) != len(names):
            yield (
                number,
                JobError(
                    f"expected {counted(len(names), 'cell')}, received {len(cells)} (line {line}); mend the row, or "
                    "put quotation marks around a text with a comma or tab in it"
                ),
            )
        elif not _is_utf8(cells):
            yield number, JobError(f"expected UTF-8, received other bytes (line {line}); convert the input")
        else:
            yield number, dict(zip(names, cells, strict=True))


def _wrong_in(error: csv.Error) -> str:
    said = str(error)
    if "expected after" in said:
        return "a text behind a quotation mark that ends a cell (those inside a cell are doubled)"
    if said.startswith("new-line"):
        return "a carriage return alone, which ends no line"
    more = f", or a cell of more than {MOST_CHARACTERS} characters" if "limit" in said else ""
    return f"a quotation mark that does not end{more}"


def _is_utf8(cells: Sequence[str]) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for cell in cells if not cell.isascii() for letter in cell)


def _separated(by: str) -> Reader:
    return Reader(lambda file: _look_at_csv(file, by), lambda file: _read_csv(file, by))


# By the ending of a file's name.
READERS: dict[str, Reader] = {
    ".txt": Reader(_look_at_lines, _read_lines),
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".jsonl": Reader(_look_at_json_lines, _read_json_lines),
    ".ndjson": Reader(_look_at_json_lines, _read_json_lines),
    ".parquet": Reader(parquet_file.look, lambda file: enumerate(parquet_file.read(file), 1)),
}


# Which columns a task takes, and what a row holds for it


@dataclass(frozen=True)
class Columns:
    """Which columns of a file a task takes, by its own names of them, and which others are kept.

    Attributes:
        taken: a column of the file for each; several make a list.
        kept: names.
        optional: the task's own names of those that may be empty.
    """

    taken: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    kept: Sequence[str] = ()
    optional: Sequence[str] = ()


def columns_of(
    task: type[Task],
    names: Sequence[str],
    column: Sequence[str] = (),
    named: Mapping[str, Sequence[str]] | None = None,
    keep: Sequence[str] = (),
) -> Columns:
    """Which columns of a file a task takes.

    Args:
        task: what is done.
        names: of the columns of the file.
        column: columns of the file, in the order of the task's.
        named: columns of the file by the task's names; several make a list.
        keep: others that the answers shall have beside them; ``"all"`` are all others.

    Raises:
        JobError: for columns that the file or the task does not have, and for a file without a column that the task
            needs, with the names of those that it has.
    """
    own, there = task.columns or ("text",), list(names)
    asked: dict[str, Sequence[str]] = {name: [one] for name, one in zip(own, column, strict=False)}
    if len(column) > len(own):
        asked[own[-1]] = column[len(own) - 1 :]
    asked |= {name: several for name, several in (named or {}).items() if several}
    for name, several in asked.items():
        if len(several) > 1 and name not in task.list_columns:
            raise JobError(
                f"expected one column for each of {', '.join(own)}, received {', '.join(several)} for {name}; leave "
                "some out"
            )
    kept = list(there) if list(keep) == ["all"] else list(keep)
    wanted = [*(one for several in asked.values() for one in several), *kept]
    if not there and wanted:
        raise JobError(
            f"expected a file with columns, received one without names of any, and {', '.join(wanted)} to choose; "
            "leave that out, or give a .csv, .tsv, .jsonl or .parquet"
        )
    if not there:
        return Columns({name: name for name in own}, (), task.optional_columns)
    for name in wanted:
        if name not in there:
            near = suggestion(name, there, otherwise="choose one of them")
            raise JobError(f"expected a column of {', '.join(map(repr, there))}, received {name!r}; {near}")
    taken: dict[str, str | Sequence[str]] = {}
    for name in own:
        if name in asked:
            taken[name] = asked[name][0] if len(asked[name]) == 1 else list(asked[name])
        elif name in there:
            taken[name] = name
        elif name not in task.optional_columns:
            argument = "column" if len(own) == 1 else f"{name}_column"
            raise JobError(
                f"expected a column {name!r}, received {', '.join(map(repr, there))}; say which it is: pass {argument}="
            )
    used = {one for names in taken.values() for one in ([names] if isinstance(names, str) else names)}
    kept = [name for name in kept if name not in used]
    twice = sorted(name for name in {*used, *kept} if there.count(name) > 1)
    if twice:
        raise JobError(f"expected columns of different names, received {', '.join(twice)} twice; rename one of them")
    clash = sorted({*RESERVED, *own} & set(kept))
    if clash:
        raise JobError(
            f"expected other columns to keep, received {', '.join(clash)}, which is a name of the answers' own; rename "
            "it, or do not keep it"
        )
    return Columns(taken, kept, task.optional_columns)


def read_rows(task: type[Task], records: Iterable[tuple[int, Record]], columns: Columns) -> Iterator[Row]:
    """The rows of a file, as a task takes them."""
    first = (task.columns or ("text",))[0]
    for number, record in records:
        if isinstance(record, XLMRError):
            yield Row(number, {}, {}, record)
        elif isinstance(record, str):
            yield _row_of_line(task, number, record, first)
        else:
            yield _row_of_cells(task, number, record, columns)


def _row_of_line(task: type[Task], number: int, line: str, first: str) -> Row:
    try:
        found = task.from_line(line)
    except XLMRError as error:
        return Row(number, {first: line}, {}, error)
    return Row(number, found if isinstance(found, dict) else {first: found}, {}, found)


def _row_of_cells(task: type[Task], number: int, record: Mapping[str, Any], columns: Columns) -> Row:
    kept = {name: record.get(name) for name in columns.kept}
    given: dict[str, Any] = {}
    for name, source in columns.taken.items():
        several = not isinstance(source, str)
        value = [record.get(one) for one in source] if several else record.get(str(source))
        if value is None and name in columns.optional:
            continue
        if name in task.list_columns and isinstance(value, str):
            texts = list_in(value)
            value = texts if texts is not None and all(isinstance(text, str) for text in texts) else [value]
        wrong = [one for one in (value if isinstance(value, list) else [value]) if not isinstance(one, str)]
        given[name] = value
        if wrong:
            called = ", ".join(source) if several else str(source)
            received = "nothing" if wrong[0] is None else f"{type(wrong[0]).__name__} {wrong[0]!r:.60}"
            error = JobError(f"expected a text in the column {called!r}, received {received}; mend the row")
            return Row(number, given, kept, error)
    alone = not task.columns or (len(given) == 1 and task.columns[0] in given)
    return Row(number, given, kept, next(iter(given.values())) if alone else given)


def list_in(cell: str) -> list[Any] | None:
    """The list in a cell, in JSON, which is how csv has one; ``None`` for any other text."""
    if cell.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            found: list[Any] = json.loads(cell)
            return found
    return None
