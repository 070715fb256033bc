"""The tasks that ``pipeline`` and ``xlmr run`` can do, a row each.

A task is everything around the model, NumPy in and plain Python out (``task.py``). The pipeline stands once
(``pipeline.py``), and so does what ``pipeline()`` decides before anything is loaded (``choosing.py``). A backend runs
the model (``runner.py``).

To add a task: a row here and a module beside this one; then Python, the command line and all backends have it.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xlmr_core.errors import XLMRError
from xlmr_core.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Task

__all__ = ["TASKS", "TaskRow", "auto_of", "find_task"]


@dataclass(frozen=True)
class TaskRow:
    """What is known of a task before its module is imported.

    Attributes:
        name: the published name.
        auto: the Auto class that loads its model.
        place: where its class is, ``module:Class``; the published class of its pipeline is called ``ClassPipeline``.
        summary: one line for the help text.
        example: a command line for the help text.
        model: what runs where no model is named; empty where one has to be named.
    """

    name: str
    auto: str
    place: str
    summary: str
    example: str
    model: str = ""

    @property
    def pipeline(self) -> str:
        """The published name of its pipeline's class, e.g. ``FillMaskPipeline``."""
        return self.place.rpartition(":")[2] + "Pipeline"

    def load(self) -> type[Task]:
        """The task's class; its module is imported now."""
        found: type[Task] = pkgutil.resolve_name(self.place)
        return found


TASKS: dict[str, TaskRow] = {
    row.name: row
    for row in (
        TaskRow(
            name="fill-mask",
            auto="AutoModelForMaskedLM",
            place="xlmr_core.tasks.fill_mask:FillMask",
            summary="the most likely tokens at each <mask> of a text",
            example='xlmr run --task fill-mask --top-k 3 "Bonjour, je suis un modèle <mask>."',
            model=DEFAULT_MODEL,
        ),
    )
}


def find_task(name: str) -> TaskRow:
    """The row of a name.

    Raises:
        XLMRError: for a name that is none of ``TASKS``.
    """
    if name not in TASKS:
        raise XLMRError(f"expected a task of {', '.join(map(repr, TASKS))}, received {name!r}; choose one of them")
    return TASKS[name]


def auto_of(model: object) -> str:
    """The Auto class for models with this head; empty for what is no model, or has a head of the user's own."""
    return str(getattr(getattr(model, "_task_head", None), "auto", ""))
