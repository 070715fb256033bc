"""Which parts of a model are trained, as plain values: Keras itself writes down ``trainable`` of the whole model alone.

A part whose flag is not that of what it stands in is named by its path, ``{"roberta": False}``; the model's own path is
empty. A part that its constructor made as not trainable counts as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from xlmr_core.errors import InputError
from xlmr_tf.values import nodes, parts, set_trainable

__all__ = ["set_trained", "trained"]


def trained(model: Any) -> dict[str, bool]:
    """The flags of a model that differ from those above them, each after those above it."""
    return {path: bool(part.trainable) for path, part, expected in _walk(model) if bool(part.trainable) != expected}


def set_trained(model: Any, flags: Mapping[str, bool]) -> None:
    """Give a model the flags that another one of its class and configuration had.

    Args:
        model: the model.
        flags: what :func:`trained` gave. Keras passes a layer's flag on to what is in it.

    Raises:
        InputError: for a part that the model does not have.
    """
    here = {path: part for path, part, _ in _walk(model)}
    for path, flag in flags.items():
        if path not in here:
            raise InputError(
                f"expected {type(model).__name__} to have the part {path!r}, whose trainable is {flag} in the file, "
                "received a class without it; load the file with the class that wrote it"
            )
        set_trainable(here[path], flag)


def _walk(model: Any) -> Iterator[tuple[str, Any, bool]]:
    """Layers and variables by path, each once and after what it stands in, and the flag to be expected of it."""
    layers: dict[str, Any] = {}
    seen: set[int] = set()
    for path, node in nodes(model):
        owner = _above(path, layers)
        if isinstance(node, keras.layers.Layer):
            yield path.removesuffix("."), node, owner is None or bool(owner.trainable)
            layers[path] = owner = node
        assert owner is not None
        made_to_be_trained = {id(variable) for variable in owner._trainable_variables}
        for name, part in parts(node):
            if isinstance(part, keras.Variable) and id(part) not in seen:
                seen.add(id(part))
                yield path + name, part, bool(owner.trainable) and id(part) in made_to_be_trained


def _above(path: str, layers: Mapping[str, Any]) -> Any:
    """The layer that something of a path stands in; ``None`` above the model."""
    steps = path.split(".")[:-1]
    found = (layers.get("".join(f"{step}." for step in steps[:length])) for length in reversed(range(len(steps))))
    return next((layer for layer in found if layer is not None), None)
