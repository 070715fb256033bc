"""A job: the rows of a file are answered, one window after the other, and no interruption repeats or loses one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from xlmr_core.arguments import suggestion
from xlmr_core.atomic_files import settle, sync_folder
from xlmr_core.bounded_files import opened
from xlmr_core.errors import JobError, XLMRError
from xlmr_core.jobs.answering import answer_each
from xlmr_core.jobs.journal import Journal
from xlmr_core.jobs.results import RESULTS, Result, Rows
from xlmr_core.jobs.rows import READERS, Columns, Row, columns_of, read_rows
from xlmr_core.jobs.values import from_json, to_json
from xlmr_core.tasks.options import WINDOW
from xlmr_core.tasks.task import AtTheEnd, Task
from xlmr_core.wording import counted, number

__all__ = ["Job", "Outcome", "fingerprint_of_folder"]

# Characters that are answered, and written down, together at most, in at most ``WINDOW`` rows: a kill loses the work of
# a window.
WINDOW_CHARACTERS = 1 << 18
# Bad rows that are told one by one; the file of answers has them all.
MOST_TOLD = 20
# Beside the output, while the job runs: its journal, and the output until it is complete.
JOURNAL, PART = ".xlmr-job", ".xlmr-part"

Make = Callable[[int, Sequence[Any]], Any]
Tell = Callable[[str, str], None]
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a job came to.

    Attributes:
        rows: of the input.
        failed: how many of them have no answer.
        truncated: of how many something was cut off.
    """

    rows: int
    failed: int
    truncated: int


@dataclass(frozen=True)
class Job:
    """A job over a file.

    Attributes:
        input: the file to read; its ending is one of ``READERS``.
        output: the file to write; its ending is one of ``RESULTS``.
        task: what is done.
        settings: what else the answers depend on, by words for it, in plain Python.
        column: columns of the file, in the order of the task's.
        named: columns of the file by the task's names.
        keep: other columns that the answers shall have beside them.
        restart: forget what an interrupted job has done.
        force: replace an output that is there.
        wording: how an error of a row is told.
        at_the_end: makes of all answers together those that were asked for, of a file of vectors.
    """

    input: Path
    output: Path
    task: type[Task]
    settings: Mapping[str, Any] = field(default_factory=dict)
    column: Sequence[str] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keep: Sequence[str] = ()
    restart: bool = False
    force: bool = False
    wording: Callable[[str], str] = str
    at_the_end: AtTheEnd | None = None

    def run(self, make: Make, tell: Tell, progress: Progress = lambda done, total, before: None) -> Outcome:
        """Answer all rows that are not answered yet, and write the output.

        Args:
            make: makes the pipeline, for so many rows, of which it may try the first ones; it is called once, or not at
                all where nothing is left.
            tell: is told of bad rows and of what was done before, by a kind (``"error"``, or an empty text) and a
                sentence.
            progress: is told how many rows are done, of how many, and how many were done before.

        Raises:
            JobError: if the job cannot begin, go on or end; what was done is kept.
        """
        reader, result = _known(self.input, READERS, "input"), _known(self.output, RESULTS, "output")
        result.check()
        if self.at_the_end is not None and not result.one_shape:
            raise JobError(
                "expected an output that ends in .npy for answers that are made of all rows together, as with "
                f"precision='int8', received {str(self.output)!r}; give such a one, or leave the option out"
            )
        self._check_places()
        with Journal(self.output.with_name(self.output.name + JOURNAL)) as journal, self._open() as file:
            self._check_output(journal)
            stamp = _stamp(file)
            names, total = reader.look(file)
            columns = columns_of(self.task, names, self.column, self.named, self.keep)
            self._resume(journal, file, columns, tell)
            if not journal.done:
                file.seek(0)
                rows = read_rows(self.task, reader.read(file), columns)
                before = journal.rows
                left = (row for row in rows if row.number > journal.last)
                for done in self._answered(left, journal, result, make, total, tell, progress):
                    if _stamp(file) != stamp:
                        raise JobError(
                            f"{self.input} was changed while it was read; pass restart=True to answer its rows anew"
                        )
                    journal.add(done)
                    progress(journal.rows, total, before)
            self._write(journal, result)
            if result.one_shape and journal.rows < journal.last:
                tell("", f"blank lines are left out: {counted(journal.rows, 'row')} of {journal.last} lines")
            return Outcome(journal.rows, journal.failed, journal.truncated)

    # Before it begins

    def _check_places(self) -> None:
        folder = self.output.parent
        if not folder.is_dir():
            raise JobError(f"expected a folder to write to, received {str(folder)!r}, which is none; make it first")
        if self.output.is_dir():
            raise JobError(f"expected a file to write, received the folder {str(self.output)!r}; name a file in it")
        if self.output.exists() and self.input.exists() and os.path.samefile(self.input, self.output):
            raise JobError(f"expected another output than the input, received {str(self.output)!r} twice; rename it")

    def _check_output(self, journal: Journal) -> None:
        """An output may be there if it is this job's, which was killed at its very end."""
        if self.output.exists() and not self.force and (self.restart or not journal.done):
            raise JobError(f"{self.output} is there already; pass force=True to replace it, or give another output")

    def _open(self) -> BinaryIO:
        try:
            return opened(self.input)
        except OSError as error:
            raise JobError(f"cannot read {self.input}: {error.strerror or error}; check the name") from error

    def _resume(self, journal: Journal, file: BinaryIO, columns: Columns, tell: Tell) -> None:
        """Begin the job, or go on with it if it is the same."""
        settings = {**self.settings, "columns": columns.taken, "kept columns": columns.kept}
        job = from_json(to_json({"input": _fingerprint(file), "settings": settings}))
        if journal.job is None or self.restart or not (journal.rows or journal.done):
            journal.begin(job)
            return
        are_done = f"{counted(journal.rows, 'row')} {number(journal.rows, 'is', 'are')} done"
        if journal.job.get("input") != job["input"]:
            raise JobError(
                f"{self.input} is not the file that {journal.path} was begun with ({are_done}); bring that one back to "
                "go on, or pass restart=True to answer all rows of this one"
            )
        before, now = journal.job.get("settings"), job["settings"]
        before = before if isinstance(before, dict) else {}
        other = [name for name in now if before.get(name) != now[name]]
        if other:
            raise JobError(
                f"{journal.path} was begun with another {other[0]}, {before.get(other[0])!r}, received "
                f"{now[other[0]]!r} ({are_done}); go on with that, or pass restart=True to begin anew"
            )
        tell("", f"goes on after row {journal.last}, {are_done}")

    # While it runs

    def _answered(
        self,
        rows: Iterator[Row],
        journal: Journal,
        result: Result,
        make: Make,
        total: int,
        tell: Tell,
        progress: Progress,
    ) -> Iterator[list[dict[str, Any]]]:
        """The rows, answered, as the journal holds them, a window at a time."""
        pipeline, example, told = None, journal.example, 0
        for window in _windows(rows):
            inputs = [row.input for row in window]
            if pipeline is None:
                pipeline = make(total - journal.rows, [given for given in inputs if not isinstance(given, XLMRError)])
                progress(journal.rows, total, journal.rows)
            done: list[dict[str, Any]] = []
            for row, (answer, truncated) in zip(window, answer_each(pipeline, inputs), strict=True):
                done.append({"row": row.number, "given": row.given, "kept": row.kept})
                if isinstance(answer, XLMRError):
                    done[-1]["error"] = self.wording(str(answer))
                    told += 1
                    if told <= MOST_TOLD:
                        more = "; further rows are told by the output alone" if told == MOST_TOLD else ""
                        tell("error", f"row {row.number}: {done[-1]['error']}{more}")
                    continue
                content = result.content(pipeline, answer)
                if result.one_shape:
                    example = content if example is None else example
                    _check_shape(row.number, content, example)
                done[-1] |= {"answer": content, **({"truncated": True} if truncated else {})}
            yield done

    # When all rows are answered

    def _all_answered(self, journal: Journal) -> Rows:
        if self.at_the_end is None:
            return journal.read
        each = self.at_the_end(row["answer"] for row in journal.read() if "answer" in row)
        return lambda: ({**row, "answer": each(row["answer"])} if "answer" in row else row for row in journal.read())

    def _write(self, journal: Journal, result: Result) -> None:
        """Make the output of the journal, and put it in its place."""
        part = self.output.with_name(self.output.name + PART)
        try:
            result.write(part, self._all_answered(journal))
            settle(part)
            self._check_output(journal)
            journal.finish()
            os.replace(part, self.output)
            sync_folder(self.output.parent)
            journal.remove()
        except OSError as error:
            if isinstance(error, XLMRError):
                raise
            raise JobError(
                f"cannot write {self.output}: {error.strerror or error}; make room and run the same again, all "
                f"{journal.rows} rows are answered and kept"
            ) from error
        finally:
            part.unlink(missing_ok=True)


def _windows(rows: Iterator[Row]) -> Iterator[list[Row]]:
    window: list[Row] = []
    characters = 0
    for row in rows:
        window.append(row)
        characters += sum(len(value) if isinstance(value, str) else len(str(value)) for value in row.given.values())
        if len(window) == WINDOW or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _check_shape(number: int, content: Any, example: Any) -> None:
    if (content.shape, content.dtype) != (example.shape, example.dtype):
        raise JobError(
            f"a .npy holds arrays of one shape, row {number} has {content.shape} {content.dtype} and the rows before "
            f"{example.shape} {example.dtype}; give an output that ends in .jsonl or .parquet"
        )


def _stamp(file: BinaryIO) -> tuple[int, int]:
    """What changes when somebody writes to a file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _fingerprint(file: BinaryIO) -> dict[str, Any]:
    """What tells the content of a file from any other."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # as open() makes it, which is enough
    return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest.hexdigest()}


def fingerprint_of_folder(folder: Path) -> str:
    """What tells the files of a folder from those that somebody saves over them later, without reading them."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            found.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode(errors="replace"))
    return found.hexdigest()


def _known(path: Path, table: Mapping[str, Any], what: str) -> Any:
    """What a table has for the ending of a file's name."""
    ending = path.suffix.lower()
    if ending not in table:
        meant = suggestion(ending, list(table), otherwise="choose one of them")
        raise JobError(f"expected an {what} that ends in {', '.join(table)}, received {str(path)!r}; {meant}")
    return table[ending]
