"""``/tasks/NAME``: every task, as its pipeline answers it, and what else there is to look at.

A body is that of Hugging Face's inference API: ``inputs``, and the options of the task as ``parameters``; the answer is
the pipeline's, as JSON. So ``huggingface_hub``'s InferenceClient can be pointed at such an address. What happens to a
text that is too long the parameter ``on_overflow`` says, or else the task; the header ``x-truncated`` counts those that
were cut.
"""

from __future__ import annotations

from typing import Any

from xlmr_core.errors import XLMRError
from xlmr_core.serving import fields as kinds
from xlmr_core.serving.answers import WORDING
from xlmr_core.serving.faults import Fault
from xlmr_core.serving.fields import Field
from xlmr_core.serving.models import Answered, Models, Question
from xlmr_core.serving.parameters import options_of, read_parameters
from xlmr_core.serving.routes import Dialect, Route, Values
from xlmr_core.serving.views import VIEWS
from xlmr_core.tasks import TASKS, TaskRow, find_task

__all__ = ["OWN", "ROUTES"]


def _fault(fault: Fault, status: int) -> Any:
    return {"error": str(fault), "kind": fault.kind}


OWN = Dialect("xlmr", _fault, wording=WORDING)


def _row(name: str) -> TaskRow:
    if name in VIEWS:
        return VIEWS[name]
    try:
        return find_task(name)
    except XLMRError as error:
        raise Fault("not_found", str(error)) from None


def _ask(values: Values) -> Question:
    row = _row(values["name"])
    return Question(row.name, values["inputs"], read_parameters(row, values["parameters"] or {}), values["model"])


def _render(values: Values, answered: Answered) -> Any:
    task = answered.model.doing(_row(values["name"]).name)
    assert task is not None, "it answered"
    return task.plain(answered.value)


_ROWS = (*TASKS.values(), *VIEWS.values())


def _all(values: Values, models: Models) -> Any:
    able = [[model.name for model in models if model.doing(row.name)] for row in _ROWS]
    return [
        {"task": row.name, "summary": row.summary, "models": names, "parameters": sorted(options_of(row))}
        for row, names in zip(_ROWS, able, strict=True)
        if names
    ]


ROUTES = (
    Route("/tasks", "The tasks that the models can do", OWN, method="GET", show=_all),
    Route(
        "/tasks/{name}",
        "A task, as its pipeline answers it",
        OWN,
        (
            Field("name", kinds.TEXT, "of the task, in the address", required=True),
            Field("inputs", kinds.ANYTHING, "what the task's pipeline takes: a text, a list, an object", required=True),
            Field("parameters", kinds.OBJECT, "options of the task"),
            Field("model", kinds.TEXT, "the name of a model; by default the first that can do the task"),
        ),
        ask=_ask,
        render=_render,
    ),
)
