"""What is decided of a decoder's cache once for every backend."""

from __future__ import annotations

import re

import numpy as np
import pytest

from xlmr_core.cache import (
    SeenCache,
    check_cache,
    check_cache_position,
    check_layers,
    check_mask_of_cache,
    keeps_cache,
)
from xlmr_core.calls import Call, read_call
from xlmr_core.checks import Seen, see_array
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


@pytest.mark.parametrize("use_cache", ["yes", "", 1, 0, np.ones(2)])
def test_what_does_not_say_whether_to_give_a_cache(use_cache):
    with pytest.raises(InputError, match=r"use_cache must be True, False or None, received "):
        keeps_cache(config(), use_cache)


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


MEMORY = {"add_cross_attention": True}
TWO = {"num_hidden_layers": 2}
HALF = [[(3, 2, 4, 2)] * 2, [(3, 1, 4, 2)] * 2]  # shapes of two layers, of which the second has one of two heads


def layers(shapes: list[list[tuple[int, ...]]], dtypes: object = np.float32) -> list[list[Seen]]:
    """What is seen of arrays of these shapes; ``dtypes`` is one, or of the parts of the last layer one each."""

    def seen(shape: tuple[int, ...], dtype: object) -> Seen:
        found = see_array("past_key_values", np.ones(shape, dtype))
        assert found is not None
        return found

    last = dtypes if isinstance(dtypes, list) else [dtypes] * len(shapes[-1]) if shapes else []
    first = [[seen(shape, last[0]) for shape in layer] for layer in shapes[:-1]]
    return [*first, *([seen(*pair) for pair in zip(layer, last, strict=True)] for layer in shapes[-1:])]


@pytest.mark.parametrize(
    ("values", "shapes"),
    [
        ({}, [[(3, 2, 4, 2)] * 2]),
        (TWO, [[(3, 2, 4, 2)] * 2] * 2),
        ({**TWO, "pruned_heads": {1: [0]}}, HALF),
        (MEMORY, [[(3, 2, 4, 2)] * 2]),
        (MEMORY, [[(3, 2, 4, 2)] * 2 + [(3, 2, 7, 2)] * 2]),
        ({**MEMORY, "pruned_heads": {0: [1]}}, [[(3, 1, 4, 2)] * 2 + [(3, 2, 7, 2)] * 2]),
    ],
)
def test_layers_of_this_model(values, shapes):
    check_layers(config(**values), layers(shapes))
    check_layers(config(**values), layers(shapes), np.dtype("float32"))


@pytest.mark.parametrize(
    ("values", "shapes", "words"),
    [
        ({}, [], "has 0 layers, expected 1;"),
        (TWO, [[(3, 2, 4, 2)] * 2], "has 1 layer, expected 2;"),
        ({}, [[(3, 2, 4, 2)] * 4], "received 4 for layer 0 of a model with add_cross_attention=False;"),
        (MEMORY, [[(3, 2, 4, 2)] * 3], "received 3 for layer 0 of a model with add_cross_attention=True;"),
        ({**TWO, **MEMORY}, [[(3, 2, 4, 2)] * 4, [(3, 2, 4, 2)] * 2], "received 2 for layer 1"),
        ({}, [[(2, 4, 2)] * 2], r"keys of layer 0 of shape \(2, 4, 2\), expected \(batch, 2, tokens, 2\)"),
        ({}, [[(3, 4, 4, 2)] * 2], r"keys of layer 0 of shape \(3, 4, 4, 2\), expected \(batch, 2, tokens, 2\)"),
        ({}, [[(3, 2, 4, 1)] * 2], r"keys of layer 0 of shape .* expected \(batch, 2, tokens, 2\)"),
        ({}, [[(3, 2, 4, 2), (3, 2, 5, 2)]], r"values of layer 0 of shape .* expected \(3, 2, 4, 2\)"),
        (TWO, HALF, r"keys of layer 1 of shape \(3, 1, 4, 2\), expected \(3, 2, 4, 2\)"),
        (TWO, [[(3, 2, 4, 2)] * 2, [(2, 2, 4, 2)] * 2], r"keys of layer 1 .* expected \(3, 2, 4, 2\)"),
        (
            MEMORY,
            [[(3, 2, 4, 2)] * 2 + [(3, 1, 7, 2)] * 2],
            r"keys of the memory of layer 0 .* \(batch, 2, tokens, 2\)",
        ),
    ],
)
def test_layers_of_another_model(values, shapes, words):
    with pytest.raises(InputError, match=rf"past_key_values .*{words}.* of this model gave"):
        check_layers(config(**values), layers(shapes))


@pytest.mark.parametrize(
    ("dtypes", "dtype", "words"),
    [
        (np.float64, np.dtype("float32"), "keys of layer 0 in float64, expected float32, in which the model computes;"),
        (
            [np.float32, np.float64],
            None,
            "values of layer 0 in float64, expected float32, in which the model computes;",
        ),
    ],
)
def test_layers_of_another_dtype(dtypes, dtype, words):
    with pytest.raises(InputError, match=words):
        check_layers(config(), layers([[(3, 2, 4, 2)] * 2], dtypes), dtype)


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
