"""Arguments of the command line from the options of a task, or a recipe, so that an option is declared once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field
from typing import Any

from xlmr_core.cli.parser import OneOf
from xlmr_core.tasks.options import NUMBERS, kind_of, option_fields

__all__ = ["add_options", "read_options"]

# Letters of a list of choices that stands in the place of a value; a longer one stands in the help text.
MOST_LETTERS = 60


def add_options(
    parser: argparse.ArgumentParser, title: str, options: type[Any], *, left_open: bool = False, **told: str
) -> None:
    """Declare an argument for each option: ``top_k`` is ``--top-k``.

    Args:
        parser: the command's parser.
        title: what the help text calls them.
        options: the dataclass of a task, or another whose fields are made by ``option()``.
        left_open: what is not said is ``None``, because something else may say it.
        **told: by the names of options, what holds where nothing is said, if the command decides that.
    """
    group = parser.add_argument_group(title)
    for own in _fields(options):
        usual = own.default if own.metadata["shell"] is None else own.metadata["shell"]
        option = f"--{own.name.replace('_', '-')}"
        default, help = (None, usual) if left_open else (usual, "%(default)s")
        group.add_argument(option, default=default, **_kind(own), help=_help(own, usual, told.get(own.name, ""), help))


def read_options(arguments: argparse.Namespace, options: type[Any]) -> dict[str, Any]:
    """The options that :func:`add_options` declared, as a pipeline takes them."""
    return {own.name: getattr(arguments, own.name) for own in _fields(options)}


def _fields(options: type[Any]) -> list[Field[Any]]:
    return [own for own in option_fields(options) if not own.metadata["python_only"]]


def _help(own: Field[Any], usual: Any, told: str, shown: Any) -> str:
    help: str = own.metadata["help"].replace("%", "%%")
    if len(_listed(own)) > MOST_LETTERS:
        help += f": {', '.join(_choices(own))}"
    if own.metadata["several"]:
        help += "; may be repeated"
    if told:
        return f"{help} (default: {told})"
    is_open = usual is None or isinstance(usual, bool | tuple | dict) or usual == "" or "(default: " in help
    return help if is_open else f"{help} (default: {shown})"


def _choices(own: Field[Any]) -> tuple[str, ...]:
    """The words that an option can be; an empty one is for who says nothing."""
    return tuple(filter(None, own.metadata["choices"]))


def _listed(own: Field[Any]) -> str:
    return f"{{{','.join(_choices(own))}}}" if own.metadata["choices"] else ""


def _kind(own: Field[Any]) -> dict[str, Any]:
    """What argparse has to know of an option."""
    if own.metadata["choices"]:
        listed = _listed(own)
        return {"type": OneOf(_choices(own)), "metavar": listed if len(listed) <= MOST_LETTERS else own.name.upper()}
    kind = kind_of(own)
    if kind in NUMBERS:
        number = _number(kind, own.metadata["least"])
        none = own.metadata["none"]
        if not none:
            return {"type": number, "metavar": "N"}
        return {"type": lambda value: None if value == none else number(value), "metavar": f"N|{none}"}
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"action": "append" if own.metadata["several"] else "store", "metavar": "TEXT"}


def _number(kind: Any, least: float | None) -> Callable[[str], float]:
    def number(value: str) -> float:
        try:
            found: float | None = kind(value)
        except ValueError:
            found = None
        if found is None or (least is not None and not found >= least):
            called = NUMBERS[kind][1]
            told = called if least is None else f"{called} of at least {least}"
            raise argparse.ArgumentTypeError(f"expected {told}, received {value!r}")
        return found

    return number
