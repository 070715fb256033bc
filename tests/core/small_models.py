"""Small models on disk with random values, for the tests of the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.tokenization_models import small_model
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.formats.tensors import LazyTensor, RawTensor
from xlmr_core.heads import model_class_name
from xlmr_core.parameters import parameters, stored_names

SMALL: dict[str, Any] = {
    "vocab_size": 125,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 34,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "dtype": "float32",
}
FAMILIES = {"base": XLMRobertaConfig, "xl": XLMRobertaXLConfig}
Arrays = dict[str, np.ndarray]


def config_of(family: str, head: str, **changes: Any) -> XLMRobertaConfig:
    """A configuration; labels have names, and a causal language model is a decoder."""
    labels = {"id2label": {0: "red", 1: "green", 2: "blue"}} if "num_labels" not in changes else {}
    values = {**SMALL, "is_decoder": head == "ForCausalLM", **labels, **changes}
    if head == "ForQuestionAnswering":
        values.pop("id2label", None)
    config = FAMILIES[family](**values)
    config.architectures = [model_class_name(config, head)]
    return config


def arrays_of(config: XLMRobertaConfig, head: str, seed: int = 0, pooler: bool | None = None) -> Arrays:
    """Random values of a model, those that a checkpoint stores."""
    rng = np.random.default_rng(seed)
    rows = parameters(config, head, pooler=pooler)
    drawn = {
        name: (rng.standard_normal(row.shape) * 0.3).astype(np.float32)
        for name, row in rows.items()
        if row.tied_to is None
    }
    return {name: drawn[name if name in drawn else rows[name].tied_to or ""] for name in stored_names(rows)}


def save(
    folder: Path,
    config: XLMRobertaConfig,
    head: str,
    arrays: Arrays | None = None,
    format: str = "safetensors",
    **options: Any,
) -> Arrays:
    """Save a model, with its config.json."""
    arrays = arrays_of(config, head) if arrays is None else arrays
    save_checkpoint(
        folder,
        format,
        {name: RawTensor.from_numpy(array) for name, array in arrays.items()},
        config,
        head,
        together={"config.json": config.to_json_string().encode()},
        **options,
    )
    return arrays


def with_tokenizer(folder: Path, **changes: Any) -> None:
    """Put a small tokenizer beside a model: 120 pieces, 122 ids with padding and mask."""
    (folder / "sentencepiece.bpe.model").write_bytes(small_model())
    values = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 32, **changes}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def change_config(folder: Path, **changes: Any) -> None:
    """Change values of a config.json; ``None`` takes a key away."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def in_pieces(array: np.ndarray, size: int) -> LazyTensor:
    """An array as a stream of small pieces, of which no value need be whole."""
    raw = RawTensor.from_numpy(array)

    def pieces() -> Iterator[memoryview]:
        for start in range(0, raw.nbytes, size):
            yield raw.data[start : start + size]

    return LazyTensor(raw.dtype, raw.shape, pieces)
