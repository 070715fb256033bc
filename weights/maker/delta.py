"""What training changed of a model, as a low-rank adapter: a few megabytes beside the model that training started from.

Of each matrix of the layers the difference to the start is cut to its largest singular values (Eckart and Young 1936),
which LoRA (Hu et al. 2022) stores as two thin matrices; norms, biases and the head, which are small, stand there whole.
The difference of the embeddings has a low rank already (channels.py). The files are those of PEFT, which reads
them, and so does this library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Arrays = Mapping[str, NDArray[np.float32]]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's, before the names of the model that it wraps
NORM = "LayerNorm"
# The matrices, as PEFT looks for them: a regular expression for whole names.
MATRICES = r"(.*\.)?(encoder\.layer\.\d+\.(.*\.)?(query|key|value|dense)|word_embeddings)"
WORDS = "word_embeddings"
SHARED = "{} was trained, which is shared by all models; freeze_embeddings leaves it as it is"
ROUNDING = 1e-3  # of the largest singular value


@dataclass(frozen=True)
class Adapter:
    """A difference between two models of one encoder.

    Attributes:
        tensors: by the names of the file.
        heads: modules that the model at the start lacks, which are stored whole.
        rank: of the matrices of the layers.
        words: rank of what is added to the embeddings; 0: nothing is.
        lost: what the cut left away of the difference of the matrices: the root of the sum of squares, of that of all.
    """

    tensors: dict[str, NDArray[np.float16]]
    heads: tuple[str, ...]
    rank: int
    words: int
    lost: float


def values_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The values of a checkpoint in safetensors, by name, in float32."""
    return {name: value.astype(np.float32) for name, value in load_file(folder / "model.safetensors").items()}


def adapter_of(before: Arrays, after: Arrays, rank: int) -> Adapter:
    """The difference between two models.

    Args:
        before: values of the model at the start, by their names in a model with a head.
        after: values of the trained one.
        rank: singular values that are kept of each matrix of the layers.

    Raises:
        ValueError: if something else than layers, norms, biases and a head was trained, or the embeddings were, along
            more than half of their directions.
    """
    tensors: dict[str, NDArray[Any]] = {}
    heads: dict[str, None] = {}
    left, whole, words = 0.0, 0.0, 0
    for name, value in after.items():
        start = before.get(name, before.get(f"roberta.{name}"))  # an encoder alone has no such prefix
        module, _, last = name.rpartition(".")
        if start is None:
            heads[name.partition(".")[0]] = None
            tensors[name] = value
        elif module.endswith(NORM):
            tensors[name] = value
        elif np.array_equal(start, value):
            continue
        elif last == "bias":
            tensors[f"{module}.base_layer.bias"] = value
        elif module.endswith(WORDS):
            thin, wide = of_low_rank(value - start, name)
            words = len(wide)
            tensors[f"{module}.lora_embedding_A"], tensors[f"{module}.lora_embedding_B"] = thin.T, wide.T
        elif re.fullmatch(MATRICES, module):
            difference = value - start
            thin, wide = cut(difference, rank)
            tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = wide, thin
            left += float(((difference - thin @ wide) ** 2).sum())
            whole += float((difference**2).sum())
        else:
            raise ValueError(SHARED.format(name))
    stored = {PREFIX + name: np.ascontiguousarray(value, np.float16) for name, value in tensors.items()}
    return Adapter(stored, tuple(heads), rank, words, (left / whole) ** 0.5 if whole else 0.0)


def of_low_rank(matrix: NDArray[np.float32], name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A matrix as a product of two, (rows, rank) and (rank, columns), of the rank that it has but for rounding.

    Raises:
        ValueError: if that is more than half of its columns.
    """
    strengths = np.sqrt(np.maximum(np.linalg.eigvalsh(matrix.T.astype(np.float64) @ matrix), 0))
    rank = int((strengths > ROUNDING * strengths.max()).sum())
    if rank > matrix.shape[1] // 2:
        raise ValueError(SHARED.format(name))
    return cut(matrix, rank)


def cut(matrix: NDArray[np.float32], rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two matrices (out, rank) and (rank, in) whose product is nearest to a matrix (out, in)."""
    left, strengths, right = np.linalg.svd(matrix, full_matrices=False)
    roots = np.sqrt(strengths[:rank])
    return left[:, :rank] * roots, roots[:, None] * right[:rank]


def config_of(adapter: Adapter, base: str, task_type: str | None) -> dict[str, Any]:
    """``adapter_config.json``, as PEFT writes it."""
    return {
        "base_model_name_or_path": base,
        "bias": "all",
        "alpha_pattern": {WORDS: adapter.words} if adapter.words else {},
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": adapter.rank,
        "lora_dropout": 0.0,
        "modules_to_save": [*adapter.heads, NORM],
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {WORDS: adapter.words} if adapter.words else {},
        "target_modules": MATRICES,
        "task_type": task_type,
    }


def write(adapter: Adapter, folder: Path, base: str, task_type: str | None) -> None:
    """Write the two files of an adapter into a folder that is there."""
    save_file(adapter.tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # it is for everybody, and may be written for its owner alone
    text = json.dumps(config_of(adapter, base, task_type), indent=1) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
