"""The names and layouts of TensorFlow and of Flax as tables beside the canonical ones.

All three spell the same path through the model; they differ in how its steps are joined and in what the last step, the
variable, is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from xlmr_core.formats.base import Naming
from xlmr_core.formats.layouts import KEPT, TRANSPOSED, Layout
from xlmr_core.parameters import Role

__all__ = ["flax_naming", "role_of", "tensorflow_naming"]

# By canonical name, the first that fits. A test compares this with the parameter table.
ROLES = (
    (re.compile(r"(LayerNorm|layer_norm)\.weight"), Role.NORM_SCALE),
    (re.compile(r"(LayerNorm|layer_norm)\.bias"), Role.NORM_BIAS),
    (re.compile(r"embeddings?\.weight"), Role.EMBEDDING),
    (re.compile(r"weight"), Role.LINEAR_WEIGHT),
    (re.compile(r"bias"), Role.LINEAR_BIAS),
)

# What the variable of a role is called, and how it lies.
TENSORFLOW: dict[Role, tuple[str, Layout]] = {
    Role.EMBEDDING: ("embeddings", KEPT),
    Role.LINEAR_WEIGHT: ("kernel", TRANSPOSED),
    Role.LINEAR_BIAS: ("bias", KEPT),
    Role.NORM_SCALE: ("gamma", KEPT),
    Role.NORM_BIAS: ("beta", KEPT),
}
FLAX: dict[Role, tuple[str, Layout]] = {
    Role.EMBEDDING: ("embedding", KEPT),
    Role.LINEAR_WEIGHT: ("kernel", TRANSPOSED),
    Role.LINEAR_BIAS: ("bias", KEPT),
    Role.NORM_SCALE: ("scale", KEPT),
    Role.NORM_BIAS: ("bias", KEPT),
}
# TensorFlow's class of word embeddings makes its variable itself and calls it so.
WORDS, WORDS_VARIABLE = "word_embeddings", "weight"

# What a state of NNX has below the name of a variable.
NNX_VALUES = ("value", "raw_value")

_CANONICAL_VARIABLE = {
    "embeddings": ("weight", KEPT),
    "embedding": ("weight", KEPT),
    "weight": ("weight", KEPT),
    "kernel": ("weight", TRANSPOSED),
    "gamma": ("weight", KEPT),
    "scale": ("weight", KEPT),
    "bias": ("bias", KEPT),
    "beta": ("bias", KEPT),
}
_PREFIX = "roberta/"


def role_of(name: str) -> Role | None:
    """What a parameter is, from its canonical name; ``None`` for a name of something else."""
    return next((role for pattern, role in ROLES if re.search(rf"(^|[._]){pattern.pattern}$", name)), None)


def tensorflow_naming(bare: bool, sides: bool = False) -> Naming:
    """``roberta/encoder/layer_._0/attention/self/query/kernel:0``.

    Args:
        bare: the file is of the bare encoder: its canonical names have no ``roberta.`` in front, TensorFlow's do.
        sides: what is written is an encoder-decoder, whose encoder is bare. In a file the names say so.
    """

    def decode(stored: str) -> Iterable[tuple[str, Layout]]:
        *steps, variable = re.sub(r":\d+$", "", stored).replace("layer_._", "layer/").split("/")
        if bare and steps[:1] == ["roberta"]:
            del steps[0]
        elif steps[:2] == ["encoder", "roberta"]:
            del steps[1]
        return ((*_joined(stored, steps, variable),),)

    def encode(name: str) -> tuple[str, Layout]:
        path, variable, layout = _split(name, TENSORFLOW)
        if path.endswith(WORDS):
            variable = WORDS_VARIABLE
        path = re.sub(r"(^|/)layer/(\d+)/", r"\1layer_._\2/", path)
        if bare:
            path = _PREFIX + path
        elif sides and path.startswith("encoder/"):
            path = f"encoder/{_PREFIX}{path.removeprefix('encoder/')}"
        return f"{path}/{variable}:0", layout

    return Naming(decode, encode)


def flax_naming(separator: str = "/") -> Naming:
    """``roberta/encoder/layer/0/attention/self/query/kernel``, or with dots in between (in safetensors). Both are
    read.
    """

    def decode(stored: str) -> Iterable[tuple[str, Layout]]:
        *steps, variable = re.split(r"[./]", stored)
        if variable in NNX_VALUES and steps and steps[-1] in _CANONICAL_VARIABLE:
            variable = steps.pop()
        return ((*_joined(stored, steps, variable),),)

    def encode(name: str) -> tuple[str, Layout]:
        path, variable, layout = _split(name, FLAX)
        return f"{path}/{variable}".replace("/", separator), layout

    return Naming(decode, encode)


def _joined(stored: str, steps: list[str], variable: str) -> tuple[str, Layout]:
    if variable not in _CANONICAL_VARIABLE or not steps:
        return stored, KEPT
    name, layout = _CANONICAL_VARIABLE[variable]
    return ".".join((*steps, name)), layout


def _split(name: str, table: dict[Role, tuple[str, Layout]]) -> tuple[str, str, Layout]:
    role = role_of(name)
    assert role is not None and "." in name, f"{name} is no parameter of the table"
    variable, layout = table[role]
    return name.rpartition(".")[0].replace(".", "/"), variable, layout
