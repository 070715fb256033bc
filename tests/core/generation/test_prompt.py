"""Prompts are arranged so that every row ends in the last column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation import arrange_prompt, bucket, next_position, zero_based_position_ids
from xlmr_core.generation.prompt import infer_mask

CONFIG = XLMRobertaConfig(vocab_size=60, max_position_embeddings=22, is_decoder=True, type_vocab_size=2)


def test_left_padding_stays() -> None:
    prompt = arrange_prompt(CONFIG, np.array([[1, 1, 5], [6, 7, 8]]))
    assert prompt.ids.tolist() == prompt.came.tolist() == [[1, 1, 5], [6, 7, 8]]
    assert prompt.mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert (prompt.counted.tolist(), prompt.longest, prompt.batch, prompt.width) == ([1, 3], 3, 2, 3)
    assert prompt.position_ids is None


def test_right_padding_moves_to_the_left() -> None:
    ids = np.array([[5, 1, 1], [6, 7, 8]])
    prompt = arrange_prompt(CONFIG, ids, np.array([[1, 0, 0], [1, 1, 1]]))
    assert prompt.ids.tolist() == [[1, 1, 5], [6, 7, 8]]
    assert prompt.mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert prompt.came.tolist() == ids.tolist()


def test_columns_of_padding_alone_are_left_out() -> None:
    prompt = arrange_prompt(CONFIG, np.array([[1, 1, 5, 6, 1], [1, 1, 1, 7, 8]]))
    assert prompt.ids.tolist() == [[5, 6], [7, 8]]
    assert prompt.came.shape == (2, 5)
    wide = arrange_prompt(CONFIG, np.array([[1, 1, 5, 6, 1], [1, 1, 1, 7, 8]]), width=lambda longest: longest + 2)
    assert wide.ids.tolist() == [[1, 1, 5, 6], [1, 1, 7, 8]]
    assert wide.longest == 2


def test_what_is_masked_inside_stays() -> None:
    ids, mask = np.array([[5, 6, 7, 8, 9]]), np.array([[1, 0, 1, 1, 0]])
    prompt = arrange_prompt(CONFIG, ids, mask)
    # The last one is nobody's, and is as good as padding; the one inside has a position.
    assert prompt.ids.tolist() == [[5, 6, 7, 8]]
    assert prompt.mask.tolist() == [[1, 0, 1, 1]]
    assert prompt.counted.tolist() == [4]


def test_a_masked_token_before_the_others_has_its_position() -> None:
    prompt = arrange_prompt(CONFIG, np.array([[1, 5, 6, 7]]), np.array([[0, 0, 1, 1]]))
    assert (prompt.ids.tolist(), prompt.mask.tolist()) == ([[5, 6, 7]], [[0, 1, 1]])
    assert prompt.counted.tolist() == [3]
    zero = arrange_prompt(CONFIG, np.array([[1, 5, 6, 7]]), np.array([[0, 0, 1, 1]]), position_numbering="zero_based")
    assert zero.position_ids.tolist() == [[1, 0, 1]]
    assert zero.counted.tolist() == [2]


def test_token_types_move_too() -> None:
    ids = np.array([[5, 6, 1], [7, 8, 9]])
    prompt = arrange_prompt(CONFIG, ids, token_type_ids=np.array([[1, 1, 0], [0, 1, 1]]))
    assert prompt.token_type_ids.tolist() == [[0, 1, 1], [0, 1, 1]]
    assert arrange_prompt(CONFIG, ids, token_type_ids=np.array([[0, 1, 1]])).token_type_ids.tolist() == [
        [0, 0, 1],
        [0, 1, 1],
    ]


def test_positions() -> None:
    assert zero_based_position_ids(np.array([[0, 0, 1, 1], [1, 0, 1, 1]])).tolist() == [[1, 1, 0, 1], [0, 1, 1, 2]]
    assert next_position(CONFIG, "zero_based") == 0
    assert next_position(CONFIG, "model") == 2


def test_without_a_mask_padding_at_the_ends_is_masked() -> None:
    assert infer_mask(CONFIG, np.array([[1, 5, 1, 6, 1]])).tolist() == [[0, 1, 1, 1, 0]]


@pytest.mark.parametrize(("length", "rounded"), [(1, 8), (8, 8), (9, 16), (17, 32), (300, 512)])
def test_lengths_are_rounded_up(length: int, rounded: int) -> None:
    assert bucket(length) == rounded


def test_never_above_the_most() -> None:
    assert bucket(9, 12) == 12
    assert bucket(14, 12) == 14  # what is too long is told elsewhere


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        ([[1, 1, 1], [5, 6, 7]], {}, "row 0 has none; begin it with bos_token_id"),
        ([[5, 6], [7, 8]], {"mask": np.array([[1, 1], [0, 0]])}, "row 1 has none"),
        ([5, 6], {}, r"input_ids must have the shape \(batch, length\)"),
        ([[]], {}, "input_ids must have the shape"),
        ([[5.0, 6.0]], {}, "input_ids must hold integers, received float64"),
        ([[5, 60]], {}, "input_ids must lie between 0 and 59, received 60 in row 0, position 1"),
        ([[5, 6]], {"mask": np.ones((1, 3), int)}, r"attention_mask must have the shape \(1, 2\)"),
        ([[5, 6]], {"mask": np.array([[1, 2]])}, "attention_mask must lie between 0 and 1, received 2"),
        ([[5, 6]], {"token_type_ids": np.array([[0, 2]])}, "token_type_ids must lie between 0 and 1, received 2"),
    ],
)
def test_prompts_that_no_model_takes(ids: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arrange_prompt(CONFIG, np.array(ids), **kwargs)
