"""A checkpoint with an adapter of PEFT added to its weights, tensor by tensor, when they are read.

==============================================  ==============================================================
beside a layer in the adapter                   what its weight W becomes, in float32
==============================================  ==============================================================
``lora_A`` (r, in), ``lora_B`` (out, r)         ``W + scale * lora_B @ lora_A``
the same, and ``lora_magnitude_vector`` (out)   each row of that, made as long as the vector says
``lora_B.bias``                                 its bias: ``b + scale * lora_B.bias``
``lora_embedding_A`` (r, rows), ``_B`` (w, r)   ``W + scale * (lora_embedding_B @ lora_embedding_A).T``
any other name                                  that tensor takes the place of the base's, or is new
==============================================  ==============================================================

A quantized base is widened first, all of it: the sum has no codes. This is what ``merge_and_unload`` of peft does for a
base of floating point weights; into one of codes it quantizes again, which loses a part of the adapter.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.adapters import AdapterConfig
from xlmr_core.arguments import suggestion
from xlmr_core.checkpoints.casting import widened
from xlmr_core.checkpoints.head_in_file import has_pooler, head_of
from xlmr_core.checkpoints.load_plan import OLD_NAMES, plan_load
from xlmr_core.checkpoints.quantizing import dequantized, rows_of
from xlmr_core.config import ModelConfig, config_class_of
from xlmr_core.errors import CheckpointError, LoadWarning, MismatchError
from xlmr_core.formats import Checkpoint
from xlmr_core.formats.base import Entry
from xlmr_core.formats.layouts import KEPT
from xlmr_core.formats.tensors import FLOAT_TAGS, LazyTensor, RawTensor, TensorInfo
from xlmr_core.heads import HEADS, head_of_class, model_class_name
from xlmr_core.parameters import parameters
from xlmr_core.quantization import scheme_of
from xlmr_core.wording import counted

__all__ = ["adapted", "adapted_values"]

Array: TypeAlias = NDArray[Any]

A, B, BIAS, MAGNITUDES = "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_magnitude_vector"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
PARTS = (A, B, BIAS, MAGNITUDES, EMBEDDING_A, EMBEDDING_B)
PART = re.compile(r"(?P<module>.+)\.(?P<part>[^.]*lora_[^.]+(\.(weight|bias))?)")
# What is in other kinds of adapters, whatever their settings say.
FOREIGN = re.compile(r"(^|[._])(lora|ia3|adapter|prompt|vera|oft|hada|lokr)_|token_adapter|prompt_embeddings")

# The head of what was trained, by PEFT's word for the task.
HEAD_OF_TASK = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
    "FEATURE_EXTRACTION": "Model",
}
# Where a tensor that was trained whole tells a number of the configuration: its rows.
LABELS = ("classifier.out_proj.weight", "classifier.weight")
WORDS = "embeddings.word_embeddings.weight"


# ---- The configuration


def adapted_values(values: dict[str, Any], config: AdapterConfig, adapter: Checkpoint) -> dict[str, Any]:
    """The content of the base's ``config.json`` as it is for the model with the adapter: the class that was trained,
    its number of labels and of words.

    Args:
        values: of the base.
        config: of the adapter.
        adapter: its tensors.
    """
    values = {key: value for key, value in values.items() if key != "quantization_config"}
    shapes = {_bare(name): adapter.info(name).shape for name in adapter.names}
    known: ModelConfig = config_class_of(values).from_dict(values)
    head = HEAD_OF_TASK.get(config.task)
    if head is not None:
        values["architectures"] = [model_class_name(known, head)]
    elif config.model_class.endswith(tuple(HEADS)):
        values["architectures"] = [model_class_name(known, head_of_class(config.model_class).suffix)]
    rows = next((shapes[name][0] for name in LABELS if name in shapes), 0)
    is_choice = head is None and values.get("architectures", [""])[0].endswith("ForMultipleChoice")
    if rows and not is_choice and rows != getattr(known, "num_labels", rows):
        for key in ("id2label", "label2id", "num_labels", "_num_labels"):
            values.pop(key, None)
        values["num_labels"] = rows
    if WORDS in shapes:
        values["vocab_size"] = shapes[WORDS][0]
    return values


# ---- The weights


def adapted(adapter: Checkpoint, config: AdapterConfig, base: Checkpoint, base_config: ModelConfig) -> Checkpoint:
    """The base with the adapter added.

    Args:
        adapter: its tensors, by the names of modules.
        config: what is said of it.
        base: the weights that it changes.
        base_config: their configuration.

    Raises:
        CheckpointError: for tensors of another kind of adapter, without their pair, or of a layer that the base lacks.
        MismatchError: for shapes that do not fit.
    """
    tensors = _float_tensors(base, base_config)
    changes: dict[str, dict[str, LazyTensor]] = defaultdict(dict)
    stored = {_bare(name): name for name in tensors}
    for name in adapter.names:
        match = PART.fullmatch(name)
        part = "" if match is None else match["part"].replace(f"{MAGNITUDES}.weight", MAGNITUDES)
        if match is not None and part in PARTS:
            changes[match["module"]][part] = adapter.stream(name)
        elif FOREIGN.search(name):
            raise CheckpointError(
                f"{adapter.path} has {name}, which is no part of LoRA that can be added to a weight; merge it with "
                "peft (merge_and_unload) and save the model"
            )
        else:
            tensors[stored.setdefault(_bare(name), name)] = _Tensor(adapter.info(name), partial(adapter.stream, name))
    for module, parts in changes.items():
        for name, tensor in _sums(module, parts, config, adapter.path, tensors, stored):
            tensors[name] = tensor
    said = {
        "base": str(base.path),
        "adapter": f"LoRA of rank {_ranks(changes)} on {counted(len(changes), 'weight')}",
    }
    file = _Adapted(adapter.path, {name: tensor.info for name, tensor in tensors.items()}, said, tensors)
    return Checkpoint(adapter.path, adapter.format, {name: Entry(file, name, KEPT) for name in tensors}, said)


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the sum: what it is, how it is made, and the base's own view where nothing is added to it."""

    info: TensorInfo
    stream: Callable[[], LazyTensor]
    view: Callable[[], RawTensor] | None = None


@dataclass(frozen=True)
class _Adapted:
    """The container of all tensors; see :class:`xlmr_core.formats.tensors.Container`."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, Any]
    made: Mapping[str, _Tensor]

    def tensor(self, name: str) -> RawTensor:
        view = self.made[name].view
        return self.stream(name).read() if view is None else view()

    def stream(self, name: str) -> LazyTensor:
        return self.made[name].stream()


def _float_tensors(base: Checkpoint, config: ModelConfig) -> dict[str, _Tensor]:
    """The tensors of a base, quantized ones widened."""
    whole = {
        name: _Tensor(base.info(name), partial(base.stream, name), partial(base.tensor, name)) for name in base.names
    }
    scheme = scheme_of(config, base)
    if scheme is None:
        return whole
    head, pooler = head_of(config, base), has_pooler(base)
    rows = parameters(config, head, pooler=pooler, scheme=scheme)
    with warnings.catch_warnings(action="ignore", category=LoadWarning):  # whoever loads the sum is told
        sources = plan_load(config, head, base, pooler=pooler, scheme=scheme).sources
    codes = {name: source for name, source in sources.items() if rows[name].quantized}
    streams = dequantized({name: base.stream(source) for name, source in codes.items()}, {x: rows[x] for x in codes})
    found = {name: tensor for name, tensor in whole.items() if name not in codes.values()}
    for name, stream in streams.items():
        info = TensorInfo(stream.dtype, stream.shape, base.info(codes[name]).file)
        found[codes[name]] = _Tensor(info, partial(_itself, stream))
    return found


def _itself(stream: LazyTensor) -> LazyTensor:
    return stream


def _sums(
    module: str,
    parts: Mapping[str, LazyTensor],
    config: AdapterConfig,
    path: Path,
    tensors: Mapping[str, _Tensor],
    stored: Mapping[str, str],
) -> Iterator[tuple[str, _Tensor]]:
    """The weight of a layer, and its bias, with what an adapter adds to them."""
    name = stored.get(f"{_bare(module)}.weight")
    if name is None:
        layers = [known.removesuffix(".weight") for known in stored if known.endswith(".weight")]
        raise CheckpointError(
            f"{path} changes {module}, which the base has not; "
            + suggestion(module, layers, "correct base_model_name_or_path in its adapter_config.json")
        )
    weight, is_embedding = tensors[name], EMBEDDING_A in parts
    down, up, rows = _pair(module, parts, config, path, weight.info)
    scale = config.scale(module)
    left, right = (down.T, up.T) if is_embedding else (up, down)
    magnitudes = None if MAGNITUDES not in parts else _values(parts[MAGNITUDES]).reshape(-1)
    if magnitudes is not None and (is_embedding or magnitudes.shape != rows):
        raise MismatchError(
            f"{module}.{MAGNITUDES} in {path} must be one of each row of a linear layer, {rows}, received "
            f"{parts[MAGNITUDES].shape}; merge the adapter with peft (merge_and_unload)"
        )
    yield name, _sum(weight, path, lambda begin, end: np.float32(scale) * (left[begin:end] @ right), magnitudes)
    if BIAS in parts:
        bias = stored.get(f"{_bare(module)}.bias")
        if bias is None or tensors[bias].info.shape != rows:
            raise MismatchError(f"{module}.{BIAS} in {path} has no bias {rows} of the base to be added to")
        added = np.float32(scale) * _values(parts[BIAS])[:, None]
        yield bias, _sum(tensors[bias], path, lambda begin, end: added[begin:end], None)


def _pair(
    module: str, parts: Mapping[str, LazyTensor], config: AdapterConfig, path: Path, weight: TensorInfo
) -> tuple[Array, Array, tuple[int, ...]]:
    """The two matrices that an adapter has for a layer, and the rows of its weight.

    Raises:
        CheckpointError: if there is but one of them.
        MismatchError: for shapes that do not fit the rank or the weight.
    """
    is_embedding = EMBEDDING_A in parts
    pair = (EMBEDDING_A, EMBEDDING_B) if is_embedding else (A, B)
    for part in pair:
        if part not in parts:
            raise CheckpointError(f"{path} has no {module}.{part}, which belongs to the others; save the adapter again")
    for part, stream in parts.items():
        if stream.dtype not in FLOAT_TAGS:
            raise CheckpointError(
                f"{module}.{part} in {path} holds {stream.dtype}, expected {' or '.join(FLOAT_TAGS)}; save it again"
            )
    down, up = (_values(parts[part]) for part in pair)
    rank = config.rank_of(module)
    for part, shape in zip(pair, ((rank, *down.shape[1:]), (*up.shape[:1], rank)), strict=True):
        if parts[part].shape != shape:
            raise MismatchError(
                f"{module}.{part} in {path} must have the shape {shape}, received {parts[part].shape}; the rank "
                f"follows from r and rank_pattern in {config.path.name}: use the one that was saved with it"
            )
    rows, width = (down.shape[1:], up.shape[:1]) if is_embedding else (up.shape[:1], down.shape[1:])
    if weight.shape != (*rows, *width):
        raise MismatchError(
            f"{module} of the base must have a weight of the shape {(*rows, *width)}, to which {path} adds, received "
            f"{weight.shape} from {weight.file}; correct base_model_name_or_path in {config.path.name}"
        )
    return down, up, rows


def _sum(before: _Tensor, path: Path, added: Callable[[int, int], Array], magnitudes: Array | None) -> _Tensor:
    """A tensor with what is added to some of its rows, a few at a time."""
    info = before.info
    if info.dtype not in FLOAT_TAGS:
        raise CheckpointError(
            f"{info.file} holds {info.dtype}, expected {' or '.join(FLOAT_TAGS)} to add an adapter to; use the base's "
            "own config.json, which says how it is quantized"
        )
    wide = "F64" if info.dtype == "F64" else "F32"

    def pieces() -> Iterator[memoryview]:
        begin = 0
        stream = before.stream()
        # A bias is a column.
        for rows in rows_of(LazyTensor(stream.dtype, (stream.shape[0], *(stream.shape[1:] or (1,))), stream.pieces)):
            total = rows + added(begin, begin + len(rows)).astype(rows.dtype)
            if magnitudes is not None:
                longest = magnitudes[begin : begin + len(rows)] / np.linalg.norm(total, axis=1)
                total *= longest[:, None].astype(total.dtype)
            begin += len(rows)
            yield np.ascontiguousarray(total).reshape(-1).view(np.uint8).data

    return _Tensor(TensorInfo(wide, info.shape, path), lambda: LazyTensor(wide, info.shape, pieces))


def _values(stream: LazyTensor) -> Array:
    values: Array = widened(stream.read().data, stream.dtype).reshape(stream.shape).astype(np.float32)
    return values


def _ranks(changes: Mapping[str, Mapping[str, LazyTensor]]) -> str:
    ranks = sorted({parts[part].shape[0] for parts in changes.values() for part in (A, EMBEDDING_A) if part in parts})
    return " to ".join(dict.fromkeys(map(str, (ranks[0], ranks[-1])))) if ranks else "0"


def _bare(name: str) -> str:
    for old, new in OLD_NAMES.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name.removeprefix("roberta.")
