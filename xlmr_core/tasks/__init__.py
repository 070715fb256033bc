"""The tasks a pipeline can do: everything around the model, NumPy in and plain Python out.

To add a task: a row here, a module beside this one, and a class in each backend's ``pipelines.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlmr_core.errors import InputError, XLMRError
from xlmr_core.hub import Served

__all__ = ["NOT_NEEDED", "ONLY", "TASKS", "Task", "check_model", "find_task", "task_of"]

# Published arguments of a pipeline and its calls that ask for nothing here: any value will do, or only these.
NOT_NEEDED = ("num_workers",)
_TEXT = "a text model has none"
ONLY: Served = {
    **dict.fromkeys(("feature_extractor", "image_processor", "processor", "modelcard"), ((None,), _TEXT)),
    "pipeline_class": ((None,), "the task chooses the class"),
    "binary_output": ((False,), "answers are plain Python objects"),
    "use_auth_token": ((None, False), "it was renamed; pass token="),
}


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


def check_model(name: str, model: object) -> None:
    """Refuse a model with the head of another task; one with a head of the user's own is taken at its word.

    Raises:
        InputError: naming the class that the task needs.
    """
    if _auto_of(model) not in ("", TASKS[name].auto):
        raise InputError(
            f"{name} needs a model of {TASKS[name].auto}, received {type(model).__name__}; load the checkpoint with that"
        )


def task_of(model: object) -> str:
    """The task of a model given without one.

    Raises:
        InputError: for no model, or one that no task is for.
    """
    for name, row in TASKS.items():
        if row.auto == _auto_of(model):
            return name
    raise InputError(f"expected a task of {', '.join(map(repr, TASKS))}, received none; pass task=")


def _auto_of(model: object) -> str:
    """The Auto class that builds models of this head; empty for what is no model, or has a head of the user's own."""
    return str(getattr(getattr(model, "_task_head", None), "auto", ""))


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        XLMRError: for a name that is none of ``TASKS``.
    """
    if name not in TASKS:
        raise XLMRError(f"expected a task of {', '.join(map(repr, TASKS))}, received {name!r}; choose one of them")
    return TASKS[name]
