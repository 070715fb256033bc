"""``/tasks/NAME``: every task, as its pipeline answers it.

A body is that of Hugging Face's inference API: ``inputs``, and the options of the task as ``parameters``; the answer is
the pipeline's, as JSON. So ``huggingface_hub``'s InferenceClient can be pointed at such an address. What happens to a
text that is too long the parameter ``on_overflow`` says, or else the task; the header ``x-truncated`` counts those that
were cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field as OptionField
from typing import Any

from xlmr_core.arguments import suggestion
from xlmr_core.errors import XLMRError
from xlmr_core.serving import fields as kinds
from xlmr_core.serving.faults import Fault
from xlmr_core.serving.fields import Field, Kind
from xlmr_core.serving.models import Answered, Models, Question
from xlmr_core.serving.routes import Dialect, Route, Values
from xlmr_core.tasks import TASKS, TaskRow, find_task
from xlmr_core.tasks.options import NUMBERS, OVERFLOWS, kind_of, option_fields
from xlmr_core.wording import shown

__all__ = ["OWN", "ROUTES", "options_of"]


def _fault(fault: Fault, status: int) -> Any:
    return {"error": str(fault), "kind": fault.kind}


OWN = Dialect(
    "xlmr",
    _fault,
    wording={f"pass on_overflow='{how}'": f'send "parameters": {{"on_overflow": "{how}"}}' for how in OVERFLOWS},
)

# What a server decides itself.
_NOT_OURS = ("batch_size", "batch_tokens")
_SPANS = Kind(
    "a list of pairs of places, or a list of such lists",
    {"type": "array", "items": {"type": "array"}},
    lambda value: _is_nested(value, 2) or _is_nested(value, 3),
)
_SEVERAL = Kind(
    "a text or a list of texts",
    kinds.TEXT_OR_TEXTS.schema,
    lambda value: value == [] or kinds.TEXT_OR_TEXTS.holds(value),
)


def _is_nested(value: Any, depth: int) -> bool:
    """Whether a value is lists of lists of integers, so deep."""
    if depth == 0:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, list) and all(_is_nested(one, depth - 1) for one in value)


# Options of Python that JSON can say as well.
_ALSO = {"normalize": kinds.BOOLEAN, "spans": _SPANS}


def options_of(row: TaskRow) -> dict[str, Kind]:
    """The options of a task that a client can say, and what they can be."""
    own = {one.name: one for one in option_fields(row.load().Options) if one.name not in _NOT_OURS}
    return {
        name: _ALSO[name] if name in _ALSO else _kind(one)
        for name, one in own.items()
        if name in _ALSO or not one.metadata["python_only"]
    }


def _kind(own: OptionField[Any]) -> Kind:
    if own.metadata["choices"]:
        return kinds.one_of(*own.metadata["choices"])
    kind = kind_of(own)
    if kind is bool:
        return kinds.BOOLEAN
    if kind in NUMBERS:
        word = {int: "integer", float: "number"}[kind]  # type: ignore[index]
        return Kind(NUMBERS[kind][1], {"type": word}, lambda value: isinstance(value, int | float))
    takes_lists = "Sequence" in str(own.type) or "Iterable" in str(own.type)
    return _SEVERAL if takes_lists else kinds.TEXT


def _options(row: TaskRow, said: Mapping[str, Any]) -> dict[str, Any]:
    known = options_of(row)
    for name, value in said.items():
        if name not in known:
            meant = suggestion(name, list(known))
            message = f"expected parameters of {', '.join(known)}, received {shown(name, 80)}; {meant}"
            raise Fault("invalid", message, param="parameters")
        if value is not None and not known[name].holds(value):
            message = f"{name} must be {known[name].called}, received {shown(value, 80)}"
            raise Fault("invalid", message, param="parameters")
    return dict(said)


def _row(name: str) -> TaskRow:
    try:
        return find_task(name)
    except XLMRError as error:
        raise Fault("not_found", str(error)) from None


def _ask(values: Values) -> Question:
    row = _row(values["name"])
    return Question(row.name, values["inputs"], _options(row, values["parameters"] or {}), values["model"])


def _render(values: Values, answered: Answered) -> Any:
    return answered.model.tasks[_row(values["name"]).name].plain(answered.value)


def _all(values: Values, models: Models) -> Any:
    return [
        {
            "task": row.name,
            "summary": row.summary,
            "models": [model.name for model in models if row.name in model.tasks],
            "parameters": sorted(options_of(row)),
        }
        for row in TASKS.values()
        if any(row.name in model.tasks for model in models)
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
