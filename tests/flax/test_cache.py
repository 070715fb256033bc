"""A decoder with a cache: whatever comes in pieces gives what the whole gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

from tests.flax import models  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_flax import functional  # noqa: E402
from xlmr_flax.cache import Cache  # noqa: E402

LENGTH, PLACES = 6, 9
# Padding in front and inside, a token that is masked, nothing of it.
MASK = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
MEMORY = {
    "encoder_hidden_states": np.random.default_rng(1).normal(size=(3, 4, 24)).astype(np.float32),
    "encoder_attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]),
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("XLMRoberta", {}),
    ("XLMRoberta", {"add_cross_attention": True, "position_embedding_type": "relative_key"}),
    ("XLMRobertaXL", {"position_embedding_type": "relative_key_query"}),
]


def decoder(family: str = "XLMRoberta", **changes: Any) -> Any:
    return models.model("ForCausalLM", family, **{"is_decoder": True, "num_hidden_layers": 1, **changes})


def ids_of(*, padded: bool = True) -> np.ndarray:
    ids = np.random.default_rng(0).integers(4, 61, MASK.shape)
    if padded:
        ids[0, :2] = 1  # what is masked elsewhere is a token, which has a position
    return ids


def in_pieces(model: Any, cuts: list[int], **more: Any) -> tuple[np.ndarray, Cache]:
    """Logits (B, S, V) of a text that comes in pieces, and the cache at its end."""
    ids, found, cache = ids_of(), [], model.init_cache(3, PLACES)
    for start, end in pairwise([0, *cuts, LENGTH]):
        output = model(ids[:, start:end], MASK[:, :end], past_key_values=cache, **more)
        cache = output.past_key_values
        found.append(output.logits)
    return np.concatenate(found, 1), cache


@pytest.fixture
def by_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions themselves, in place of their compiled forms: pieces of many lengths are many programs."""
    monkeypatch.setattr(functional, "_compiled", functional._compiled.__wrapped__)


@pytest.mark.usefixtures("by_operation")
@pytest.mark.parametrize(("family", "changes"), CASES)
def test_pieces_equal_the_whole(family: str, changes: dict[str, Any]) -> None:
    model = decoder(family, **changes)
    more = MEMORY if changes.get("add_cross_attention") else {}
    whole = model.set_packing("never")(ids_of(), MASK, **more)
    assert whole.past_key_values is None
    for cuts, packing in (([4], "always"), ([1, 2, 3, 4, 5], "never")):
        found, cache = in_pieces(model.set_packing(packing), cuts, **more)
        np.testing.assert_allclose(found[MASK == 1], whole.logits[MASK == 1], atol=2e-5)
        assert (cache.get_seq_length(), cache.counted_B.tolist()) == (LENGTH, [4, 6, 6])


@pytest.mark.usefixtures("by_operation")
def test_everything_asked_for_comes_in_pieces_too() -> None:
    """States, probabilities, kept logits, masks of three axes, embeddings in place of ids, given positions."""
    model = decoder(add_cross_attention=True).set_attn_implementation("eager")
    asked = {"output_hidden_states": True, "output_attentions": True, **MEMORY}
    ids = ids_of(padded=False)
    whole = model(ids, MASK, **asked)
    first = model(ids[:, :4], MASK[:, :4], past_key_values=model.init_cache(3, PLACES), **asked)
    second = model(ids[:, 4:], MASK, past_key_values=first.past_key_values, **asked)
    np.testing.assert_allclose(second.hidden_states[-1], whole.hidden_states[-1][:, 4:], atol=2e-5)
    assert second.attentions[0].shape == (3, 3, 2, PLACES)  # of places that are empty, too
    np.testing.assert_allclose(second.attentions[0][..., :LENGTH], whole.attentions[0][:, :, 4:], atol=2e-5)
    np.testing.assert_allclose(second.cross_attentions[0], whole.cross_attentions[0][:, :, 4:], atol=2e-5)

    model, causal = decoder(), np.tril(np.ones((3, LENGTH, LENGTH), int))
    causal[1, 4, 0] = 0
    whole = model(ids, causal)
    for columns in (LENGTH, PLACES):
        wide = np.pad(causal, ((0, 0), (0, 0), (0, columns - LENGTH)))
        first = model(ids[:, :4], causal[:, :4, :4], past_key_values=model.init_cache(3, PLACES))
        second = model(ids[:, 4:], wide[:, 4:], past_key_values=first.past_key_values, logits_to_keep=1)
        np.testing.assert_allclose(second.logits, whole.logits[:, 5:], atol=2e-5)

    embeds, places = model.get_input_embeddings()(ids), np.arange(LENGTH)[None] + 2
    for names, inputs in (("inputs_embeds", embeds), ("input_ids position_ids", None)):
        given = [dict(zip(names.split(), (ids, places) if inputs is None else (inputs,), strict=True))] * 2
        parts = [{name: x[:, part] for name, x in given[0].items()} for part in (slice(4), slice(4, None))]
        first = model(**parts[0], past_key_values=model.init_cache(3, PLACES))
        second = model(**parts[1], past_key_values=first.past_key_values)
        np.testing.assert_allclose(second.logits, model(**given[0]).logits[:, 4:], atol=2e-5)


def test_a_cache_goes_through_compiled_functions_and_loops() -> None:
    """Of unknown length, in a loop over tokens around a loop over layers."""
    model, ids = decoder(num_hidden_layers=2), ids_of()
    wide = np.pad(MASK, ((0, 0), (0, PLACES - LENGTH)), constant_values=1)
    whole = model.set_packing("never")(ids, MASK).logits
    model.set_scan_layers(True)

    def by_token(params: Any, ids: Any, wide: Any) -> Any:
        def step(cache: Cache, ids_B: Any) -> tuple[Cache, Any]:
            output = model(ids_B[:, None], wide, past_key_values=cache, params=params)
            return output.past_key_values, output.logits[:, 0]

        # Numbers of NumPy say that the cache is empty; the carry of a loop has arrays.
        begin = jax.tree.map(jnp.asarray, model.init_cache(ids.shape[0], PLACES))
        cache, logits_SBV = jax.lax.scan(step, begin, ids.T)
        return cache, logits_SBV.swapaxes(0, 1)

    cache, found = jax.jit(by_token)(model.params, ids, wide)
    np.testing.assert_allclose(found[MASK == 1], whole[MASK == 1], atol=2e-5)
    assert (int(cache.length), cache.counted_B.tolist()) == (LENGTH, [4, 6, 6])


@pytest.mark.usefixtures("by_operation")
def test_a_memory_is_computed_once() -> None:
    model = decoder(add_cross_attention=True)
    ids = ids_of(padded=False)
    cache = model(ids[:, :4], past_key_values=model.init_cache(3, PLACES), **MEMORY).past_key_values
    other = {**MEMORY, "encoder_hidden_states": np.zeros_like(MEMORY["encoder_hidden_states"])}
    found = [model(ids[:, 4:5], past_key_values=cache, **memory).logits for memory in (MEMORY, other)]
    np.testing.assert_array_equal(*found)
    assert [x.shape for x in cache.memory[0]] == [(3, 3, 4, 8)] * 2


@pytest.mark.usefixtures("by_operation")
def test_rows_and_the_published_tuple() -> None:
    model = decoder(add_cross_attention=True)
    ids = ids_of()
    cache = model(ids[:, :4], MASK[:, :4], past_key_values=model.init_cache(3, PLACES), **MEMORY).past_key_values
    expected = model(ids[:, 4:], MASK, past_key_values=cache, **MEMORY).logits

    order = np.array([2, 0, 0])
    memory = {name: x[order] for name, x in MEMORY.items()}
    found = model(ids[order, 4:], MASK[order], past_key_values=cache.reorder_cache(order), **memory).logits
    np.testing.assert_allclose(found, expected[order], atol=1e-6)
    assert cache.batch_repeat_interleave(2).counted_B.tolist() == [2, 2, 4, 4, 4, 4]

    past = cache.to_legacy_cache()
    assert [x.shape for x in past[0]] == [(3, 3, 4, 8)] * 4
    again = Cache.from_legacy_cache(past, PLACES, counted=[2, 4, 4])
    np.testing.assert_allclose(model(ids[:, 4:], MASK, past_key_values=again, **MEMORY).logits, expected, atol=1e-6)
    assert Cache.from_legacy_cache([layer[:2] for layer in past], 4).memory is None
    with pytest.raises(InputError, match=r"holds 4 tokens, received max_length=3; make it larger"):
        Cache.from_legacy_cache(past, 3)
    with pytest.raises(InputError, match="unknown inside a compiled function"):
        jax.eval_shape(lambda cache: cache.to_legacy_cache(), cache)


@pytest.mark.usefixtures("by_operation")
def test_what_is_refused() -> None:
    model, ids = decoder(), ids_of(padded=False)
    cache = model.init_cache(3, 5)
    full = model(ids[:, :4], past_key_values=cache).past_key_values
    cases: list[tuple[Any, tuple[Any, ...], Any, str]] = [
        (model, (ids[:, :2],), full, "room for 5 tokens and holds 4, received 2 more"),
        (model, (ids[:2, :1],), full, "holds 3 rows, received input of 2 rows"),
        (model, (ids[:, :1], MASK[:, :1]), full, r"a column for each token, those of the 4 in .* received \(3, 1\)"),
        (model, (ids,), full.to_legacy_cache(), "must be what model.init_cache.* received tuple"),
        (decoder(num_hidden_layers=2), (ids,), cache, "the cache of another model"),
        (decoder(is_decoder=False), (ids,), cache, "past_key_values is for a decoder"),
        (models.model("ForMaskedLM", is_decoder=True), (ids,), cache, "is for a causal language model or its bare"),
    ]
    for asked, inputs, past, message in cases:
        with pytest.raises(InputError, match=message):
            asked(*inputs, past_key_values=past)
    with pytest.raises(InputError, match="a column for each token, those of what is in past_key_values"):
        jax.eval_shape(lambda cache: model(ids[:, :1], MASK, past_key_values=cache), full)
    longest = replace(model.init_cache(3, 90), length=np.int32(78))
    with pytest.raises(InputError, match="expected at most 78 together"):
        model(ids[:, :1], past_key_values=longest)
