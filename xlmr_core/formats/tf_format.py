"""The format ``tf``: ``tf_model.h5`` as the TensorFlow classes of the original library wrote it.

A single file has a group for each layer of the model, and in it datasets under the names of its variables, which begin
with the name of the model: ``roberta/tfxlm_roberta_for_masked_lm/roberta/pooler/dense/kernel:0``. A variable that two
layers share is there twice. Shards have the variables at the top, without the two names in front.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import Format, Model, Naming
from xlmr_core.formats.finding import first_bytes, in_folder
from xlmr_core.formats.h5_file import MODEL, SIGNATURE, H5File, texts, write_h5
from xlmr_core.formats.naming import tensorflow_naming
from xlmr_core.formats.tensors import Described, LazyTensor, RawTensor, TensorInfo
from xlmr_core.heads import ENCODER_DECODER, model_class_name
from xlmr_core.parameters import HEAD_PARTS, PROJECTION, with_both_sides

__all__ = ["TF"]

SINGLE = "tf_model.h5"
INDEX = "tf_model.h5.index.json"
# What variables are under in a shard, and in a single file below the names of layer and model.
SIDES = ("encoder", "decoder")
TOPS = ("roberta", *HEAD_PARTS, *SIDES, PROJECTION)
SHARED_WITH_HEAD = "roberta/embeddings/"
ENCODER_DECODER_MODEL = "tf_encoder_decoder_model"


class TFFile:
    """An open file: a container whose names are those of the variables, without the name of the model."""

    def __init__(self, path: Path) -> None:
        self._file = H5File(path)
        self.path = path
        self.metadata: dict[str, Any] = dict(self._file.metadata)
        self._paths: dict[str, str] = {}
        for where in sorted(self._file.tensors):
            model, name = _without_model(where)
            if model is not None:
                self.metadata[MODEL] = model
            if name not in self._paths:
                self._paths[name] = where
            elif self._differ(self._paths[name], where):
                raise CheckpointError(
                    f"{path} stores {name} twice with different values, as {self._paths[name]} and as {where}; "
                    "it was altered, fetch or save it again"
                )
        self.tensors: dict[str, TensorInfo] = {name: self._file.tensors[where] for name, where in self._paths.items()}

    def _differ(self, one: str, other: str) -> bool:
        """Whether two copies of a variable differ. Looks at some rows, to leave the rest unread."""
        if self._file.tensors[one] != self._file.tensors[other]:
            return True
        if self._file.is_linked(one, other):
            return False
        if not (self._file.is_in_one_piece(one) and self._file.is_in_one_piece(other)):
            return self._digest(one) != self._digest(other)
        first, second = self._file.tensor(one), self._file.tensor(other)
        step = max(1, first.shape[0] // 64) if first.shape else 1
        return bytes(first.every(step).data) != bytes(second.every(step).data) if first.shape else False

    def _digest(self, where: str) -> bytes:
        digest = hashlib.sha256()
        for piece in self._file.stream(where).pieces():
            digest.update(piece)
        return digest.digest()

    def tensor(self, name: str) -> RawTensor:
        """The variable of that name."""
        return self._file.tensor(self._paths[name])

    def stream(self, name: str) -> LazyTensor:
        """The variable of that name as a stream."""
        return self._file.stream(self._paths[name])


def _without_model(where: str) -> tuple[str | None, str]:
    """The name of the model, if there is one, and that of the variable, for the path of a dataset."""
    steps = where.split("/")
    if len(steps) > 3 and steps[1].startswith("tf") and steps[2] in TOPS:
        return steps[1], "/".join(steps[2:])
    return None, where


def _name_in_index(name: str) -> str:
    first, _, rest = name.partition("/")
    return rest if first not in TOPS and rest.split("/")[0] in TOPS else name


def _recognises(path: Path) -> bool:
    return first_bytes(path).startswith(SIGNATURE) and any(name.endswith(":0") for name in H5File(path).tensors)


def _naming(container: Described, head: str | None) -> Naming:
    model = container.metadata.get(MODEL, "")
    is_bare = re.search(r"_model(_\d+)?$", model) is not None and not model.startswith(ENCODER_DECODER_MODEL)
    return tensorflow_naming(bare=is_bare)


def _written(model: Model) -> Naming:
    return tensorflow_naming(bare=model.head == "Model", sides=model.head == ENCODER_DECODER.suffix)


def _model_name(model: Model) -> str:
    """As Keras names an instance after its class: ``TFXLMRobertaForMaskedLM`` becomes
    ``tfxlm_roberta_for_masked_lm``.
    """
    name = "TF" + model_class_name(model.config, model.head)
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    name_of_model = _model_name(model)
    if model.sharded:
        # The name of the model is ours: shards of the original do not say whether they are of the bare encoder.
        write_h5(path, tensors, attributes={"": {"layer_names": texts(list(tensors)), MODEL: np.bytes_(name_of_model)}})
        return
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.partition("/")[0], []).append(name)
    links = {}
    if "lm_head" in layers:
        # The layer of the head holds the embeddings too, because it multiplies with them.
        shared = [name for name in tensors if name.startswith(SHARED_WITH_HEAD)]
        layers["lm_head"] += shared
        links = {f"lm_head/{name_of_model}/{name}": f"roberta/{name_of_model}/{name}" for name in shared}
    attributes: dict[str, dict[str, Any]] = {
        "": {"layer_names": texts(list(layers)), "backend": "tensorflow", "keras_version": "2.21.0"},
        "top_level_model_weights": {"weight_names": texts([])},
    }
    for layer, names in layers.items():
        attributes[layer] = {"weight_names": texts([f"{name_of_model}/{name}" for name in names])}
    by_path = {f"{name.partition('/')[0]}/{name_of_model}/{name}": tensor for name, tensor in tensors.items()}
    write_h5(path, by_path, attributes=attributes, links=links)


TF = Format(
    name="tf",
    title="TensorFlow HDF5",
    single=SINGLE,
    index=INDEX,
    find=in_folder(SINGLE, INDEX),
    recognises=_recognises,
    open=TFFile,
    naming=_naming,
    written=_written,
    prepare=lambda tensors, model: with_both_sides(tensors, model.config),
    write=_write,
    name_in_index=_name_in_index,
)
