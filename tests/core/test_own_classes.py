"""The rule about classes of a user's own, and the numbers of models that change their shape."""

from __future__ import annotations

from typing import Any

import pytest

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.own_classes import (
    Place,
    check_dtypes,
    check_ties,
    constructor_arguments,
    given_arguments,
    own_names,
    refuse_lost,
    table_of,
)
from xlmr_core.parameters import Init, Role, parameters, stored_names
from xlmr_core.resizing import heads_to_prune_now, rows_wanted

SIZES = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 8}
CONFIG = XLMRobertaConfig(**SIZES, max_position_embeddings=8, num_labels=3)
KNOWN = parameters(CONFIG, "ForMaskedLM")
WORDS = "roberta.embeddings.word_embeddings.weight"


def published() -> dict[str, Place]:
    """The places of a published model: one tensor each, but where the table ties two."""
    numbers = {name: number for number, name in enumerate(KNOWN)}
    return {name: Place(row.shape, numbers[row.tied_to or name], row.role) for name, row in KNOWN.items()}


def test_a_published_model_has_the_published_table() -> None:
    assert table_of(KNOWN, published()) == KNOWN
    assert list(table_of(KNOWN, published())) == list(KNOWN)


def test_what_was_added_taken_away_and_replaced() -> None:
    here = published()
    del here["lm_head.dense.bias"]
    here["lm_head.dense.weight"] = Place((7, 4), 1000)
    here["head.weight"] = Place((3, 4), 1001, Role.LINEAR_WEIGHT)
    here["again.weight"] = Place((3, 4), 1001)
    here["words.weight"] = Place((9, 4), here[WORDS].tensor)
    here["unset.weight"] = Place((2, 4), 1002, Role.EMBEDDING, Init.NORMAL)
    rows = table_of(KNOWN, here)
    assert rows.keys() == here.keys()
    added = ["lm_head.dense.weight", "head.weight", "again.weight", "words.weight", "unset.weight"]
    assert sorted(own_names(rows)) == sorted(added) and list(rows)[-4:] == added[1:]
    assert rows["lm_head.dense.weight"].shape == (7, 4) and rows["lm_head.dense.weight"].init is Init.OWN
    assert (rows["head.weight"].role, rows["unset.weight"].init) == (Role.LINEAR_WEIGHT, Init.NORMAL)
    assert (rows["again.weight"].tied_to, rows["words.weight"].tied_to) == ("head.weight", WORDS)
    assert {"head.weight", "unset.weight"} < set(stored_names(rows)) and "words.weight" not in stored_names(rows)


class Base:
    def __init__(self, config: Any, *, dtype: Any = None, **kwargs: Any) -> None: ...


class Closed:
    def __init__(self, config: Any, pooler: bool = True) -> None: ...


class Named(Base):
    def __init__(self, config: Any, width: int = 3, **kwargs: Any) -> None: ...


class Silent(Named): ...


class Anything(Closed):
    def __init__(self, config: Any, **options: Any) -> None: ...


class Few(Closed):
    def __init__(self, config: Any, depth: int) -> None: ...


@pytest.mark.parametrize(
    ("kind", "base", "names", "takes_any"),
    [
        (Base, Base, {"dtype", "name"}, False),
        (Named, Base, {"width", "dtype", "name"}, False),
        (Silent, Base, {"width", "dtype", "name"}, False),
        (Closed, Closed, {"pooler"}, False),
        (Few, Closed, {"depth"}, False),
        (Anything, Closed, {"pooler"}, True),
    ],
)
def test_what_a_constructor_takes(kind: type, base: type, names: set[str], takes_any: bool) -> None:
    found, any_other = constructor_arguments(kind, base, ("name",))
    assert (found - {"self", "config"}, any_other) == (names, takes_any)


def test_what_would_be_lost_is_refused() -> None:
    rows, here = table_of(KNOWN, published()), published()
    check_ties(rows, here)
    refuse_lost([], Base, "keep them")
    check_dtypes({"a": "F32"}, {"a": "float32"})
    here["lm_head.decoder.weight"] = Place((9, 4), 1000)
    with pytest.raises(InputError, match=rf"lm_head.decoder.weight is tied to {WORDS} and would be lost"):
        check_ties(rows, here)
    with pytest.raises(InputError, match="a, b of Base would not be saved; keep them, in attributes, or in lists"):
        refuse_lost(iter("ab"), Base, "keep them")
    with pytest.raises(InputError, match="b is complex64, which no checkpoint here holds; convert or remove it"):
        check_dtypes({"a": "F32", "b": None}, {"a": "float32", "b": "complex64"})


@pytest.mark.parametrize(
    ("wanted", "multiple", "rows"),
    [(None, None, 9), (12, None, 12), (3, None, 3), (12, 8, 16), (None, 4, 12), (16, 8, 16)],
)
def test_rows_of_a_resize(wanted: int | None, multiple: int | None, rows: int) -> None:
    assert rows_wanted(CONFIG, 9, wanted, multiple) == rows


@pytest.mark.parametrize(
    ("wanted", "multiple", "message"),
    [
        (1, None, r"new_num_tokens must be an integer above pad_token_id \(1\), received 1"),
        (True, None, "received True"),
        ("12", 8, "new_num_tokens .*received '12'"),
        (2.5, None, r"received 2\.5"),
        (12, 0, "pad_to_multiple_of must be a positive integer, received 0"),
        (12, True, "pad_to_multiple_of .*received True"),
    ],
)
def test_rows_that_cannot_be(wanted: Any, multiple: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_wanted(CONFIG, 9, wanted, multiple)


def test_heads_go_once() -> None:
    config = CONFIG.copy(pruned_heads={0: [1]})
    assert heads_to_prune_now(config, {0: [1, 3], 1: [2]}) == ({0: {3}, 1: {2}}, {0: [1, 3], 1: [2]})
    assert heads_to_prune_now(config, {0: [1]}) == ({}, {0: [1]})
    assert heads_to_prune_now(config, {-1: [2], -2: [0, 1]}) == ({1: {2}, 0: {0}}, {0: [0, 1], 1: [2]})
    assert heads_to_prune_now(config, {-1: [2], 1: [0]}) == ({1: {0, 2}}, {0: [1], 1: [0, 2]})
    assert config.pruned_heads == {0: [1]}
    for heads, message in (({0: [0, 2, 3]}, "leaves no attention head in layer 0"), ({2: [0]}, "does not have")):
        with pytest.raises(ConfigError, match=message):
            heads_to_prune_now(config, heads)


class Given(Base):
    def __init__(self, config: Any, width: int = 3, *rest: Any, scale: float = 1.0, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "given"),
    [
        ((CONFIG,), {}, {}),
        ((CONFIG, 5), {"scale": 2.0}, {"width": 5, "scale": 2.0}),
        ((), {"config": CONFIG, "width": 5, "dtype": "float16"}, {"width": 5, "dtype": "float16"}),
        ((CONFIG, CONFIG), {}, {"width": CONFIG}),
        ((CONFIG, 5, "a", "b"), {}, {"width": 5, "rest[0]": "a", "rest[1]": "b"}),
        ((), {}, {}),  # the constructor itself says what is missing
    ],
)
def test_what_a_constructor_was_given(args: Any, kwargs: Any, given: Any) -> None:
    assert given_arguments(Given, args, kwargs) == given
