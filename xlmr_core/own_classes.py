"""What happens to the parts that a user's class adds to a model: one rule, the same in every backend.

=============================================  ===============================================================
a class adds                                   and
=============================================  ===============================================================
a parameter, a buffer, a variable              it is saved and loaded under the path of its attribute
a layer, beside ours or in the place of one    so are its tensors
a model inside, such as a second encoder       so are its tensors
an argument of its constructor                 ``from_pretrained`` hands it on; Keras's own files hold it
one tensor in two places                       it is saved once, and is one tensor again after a load
what no path leads to or no file can hold      the save is refused before anything is written
values that are no variable of the framework   so too; but for PyTorch, where a plain tensor in an attribute is no part
                                               of the state, as in every state dict: register a buffer to save it
=============================================  ===============================================================

What a checkpoint lacks of it stays as the class made it, and the load says so. Projections, embeddings and norms that a
framework brings have their published names and the published layout in every backend (``head.weight``, (out, in)), so
that a file serves a class of the same attributes in another framework. Anything else is stored as it lies there.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xlmr_core.config import PretrainedConfig
from xlmr_core.errors import InputError
from xlmr_core.formats.tensors import DTYPES
from xlmr_core.parameters import Init, Parameter, Role

__all__ = [
    "Place",
    "check_dtypes",
    "check_encoder",
    "check_ties",
    "constructor_arguments",
    "given_arguments",
    "own_names",
    "refuse_lost",
    "table_of",
]


@dataclass(frozen=True)
class Place:
    """A place of a model that holds a tensor.

    Attributes:
        shape: in the canonical layout.
        tensor: tells tensors apart; places that share one have the same.
        role: what it is, if the layer that holds it is an ordinary one of the framework.
        init: how it starts; but for places without values, as the class made it.
    """

    shape: tuple[int, ...]
    tensor: int
    role: Role = Role.OWN
    init: Init = Init.OWN


def table_of(known: Mapping[str, Parameter], here: Mapping[str, Place]) -> dict[str, Parameter]:
    """The parameter table of a model as a user's code left it: what is not there any more is left out, what was added
    stands behind.

    Args:
        known: the rows of a published model of this head.
        here: the places of the model by canonical name. Where a tied row has no place of its own, that of what it is
            tied to.
    """
    # A place of another size is the user's too; but not one that is tied, which gets the size of the other end, nor one
    # that is empty, where a trainer (DeepSpeed ZeRO-3, FSDP) keeps the values elsewhere.
    rows = {
        name: row
        for name, row in known.items()
        if name in here and (row.tied_to is not None or row.shape == here[name].shape or 0 in here[name].shape)
    }
    first = {here[name].tensor: name for name in reversed(rows)}
    for name, place in here.items():
        if name not in rows:
            shared = first.setdefault(place.tensor, name)
            row = Parameter(name, place.shape, ("own",) * len(place.shape), place.role, place.init, own=True)
            rows[name] = row if shared == name else replace(row, tied_to=shared)
    return rows


def own_names(rows: Mapping[str, Parameter]) -> list[str]:
    """The names that a user's class added."""
    return [name for name, row in rows.items() if row.own]


def constructor_arguments(kind: type, base: type, of_base: Collection[str] = ()) -> tuple[set[str], bool]:
    """What ``from_pretrained`` may hand on to the constructor of a class.

    Args:
        kind: the class.
        base: the base class of the backend's models, at which the search ends.
        of_base: what the framework's own constructor takes from it.

    Returns:
        The names, and whether the class takes any other name too and keeps it.
    """
    names: set[str] = set()
    takes_any = False
    for part in kind.__mro__:
        if "__init__" in vars(part):
            parameters = inspect.signature(vars(part)["__init__"]).parameters.values()
            names |= {x.name for x in parameters if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)}
            if not any(x.kind is x.VAR_KEYWORD for x in parameters):
                return names, takes_any
            takes_any = True
        if part is base:
            break
    return names | set(of_base), False


def given_arguments(kind: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor was called with, by name, but for the configuration.

    An argument of ``*names`` stands under ``names[0]``: nobody can pass it by name again.

    Args:
        kind: the class.
        args, kwargs: of the call; where the constructor does not take them, it says so itself.
    """
    try:
        bound = inspect.signature(kind.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
    except TypeError:
        return {}
    given: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        parameter = bound.signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            given.update(value)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            given.update({f"{name}[{number}]": one for number, one in enumerate(value)})
        else:
            given[name] = value
    given.pop(next((name for name, value in given.items() if isinstance(value, PretrainedConfig)), ""), None)
    return given


# ---- What is refused


def check_encoder(kind: type, encoder: str, present: bool) -> None:
    """Refuse a class with layers of its own that has no encoder.

    Args:
        kind: the class.
        encoder: the name of a class that would do.
        present: whether there is one.

    Raises:
        InputError: if there is none.
    """
    if not present:
        raise InputError(
            f"{kind.__name__} has no encoder as self.roberta; set self.roberta = {encoder}(config) in its constructor,"
            " before post_init() where there is one"
        )


def refuse_lost(what: Iterable[str], kind: type, remedy: str) -> None:
    """Refuse to save a model of which a part would be lost.

    Args:
        what: the tensors that no path of attributes leads to, or that the framework does not take for variables.
        kind: the class of the model.
        remedy: how the framework wants them to be kept.

    Raises:
        InputError: if there are any.
    """
    lost = list(what)
    if lost:
        raise InputError(
            f"{', '.join(lost[:8])} of {kind.__name__} would not be saved; {remedy}, in attributes, or in lists and "
            "dictionaries that are attributes"
        )


def check_dtypes(tags: Mapping[str, str | None], received: Mapping[str, object]) -> None:
    """Refuse to save a tensor that no checkpoint can hold.

    Args:
        tags: the tags of dtypes by name; ``None`` where there is none.
        received: what to call these dtypes, by the same names.

    Raises:
        InputError: for the first of them.
    """
    for name, tag in tags.items():
        if tag not in DTYPES:
            raise InputError(f"{name} is {received[name]}, which no checkpoint here holds; convert or remove it")


def check_ties(rows: Mapping[str, Parameter], here: Mapping[str, Place]) -> None:
    """Refuse to save a tensor in a place that the configuration ties to another one, where the two are no longer one
    tensor.

    Raises:
        InputError: for the first of them.
    """
    for name, row in rows.items():
        target = here.get(row.tied_to or "")
        if target is not None and name in here and here[name].tensor != target.tensor:
            raise InputError(
                f"{name} is tied to {row.tied_to} and would be lost, because it is another tensor now; "
                "set config.tie_word_embeddings = False to save it too"
            )
