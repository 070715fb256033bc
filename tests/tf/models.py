"""Tiny models and inputs for the Keras tests: every head of both families from one table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

import xlmr_tf
from tests.choice import chosen, in_turn
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import FAMILIES, HEADS, LossKind

VOCABULARY, CLASSES, CHOICES = 41, 3, 2
TOKENWISE = ("last_hidden_state", "logits", "start_logits", "end_logits")

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

# Four rows each; in multiple choice they are two questions of two choices.
MASKS: dict[str, list[list[int]]] = {
    "right": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]],
    "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]],
    "inside": [[1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1]],
    "full": [[1] * 6] * 4,
    "empty": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
}

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A head of a family."""

    family: str
    head: str

    def __str__(self) -> str:
        return self.family + self.head

    @property
    def model_class(self) -> Any:
        return getattr(xlmr_tf, f"TF{self}")

    @property
    def first_token(self) -> bool:
        """Whether the answer depends on the state at position 0."""
        return HEADS[self.head].reads_first_token or self.head == "Model"

    def config(self, **changes: Any) -> XLMRobertaConfig:
        labels = 2 if self.head == "ForQuestionAnswering" else CLASSES
        decoder = self.head == "ForCausalLM"
        # Without a cache, which test_cache.py is about.
        kind = {"num_labels": labels, "is_decoder": decoder, "use_cache": False}
        return FAMILIES[self.family](**{**SIZES, **kind, **changes})

    def build(self, *, seed: int = 0, dtype: Any = None, **changes: Any) -> Any:
        """A model in which every parameter is random, so that none can be forgotten unnoticed."""
        model = self.model_class(self.config(**changes), dtype=dtype)
        rng = np.random.default_rng(seed)
        for name, row in model.parameter_table().items():
            if row.tied_to is None:
                variable = model.get_parameter(name)
                mean = 1.0 if "orm.weight" in name else 0.0
                variable.assign(rng.normal(mean, 0.3, variable.shape).astype(np.float32))
        return model

    def kept(self) -> Any:
        """The model of the plain config, built once; for tests that leave it as it is."""
        return _kept(self)

    def inputs(self, mask: str = "right") -> dict[str, Array]:
        """Ids with padding and masked tokens where the mask is 0, and the mask."""
        mask_BS = np.array(MASKS[mask])
        ids_BS = np.random.default_rng(1).integers(4, VOCABULARY, mask_BS.shape)
        padding_BS = (mask_BS == 0) & (np.arange(mask_BS.shape[1]) % 3 != 1)
        inputs = {"input_ids": np.where(padding_BS, 1, ids_BS), "attention_mask": mask_BS}
        return {name: self.grouped(x) for name, x in inputs.items()}

    def grouped(self, x: Array) -> Array:
        """(B, ...) as (B / C, C, ...) for multiple choice."""
        return x.reshape(-1, CHOICES, *x.shape[1:]) if self.head == "ForMultipleChoice" else x

    def labels(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Labels for the inputs, at tokens that the mask keeps; nothing for the bare model."""
        rng = np.random.default_rng(2)
        mask_BS = inputs["attention_mask"].reshape(-1, inputs["attention_mask"].shape[-1]) == 1
        batch, length = mask_BS.shape
        match HEADS[self.head].loss:
            case LossKind.TOKENS:
                classes = VOCABULARY if self.head == "ForMaskedLM" else CLASSES
                counted_BS = mask_BS & (np.arange(length) != 2)
                return {"labels": np.where(counted_BS, rng.integers(0, classes, (batch, length)), -100)}
            case LossKind.NEXT_TOKENS:
                follows_BS = mask_BS & np.pad(mask_BS[:, :-1], ((0, 0), (1, 0)))
                return {"labels": np.where(follows_BS, rng.integers(0, VOCABULARY, (batch, length)), -100)}
            case LossKind.SEQUENCE:
                return {"labels": rng.integers(0, CLASSES, batch)}
            case LossKind.CHOICE:
                return {"labels": rng.integers(0, CHOICES, batch // CHOICES)}
            case LossKind.SPAN:
                return {"start_positions": np.arange(batch) % 2, "end_positions": np.arange(batch) % 3 + 1}
            case _:
                return {}


@cache
def _kept(case: Case) -> Any:
    return case.build()


CASES = [Case(family, head) for family in FAMILIES for head in HEADS]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
# For what compiles a graph a case.
GRAPHS = chosen(CASES, [Case(family, head) for family, head in in_turn(list(FAMILIES), list(HEADS))])
each_graph = pytest.mark.parametrize("case", GRAPHS, ids=str)
each_family = pytest.mark.parametrize("family", FAMILIES)


def loss_of(case: Case, output: Any) -> tf.Tensor:
    """The loss, or for the bare model some number that depends on everything it gives."""
    if case.head != "Model":
        return output.loss
    weights = np.linspace(-1, 1, output.last_hidden_state.shape[-1], dtype=np.float32)
    return tf.reduce_mean(output.last_hidden_state * weights) + tf.reduce_mean(output.pooler_output * weights)


def gradients(case: Case, model: Any, inputs: dict[str, Array], **arguments: Any) -> dict[str, Array]:
    """Every parameter's gradient, by canonical name."""
    names = [name for name, row in model.parameter_table().items() if row.tied_to is None]
    with tf.GradientTape() as tape:
        loss = loss_of(case, model(inputs, **arguments))
    variables = [model.get_parameter(name).value for name in names]
    found = tape.gradient(loss, variables, unconnected_gradients="zero")
    return {name: tf.convert_to_tensor(x).numpy() for name, x in zip(names, found, strict=True)}


@contextmanager
def packed_calls(model: Any) -> Iterator[list[bool]]:
    """Watch whether calls are packed: one entry for each time the encoder runs (or is traced)."""
    seen: list[bool] = []
    encoder = model.base_model.encoder
    original = encoder.call

    def watched(x: tf.Tensor, **others: Any) -> Any:
        seen.append(others["plan"].attention.packing is not None)
        return original(x, **others)

    object.__setattr__(encoder, "call", watched)
    try:
        yield seen
    finally:
        object.__delattr__(encoder, "call")


def assert_close(actual: Any, expected: Any, *, tolerance: float = 1e-5, what: str = "") -> None:
    """Equal shapes and values; the tolerance is relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    scale = max(1.0, float(np.abs(expected).max())) if expected.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=what, strict=True)


def same_outputs(actual: Any, expected: Any, *, tolerance: float = 1e-5) -> None:
    """Two outputs of the same type with the same fields and values."""
    assert type(actual) is type(expected) and list(actual) == list(expected)
    for name, x in expected.items():
        pairs = zip(actual[name], x, strict=True) if isinstance(x, tuple) else [(actual[name], x)]
        for one, other in pairs:
            assert_close(one, other, tolerance=tolerance, what=name)
