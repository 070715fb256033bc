"""Answers for a collection that another engine divides among its workers: Ray Data, Spark, or any that calls functions.

One object says what is to be answered; it is small, and goes to the workers as it is. The model is loaded where it is
first called, once in a process for all that ask for the same. The engines themselves are imported nowhere here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.backends import BACKENDS, installed, load_backend
from xlmr_core.errors import JobError, MissingBackendError, XLMRError
from xlmr_core.jobs.answering import answer_each
from xlmr_core.jobs.job import Job, Outcome, fingerprint_of_folder
from xlmr_core.jobs.rows import columns_of, read_rows
from xlmr_core.jobs.values import shown_in_json, to_json
from xlmr_core.tasks import find_task
from xlmr_core.tasks.options import WINDOW

__all__ = ["Answering"]

ANSWER, ERROR = "answer", "error"
# Of this process, by what they were made from.
_PIPELINES: dict[str, Any] = {}
_LOADING = threading.Lock()


class Answering:
    """A task that is done wherever this is called.

    Args:
        task: a name of a task.
        model: a name or folder that every worker sees; by default that of the task.
        backend: ``torch``, ``tf`` or ``flax``; by default the first that a worker has.
        column: columns of the collection, in the order of the task's own; by default those of its names.
        named: columns by the task's names, where one is a list of several.
        **arguments: of ``pipeline``: options of the task, ``device``, ``dtype``, ``batch_tokens``, ...

    A row gets further columns. An answer that is a number or an array is the column ``answer``; one of plain values
    (``label``, ``score``) is a column for each; any other is ``answer``, as text in JSON. ``error`` says why a row has
    no answer, and is empty where it has one; its answer is then NaN, or an empty text.
    """

    def __init__(
        self,
        task: str,
        model: str | None = None,
        *,
        backend: str | None = None,
        column: Sequence[str] = (),
        named: Mapping[str, Sequence[str]] | None = None,
        **arguments: Any,
    ) -> None:
        self.task, self.model, self.backend = task, model, backend
        self.column, self.named, self.arguments = tuple(column), dict(named or {}), arguments
        self._row = find_task(task)

    def __repr__(self) -> str:
        return f"Answering({self.task!r}, {self.model!r})"

    # ---- What engines call

    def __call__(self, batch: Any) -> Any:
        """A batch with its answers: ``Dataset.map_batches`` of Ray Data.

        Args:
            batch: a column each by its name, as arrays or lists; or a table of pandas.

        Returns:
            The same with further columns.

        Raises:
            JobError: for columns that the task needs and the batch has not.
        """
        if hasattr(batch, "to_dict") and hasattr(batch, "assign"):
            columns = self._columns({name: batch[name].tolist() for name in batch.columns})
            return batch.assign(**{name: list(values) for name, values in columns.items()})
        return {**batch, **self._columns({name: np.asarray(values).tolist() for name, values in batch.items()})}

    def frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Tables of pandas with their answers: ``DataFrame.mapInPandas`` of Spark."""
        return map(self, frames)

    def rows(self, rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Rows with their answers: ``RDD.mapPartitions`` of Spark, or any other iterator of rows.

        Args:
            rows: mappings, or what has ``asDict()``.
        """
        held: list[dict[str, Any]] = []
        for row in rows:
            held.append(row.asDict() if hasattr(row, "asDict") else dict(row))
            if len(held) == WINDOW:
                yield from self._with_answers(held)
                held = []
        yield from self._with_answers(held)

    def shard(self, places: tuple[str, str]) -> Outcome:
        """Answer a file into another, as ``xlmr run --input --output`` does: what a kill interrupted goes on behind its
        last row, and an output that is there is left as it is.

        Args:
            places: the input and the output, which every worker sees.

        Returns:
            How many rows there were; none, where the output is there.

        Raises:
            JobError: if the file cannot be read or written.
        """
        input, output = map(Path, places)
        if output.exists():
            return Outcome(0, 0, 0)
        said = {"task": self.task, "model": self.model or self._row.model, **self.arguments}
        folder = Path(str(said["model"]))
        content = {"content of the model's folder": fingerprint_of_folder(folder)} if folder.is_dir() else {}
        job = Job(input, output, self._row.load(), {**said, **content}, self.column, self.named)
        return job.run(lambda rows, examples: self.pipeline, lambda kind, text: None)

    def shards(self, inputs: Iterable[Any], folder: Any, ending: str = ".jsonl") -> list[tuple[str, str]]:
        """What is left to do of files: pairs for :meth:`shard`, without those whose output is there.

        Args:
            inputs: the files; two of one name are refused.
            folder: of the outputs; made if it is missing.
            ending: of the outputs, one of those that jobs write.

        Raises:
            JobError: for two files of one name.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[Path, Path] = {}
        for path in map(Path, inputs):
            output = folder / f"{path.stem}{ending}"
            if output in found:
                raise JobError(f"expected files of different names, received {found[output]} and {path}; rename one")
            found[output] = path
        return [(str(path), str(output)) for output, path in found.items() if not output.exists()]

    # ---- What they get

    @property
    def pipeline(self) -> Any:
        """The pipeline of this process.

        Raises:
            MissingBackendError: if no framework is installed.
        """
        key = to_json([self.task, self.model, self.backend, self.arguments])
        with _LOADING:
            if key not in _PIPELINES:
                name = self.backend or next(filter(installed, BACKENDS), None)
                if name is None:
                    raise MissingBackendError(
                        "a model needs a framework and this worker has none; install xlmr with an extra there"
                    )
                _PIPELINES[key] = load_backend(name).pipeline(self.task, self.model, **self.arguments)
            return _PIPELINES[key]

    def _with_answers(self, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not rows:
            return
        names = dict.fromkeys(name for row in rows for name in row)
        columns = self._columns({name: [row.get(name) for row in rows] for name in names})
        plain = {name: np.asarray(values).tolist() for name, values in columns.items()}
        for number, row in enumerate(rows):
            yield {**row, **{name: values[number] for name, values in plain.items()}}

    def _columns(self, batch: Mapping[str, list[Any]]) -> dict[str, Any]:
        """The further columns of a batch."""
        count = len(next(iter(batch.values()), []))
        kind = self._row.load()
        columns = columns_of(kind, list(batch), self.column, self.named)
        records = ((number, {name: values[number] for name, values in batch.items()}) for number in range(count))
        inputs = [row.input for row in read_rows(kind, records, columns)]
        answers = [answer for answer, _ in answer_each(self.pipeline, inputs)]
        errors = [str(answer) if isinstance(answer, XLMRError) else "" for answer in answers]
        return {
            **_laid_out([None if error else answer for answer, error in zip(answers, errors, strict=True)]),
            ERROR: np.array(errors, object),
        }


def _laid_out(answers: Sequence[Any]) -> dict[str, Any]:
    """Answers as columns; ``None`` where there is none."""
    there = [answer for answer in answers if answer is not None]
    if there and all(isinstance(answer, Mapping) and _is_plain(answer.values()) for answer in there):
        return {name: _column([None if answer is None else answer[name] for answer in answers]) for name in there[0]}
    arrays = [None if answer is None else _as_array(answer) for answer in answers]
    if there and all(array is not None for answer, array in zip(answers, arrays, strict=True) if answer is not None):
        return {ANSWER: _stacked(arrays)}
    return {ANSWER: np.array(["" if answer is None else shown_in_json(answer) for answer in answers], object)}


def _is_plain(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str | int | float) for value in values)


def _column(values: Sequence[Any]) -> Any:
    first = next(value for value in values if value is not None)
    if isinstance(first, str):
        return np.array(["" if value is None else value for value in values], object)
    return np.array([np.nan if value is None else value for value in values])


def _as_array(answer: Any) -> Any:
    if isinstance(answer, str | Mapping):
        return None
    try:
        found = np.asarray(answer)
    except ValueError:  # lists of several lengths
        return None
    return found if found.dtype.kind in "biuf" else None


def _stacked(arrays: Sequence[Any]) -> Any:
    """(rows, ...), NaN where there is none; of several shapes an array of arrays."""
    shapes = {array.shape for array in arrays if array is not None}
    if len(shapes) == 1:
        (shape,) = shapes
        dtype = next(array.dtype for array in arrays if array is not None)
        missing = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
        return np.stack([missing if array is None else array for array in arrays])
    found = np.empty(len(arrays), object)
    found[:] = [np.empty(0) if array is None else array for array in arrays]
    return found
