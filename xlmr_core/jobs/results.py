"""Writing files of answers: what of an answer each format holds, and how it is written.

A file of lines holds answers as they are; a table a row for each part of an answer; an array a vector for each row.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.errors import JobError
from xlmr_core.jobs import parquet_file
from xlmr_core.jobs.values import shown_in_json
from xlmr_core.tasks.task import plain
from xlmr_core.wording import seen_in_json

__all__ = ["RESULTS", "Result", "Rows"]

# A row that is done: its number as ``row``, ``given``, ``kept``, ``truncated``, and ``answer`` or ``error``.
Done = Mapping[str, Any]
Rows = Callable[[], Iterable[Done]]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Result:
    """A format of files of answers.

    Attributes:
        content: what the file holds of an answer, and so the journal; it is asked with the pipeline.
        write: writes the file from the rows that are done, which it may read more than once.
        check: refuses where it cannot be written at all.
        one_shape: whether all contents are arrays of the shape and dtype of the first.
    """

    content: Callable[[Any, Any], Any]
    write: Callable[[Path, Rows], None]
    check: Callable[[], None] = _nothing
    one_shape: bool = False


# An answer a line


def _answer(pipeline: Any, answer: Any) -> Any:
    return answer


def _write_lines(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows():
            line = {"row": row["row"], **row["given"], **row["kept"]}
            line |= {name: row[name] for name in ("truncated", "answer", "error") if name in row}
            file.write(seen_in_json(shown_in_json(line)) + "\n")


# A table


def _parts(pipeline: Any, answer: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = pipeline.rows(answer)
    return parts


def _table(rows: Rows) -> tuple[list[str], Callable[[], Iterator[dict[str, Any]]]]:
    """The names of the columns, and what gives the rows of the table. A column of the answers whose name is taken is
    called ``answer_...``.
    """
    given: dict[str, None] = {}
    own: dict[str, None] = {}
    for row in rows():
        given |= dict.fromkeys([*row["given"], *row["kept"]])
        for part in row.get("answer", ()):
            own |= dict.fromkeys(part)
    before = ["row", *given, "truncated"]
    names = {name: f"answer_{name}" if name in (*before, "error") else name for name in own}

    def flat() -> Iterator[dict[str, Any]]:
        for row in rows():
            common = {"row": row["row"], **row["given"], **row["kept"], "truncated": row.get("truncated", False)}
            # A row without parts is seen all the same.
            for part in row.get("answer") or [{}]:
                told = {names[name]: value for name, value in part.items()}
                yield {**common, **told, "error": row.get("error")}

    return [*before, *names.values(), "error"], flat


def _write_csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    names, flat = _table(rows)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(names)
        for row in flat():
            writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, bool):
        return str(value).lower()
    return shown_in_json(value) if isinstance(value, list | dict) else value


def _write_parquet(path: Path, rows: Rows) -> None:
    names, flat = _table(rows)
    parquet_file.write(path, flat, names, {"row": "int64", "truncated": "bool"})


# Vectors


def _vector(pipeline: Any, answer: Any) -> Any:
    """An array, a list of numbers, or a number."""
    numbers = answer if isinstance(answer, list | tuple) else [answer]
    if not hasattr(answer, "__array__") and not (numbers and all(type(number) in (int, float) for number in numbers)):
        raise JobError(
            f"a .npy holds an array of numbers for each row, this task answers with {_kind_of(answer)}; give an output "
            "that ends in .jsonl or .parquet"
        )
    return np.asarray(answer) if hasattr(answer, "__array__") else np.asarray(answer, np.float64)


def _kind_of(answer: Any) -> str:
    if isinstance(answer, list) and answer:
        return f"lists of {type(answer[0]).__name__}"
    return type(answer).__name__


def _write_vectors(path: Path, rows: Rows) -> None:
    """An array with a row for each row of the input; one without an answer is NaN, or 0 where there is no NaN."""
    first = next((np.asarray(row["answer"]) for row in rows() if "answer" in row), np.zeros(0, np.float32))
    nothing = np.full(first.shape, np.nan if first.dtype.kind == "f" else 0, first.dtype)
    count = sum(1 for _ in rows())
    header = {"descr": first.dtype.str, "fortran_order": False, "shape": (count, *(first.shape if count else ()))}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows():
            file.write(np.ascontiguousarray(row.get("answer", nothing), first.dtype).tobytes())


# By the ending of a file's name.
RESULTS: dict[str, Result] = {
    ".jsonl": Result(_answer, _write_lines),
    ".ndjson": Result(_answer, _write_lines),
    ".csv": Result(_parts, _write_csv),
    ".tsv": Result(_parts, lambda path, rows: _write_csv(path, rows, "\t")),
    ".parquet": Result(_parts, _write_parquet, check=parquet_file.require),
    ".npy": Result(_vector, _write_vectors, one_shape=True),
}
