"""What makes a sentence encoder of an encoder: the files that sentence-transformers and bge-m3 lay beside its weights.

All versions of sentence-transformers are read: ``modules.json`` lists what follows the transformer, by class names that
changed and are known by their last word; a folder each says the rest. ``config_sentence_transformers.json`` has the
prompts, ``sentence_bert_config.json`` the longest text. None of their code runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.bounded_files import is_there, read_bytes, read_json, refusing
from xlmr_core.checkpoints.extra_heads import (
    BIAS,
    EXTRA_HEAD_FILES,
    WEIGHT,
    extra_head_contents,
    read_extra_heads,
)
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.formats.finding import MODULES, transformer_folder
from xlmr_core.formats.modules import module_files
from xlmr_core.formats.safetensors_file import SafetensorsFile
from xlmr_core.formats.torch_format import open_torch
from xlmr_core.hub import resolve
from xlmr_core.tasks.activations import activation_called
from xlmr_core.tasks.runner import Runner
from xlmr_core.tasks.task import Task
from xlmr_core.tasks.vectors import normalized
from xlmr_core.wording import shown

__all__ = [
    "POOLINGS",
    "Dense",
    "FolderTask",
    "Layer",
    "Normalize",
    "SentenceFolder",
    "prompt_called",
    "read_sentence_folder",
    "sentence_folder_files",
]

Vectors: TypeAlias = NDArray[np.float32]
Projection: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]

SETTINGS = "config_sentence_transformers.json"
# The longest text stands in a file that is called after the class of the model; today all are called the first.
LENGTHS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlm-roberta_config.json")
_PATTERNS = ("config.json", MODULES, SETTINGS, *LENGTHS, "*/config.json", "*/sentence_*.json", "*_Dense/*")

# How vectors of tokens become one, and their older flags, of which several stand behind each other in this order.
POOLINGS: Mapping[str, str] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Dense:
    """A projection of the pooled vector, and the activation behind it."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    activation: str

    def __call__(self, vectors: Vectors) -> Vectors:
        """(..., in) to (..., out)."""
        projected = vectors @ self.weight.T + (0 if self.bias is None else self.bias)
        return np.asarray(activation_called(self.activation)(projected), np.float32)


@dataclass(frozen=True)
class Normalize:
    """To length one."""

    def __call__(self, vectors: Vectors) -> Vectors:
        """(..., D)."""
        return normalized(vectors)


Layer: TypeAlias = Dense | Normalize


@dataclass(frozen=True)
class SentenceFolder:
    """What is known of a sentence encoder beside its weights and its tokenizer.

    Attributes:
        pooling: names of ``POOLINGS``; none where nothing says it.
        include_prompt: whether the tokens of a prompt are pooled too.
        layers: what follows the pooling, in order.
        max_seq_length: tokens of a text at most, the prompt's and the special ones counted.
        lower_case: whether texts are lower-cased.
        prompts: what stands before a text, by name.
        default_prompt_name: the prompt of a call that names none.
        similarity: how two vectors are compared.
        activation: what makes scores of the numbers of a model that reads two texts together, if anything says it.
        heads: further projections of the token states by their file's name, each a weight (out, in) and a bias (out,).
        path: the folder that was read, if there was one.
    """

    pooling: tuple[str, ...] = ()
    include_prompt: bool = True
    layers: tuple[Layer, ...] = ()
    max_seq_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    activation: str | None = None
    heads: Mapping[str, Projection] = field(default_factory=dict)
    path: Path | None = None


def read_sentence_folder(name_or_path: str | os.PathLike[str], **where: Any) -> SentenceFolder:
    """Read what stands beside a model; of a folder without such files little is known.

    Args:
        name_or_path: a folder, a file of weights in one, a built-in model or a name on the hub; empty for none.
        **where: as for :func:`xlmr_core.hub.resolve`.

    Raises:
        CheckpointError: if a file is damaged, or asks for what is not served.
    """
    if not os.fspath(name_or_path):
        return SentenceFolder()
    local = Path(name_or_path).expanduser()
    patterns = (*_PATTERNS, *EXTRA_HEAD_FILES)
    folder = local.parent if local.is_file() else resolve(name_or_path, patterns=patterns, **where)
    inner = transformer_folder(folder)
    lengths = next((at / name for at in (inner, folder) for name in LENGTHS if is_there(at / name)), None)
    length = {} if lengths is None else _object(lengths)
    settings = _object(folder / SETTINGS) if is_there(folder / SETTINGS) else {}
    heads = {
        name: _projection(tensors[WEIGHT].read().to_numpy(), tensors[BIAS].read().to_numpy() if BIAS in tensors else 0)
        for name, tensors in read_extra_heads(inner).items()
    }
    return SentenceFolder(
        **_modules(folder) if is_there(folder / MODULES) else _without_modules(bool(heads)),
        max_seq_length=_length(length, lengths),
        lower_case=bool(length.get("do_lower_case")),
        prompts=_prompts(settings, folder),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity=settings.get("similarity_fn_name") or "cosine",
        activation=settings.get("activation_fn"),
        heads=heads,
        path=folder,
    )


class FolderTask(Task):
    """A task that these files beside a model say something of."""

    def __init__(self, tokenizer: Any, config: Any) -> None:
        super().__init__(tokenizer, config)
        self.folder = SentenceFolder()

    @classmethod
    def read_beside(cls, name_or_path: str | os.PathLike[str], **where: Any) -> SentenceFolder:
        """The files."""
        return read_sentence_folder(name_or_path, **where)

    def set_up(self, runner: Runner, beside: SentenceFolder) -> None:
        """Take what was read."""
        self.folder = beside

    def files_beside(self) -> dict[str, bytes]:
        """Those that were read."""
        return sentence_folder_files(self.folder)


def prompt_called(name: str | None, prompts: Mapping[str, str]) -> str:
    """The prompt of a name, and nothing without one.

    Raises:
        InputError: for a name that is not there.
    """
    if name is None:
        return ""
    if name not in prompts:
        known = f"one of {', '.join(map(repr, prompts))}" if prompts else "none, as the model has none"
        raise InputError(f"prompt_name must be {known}, received {name!r}; pass the text itself as prompt=")
    return prompts[name]


def sentence_folder_files(folder: SentenceFolder) -> dict[str, bytes]:
    """The files that make a sentence encoder of an encoder, by their path beside its weights, as they were read; its
    further heads in both formats.
    """
    if folder.path is None:
        return {}
    inner = transformer_folder(folder.path)
    found = dict(module_files(folder.path, inner)) if is_there(folder.path / MODULES) else {}
    for name in (SETTINGS, *LENGTHS):
        path = next((at / name for at in (inner, folder.path) if is_there(at / name)), None)
        if path is not None:
            found[name] = read_bytes(path)
    return found | extra_head_contents(read_extra_heads(inner))


def _object(path: Path) -> dict[str, Any]:
    with refusing(CheckpointError, f"{path} holds no object of JSON ({{why}}); fetch or save it again"):
        return dict(read_json(path))


def _projection(weight: NDArray[Any], bias: Any) -> Projection:
    weight = np.asarray(weight, np.float32)
    return weight, np.broadcast_to(np.asarray(bias, np.float32), weight.shape[:1]).copy()


def _length(values: Mapping[str, Any], path: Path | None) -> int | None:
    length = values.get("max_seq_length")
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise CheckpointError(f"max_seq_length of {path} must be an integer of at least 1, received {shown(length)}")
    return length


def _prompts(settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise CheckpointError(f"prompts of {folder / SETTINGS} must be texts by name, received {shown(prompts)}")
    return prompts


def _without_modules(has_heads: bool) -> dict[str, Any]:
    """bge-m3, which its own library reads without a list of modules, takes the first token, at length one."""
    return {"pooling": ("cls",), "layers": (Normalize(),)} if has_heads else {}


def _modules(folder: Path) -> dict[str, Any]:
    """The pooling, and what follows it."""
    found: dict[str, Any] = {"layers": ()}
    with refusing(CheckpointError, f"{folder / MODULES} is no list of modules ({{why}}); fetch or save it again"):
        listed = [(str(row["type"]).rpartition(".")[2], str(row["path"])) for row in read_json(folder / MODULES)]
    for kind, name in listed:
        if kind == "Transformer":
            continue
        if Path(name).name != name or name == ".." or "\\" in name:
            raise CheckpointError(
                f"{folder / MODULES} names the folder {shown(name)}; expected the name of a folder beside it"
            )
        if kind not in _MODULES:
            raise CheckpointError(
                f"{folder / MODULES} names {shown(kind)}, which is not served; expected {', '.join(_MODULES)} behind "
                "the transformer"
            )
        _MODULES[kind](folder / name, found)
    return found


def _read_pooling(folder: Path, found: dict[str, Any]) -> None:
    values = _object(folder / "config.json")
    mode = values.get("pooling_mode")
    if mode is None:
        # As published, the mean is taken where none is named.
        modes = [name for name, flag in POOLINGS.items() if values.get(flag)] or ["mean"]
    else:
        modes = [mode] if isinstance(mode, str) else list(mode)
    unknown = [name for name in modes if name not in POOLINGS]
    if unknown or not modes:
        raise CheckpointError(
            f"expected a pooling of {', '.join(POOLINGS)} in {folder / 'config.json'}, received {shown(unknown)}"
        )
    found["pooling"] = tuple(modes)
    found["include_prompt"] = bool(values.get("include_prompt", True))


def _read_dense(folder: Path, found: dict[str, Any]) -> None:
    values = _object(folder / "config.json")
    safe = folder / "model.safetensors"
    file: Any = SafetensorsFile(safe) if is_there(safe) else open_torch(folder / "pytorch_model.bin")
    arrays = {name.removeprefix("linear."): file.tensor(name).to_numpy().astype(np.float32) for name in file.tensors}
    if WEIGHT not in arrays or arrays[WEIGHT].ndim != 2:
        raise CheckpointError(f"expected linear.weight in {folder}, received {shown(sorted(arrays))}; fetch it again")
    activation = str(values.get("activation_function") or "identity")
    activation_called(activation)
    found["layers"] += (Dense(arrays[WEIGHT], arrays.get(BIAS), activation),)


def _read_normalize(folder: Path, found: dict[str, Any]) -> None:
    found["layers"] += (Normalize(),)


def _read_dropout(folder: Path, found: dict[str, Any]) -> None:
    """Nothing is dropped where nothing is trained."""


_MODULES = {
    "Pooling": _read_pooling,
    "Dense": _read_dense,
    "Normalize": _read_normalize,
    "Dropout": _read_dropout,
}
