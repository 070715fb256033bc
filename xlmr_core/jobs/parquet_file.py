"""Parquet, through pyarrow: the extra ``tables``, imported where it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xlmr_core.bounded_files import refusing
from xlmr_core.errors import JobError, MissingBackendError
from xlmr_core.jobs.values import shown_in_json

__all__ = ["look", "read", "require", "write"]

# Rows that are in memory at once.
READ_TOGETHER, WRITTEN_TOGETHER = 1024, 4096


def require() -> None:
    """Refuse at once where pyarrow is missing.

    Raises:
        MissingBackendError: with the command that installs it.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingBackendError(
            "pyarrow is needed for .parquet and is not installed; install it with: pip install 'xlmr[tables]'"
        ) from error


def look(file: BinaryIO) -> tuple[list[str], int]:
    """The names of the columns, and how many rows there are.

    Raises:
        JobError: for what is no Parquet.
        MissingBackendError: without pyarrow.
    """
    opened = _opened(file)
    return list(opened.schema_arrow.names), opened.metadata.num_rows


def read(file: BinaryIO) -> Iterator[Mapping[str, Any]]:
    """The rows; errors as of :func:`look`."""
    opened = _opened(file)
    with refusing(JobError, "expected a file of Parquet, received a damaged one: {why}; check the file"):
        for batch in opened.iter_batches(READ_TOGETHER):
            for row in batch.to_pylist():
                yield {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    """Texts are bytes in files of some writers."""
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode("utf-8")
    return value


def _opened(file: BinaryIO) -> Any:
    require()
    import pyarrow.parquet as parquet

    with refusing(JobError, "expected a file of Parquet, received another: {why}; check the file"):
        return parquet.ParquetFile(file)


def write(
    path: Path, rows: Callable[[], Iterable[Mapping[str, Any]]], names: Sequence[str], known: Mapping[str, str]
) -> None:
    """Write a table.

    Numbers, texts and lists are columns of their own types. What no type fits, because it has names or because its rows
    are of several kinds, is JSON.

    Args:
        path: of the file.
        rows: gives them anew each time it is called.
        names: of the columns.
        known: their types, where they do not come from what stands there.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    types = {name: arrow.type_for_alias(known.get(name, "null")) for name in names}
    for table in _chunks(rows()):
        for name in names:
            cells = [_cell(row.get(name)) for row in table]
            types[name] = _type_of_both(types[name], cells)
    # A column without values would be read by few.
    types = {name: arrow.string() if kind == arrow.null() else kind for name, kind in types.items()}
    schema = arrow.schema(list(types.items()))
    with parquet.ParquetWriter(path, schema) as writer:
        for table in _chunks(rows()):
            arrays = [
                arrow.array([_cell(row.get(name), kind) for row in table], type=kind) for name, kind in types.items()
            ]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))


def _type_of_both(before: Any, cells: Sequence[Any]) -> Any:
    """The type for the cells so far and for these; text where there is none, which then holds JSON."""
    import pyarrow as arrow

    try:
        kind = arrow.array(cells).type
        both = arrow.unify_schemas(
            [arrow.schema([("cell", before)]), arrow.schema([("cell", kind)])], promote_options="permissive"
        )
    except (arrow.ArrowException, OverflowError):
        return arrow.string()
    return both.field("cell").type


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    rows = iter(rows)
    while chunk := list(islice(rows, WRITTEN_TOGETHER)):
        yield chunk


def _cell(value: Any, kind: Any = None) -> Any:
    """A value as pyarrow takes it, for a column of a type: it knows arrays of one axis only, and no half characters."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict) or (str(kind) == "string" and value is not None):
        return _cell(shown_in_json(value))
    if isinstance(value, int) and str(kind) == "double":
        return float(value)
    if isinstance(value, np.ndarray) and value.ndim != 1:
        return [_cell(part) for part in value] if value.ndim else value[()]
    return [_cell(part) for part in value] if isinstance(value, list) else value
