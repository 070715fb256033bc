"""The format ``lightning``: a ``.ckpt`` of a LightningModule or of another training program, read only.

It is a file of ``torch.save`` with the state dict under a key, beside the state of the training, and the names of the
model begin with the attributes that lead to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core.config import RELEASED, XLMRobertaConfig, XLMRobertaXLConfig, config_class_of
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import Checkpoint, Format, Naming
from xlmr_core.formats.pickle_reader import Record
from xlmr_core.formats.prefixes import prefixed_naming, prefixes_of
from xlmr_core.formats.tensors import Described
from xlmr_core.formats.torch_file import TorchArchive, TorchFile, is_torch_file
from xlmr_core.formats.torch_format import is_state_dict

__all__ = ["LIGHTNING"]

# Under which key training programs keep the weights, best first.
KEYS = ("state_dict", "model_state_dict", "model")
HYPERPARAMETERS = "hyper_parameters"
# Attention heads of the released models, by family and hidden size: no tensor tells their number.
HEADS_OF_SIZE = {
    XLMRobertaConfig: {768: 12, 1024: 16},
    XLMRobertaXLConfig: {2560: 32, 4096: 32},
}


def _state_of(root: Any) -> Mapping[Any, Any] | None:
    if not isinstance(root, dict):
        return None
    found = next((root[key] for key in KEYS if is_state_dict(root.get(key))), None)
    return found if found is not None and prefixes_of(filter(_is_text, found)) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


class LightningFile(TorchFile):
    """The tensors of the model inside a training checkpoint.

    Attributes:
        settings: the plain values with which the module was made.
    """

    def __init__(self, path: Path) -> None:
        archive = TorchArchive(path)
        state = _state_of(archive.root)
        if state is None:
            raise CheckpointError(
                f"{path} is no training checkpoint of a model like this: expected a state dict with an encoder under "
                f"{' or '.join(map(repr, KEYS))}; check the file"
            )
        super().__init__(archive, state, {"parts": prefixes_of(filter(_is_text, state))})
        settings = archive.root.get(HYPERPARAMETERS)
        if isinstance(settings, Record):
            settings = settings.state or dict(settings.items)
        self.settings: dict[Any, Any] = settings if isinstance(settings, dict) else {}


def _naming(container: Described, part: str | None) -> Naming:
    return prefixed_naming(container.path, container.tensors, part)


def _find(folder: Path) -> Path | None:
    """The only ``.ckpt`` of a folder or of the folder ``checkpoints`` in it."""
    for where in (folder, folder / "checkpoints"):
        found = sorted(where.glob("*.ckpt"))
        if len(found) == 1 and found[0].is_file():
            return found[0]
    return None


def _config(path: Path, checkpoint: Checkpoint) -> XLMRobertaConfig:
    """From a configuration among the hyperparameters, or else from shapes and what is known of released models."""
    settings = LightningFile(path).settings
    for value in (settings, *settings.values()):
        values = value.state if isinstance(value, Record) else value
        if isinstance(values, dict) and {"model_type", "num_attention_heads"} <= set(values):
            plain = {key: kept for key, kept in values.items() if _is_plain(kept) and not str(key).startswith("_")}
            return config_class_of(plain).from_dict(plain)
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


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    return isinstance(value, str | int | float | list | None)


LIGHTNING = Format(
    name="lightning",
    title="training checkpoint (.ckpt)",
    single="",
    index="",
    find=_find,
    recognises=lambda path: is_torch_file(path) and _state_of(TorchArchive(path).root) is not None,
    open=LightningFile,
    naming=_naming,
    config=_config,
)
