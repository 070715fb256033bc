"""What a dialect is: how its clients are told of faults; and what a route is: what a body holds, which question that
is, and how the answer looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from xlmr_core.serving.answers import as_json, worded
from xlmr_core.serving.faults import STATUSES, Fault
from xlmr_core.serving.fields import Field
from xlmr_core.serving.models import Answered, Model, Models, Question

__all__ = ["Dialect", "Route", "Values"]

Values: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Dialect:
    """How clients of one kind are told of faults.

    Attributes:
        name: for people.
        fault: the body of an answer that tells of a fault, by the fault and its status.
        statuses: of kinds of faults that have another status than the usual one.
        wording: what advice for Python reads here.
    """

    name: str
    fault: Callable[[Fault, int], Any]
    statuses: Mapping[str, int] = field(default_factory=dict)
    wording: Mapping[str, str] = field(default_factory=dict)

    def told(self, fault: Fault) -> tuple[int, bytes]:
        """The status and the body that tell of a fault."""
        status = self.statuses.get(fault.kind, STATUSES[fault.kind])
        told = Fault(fault.kind, worded(fault, self.wording), param=fault.param)
        return status, as_json(self.fault(told, status))


@dataclass(frozen=True)
class Route:
    """An address. It has one of ``ask``, ``tell`` and ``show``.

    Attributes:
        path: as Starlette writes it.
        summary: a line for the OpenAPI page.
        dialect: of its clients.
        fields: of the body, or of the path.
        method: ``POST``, or ``GET`` without a body.
        ask: the question that a body asks.
        render: the answer as JSON.
        tell: what a model tells without running: by the body and the model.
        task: which task a model must be able to do that tells, if that matters.
        show: what is shown of all models.
    """

    path: str
    summary: str
    dialect: Dialect
    fields: Sequence[Field] = ()
    method: str = "POST"
    ask: Callable[[Values], Question] | None = None
    render: Callable[[Values, Answered], Any] | None = None
    tell: Callable[[Values, Model], Any] | None = None
    show: Callable[[Values, Models], Any] | None = None
