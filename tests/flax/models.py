"""Tiny models and batches for the tests of the Flax backend."""

from __future__ import annotations

from typing import Any

import numpy as np

import xlmr_flax
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig

FAMILIES = {"XLMRoberta": XLMRobertaConfig, "XLMRobertaXL": XLMRobertaXLConfig}
HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 80,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.2,
}


def config(family: str = "XLMRoberta", **changes: Any) -> XLMRobertaConfig:
    return FAMILIES[family](**{**SMALL, **changes})


def model(head: str = "ForMaskedLM", family: str = "XLMRoberta", seed: int = 0, **changes: Any) -> Any:
    options = {name: changes.pop(name) for name in ("dtype", "_do_init", "gradient_checkpointing") if name in changes}
    if head == "ForQuestionAnswering":
        changes.setdefault("num_labels", 2)
    return getattr(xlmr_flax, f"Flax{family}{head}")(config(family, **changes), seed=seed, **options)


def batch(lengths: tuple[int, ...] = (10, 6, 3), seed: int = 0, columns: int | None = None) -> dict[str, np.ndarray]:
    """Right padded texts of these lengths."""
    rng = np.random.default_rng(seed)
    columns = max(lengths) if columns is None else columns
    mask = (np.arange(columns) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": np.where(mask == 1, rng.integers(4, 61, mask.shape), 1), "attention_mask": mask}


def labelled(head: str, given: dict[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """The batch with labels of a head."""
    rng = np.random.default_rng(seed)
    rows = len(given["input_ids"])
    if head == "ForSequenceClassification":
        return {**given, "labels": rng.integers(0, 2, rows)}
    if head == "ForMultipleChoice":
        choices = {name: np.stack([x, x[::-1]], axis=1) for name, x in given.items()}
        return {**choices, "labels": rng.integers(0, 2, rows)}
    if head == "ForQuestionAnswering":
        return {**given, "start_positions": np.zeros(rows, int), "end_positions": np.ones(rows, int)}
    classes = 2 if head == "ForTokenClassification" else 61
    chosen = rng.integers(0, classes, given["input_ids"].shape)
    return {**given, "labels": np.where(given["attention_mask"] == 1, chosen, -100)}
