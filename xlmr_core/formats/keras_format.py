"""The format ``keras``: ``model.weights.h5`` as ``save_weights`` of a model of the Keras backend writes it and
``load_weights`` reads it, alone or in the ``.keras`` of ``save``.

Keras stores the variables of a layer in the order in which it made them, under the attributes that lead to it. Members
of a list go by the names of their classes and are numbered from the second. The attributes of the backend are the steps
of the canonical names; what differs is in the tables below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xlmr_core.bounded_files import opened, parse_json, why
from xlmr_core.config import (
    EncoderDecoderConfig,
    ModelConfig,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
    config_class_of,
    read_config_json,
)
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import Checkpoint, Format, Model, Naming
from xlmr_core.formats.finding import first_bytes
from xlmr_core.formats.h5_file import SIGNATURE, H5File, write_h5
from xlmr_core.formats.layouts import KEPT, TRANSPOSED, Layout
from xlmr_core.formats.naming import role_of
from xlmr_core.formats.tensors import Described, LazyTensor
from xlmr_core.formats.zip_file import KERAS_WEIGHTS, ZIP, has_record, read_directory, span_of
from xlmr_core.parameters import Role, with_both_sides

__all__ = ["KERAS", "WEIGHTS_FILE"]

WEIGHTS_FILE = KERAS_WEIGHTS

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
ENCODERS: dict[type, str] = {
    XLMRobertaConfig: "layers/tfxlm_roberta_model",
    XLMRobertaXLConfig: "layers/tfxlm_roberta_xl_model",
}
# A key of every configuration of a model here, or of an encoder-decoder.
IN_CONFIGS = ("num_attention_heads", "decoder")
VOCABULARY_BIAS = "lm_head.bias"  # the only variable of its layer
VOCABULARY_BIAS_TOO = "lm_head.decoder.bias"  # the other name of the same, which checkpoints of untied models keep


def _encode(name: str, config: ModelConfig) -> tuple[str, Layout]:
    if isinstance(config, EncoderDecoderConfig):
        for prefix, part in config.parts.items():
            if name.startswith(prefix):
                path, layout = _encode(name.removeprefix(prefix), part)
                return prefix.replace(".", "/") + path, layout
    role = role_of(name)
    assert role is not None, f"{name} is no parameter of the table"
    index, layout = (0, KEPT) if name == VOCABULARY_BIAS else VARIABLES[role]
    named = {**RENAMED, **IN_LIST, "roberta": ENCODERS.get(type(config), "")}
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
    # A model in a model of a user's has the path to it in front, of which the lists of layers are no part of a name.
    path = re.sub(r"(^|/)layers/tfxlm_roberta(_xl)?_model/", r"\1roberta/", match[1])
    path = re.sub(r"encoder/layer/layer(_\d+)?/", lambda found: f"encoder/layer/{int((found[1] or '_0')[1:])}/", path)
    path = re.sub(r"(^|/)layers/", r"\1", path.replace("layers/linear", "layers/qa_outputs"))
    name = re.sub(r"output_(?=/|$)", "output", path).replace("/", ".")
    if name.endswith("lm_head"):
        return ((f"{name}.bias", KEPT),)
    canonical = f"{name}.{('weight', 'bias')[int(match[2])]}"
    role = role_of(canonical)
    return ((canonical, KEPT if role is None else VARIABLES[role][1]),)


def is_hub(file: H5File) -> bool:
    """Whether the layers are those of KerasHub and not of the backend here."""
    return any("token_and_position_embedding" in name for name in file.tensors)


def is_keras(file: H5File) -> bool:
    """Whether a file was written by Keras 3."""
    return any("/vars/" in name for name in file.tensors)


def is_h5(path: Path) -> bool:
    """Whether a file is HDF5, or a ``.keras``, which is a zip of such a file and small ones."""
    start = first_bytes(path)
    return start.startswith(SIGNATURE) or (start.startswith(ZIP) and has_record(path, WEIGHTS_FILE))


def _find(folder: Path) -> Path | None:
    path = folder / WEIGHTS_FILE
    return path if path.is_file() and _recognises(path) else None


def _recognises(path: Path) -> bool:
    if not is_h5(path):
        return False
    file = H5File(path)
    return is_keras(file) and not is_hub(file)


def _open(path: Path) -> H5File:
    file = H5File(path)
    if not is_keras(file) or is_hub(file):
        raise CheckpointError(f"{path} was not written by save_weights of a model of the Keras backend; check the file")
    return file


def _naming(container: Described, head: str | None) -> Naming:
    return Naming(_decode)


def _prepare(tensors: Mapping[str, LazyTensor], model: Model) -> dict[str, LazyTensor]:
    # The vocabulary's bias has one place.
    both = with_both_sides(tensors, model.config)
    return {name: tensor for name, tensor in both.items() if not name.endswith(VOCABULARY_BIAS_TOO)}


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    write_h5(path, tensors)


def _config(path: Path, checkpoint: Checkpoint) -> ModelConfig:
    """The configuration of the model in a ``.keras``; weights alone have the ``config.json`` beside them."""
    if not first_bytes(path).startswith(ZIP):
        values: Any = read_config_json(path.parent / "config.json")
        return _read(values)
    try:
        with opened(path) as file:
            begin, end = span_of(file, read_directory(file)["config.json"], path.stat().st_size)
            file.seek(begin)
            waiting = [parse_json(file.read(end - begin))]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} holds no config.json that can be read ({why(error)}); save the model again"
        ) from error
    while waiting:
        values = waiting.pop()
        if isinstance(values, dict) and any({"model_type", key} <= set(values) for key in IN_CONFIGS):
            return _read(values)
        waiting += values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    raise CheckpointError(
        f"expected the configuration of a model like this in {path}, found none; put a config.json beside it"
    )


def _read(values: Any) -> ModelConfig:
    config: ModelConfig = config_class_of(values).from_dict(values)
    return config


KERAS = Format(
    name="keras",
    title="Keras weights",
    single=WEIGHTS_FILE,
    index="",
    find=_find,
    recognises=_recognises,
    open=_open,
    naming=_naming,
    written=lambda model: Naming(_decode, lambda name: _encode(name, model.config)),
    prepare=_prepare,
    write=_write,
    config=_config,
)
