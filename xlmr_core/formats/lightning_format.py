"""The format ``lightning``: a ``.ckpt`` of a LightningModule or of another training program, read only.

It is a file of ``torch.save`` with the state dict under some key, beside the state of the training; the names of the
model begin with the attributes that lead to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xlmr_core.config import RELEASED, XLMRobertaConfig, XLMRobertaXLConfig, config_class_of
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import CANONICAL, Checkpoint, Format
from xlmr_core.formats.pickle_reader import Record, is_plain
from xlmr_core.formats.torch_file import TorchArchive, is_torch_file
from xlmr_core.formats.torch_format import is_nested, open_torch

__all__ = ["LIGHTNING"]

HYPERPARAMETERS = "hyper_parameters"
# Attention heads of the released models, by family and hidden size: no tensor tells their number.
HEADS_OF_SIZE = {
    XLMRobertaConfig: {768: 12, 1024: 16},
    XLMRobertaXLConfig: {2560: 32, 4096: 32},
}


def _settings(root: Any) -> dict[Any, Any]:
    """The plain values with which a module was made."""
    settings = root.get(HYPERPARAMETERS) if isinstance(root, dict) else None
    if isinstance(settings, Record):
        settings = settings.state or dict(pair for pair in settings.items if isinstance(pair, tuple))
    return settings if isinstance(settings, dict) else {}


def _config(path: Path, checkpoint: Checkpoint) -> XLMRobertaConfig:
    """From a configuration among the hyperparameters, or else from shapes and what is known of released models."""
    settings = _settings(TorchArchive(path).root)
    for value in (settings, *settings.values()):
        values = value.state if isinstance(value, Record) else value
        if isinstance(values, dict) and {"model_type", "num_attention_heads"} <= set(values):
            plain = {
                key: kept
                for key, kept in values.items()
                if isinstance(key, str) and not key.startswith("_") and is_plain(kept)
            }
            config: XLMRobertaConfig = config_class_of(plain).from_dict(plain)
            return config
    infos = {name.removeprefix("roberta."): checkpoint.info(name).shape for name in checkpoint.names}
    words = infos.get("embeddings.word_embeddings.weight", (0, 0))
    family = XLMRobertaXLConfig if "encoder.LayerNorm.weight" in infos else XLMRobertaConfig
    heads = settings.get("num_attention_heads", HEADS_OF_SIZE[family].get(words[1]))
    if type(heads) is not int:
        raise CheckpointError(
            f"expected a config.json beside {path}, found none: nothing else tells the number of attention heads of an "
            "encoder "
            f"of hidden size {words[1]}; put the config.json of the model it was trained from there"
        )
    layers = [
        name for name in infos if name.startswith("encoder.layer.") and name.endswith(".attention.self.query.weight")
    ]
    numbers: dict[str, Any] = {
        **RELEASED,
        "vocab_size": words[0],
        "hidden_size": words[1],
        "num_attention_heads": heads,
        "num_hidden_layers": len(layers),
    }
    for key, name in (
        ("max_position_embeddings", "embeddings.position_embeddings.weight"),
        ("type_vocab_size", "embeddings.token_type_embeddings.weight"),
        ("intermediate_size", "encoder.layer.0.intermediate.dense.weight"),
        ("num_labels", "classifier.out_proj.weight" if "classifier.out_proj.weight" in infos else "classifier.weight"),
    ):
        if name in infos:
            numbers[key] = infos[name][0]
    return family(**numbers)


LIGHTNING = Format(
    name="lightning",
    title="training checkpoint (.ckpt)",
    single="",
    index="",
    find=lambda folder: None,  # under any name
    recognises=lambda path: is_torch_file(path) and is_nested(path),
    open=open_torch,
    naming=lambda container, head: CANONICAL,
    config=_config,
)
