"""What the tests of formats share: variants of the model, and the bytes of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.core.small_models import FAMILIES, arrays_of, config_of
from xlmr_core.checkpoints.found import open_checkpoint
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.formats import FORMATS
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.heads import HEADS

# What a variant changes in the config, beside head and family.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "relative_key": {"position_embedding_type": "relative_key"},
    "cross_attention": {"add_cross_attention": True, "is_decoder": True},
    "token_types": {"type_vocab_size": 3},
    "pruned": {"pruned_heads": {1: [0]}},
}
WRITABLE = tuple(name for name, row in FORMATS.items() if row.can_write)
FAIRSEQ_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification")
Contents = dict[str, tuple[str, tuple[int, ...], bytes]]


def configs() -> list[tuple[str, XLMRobertaConfig, str]]:
    """Every head of both families in every variant, with a name for it."""
    return [
        (f"{family}-{head}-{variant}", config_of(family, head, **changes), head)
        for family in FAMILIES
        for head in HEADS
        for variant, changes in VARIANTS.items()
    ]


def fairseq_has(config: XLMRobertaConfig, head: str) -> bool:
    """Whether fairseq can hold a model."""
    plain = not (config.is_decoder or config.add_cross_attention or config.pruned_heads)
    return (
        plain and head in FAIRSEQ_HEADS and config.position_embedding_type == "absolute" and config.type_vocab_size == 1
    )


def tensors_of(
    config: XLMRobertaConfig, head: str, format: str, tags: tuple[str, ...] = ("F32",)
) -> dict[str, RawTensor]:
    """Random values, their dtypes taken in turn; for fairseq without a pooler and with token types of zero."""
    arrays = arrays_of(config, head, pooler=False if format == "fairseq" else None)
    tensors = {}
    for number, (name, x) in enumerate(arrays.items()):
        if format == "fairseq" and "token_type" in name:
            x = np.zeros_like(x)
        tag = tags[number % len(tags)]
        tensors[name] = (
            RawTensor("BF16", x.shape, memoryview((x.view(np.uint32) >> 16).astype(np.uint16).tobytes()))
            if tag == "BF16"
            else RawTensor.from_numpy(x.astype({"F32": "f4", "F16": "f2", "F64": "f8"}[tag]))
        )
    return tensors


def contents_of(path: Path, format: str | None = None) -> Contents:
    """What a checkpoint holds, by canonical name."""
    with open_checkpoint(path, format) as checkpoint:
        raws = {name: checkpoint.tensor(name) for name in checkpoint.names}
        for name, raw in raws.items():
            assert bytes(checkpoint.stream(name).read().data) == bytes(raw.data), "a stream and a view differ"
    return {name: (raw.dtype, raw.shape, bytes(raw.data)) for name, raw in raws.items()}


def plain(tensors: dict[str, RawTensor]) -> Contents:
    return {name: (raw.dtype, raw.shape, bytes(raw.data)) for name, raw in tensors.items()}


def write(folder: Path, format: str, **options: Any) -> dict[str, RawTensor]:
    """A small masked language model in a folder, with its config.json."""
    config = config_of("base", "ForMaskedLM")
    tensors = tensors_of(config, "ForMaskedLM", format)
    together = {"config.json": config.to_json_string().encode()}
    save_checkpoint(folder, format, tensors, config, "ForMaskedLM", together=together, **options)
    return tensors
