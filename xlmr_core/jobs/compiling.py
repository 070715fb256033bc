"""Compiling the model of a long job, where its backend can: the job answers the same, and is done sooner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xlmr_core.bounded_files import why
from xlmr_core.errors import JobError, XLMRError
from xlmr_core.wording import counted

__all__ = ["COMPILED_FROM", "compiled"]

# Rows from which on a compilation, which takes up to a minute, is less than it saves.
COMPILED_FROM = 2000


def compiled(
    load: Callable[[], Any],
    optimize: Callable[..., Any] | None,
    wanted: bool | None,
    rows: int,
    examples: Sequence[Any],
    tell: Callable[[str, str], None],
) -> Any:
    """A pipeline, its model compiled if that was asked for, or pays and is possible.

    Args:
        load: makes the pipeline.
        optimize: the backend's function for that, if it has one; it compiles on the CPU unless it is told to.
        wanted: what the user says; ``None`` leaves it to the number of rows.
        rows: how many there are to answer.
        examples: inputs, of which one is answered to see whether the compiler works.
        tell: is told what happens, by a kind and a sentence.

    Raises:
        JobError: if it was asked for and is not possible.
    """
    if optimize is None and wanted:
        raise JobError("only models of PyTorch are compiled, received another backend; leave compile=True out")
    pipeline = load()
    pays = rows > COMPILED_FROM and str(pipeline.device) == "cpu"
    if optimize is None or not (pays if wanted is None else wanted):
        return pipeline
    if wanted is None:
        tell("", f"compiles the model for {counted(rows, 'row')}, up to a minute; pass compile=False to leave that out")
    try:
        optimize(pipeline.model, **({} if wanted is None else {"compile": True}))
        _try(pipeline, examples)
    except Exception as error:  # of a compiler, a header file, a framework: whatever it is, the answers do not need it
        reason = why(error).partition("\n")[0]
        if wanted:
            raise JobError(f"cannot compile the model: {reason}; leave compile=True out") from error
        tell("warning", f"goes on without compiling the model, which failed: {reason}")
        del pipeline
        return load()
    return pipeline


def _try(pipeline: Any, examples: Sequence[Any]) -> None:
    for given in examples:
        try:
            list(pipeline(iter([given])))
        except XLMRError:  # a bad row
            continue
        return
