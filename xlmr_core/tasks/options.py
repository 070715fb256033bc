"""The options of a task, declared once: what they are by default, what they may be, and what the help text says.

A task's options are a frozen dataclass on :class:`TaskOptions` whose fields are made by :func:`option`. A pipeline
takes them by name, when it is made and in each call; ``xlmr run`` makes arguments of them (``cli/options.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar

from xlmr_core.errors import InputError

__all__ = ["NUMBERS", "OVERFLOWS", "WINDOW", "TaskOptions", "kind_of", "option", "option_fields"]

# Inputs of a stream that are sorted by length together, where tokens are counted.
WINDOW = 512
# Options that are numbers: what Python has to call theirs, and what we call it.
NUMBERS: dict[type | None, tuple[Any, str]] = {int: (Integral, "an integer"), float: (Real, "a number")}
# What can happen to a text that is longer than the model takes.
OVERFLOWS = ("error", "truncate", "window")


def option(
    default: Any,
    help: str,
    *,
    kind: type | None = None,
    least: float | None = None,
    choices: Sequence[str] = (),
    several: bool = False,
    python_only: bool = False,
    none: str = "",
    shell: Any = None,
) -> Any:
    """A field of a task's options.

    Args:
        default: what holds where nothing is said; ``None`` for what may be left open.
        help: a line for the help text.
        kind: ``bool``, ``int`` or ``float``, where the default, being ``None``, does not tell.
        least: the option is a number, an integer unless the default is a float, and this is the least.
        choices: the option is one of these words.
        several: the option is a list of texts; on the command line it may be repeated.
        python_only: it cannot be said on the command line.
        none: ``None`` is a value of its own, and on the command line this word; else it leaves the option as it is.
        shell: what holds on the command line in place of the default, where that is another value.
    """
    metadata: dict[str, Any] = {"help": help, "least": least, "choices": tuple(choices), "several": several}
    metadata |= {"python_only": python_only, "kind": kind, "none": none, "shell": shell}
    return field(default=default, metadata=metadata)


def kind_of(own: Field[Any]) -> type | None:
    """``bool``, ``int`` or ``float`` for an option that is one of these; ``None`` for any other."""
    if own.metadata["kind"] is not None:
        kind: type = own.metadata["kind"]
        return kind
    if own.metadata["least"] is not None:
        return float if isinstance(own.default, float) else int
    return bool if isinstance(own.default, bool) else None


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options that all tasks have.

    Attributes:
        on_overflow: what happens to a text that is longer than the model takes: ``"error"``; ``"truncate"``, which cuts
            it; ``"window"``, which reads all of it in overlapping pieces. Where nothing is said, what the original
            pipeline of the task does, and a warning if that cuts.
        batch_tokens: tokens that go through the model together, those that fill up shorter rows counted; takes the
            place of ``batch_size``. Inputs are then sorted by length, those of a stream some hundreds at a time.
        progress: show on standard error how much is done; by default where that is a terminal and the work is long.
        batch_size: rows that go through the model together; rows of similar length share a batch. Where nothing is
            said, as many of a list as make 4096 tokens; a data set is read 64 inputs ahead for that, and any other
            stream one by one.
    """

    # Published arguments that the task takes, and that change nothing; and those of which some values can be served.
    not_needed: ClassVar[Sequence[str]] = ()
    only: ClassVar[Mapping[str, tuple[tuple[Any, ...], str]]] = {}
    # Further arguments, which one option keeps together.
    gathers: ClassVar[Collection[str]] = ()

    on_overflow: str | None = option(None, "what happens to texts that are too long", choices=OVERFLOWS)
    batch_tokens: int | None = option(None, "tokens that run together, in place of --batch-size", least=1)
    progress: bool | None = option(None, "show how much is done", python_only=True)
    batch_size: int | None = option(None, "texts that run together", least=1)

    def __post_init__(self) -> None:
        for own in option_fields(self):
            value, least, choices = getattr(self, own.name), own.metadata["least"], own.metadata["choices"]
            if value is None and (own.default is None or own.metadata["none"]):
                continue
            if value is own.default and not isinstance(value, int | float):
                continue
            kind = kind_of(own)
            if kind in NUMBERS:
                number, called = NUMBERS[kind]
                told = called if least is None else f"{called} of at least {least}"
                if (
                    isinstance(value, bool)
                    or not isinstance(value, number)
                    or (least is not None and not value >= least)
                ):
                    raise InputError(f"{own.name} must be {told}, received {value!r}")
            if own.metadata["kind"] is bool and not isinstance(value, bool):
                raise InputError(f"{own.name} must be True or False, received {value!r}")
            if choices and value not in choices:
                raise InputError(f"{own.name} must be one of {', '.join(map(repr, choices))}, received {value!r}")

    @staticmethod
    def renamed(said: Mapping[str, Any]) -> dict[str, Any]:
        """What was said at once, in a call or when a pipeline was made, with older names under their newer ones."""
        return dict(said)

    def gathered(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What was said, with the arguments of ``gathers`` in the option that keeps them."""
        return dict(said)


def option_fields(options: TaskOptions | type[TaskOptions]) -> list[Field[Any]]:
    """The fields of a task's options, its own before those of all tasks."""
    return sorted(fields(options), key=lambda own: own.kw_only is True)
