"""From a case (data) to a config, parameters and inputs (arrays), always the same for the same case."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.cases import SMALL, Case
from tests.parity.weights import draw_parameters
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import FAMILIES

__all__ = ["Made", "make", "make_config"]

Array = NDArray[Any]
CHOICES_A_QUESTION = 3
ENCODER_LENGTH = 7


@dataclass(frozen=True)
class Made:
    """A case made concrete.

    Attributes:
        config: the model's configuration.
        params: all parameters by canonical name, float32.
        inputs: by published name.
        mask_BS: the 2-D attention mask of the flattened rows, passed or not.
    """

    config: XLMRobertaConfig
    params: dict[str, Array]
    inputs: dict[str, Any]
    mask_BS: Array


@dataclass
class Draw:
    """What an extra input is drawn from; it changes ``inputs``."""

    config: XLMRobertaConfig
    head: str
    rng: np.random.Generator
    ids_BS: Array
    mask_BS: Array
    inputs: dict[str, Any]

    @property
    def questions(self) -> int:
        """Rows of the labels: one for several choices."""
        return len(self.ids_BS) // CHOICES_A_QUESTION if self.head == "ForMultipleChoice" else len(self.ids_BS)

    def integers(self, high: int, shape: Any) -> Array:
        return self.rng.integers(0, high, shape)

    def floats(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(np.float32)

    def choose_labels(self, allowed_BS: Array) -> None:
        """About two thirds of the allowed positions get a label, the first two of them always."""
        classes = self.config.vocab_size if self.head in ("ForMaskedLM", "ForCausalLM") else self.config.num_labels
        wanted = allowed_BS & ((self.rng.random(allowed_BS.shape) < 0.66) | (allowed_BS.cumsum(1) <= 2))
        self.inputs["labels"] = np.where(wanted, self.integers(classes, allowed_BS.shape), -100)


def labels(draw: Draw) -> None:
    shape = draw.ids_BS.shape
    attended_BS = draw.mask_BS == 1
    if draw.head in ("ForMaskedLM", "ForTokenClassification"):
        draw.choose_labels(attended_BS)
    elif draw.head == "ForCausalLM":
        # The label at i is predicted from i - 1, which has to be attended as well.
        attended_BS[:, 1:] &= attended_BS[:, :-1]
        draw.choose_labels(attended_BS)
    elif draw.head == "ForQuestionAnswering":
        draw.inputs.update(
            start_positions=draw.integers(shape[1], shape[0]), end_positions=draw.integers(shape[1], shape[0])
        )
    elif draw.head == "ForMultipleChoice":
        draw.inputs["labels"] = draw.integers(CHOICES_A_QUESTION, draw.questions)
    else:
        draw.inputs["labels"] = draw.integers(draw.config.num_labels, draw.questions)


def labels_anywhere(draw: Draw) -> None:
    draw.choose_labels(np.ones(draw.ids_BS.shape, dtype=bool))
    # Whatever was drawn: one at a masked position, and one that is predicted from a masked position.
    row, column = np.argwhere(draw.mask_BS == 0)[0]
    draw.inputs["labels"][row, column : column + 2] = 7 % draw.config.num_labels


def labels_ignored(draw: Draw) -> None:
    draw.inputs["labels"] = np.full(draw.ids_BS.shape, -100)


def labels_outside(draw: Draw) -> None:
    length = draw.ids_BS.shape[1]
    draw.inputs.update(start_positions=np.array([3, length + 5]), end_positions=np.array([length, 4]))


def no_mask(draw: Draw) -> None:
    del draw.inputs["attention_mask"]


def position_ids(draw: Draw) -> None:
    draw.inputs["position_ids"] = draw.integers(draw.config.max_position_embeddings, draw.ids_BS.shape)


def position_ids_shared(draw: Draw) -> None:
    draw.inputs["position_ids"] = draw.integers(draw.config.max_position_embeddings, (1, draw.ids_BS.shape[1]))


def embeds(draw: Draw) -> None:
    del draw.inputs["input_ids"]
    draw.inputs["inputs_embeds"] = 0.05 * draw.floats(*draw.ids_BS.shape, draw.config.hidden_size)


def mask_3d(draw: Draw) -> None:
    """Every query its own keys, itself among them; one query sees none."""
    batch, length = draw.ids_BS.shape
    mask_BSS = draw.integers(2, (batch, length, length)) | np.eye(length, dtype=np.int64)
    mask_BSS[0, length // 2] = 0
    draw.inputs["attention_mask"] = mask_BSS


def head_mask(draw: Draw) -> None:
    draw.inputs["head_mask"] = np.array([1, 0, 1], dtype=np.float32)


def head_mask_by_layer(draw: Draw) -> None:
    draw.inputs["head_mask"] = np.array([[1, 0, 1], [0.5, 1, 0]], dtype=np.float32)


def token_types(draw: Draw) -> None:
    draw.inputs["token_type_ids"] = draw.integers(draw.config.type_vocab_size, draw.ids_BS.shape)


def encoder(draw: Draw) -> None:
    draw.inputs["encoder_hidden_states"] = draw.floats(len(draw.ids_BS), ENCODER_LENGTH, draw.config.hidden_size)


def encoder_mask(draw: Draw) -> None:
    """Rows padded right, left and inside in turn, the last one not at all."""
    mask_BE = np.ones((len(draw.ids_BS), ENCODER_LENGTH), dtype=np.int64)
    for row, hidden in enumerate((slice(4, None), slice(0, 2), slice(2, 5))[: len(mask_BE) - 1]):
        mask_BE[row, hidden] = 0
    draw.inputs["encoder_attention_mask"] = mask_BE


def masked_positions(draw: Draw) -> None:
    """The second and the last attended position of each row, and padding in between."""
    positions = [np.flatnonzero(mask_S) for mask_S in draw.mask_BS]
    draw.inputs["masked_positions"] = np.array(
        [[where[1] if len(where) > 1 else -1, -1, where[-1]] for where in positions]
    )


def labels_at_positions(draw: Draw) -> None:
    """One label is left out, and one stands at a padded position, where it must not count."""
    chosen = draw.integers(draw.config.vocab_size, draw.inputs["masked_positions"].shape)
    chosen[0, 0] = -100
    draw.inputs["labels"] = chosen


def sparse(draw: Draw) -> None:
    draw.inputs["sparse_prediction"] = True


def keep_1(draw: Draw) -> None:
    draw.inputs["logits_to_keep"] = 1


def keep_3(draw: Draw) -> None:
    draw.inputs["logits_to_keep"] = 3


def float_labels(draw: Draw) -> None:
    draw.inputs["labels"] = draw.floats(len(draw.ids_BS))


def float_column(draw: Draw) -> None:
    draw.inputs["labels"] = draw.floats(len(draw.ids_BS), 1)


def float_rows(draw: Draw) -> None:
    draw.inputs["labels"] = draw.floats(len(draw.ids_BS), draw.config.num_labels)


def binary_rows(draw: Draw) -> None:
    draw.inputs["labels"] = draw.integers(2, (len(draw.ids_BS), draw.config.num_labels)).astype(np.float32)


EXTRAS: dict[str, Callable[[Draw], None]] = {
    function.__name__: function
    for function in (
        labels,
        labels_anywhere,
        labels_ignored,
        labels_outside,
        no_mask,
        position_ids,
        position_ids_shared,
        embeds,
        mask_3d,
        head_mask,
        head_mask_by_layer,
        token_types,
        encoder,
        encoder_mask,
        masked_positions,
        labels_at_positions,
        sparse,
        keep_1,
        keep_3,
        float_labels,
        float_column,
        float_rows,
        binary_rows,
    )
}


def make_config(case: Case, **overrides: Any) -> XLMRobertaConfig:
    """The configuration of a case."""
    return FAMILIES[case.family](**{**SMALL, **case.config, **overrides})


def make(case: Case, **overrides: Any) -> Made:
    """Config, parameters and inputs of a case; ``overrides`` change the config."""
    config = make_config(case, **overrides)
    seed = zlib.crc32(case.name.encode())
    rng = np.random.default_rng(seed)
    signs_BS = np.array([list(row) for row in case.rows])
    tokens_BS = rng.integers(4, config.vocab_size, signs_BS.shape)
    ids_BS = np.where(np.isin(signs_BS, ("t", "x")), tokens_BS, config.pad_token_id)
    mask_BS = np.isin(signs_BS, ("t", "P")).astype(np.int64)
    inputs: dict[str, Any] = {"input_ids": ids_BS, "attention_mask": mask_BS.copy()}
    draw = Draw(config, case.head, rng, ids_BS, mask_BS, inputs)
    for name in case.extra:
        EXTRAS[name](draw)
    if case.head == "ForMultipleChoice":
        for name in ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds"):
            if name in inputs:
                inputs[name] = inputs[name].reshape(-1, CHOICES_A_QUESTION, *inputs[name].shape[1:])
    return Made(config, draw_parameters(config, case.head, seed), inputs, mask_BS)
