"""``Examples``: the rows of files as a task reads them, looked at once before anything starts, then read by number.

Reading a file to its end finds every bad line, all labels and all languages, and keeps the rows one after the other in
a file of its own without a name, which the system removes with the process; small ones stay in memory. So the data may
be larger than memory and of any format, and a file that changes during a run changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import suggestion
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.training.formats import counted_in, files_of, language_of, records
from xlmr_core.training.task import Example, TrainingTask
from xlmr_core.wording import counted

__all__ = ["Examples", "read_examples"]

MOST_IN_MEMORY = 1 << 27  # bytes
LANGUAGE = ("language", "lang")
# How many bad lines an error names.
NAMED = 8
MOST_LABELS = 1 << 20
_READING = threading.Lock()


class Examples(Sequence[Example]):
    """Examples that are read by number.

    Args:
        examples: in order.

    Attributes:
        languages: their names, sorted.
        language: the number of each example's, (N,).
        sizes: characters of the texts of each, (N,).
        labels: the labels that there are, in the order in which they come, up to one more than ``MOST_LABELS``.

    Raises:
        InputError: if there is no room on the disk for those that memory should not hold.
    """

    def __init__(self, examples: Iterable[tuple[Example, Sequence[Any]]]) -> None:
        self._memory = bytearray()
        self._file: Any = None
        self.labels: list[Any] = []
        seen: dict[Any, None] = {}
        names: dict[str, int] = {}
        places, sizes, language = array("q", [0]), array("q"), array("q")  # 24 bytes a row
        for example, labels in examples:
            row = json.dumps(example, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            self._write(row)
            places.append(places[-1] + len(row))
            sizes.append(sum(map(_characters, example.values())))
            language.append(names.setdefault(example.get("language", ""), len(names)))
            if len(seen) <= MOST_LABELS:
                seen |= dict.fromkeys(labels)
        self._written()
        self.labels = list(seen)[: MOST_LABELS + 1]
        self.languages = sorted(names)
        number = np.array([self.languages.index(name) for name in names], np.int64)
        self.language: NDArray[np.int64] = number[np.array(language, np.int64)]
        self.sizes: NDArray[np.int64] = np.array(sizes, np.int64)
        self._places: NDArray[np.int64] = np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"expected a number below {len(self)}, received {number}")
        return self._read(number % len(self))

    def _read(self, number: int) -> Example:
        begin, end = self._places[number], self._places[number + 1]
        if self._file is None:
            row = bytes(memoryview(self._memory)[begin:end])
        else:
            row = _read_at(self._file, int(begin), int(end - begin))
        example: Example = json.loads(row.decode("utf-8", "surrogatepass"))
        return example

    def _written(self) -> None:
        if self._file is not None:
            with _on_disk():
                self._file.flush()

    def _write(self, row: bytes) -> None:
        if self._file is None and len(self._memory) + len(row) > MOST_IN_MEMORY:
            with _on_disk():
                self._file = tempfile.TemporaryFile(prefix="xlmr-examples-")  # noqa: SIM115, it lives as long as this
                weakref.finalize(self, _closed, self._file)
                self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += row
        else:
            with _on_disk():
                self._file.write(row)


def read_examples(
    task: type[TrainingTask],
    paths: Iterable[str | os.PathLike[str]],
    columns: Mapping[str, str] | None = None,
    languages: Sequence[str] = (),
    problem: str = "",
) -> Examples:
    """The examples of files.

    Args:
        task: what reads their rows.
        paths: of files and folders.
        columns: columns of the files by the task's names, where those are none that it knows.
        languages: take the rows of these alone; by default all.
        problem: what the rows have to be examples of, where a task has several and it is known.

    Raises:
        InputError: for files that are not there or hold nothing, for columns that are not there, and for rows that are
            no examples: the file, the number of the line, and what was expected there.
    """
    files = files_of(paths)
    wrong: list[tuple[Path, int, XLMRError]] = []
    found = Examples(_examples(task, files, dict(columns or {}), languages, problem, wrong))
    if wrong:
        path, number, error = wrong[0]
        others = [f"{path.name}:{number}" for path, number, _ in wrong[1 : NAMED + 1]]
        more = len(wrong) - 1 - len(others)
        rest = f"; {counted(len(wrong) - 1, 'more bad line')}: {', '.join(others)}" if others else ""
        rest += f" and {more} further" if more else ""
        raise InputError(f"{path}, {counted_in(path)} {number}: {error}{rest}")
    if languages:
        missing = sorted(set(languages) - set(found.languages))
        if missing:
            raise InputError(
                f"expected rows in the languages {', '.join(languages)}, found none in {', '.join(missing)}; each row "
                "says its language in the column 'language' or 'lang', or its file in its name (de.txt)"
            )
    return found


def _examples(
    task: type[TrainingTask],
    files: Sequence[Path],
    columns: dict[str, str],
    languages: Sequence[str],
    problem: str,
    wrong: list[tuple[Path, int, XLMRError]],
) -> Iterator[tuple[Example, Sequence[Any]]]:
    """The examples with their labels; what is wrong goes into a list."""
    for path in files:
        named = language_of(path)
        columns_of = _Columns(task, columns)
        before = 0
        for number, record in records(path):
            try:
                if isinstance(record, XLMRError):
                    raise record
                row = columns_of.chosen({"text": record} if isinstance(record, str) else record)
                own = row.pop("language", None)
                language = own if isinstance(own, str) else named
                if languages and language not in languages:
                    continue
                example = {**task.read(row), "language": language}
                task.check(example, problem)
                # A blank line is left out; that one stood there ends a document.
                if task.by_line and not (isinstance(record, str) and before and number == before + 1):
                    example["begins"] = True
                before = number
                yield example, task.labels_of(example)
            except XLMRError as error:
                wrong.append((path, number, error))


class _Columns:
    """Which columns of a row a task reads, found once for rows of the same columns."""

    def __init__(self, task: type[TrainingTask], given: Mapping[str, str]) -> None:
        self._task, self._given = task, given
        self._found: dict[tuple[str, ...], dict[str, str | list[str]]] = {}
        known = [*task.columns, "language", "id"]
        for name in given:
            if name not in known:
                near = suggestion(name, known, otherwise=f"choose one of {', '.join(known)}")
                raise InputError(f"{task.name} has no column {name!r}; {near}")

    def chosen(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a row by the task's names, with ``language`` and ``id`` where there are such."""
        there = tuple(row)
        if there not in self._found:
            self._found[there] = self._choose(there)
        return {
            name: row[column] if isinstance(column, str) else _filled([row[one] for one in column])
            for name, column in self._found[there].items()
        }

    def _choose(self, there: tuple[str, ...]) -> dict[str, str | list[str]]:
        found: dict[str, str | list[str]] = {}
        wanted = {**self._task.columns, "language": LANGUAGE, "id": ("id",)}
        for name, others in wanted.items():
            if name in self._given:
                if self._given[name] not in there:
                    near = suggestion(self._given[name], there, otherwise=f"there are {', '.join(map(repr, there))}")
                    raise InputError(f"expected the column {self._given[name]!r}; {near}")
                found[name] = self._given[name]
                continue
            column = next((one for one in (name, *others) if one in there), None)
            numbered = self._numbered(name, there)
            if column is not None or numbered:
                found[name] = column if column is not None else numbered
            elif name in self._task.columns and name not in self._task.optional:
                raise InputError(
                    f"expected a column {' or '.join(map(repr, dict.fromkeys((name, *others))))}, received "
                    f"{', '.join(map(repr, there))}; say which it is: columns {name}=..."
                )
        return found

    def _numbered(self, name: str, there: tuple[str, ...]) -> list[str]:
        """Columns of one thing each, such as ``ending0`` and ``ending1``, where the task knows such."""
        pattern = self._task.numbered.get(name)
        found = [re.fullmatch(pattern, one) for one in there] if pattern else []
        return [match[0] for match in sorted((one for one in found if one), key=lambda one: int(one[1]))]


def _filled(cells: list[Any]) -> list[Any]:
    """Cells without the blank ones behind the last that has something: a row may have fewer than others."""
    filled = [
        place for place, cell in enumerate(cells) if not (cell is None or (isinstance(cell, str) and not cell.strip()))
    ]
    return cells[: filled[-1] + 1] if filled else []


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    """Say of an error of the disk where the rows were to be kept."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot keep the rows of the data in the folder of temporary files: {error.strerror or error}; make room "
            "there, or name another folder in the variable TMPDIR"
        ) from error


def _closed(file: Any) -> None:
    """Close it, also where a full disk does not take the last bytes."""
    with contextlib.suppress(OSError):
        file.close()


def _read_at(file: Any, place: int, size: int) -> bytes:
    if hasattr(os, "pread"):  # also from several threads and processes at once
        return os.pread(file.fileno(), size, place)
    with _READING:
        file.seek(place)
        content: bytes = file.read(size)
    return content


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_characters, value)) if isinstance(value, list) else 0
