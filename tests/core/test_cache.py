"""What is decided of a decoder's cache once for every backend."""

from __future__ import annotations

import re

import numpy as np
import pytest

from xlmr_core.cache import SeenCache, check_cache, check_cache_position, check_mask_of_cache, keeps_cache
from xlmr_core.calls import Call, read_call
from xlmr_core.checks import see_array
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.packing import Needs, may_pack

SIZES = {"vocab_size": 20, "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 4}


def config(**values: object) -> XLMRobertaConfig:
    return XLMRobertaConfig(**{**SIZES, "max_position_embeddings": 12, "is_decoder": True, **values})


@pytest.mark.parametrize(
    ("values", "use_cache", "recomputes", "kept"),
    [
        ({}, None, False, True),
        ({"use_cache": False}, None, False, False),
        ({"use_cache": False}, True, False, True),
        ({}, False, False, False),
        ({}, True, True, False),
        ({"is_decoder": False}, True, False, False),
    ],
)
def test_who_gives_a_cache(values, use_cache, recomputes, kept):
    assert keeps_cache(config(**values), use_cache, recomputes=recomputes) is kept


@pytest.mark.parametrize(
    ("values", "cache", "words"),
    [
        ({"is_decoder": False}, SeenCache(0), "past_key_values is for a decoder"),
        ({}, SeenCache(3, None, 5), "holds 5 rows, received input of 2 rows"),
        ({}, SeenCache(3, 4, 2), "has room for 4 tokens and holds 3, received 2 more"),
        ({}, SeenCache(9, None, 2), "holds 9 tokens and 2 more came, expected at most 10"),
        ({"position_embedding_type": "relative_key"}, SeenCache(11, None, 2), "relative positions reach 12"),
    ],
)
def test_a_cache_that_does_not_fit(values, cache, words):
    with pytest.raises(InputError, match=words):
        check_cache(config(**values), cache, 2, 2, has_positions=False)


@pytest.mark.parametrize("cache", [SeenCache(8, None, 2), SeenCache(3, 5, 2), SeenCache(None), SeenCache(0)])
def test_a_cache_that_fits(cache):
    check_cache(config(), cache, 2, 2, has_positions=False)


def test_positions_of_the_callers_own_may_go_further():
    check_cache(config(), SeenCache(9, None, 2), 2, 2, has_positions=True)


@pytest.mark.parametrize(
    ("cache", "shape"),
    [
        (SeenCache(3), (2, 5)),
        (SeenCache(3), (2, 2, 5)),
        (SeenCache(3, 8), (2, 5)),
        (SeenCache(3, 8), (2, 8)),
        (SeenCache(3, 8), (2, 2, 8)),
        (SeenCache(None, 8), (2, 8)),
        (SeenCache(None), (2, 7)),
    ],
)
def test_a_mask_of_all_tokens(cache, shape):
    check_mask_of_cache(see_array("attention_mask", np.ones(shape)), cache, 2, 2)


@pytest.mark.parametrize(
    ("cache", "shape"),
    [(SeenCache(3), (2, 2)), (SeenCache(3), (3, 5)), (SeenCache(3), (2, 3, 5)), (SeenCache(None, 8), (2, 5))],
)
def test_a_mask_of_other_tokens(cache, shape):
    with pytest.raises(InputError, match=rf"a column for each token.*2 new ones, received {re.escape(str(shape))}"):
        check_mask_of_cache(see_array("attention_mask", np.ones(shape)), cache, 2, 2)


def test_places_of_the_new_tokens():
    check_cache_position(see_array("cache_position", np.arange(3, 5)), SeenCache(3), 2)
    check_cache_position(see_array("cache_position", np.arange(2)), None, 2)
    check_cache_position(see_array("cache_position", np.arange(2)), SeenCache(None), 2)
    for wrong, received in ((np.arange(2), r"\[0, 1\]"), (np.arange(3, 5)[None], "3, 4"), (np.arange(3, 6), "3, 4, 5")):
        with pytest.raises(InputError, match=rf"the places 3 to 4, .* the 3 tokens .*received .*{received}"):
            check_cache_position(see_array("cache_position", wrong), SeenCache(3), 2)


def read(**given: object) -> Call[np.ndarray]:
    names = ("inputs_embeds", "attention_mask", "token_type_ids", "position_ids", "head_mask")
    inputs = dict.fromkeys((*names, "output_attentions", "output_hidden_states"))
    kept = {"see_cache": lambda cache: (("ours", cache), SeenCache(3, None, 2))} if given.pop("keeps", True) else {}
    return read_call(
        config(), see_array, {**inputs, "input_ids": np.full((2, 2), 5), **given}, has_cross_attention=False, **kept
    )


def test_a_call_with_a_cache_is_read():
    call = read(past_key_values="theirs", attention_mask=np.ones((2, 5)), cache_position=np.arange(3, 5))
    assert call.cache == ("ours", "theirs") and call.past == SeenCache(3, None, 2) and call.use_cache
    assert not may_pack(config(), "sdpa", call, Needs()) and may_pack(config(), "sdpa", read(), Needs())
    with pytest.raises(InputError, match="a column for each token"):
        read(past_key_values="theirs", attention_mask=np.ones((2, 2)))
    with pytest.raises(InputError, match="past_key_values is for a causal language model"):
        read(past_key_values="theirs", keeps=False)
    assert not read(keeps=False).use_cache
