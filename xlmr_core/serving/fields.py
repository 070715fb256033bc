"""What the body of a request may hold: each field declared once, for the check and for the OpenAPI page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlmr_core.arguments import suggestion
from xlmr_core.bounded_files import parse_json, why
from xlmr_core.serving.faults import Fault
from xlmr_core.wording import shown

__all__ = ["Field", "Kind", "counted_texts", "one_of", "read_fields", "read_body"]

# Characters of what came that a sentence shows.
_SHOWN = 80


@dataclass(frozen=True)
class Kind:
    """What a value can be.

    Attributes:
        called: as a sentence calls it.
        schema: as OpenAPI calls it.
        holds: whether a value is one.
    """

    called: str
    schema: Mapping[str, Any]
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(holds, value))


def _either(*kinds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(holds(value) for holds in kinds)


_IDS = _list_of(_is_id)
_TEXT_SCHEMA: Mapping[str, Any] = {"type": "string"}
_IDS_SCHEMA: Mapping[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def _array(items: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = Kind("a text", _TEXT_SCHEMA, _is_text)
TEXTS = Kind("a list of texts", _array(_TEXT_SCHEMA), _list_of(_is_text))
TEXT_OR_TEXTS = Kind(
    "a text or a list of texts", {"oneOf": [_TEXT_SCHEMA, _array(_TEXT_SCHEMA)]}, _either(_is_text, TEXTS.holds)
)
TEXTS_OR_IDS = Kind(
    "a text, a list of texts, a list of ids of tokens, or several of those",
    {"oneOf": [_TEXT_SCHEMA, _array(_TEXT_SCHEMA), _IDS_SCHEMA, _array(_IDS_SCHEMA)]},
    _either(_is_text, _IDS, _list_of(_either(_is_text, _IDS))),
)
IDS = Kind(
    "a list of ids of tokens, or several of those",
    {"oneOf": [_IDS_SCHEMA, _array(_IDS_SCHEMA)]},
    _either(_IDS, _list_of(_IDS)),
)
BOOLEAN = Kind("true or false", {"type": "boolean"}, lambda value: isinstance(value, bool))
COUNT = Kind("an integer of at least 1", {"type": "integer", "minimum": 1}, lambda value: _is_id(value) and value >= 1)
OBJECT = Kind("an object", {"type": "object"}, lambda value: isinstance(value, dict))
ANYTHING = Kind("anything", {}, lambda value: True)
DOCUMENTS = Kind(
    "a list of texts, or of objects with a text",
    _array({"oneOf": [_TEXT_SCHEMA, {"type": "object", "properties": {"text": _TEXT_SCHEMA}, "required": ["text"]}]}),
    _list_of(lambda value: _is_text(value) or (isinstance(value, dict) and _is_text(value.get("text")))),
)
PREDICTED = Kind(
    "a text, a list of two texts that are a pair, or a list of lists of one or two texts",
    {"oneOf": [_TEXT_SCHEMA, _array(_TEXT_SCHEMA), _array(_array(_TEXT_SCHEMA))]},
    lambda value: (
        _is_text(value)
        or (TEXTS.holds(value) and len(value) == 2)
        or _list_of(lambda one: TEXTS.holds(one) and len(one) <= 2)(value)
    ),
)


def one_of(*words: str) -> Kind:
    """One of some words."""
    called, schema = f"one of {', '.join(words)}", {"type": "string", "enum": list(words)}
    return Kind(called, schema, lambda value: isinstance(value, str) and value in words)


@dataclass(frozen=True)
class Field:
    """A field of a body.

    Attributes:
        name: of the field.
        kind: what its value can be.
        help: a line for the OpenAPI page.
        required: whether it must be there.
        usual: what holds where it is not there, or null.
    """

    name: str
    kind: Kind
    help: str
    required: bool = False
    usual: Any = None


def read_fields(body: Any, fields: Sequence[Field]) -> dict[str, Any]:
    """The values of all fields.

    Raises:
        Fault: for a body that is no object, an unknown field, one that is missing, or a value of another kind.
    """
    if not isinstance(body, dict):
        raise Fault("invalid", f"expected an object of JSON, received {shown(body, _SHOWN)}; send the fields in one")
    known = [own.name for own in fields]
    unknown = [name for name in body if name not in known]
    if unknown:
        meant = suggestion(unknown[0], known)
        raise Fault(
            "invalid",
            f"expected the fields {', '.join(known)}, received {shown(unknown[0], _SHOWN)}; {meant}",
            param=unknown[0][:_SHOWN],
        )
    values = {}
    for own in fields:
        value = body.get(own.name)
        if value is None and own.required:
            raise Fault(
                "invalid", f"expected {own.name}, {own.kind.called}, received none; send it: {own.help}", param=own.name
            )
        if value is not None and not own.kind.holds(value):
            raise Fault(
                "invalid", f"{own.name} must be {own.kind.called}, received {shown(value, _SHOWN)}", param=own.name
            )
        values[own.name] = own.usual if value is None else value
    return values


def read_body(content: bytes) -> Any:
    """What a body holds.

    Raises:
        Fault: for what is no JSON, needs too much memory, or has half a character.
    """
    try:
        return parse_json(content)
    except ValueError as error:
        raise Fault("malformed", f"expected JSON in UTF-8, received other bytes ({why(error)}); mend them") from None


def counted_texts(inputs: Any) -> int:
    """How many texts inputs hold; a list of ids is one."""
    if isinstance(inputs, dict):
        return sum(map(counted_texts, inputs.values()))
    if isinstance(inputs, list):
        return sum(map(counted_texts, inputs))
    return 1
