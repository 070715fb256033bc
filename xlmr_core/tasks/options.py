"""The options of a task, declared once: what they are by default, what they may be, and what the help text says.

A task's options are a frozen dataclass on :class:`TaskOptions` whose fields are made by :func:`option`. A pipeline
takes them by name, when it is made and in each call; ``xlmr run`` makes arguments of them (``cli/options.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from xlmr_core.errors import InputError

__all__ = ["TaskOptions", "option", "option_fields"]


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    choices: Sequence[str] = (),
    several: bool = False,
    python_only: bool = False,
) -> Any:
    """A field of a task's options.

    Args:
        default: what holds where nothing is said; ``None`` for what may be left open.
        help: a line for the help text.
        least: the option is a number, an integer unless the default is a float, and this is the least.
        choices: the option is one of these words.
        several: the option is a list of texts; on the command line it may be repeated.
        python_only: it cannot be said on the command line.
    """
    metadata = {"help": help, "least": least, "choices": tuple(choices), "several": several, "python_only": python_only}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options that all tasks have.

    Attributes:
        batch_size: rows that go through the model together; rows of similar length share a batch.
    """

    batch_size: int = option(1, "texts that run together", least=1)

    def __post_init__(self) -> None:
        for own in option_fields(self):
            value, least, choices = getattr(self, own.name), own.metadata["least"], own.metadata["choices"]
            if value is None and own.default is None:
                continue
            if least is not None:
                kind, called = (Real, "a number") if isinstance(own.default, float) else (Integral, "an integer")
                if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
                    raise InputError(f"{own.name} must be {called} of at least {least}, received {value!r}")
            if choices and value not in choices:
                raise InputError(f"{own.name} must be one of {', '.join(map(repr, choices))}, received {value!r}")


def option_fields(options: TaskOptions | type[TaskOptions]) -> list[Field[Any]]:
    """The fields of a task's options, its own before those of all tasks."""
    return sorted(fields(options), key=lambda own: own.kw_only is True)
