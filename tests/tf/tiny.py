"""One-layer models and batches for what takes a graph each: training, saving, serving."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

import xlmr_tf
from xlmr_core.heads import FAMILIES

VOCABULARY, CLASSES, CHOICES = 41, 3, 2
ROWS, LENGTH = 4, 6

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "type_vocab_size": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": CLASSES,
    "initializer_range": 0.3,
}

Arrays = dict[str, NDArray[Any]]


def build(name: str, *, seed: int = 0, dtype: Any = None, **changes: Any) -> Any:
    """A model of a published name without its ``TF``, the same for the same seed."""
    family = "XLMRobertaXL" if name.startswith("XLMRobertaXL") else "XLMRoberta"
    fixed = {"num_labels": 2} if name.endswith("QuestionAnswering") else {}
    keras.utils.set_random_seed(seed)
    config = FAMILIES[family](**{**SIZES, **fixed, **changes})
    return getattr(xlmr_tf, "TF" + name)(config, dtype=dtype)


def inputs(name: str = "", *, rows: int = ROWS, length: int = LENGTH, seed: int = 0) -> Arrays:
    """Ids with padding on the right, and their mask."""
    rng = np.random.default_rng(seed)
    shape = (rows, CHOICES, length) if name.endswith("MultipleChoice") else (rows, length)
    mask = (np.arange(length) < rng.integers(2, length + 1, shape[:-1])[..., None]).astype(np.int32)
    ids = np.where(mask == 1, rng.integers(4, VOCABULARY, shape), 1).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask}


def labels(name: str, given: Arrays, *, seed: int = 0) -> Arrays:
    """Labels of a head by the name of the input, of real tokens only."""
    rng = np.random.default_rng(seed + 100)
    ids, mask = given["input_ids"], given["attention_mask"]
    rows = len(ids)
    if name.endswith("MultipleChoice"):
        return {"labels": rng.integers(0, CHOICES, rows)}
    if name.endswith("SequenceClassification"):
        return {"labels": rng.integers(0, CLASSES, rows)}
    if name.endswith("QuestionAnswering"):
        return {"start_positions": rng.integers(0, 2, rows), "end_positions": rng.integers(0, 2, rows)}
    classes = CLASSES if name.endswith("TokenClassification") else VOCABULARY
    counted = (mask == 1) & (np.arange(ids.shape[-1]) % 2 == 1)
    return {"labels": np.where(counted, rng.integers(0, classes, ids.shape), -100)}


def same_values(one: Any, other: Any, *, atol: float = 0.0) -> None:
    """Two models hold the same values."""
    assert len(one.weights) == len(other.weights) > 0
    for ours, theirs in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=atol, err_msg=ours.path)
