"""The tasks a pipeline can do: everything around the model, NumPy in and plain Python out.

To add a task: a row here, a module beside this one, and a class in each backend's ``pipelines.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlmr_core.errors import XLMRError

__all__ = ["TASKS", "Task", "find_task"]


@dataclass(frozen=True)
class Task:
    """A task of ``pipeline`` and ``xlmr run``.

    Attributes:
        name: the published name.
        auto: the Auto class that loads its model.
        summary: one line for the help text.
    """

    name: str
    auto: str
    summary: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (Task("fill-mask", "AutoModelForMaskedLM", "the most likely tokens at each <mask> of a text"),)
}


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        XLMRError: for a name that is none of ``TASKS``.
    """
    if name not in TASKS:
        raise XLMRError(f"expected a task of {', '.join(map(repr, TASKS))}, received {name!r}; choose one of them")
    return TASKS[name]
