"""The format ``kerashub``: the preset of KerasHub's ``XLMRobertaBackbone``, read only.

The backbone is the encoder of base and large. Three things differ from the published model: query, key and value are
stored by head; the table of positions has no rows for padding, because positions count from zero; and there are no
token types.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xlmr_core.config import XLMRobertaConfig, read_config_json
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import Checkpoint, Format, Naming
from xlmr_core.formats.h5_file import H5File
from xlmr_core.formats.keras_format import WEIGHTS_FILE, is_h5, is_hub
from xlmr_core.formats.layouts import KEPT, TRANSPOSED, Layout, folded, lowered
from xlmr_core.formats.tensors import DTYPES, Described, LazyTensor, RawTensor, TensorInfo
from xlmr_core.wording import shown

__all__ = ["KERASHUB"]

BACKBONE = "XLMRobertaBackbone"
NO_TYPES = "token_type_embedding, which KerasHub has not"
# Positions of the published model start after the id of padding, 1.
POSITION_OFFSET = 2

# Under ``layers/``: the canonical name, and the layouts of weight and bias.
PARTS: dict[str, tuple[str, Layout, Layout]] = {
    "token_and_position_embedding/token_embedding": ("embeddings.word_embeddings", KEPT, KEPT),
    "token_and_position_embedding/position_embedding": (
        "embeddings.position_embeddings",
        lowered(POSITION_OFFSET),
        KEPT,
    ),
    "layer_normalization": ("embeddings.LayerNorm", KEPT, KEPT),
    "embeddings_layer_norm": ("embeddings.LayerNorm", KEPT, KEPT),
}
LAYER_PARTS: dict[str, tuple[str, Layout, Layout]] = {
    "_self_attention_layer/query_dense": ("attention.self.query", folded(1, 2), folded(0, 2)),
    "_self_attention_layer/key_dense": ("attention.self.key", folded(1, 2), folded(0, 2)),
    "_self_attention_layer/value_dense": ("attention.self.value", folded(1, 2), folded(0, 2)),
    "_self_attention_layer/output_dense": ("attention.output.dense", folded(2, 1), KEPT),
    "_self_attention_layer_norm": ("attention.output.LayerNorm", KEPT, KEPT),
    "_feedforward_intermediate_dense": ("intermediate.dense", TRANSPOSED, KEPT),
    "_feedforward_output_dense": ("output.dense", TRANSPOSED, KEPT),
    "_feedforward_layer_norm": ("output.LayerNorm", KEPT, KEPT),
}
VARIABLE = re.compile(r"layers/(?:transformer_encoder(?:_(\d+))?/)?(.+)/vars/([01])")


class KerasHubFile(H5File):
    """The tensors of a preset, and a row of zeros for the token types that it does not have."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if not is_hub(self):
            raise CheckpointError(f"{path} is no preset of KerasHub's {BACKBONE}; check the file")
        words = self.tensors.get("layers/token_and_position_embedding/token_embedding/vars/0")
        if words is not None and len(words.shape) == 2:
            self.tensors[NO_TYPES] = TensorInfo(words.dtype, (1, words.shape[1]), path)

    def tensor(self, name: str) -> RawTensor:
        return self.stream(name).read() if name == NO_TYPES else super().tensor(name)

    def stream(self, name: str) -> LazyTensor:
        if name != NO_TYPES:
            return super().stream(name)
        dtype, shape, _ = self.tensors[name]
        return LazyTensor(dtype, shape, lambda: iter((memoryview(bytes(shape[1] * DTYPES[dtype].size)),)))


def _decode(stored: str) -> Iterable[tuple[str, Layout]]:
    if stored == NO_TYPES:
        return (("embeddings.token_type_embeddings.weight", KEPT),)
    match = VARIABLE.fullmatch(stored)
    if match is None:
        return ((stored, KEPT),)
    number, path, index = match.groups()
    in_layer = "transformer_encoder" in stored
    parts = LAYER_PARTS if in_layer else PARTS
    if path not in parts:
        return ((stored, KEPT),)
    name, *layouts = parts[path]
    prefix = f"encoder.layer.{number or 0}." if in_layer else ""
    return ((f"{prefix}{name}.{('weight', 'bias')[int(index)]}", layouts[int(index)]),)


def _find(folder: Path) -> Path | None:
    path = folder / WEIGHTS_FILE
    return path if path.is_file() and _recognises(path) else None


def _recognises(path: Path) -> bool:
    return is_h5(path) and is_hub(H5File(path))


def _naming(container: Described, head: str | None) -> Naming:
    return Naming(_decode)


def _config(path: Path, checkpoint: Checkpoint) -> XLMRobertaConfig:
    """From the ``config.json`` of the preset, which has keys of its own."""
    values = read_config_json(path.parent / "config.json")
    said: Any = values.get("config")
    keys = ("num_layers", "num_heads", "hidden_dim", "intermediate_dim", "vocabulary_size", "max_sequence_length")
    if values.get("class_name") != BACKBONE or not isinstance(said, dict) or not set(keys) <= set(said):
        raise CheckpointError(
            f"{path.parent / 'config.json'} is not that of KerasHub's {BACKBONE}: found class_name "
            f"{shown(values.get('class_name'))}; "
            "only this backbone is read"
        )
    layers, heads, hidden, inner, vocabulary, length = (said[key] for key in keys)
    return XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        hidden_dropout_prob=said.get("dropout", 0.1),
        attention_probs_dropout_prob=said.get("dropout", 0.1),
        max_position_embeddings=length + POSITION_OFFSET,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        architectures=["XLMRobertaModel"],
    )


KERASHUB = Format(
    name="kerashub",
    title="KerasHub preset",
    single=WEIGHTS_FILE,
    index="",
    find=_find,
    recognises=_recognises,
    open=KerasHubFile,
    naming=_naming,
    config=_config,
)
