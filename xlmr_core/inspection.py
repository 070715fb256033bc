"""What a checkpoint is: format, sizes, dtypes, memory, what is tied, missing or unexpected, read from the headers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_core.checkpoints.load_plan import Dropped, LoadReport, Mismatched, Tied
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.config import XLMRobertaConfig, parts_of_config
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import DTYPES
from xlmr_core.heads import head_called
from xlmr_core.parameters import num_parameters

__all__ = ["DTypeShare", "Inspection", "Memory", "WeightFile", "QuantizedShare", "inspect_model"]

# What is told of a configuration; of both sides of an encoder-decoder.
SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_size", "intermediate_size"),
    *("max_position_embeddings", "max_tokens", "type_vocab_size"),
)
# Bytes a parameter needs, without activations, which grow with the batch.
# Training with AdamW in float32: the weight, its gradient, and two moments.
TRAIN_FLOAT32 = 4 + 4 + 4 + 4
# In mixed precision (Rajbhandari et al. 2020): weight and gradient of 2 bytes, in float32 the weight and two moments.
TRAIN_MIXED = 2 + 2 + 4 + 4 + 4


@dataclass(frozen=True)
class WeightFile:
    """A file that holds weights, and its size in bytes."""

    name: str
    nbytes: int


@dataclass(frozen=True)
class DTypeShare:
    """How much of the model is stored in a dtype."""

    dtype: str
    tensors: int
    parameters: int
    nbytes: int


@dataclass(frozen=True)
class QuantizedShare:
    """How much of the model is quantized, and how.

    Attributes:
        scheme: its name.
        settings: what config.json says of it.
        weights, parameters: how many, and how many values they have.
        nbytes: of all their tensors.
    """

    scheme: str
    settings: dict[str, Any]
    weights: int
    parameters: int
    nbytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes of memory, without activations.

    Attributes:
        as_stored: the weights in the dtypes of the file.
        float32, half: the weights in float32, and in float16 or bfloat16.
        train_float32: weights, gradients and AdamW's two moments in float32, 16 bytes a parameter.
        train_mixed: weights and gradients in half precision, and weights and moments in float32, 16 bytes a parameter
            too: what mixed precision saves are activations.
    """

    as_stored: int
    float32: int
    half: int
    train_float32: int
    train_mixed: int


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    Attributes:
        path: the file or index that was opened.
        format: a name of ``FORMATS``.
        files: the weight files.
        model_type, architecture, head: as published, ``head`` without the family.
        sizes: numbers of the configuration by their published keys, ``head_size`` and ``max_tokens`` among them; of an
            encoder-decoder with ``encoder.`` and ``decoder.`` in front.
        dtypes: what the file holds of the model, the widest share first.
        num_parameters: values of the model, tied ones counted once; ``num_embedding_parameters`` of them in embedding
            tables.
        memory: needed to load and to train.
        tied, missing, unexpected, dropped, mismatched: see ``LoadReport``.
        own_class: the class that the configuration names, where this library does not know it; the file is then read as
            ``architecture``.
        own, num_own_parameters: the tensors that are this class's own, and their values, which ``num_parameters``
            counts too.
        quantized: the share of quantized weights, if there are any.
        adapter: what is added to the weights of ``base``, if the files hold an adapter.
        base: the weights that it changes.
        notes: further things worth a look.
        problem: why a model could not be loaded from it, or empty.
    """

    path: str
    format: str
    files: tuple[WeightFile, ...]
    model_type: str
    architecture: str
    head: str
    sizes: dict[str, int]
    dtypes: tuple[DTypeShare, ...]
    num_parameters: int
    num_embedding_parameters: int
    memory: Memory
    tied: tuple[Tied, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    mismatched: tuple[Mismatched, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""
    own_class: str = ""
    own: tuple[str, ...] = ()
    num_own_parameters: int = 0
    quantized: QuantizedShare | None = None
    adapter: str = ""
    base: str = ""


def inspect_model(
    name_or_path: str | os.PathLike[str], *, head: str | None = None, part: str | None = None
) -> Inspection:
    """Describe a checkpoint of any format.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        head: a suffix of ``HEADS``, where neither the configuration nor the parameters say it.
        part: of a file that holds several models or heads, the one to read: see
            :func:`xlmr_core.checkpoint.open_checkpoint`.

    Raises:
        ModelNotFoundError, CheckpointError, ConfigError: if it cannot be opened.
    """
    with open_model(name_or_path, head=head, part=part) as files:
        return inspect_files(files)


def inspect_files(files: ModelFiles) -> Inspection:
    """As :func:`inspect_model`, of an open checkpoint."""
    config, checkpoint = files.config, files.checkpoint
    # Of the model, however its weights are stored.
    parameters = num_parameters(config, files.head, pooler=files.pooler)
    others = num_parameters(config, files.head, pooler=files.pooler, embeddings=False)
    sizes = {prefix + key: getattr(part, key) for prefix, part in parts_of_config(config).items() for key in SIZES}
    has_classes = head_called(files.head).loss.value in ("sequence", "tokens") and files.head != "ForMaskedLM"
    if has_classes and isinstance(config, XLMRobertaConfig):
        sizes["num_labels"] = config.num_labels
    problem = ""
    try:
        report = files.plan.report
        own = files.own_parts
        sources = (*files.plan.sources.values(), *own)
    except CheckpointError as error:
        problem = str(error)
        report = _by_name(files)
        own = report.unexpected if files.own_class else ()
        sources = checkpoint.names
    own_parameters = sum(math.prod(checkpoint.info(name).shape) for name in own)
    parameters += own_parameters
    return Inspection(
        path=str(checkpoint.path),
        format=checkpoint.format,
        files=_weight_files(files),
        model_type=config.model_type,
        architecture=files.architecture,
        head=files.head,
        sizes=sizes,
        dtypes=(shares := _shares(files, sources)),
        num_parameters=parameters,
        num_embedding_parameters=parameters - own_parameters - others,
        memory=Memory(
            as_stored=sum(share.nbytes for share in shares),
            float32=4 * parameters,
            half=2 * parameters,
            train_float32=TRAIN_FLOAT32 * parameters,
            train_mixed=TRAIN_MIXED * parameters,
        ),
        tied=report.tied,
        missing=report.missing,
        unexpected=tuple(name for name in report.unexpected if name not in own),
        dropped=tuple(row for row in report.dropped if row.name not in own),
        mismatched=report.mismatched,
        notes=report.notes,
        problem=problem,
        own_class=files.own_class,
        own=own,
        num_own_parameters=own_parameters,
        quantized=_quantized(files),
        adapter=checkpoint.metadata.get("adapter", "") if files.base is not None else "",
        base=checkpoint.metadata.get("base", "") if files.base is not None else "",
    )


def _quantized(files: ModelFiles) -> QuantizedShare | None:
    if files.scheme is None:
        return None
    parts = [(row, row.quantized) for row in files.rows.values() if row.quantized and row.tied_to is None]
    weights = [part for _, part in parts if not part.suffix]
    return QuantizedShare(
        scheme=files.scheme.name,
        settings=files.scheme.written(),
        weights=len(weights),
        parameters=sum(math.prod(part.shape) for part in weights),
        nbytes=sum(math.prod(row.shape) * DTYPES[row.dtype or "F32"].size for row, _ in parts),
    )


def _weight_files(files: ModelFiles) -> tuple[WeightFile, ...]:
    paths = dict.fromkeys(files.checkpoint.info(name).file for name in files.checkpoint.names)
    return tuple(WeightFile(Path(path).name, Path(path).stat().st_size) for path in paths)


def _shares(files: ModelFiles, names: tuple[str, ...]) -> tuple[DTypeShare, ...]:
    found: dict[str, list[int]] = {}
    for name in names:
        info = files.checkpoint.info(name)
        found.setdefault(info.dtype, []).append(math.prod(info.shape))
    shares = [
        DTypeShare(dtype, len(counts), sum(counts), sum(counts) * DTYPES[dtype].size) for dtype, counts in found.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.nbytes))


def _by_name(files: ModelFiles) -> LoadReport:
    """What is missing and unexpected by name alone, of a file from which no model could be loaded."""
    expected = {name.removeprefix("roberta."): row for name, row in files.rows.items()}
    there = {name.removeprefix("roberta."): name for name in files.checkpoint.names}
    shapes = {bare: files.checkpoint.info(name).shape for bare, name in there.items()}
    return LoadReport(
        file=str(files.checkpoint.path),
        model=files.architecture,
        tied=tuple(Tied(row.name, row.tied_to) for row in expected.values() if row.tied_to is not None),
        missing=tuple(row.name for bare, row in expected.items() if bare not in there and row.tied_to is None),
        unexpected=tuple(name for bare, name in there.items() if bare not in expected),
        mismatched=tuple(
            Mismatched(row.name, row.shape, shapes[bare])
            for bare, row in expected.items()
            if bare in there and shapes[bare] != row.shape
        ),
    )
