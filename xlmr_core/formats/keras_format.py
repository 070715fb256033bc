"""The format ``keras``: ``model.weights.h5`` as ``save_weights`` of a model of the Keras backend writes it and
``load_weights`` reads it.

Keras stores the variables of a layer in the order in which it made them, under the attributes that lead to it. Members
of a list go by the names of their classes and are numbered from the second. The attributes of the backend are the steps
of the canonical names; what differs is in the tables below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import Format, Model, Naming
from xlmr_core.formats.finding import first_bytes
from xlmr_core.formats.h5_file import SIGNATURE, H5File, write_h5
from xlmr_core.formats.layouts import KEPT, TRANSPOSED, Layout
from xlmr_core.formats.naming import role_of
from xlmr_core.formats.tensors import Described, LazyTensor
from xlmr_core.parameters import Role

__all__ = ["KERAS", "WEIGHTS_FILE"]

WEIGHTS_FILE = "model.weights.h5"

# Where a variable of a role stands among those of its layer, and how it lies.
VARIABLES: dict[Role, tuple[int, Layout]] = {
    Role.EMBEDDING: (0, KEPT),
    Role.LINEAR_WEIGHT: (0, TRANSPOSED),
    Role.LINEAR_BIAS: (1, KEPT),
    Role.NORM_SCALE: (0, KEPT),
    Role.NORM_BIAS: (1, KEPT),
}
# Keras knows an attribute ``output`` of its own.
RENAMED = {"output": "output_"}
# What is behind ``layers`` in the alphabet is found through the list of that name first, and goes by the name of its
# class.
IN_LIST = {"pooler": "layers/pooler", "lm_head": "layers/lm_head", "qa_outputs": "layers/linear"}
ENCODERS = {XLMRobertaConfig: "layers/tfxlm_roberta_model", XLMRobertaXLConfig: "layers/tfxlm_roberta_xl_model"}
VOCABULARY_BIAS = "lm_head.bias"  # the only variable of its layer
VOCABULARY_BIAS_TOO = "lm_head.decoder.bias"  # the other name of the same, which checkpoints of untied models keep


def _encode(name: str, model: Model) -> tuple[str, Layout]:
    role = role_of(name)
    assert role is not None, f"{name} is no parameter of the table"
    index, layout = (0, KEPT) if name == VOCABULARY_BIAS else VARIABLES[role]
    named = {**RENAMED, **IN_LIST, "roberta": ENCODERS[type(model.config)]}
    steps = [named.get(step, step) for step in name.split(".")[:-1]]
    path = re.sub(
        r"encoder/layer/(\d+)", lambda match: f"encoder/layer/{_member('layer', int(match[1]))}", "/".join(steps)
    )
    return f"{path}/vars/{index}", layout


def _member(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number}"


def _decode(stored: str) -> Iterable[tuple[str, Layout]]:
    match = re.fullmatch(r"(.+)/vars/([01])", stored)
    if match is None:
        return ((stored, KEPT),)
    path = re.sub(r"^layers/tfxlm_roberta(_xl)?_model/", "roberta/", match[1])
    path = re.sub(r"encoder/layer/layer(_\d+)?/", lambda found: f"encoder/layer/{int((found[1] or '_0')[1:])}/", path)
    path = path.replace("layers/linear", "layers/qa_outputs").replace("layers/", "")
    name = re.sub(r"output_(?=/|$)", "output", path).replace("/", ".")
    if name == "lm_head":
        return ((VOCABULARY_BIAS, KEPT),)
    canonical = f"{name}.{('weight', 'bias')[int(match[2])]}"
    role = role_of(canonical)
    return ((canonical, KEPT if role is None else VARIABLES[role][1]),)


def is_hub(file: H5File) -> bool:
    """Whether the layers are those of KerasHub and not of the backend here."""
    return any("token_and_position_embedding" in name for name in file.tensors)


def is_keras(file: H5File) -> bool:
    """Whether a file was written by Keras 3."""
    return any("/vars/" in name for name in file.tensors)


def _find(folder: Path) -> Path | None:
    path = folder / WEIGHTS_FILE
    return path if path.is_file() and _recognises(path) else None


def _recognises(path: Path) -> bool:
    if not first_bytes(path).startswith(SIGNATURE):
        return False
    file = H5File(path)
    return is_keras(file) and not is_hub(file)


def _open(path: Path) -> H5File:
    file = H5File(path)
    if not is_keras(file) or is_hub(file):
        raise CheckpointError(f"{path} was not written by save_weights of a model of the Keras backend; check the file")
    return file


def _naming(container: Described, part: str | None) -> Naming:
    return Naming(_decode)


def _prepare(tensors: Mapping[str, LazyTensor], model: Model) -> dict[str, LazyTensor]:
    # The vocabulary's bias has one place.
    return {name: tensor for name, tensor in tensors.items() if name != VOCABULARY_BIAS_TOO}


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    write_h5(path, tensors)


KERAS = Format(
    name="keras",
    title="Keras weights",
    single=WEIGHTS_FILE,
    index="",
    find=_find,
    recognises=_recognises,
    open=_open,
    naming=_naming,
    written=lambda model: Naming(_decode, lambda name: _encode(name, model)),
    prepare=_prepare,
    write=_write,
)
