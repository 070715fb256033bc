"""The options of a task as JSON says them: which a client can send, and what they can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field as OptionField
from typing import Any

from xlmr_core.arguments import suggestion
from xlmr_core.serving import fields as kinds
from xlmr_core.serving.faults import Fault
from xlmr_core.serving.fields import Kind
from xlmr_core.tasks import TaskRow
from xlmr_core.tasks.options import NUMBERS, kind_of, option_fields
from xlmr_core.wording import shown

__all__ = ["options_of", "read_parameters"]

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
    task = row.load()
    left_out = (*_NOT_OURS, *getattr(task, "left_out", ()))
    own = {one.name: one for one in option_fields(task.Options) if one.name not in left_out}
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


def read_parameters(row: TaskRow, said: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a client sends for a task.

    Raises:
        Fault: for an option that the task does not have, or a value of another kind.
    """
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
