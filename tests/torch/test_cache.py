"""A decoder with a cache: whatever comes in pieces gives what the whole gives."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from tests.torch.models import MASKS, VOCABULARY, Case, assert_close, each_family, packed_calls
from xlmr_core.errors import InputError
from xlmr_torch.cache import DynamicCache, EncoderDecoderCache, StaticCache

KINDS = ("absolute", "relative_key", "relative_key_query")
LENGTH = 6


def decoder(family: str = "XLMRoberta", **changes: Any) -> Any:
    return Case(family, "ForCausalLM").build(**{"use_cache": True, **changes})


def batch(mask: str, case: Case | None = None) -> tuple[Tensor, Tensor]:
    inputs = (case or Case("XLMRoberta", "ForCausalLM")).inputs(mask)
    return inputs["input_ids"], inputs["attention_mask"]


def full() -> Tensor:
    """Ids without padding."""
    return torch.randint(4, VOCABULARY, (4, LENGTH), generator=torch.Generator().manual_seed(1))


def padded() -> tuple[Tensor, Tensor]:
    """Ids with padding in front, which is what the mask masks."""
    ids, keep = batch("left")
    return ids.masked_fill(keep == 0, 1), keep


def memory() -> dict[str, Tensor]:
    states = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(3))
    return {"encoder_hidden_states": states, "encoder_attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]] * 2)}


def in_pieces(model: Any, ids: Tensor, mask: Tensor, cuts: list[int], cache: Any = None, **more: Any) -> Tensor:
    """(B, S, V) logits of a text that comes in pieces."""
    found, edges = [], [0, *cuts, ids.shape[1]]
    for start, end in pairwise(edges):
        output = model(ids[:, start:end], mask[:, :end], past_key_values=cache, use_cache=True, **more)
        cache = output.past_key_values
        found.append(output.logits)
    assert cache.get_seq_length() == ids.shape[1]
    return torch.cat(found, 1)


@each_family
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("packing", ["never", "always"])
@pytest.mark.parametrize("crossing", [False, True], ids=["alone", "memory"])
@torch.no_grad()
def test_pieces_equal_the_whole(family: str, mask: str, packing: str, crossing: bool) -> None:
    model = decoder(family, add_cross_attention=crossing).set_packing(packing)
    more = memory() if crossing else {}
    ids, keep = batch(mask)
    whole = model(ids, keep, use_cache=False, **more)
    assert whole.past_key_values is None
    for cuts in ([1, 2, 3, 4, 5], [4], [2, 4], [5]):
        for cache in (None, StaticCache(model.config, 9)) if not crossing else (None,):
            found = in_pieces(model, ids, keep, cuts, cache, **more)
            assert_close(found[keep == 1], whole.logits[keep == 1], what=f"{cuts} {cache}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_positions_and_kernels(kind: str, implementation: str) -> None:
    model = decoder(position_embedding_type=kind).set_attn_implementation(implementation)
    for mask in MASKS:
        ids, keep = batch(mask)
        whole = model(ids, keep).logits
        for cache in (None, StaticCache(model.config, 64)):
            found = in_pieces(model, ids, keep, [3, 4, 5], cache)
            assert_close(found[keep == 1], whole[keep == 1], what=mask)


@pytest.mark.parametrize("length", [1, 22])
@torch.no_grad()
def test_lengths(length: int) -> None:
    """One token, and as many as there are positions for."""
    model = decoder()
    ids = torch.randint(4, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    assert_close(in_pieces(model, ids, mask, list(range(1, length))), model(ids, mask).logits)
    cache = model(ids, mask).past_key_values
    if length == 22:
        with pytest.raises(InputError, match=r"holds 22 tokens and 1 more came, expected at most 22"):
            model(ids[:, :1], past_key_values=cache)


@torch.no_grad()
def test_everything_asked_for_comes_in_pieces_too() -> None:
    """States, probabilities, kept logits, masks of three axes, embeddings in place of ids, given positions."""
    model = decoder(add_cross_attention=True).set_attn_implementation("eager")
    ids = full()
    asked = {"output_hidden_states": True, "output_attentions": True, **memory()}
    whole = model(ids, **asked)
    first = model(ids[:, :4], **asked)
    second = model(ids[:, 4:], past_key_values=first.past_key_values, **asked)
    assert_close(second.hidden_states[-1], whole.hidden_states[-1][:, 4:])
    assert_close(second.attentions[1], whole.attentions[1][:, :, 4:])
    assert_close(second.cross_attentions[1], whole.cross_attentions[1][:, :, 4:])

    model = decoder()
    causal = torch.ones(4, LENGTH, LENGTH).tril()
    causal[1, 4, 0] = 0
    whole = model(ids, causal)
    for cache in (None, StaticCache(model.config, 8)):
        first = model(ids[:, :4], causal[:, :4, :4], past_key_values=cache)
        second = model(ids[:, 4:], causal[:, 4:], past_key_values=first.past_key_values, logits_to_keep=1)
        assert_close(second.logits, whole.logits[:, 5:])

    embeds = model.get_input_embeddings()(ids)
    first = model(inputs_embeds=embeds[:, :4])
    second = model(inputs_embeds=embeds[:, 4:], past_key_values=first.past_key_values)
    assert_close(second.logits, model(inputs_embeds=embeds).logits[:, 4:])
    places = torch.arange(LENGTH)[None] + 2
    first = model(ids[:, :4], position_ids=places[:, :4])
    second = model(ids[:, 4:], position_ids=places[:, 4:], past_key_values=first.past_key_values)
    assert_close(second.logits, model(ids, position_ids=places).logits[:, 4:])


@torch.no_grad()
def test_a_memory_is_computed_once() -> None:
    model, more = decoder(add_cross_attention=True), memory()
    ids = full()
    cache = model(ids[:, :3], **more).past_key_values
    assert isinstance(cache, EncoderDecoderCache) and cache.is_updated == {0: True, 1: True}
    keys = cache.cross_attention_cache.layers[0].keys
    before = model(ids[:, 3:4], past_key_values=cache, **more).logits
    assert cache.cross_attention_cache.layers[0].keys.data_ptr() == keys.data_ptr()
    cache.crop(3)
    more["encoder_hidden_states"] = torch.zeros_like(more["encoder_hidden_states"])
    assert torch.equal(model(ids[:, 3:4], past_key_values=cache, **more).logits, before)


@each_family
@torch.no_grad()
def test_prefill_is_packed(family: str) -> None:
    model = decoder(family)
    ids, keep = batch("right")
    with packed_calls(model) as packed:
        cache = model(ids, keep).past_key_values
        model(ids[:, :1], torch.nn.functional.pad(keep, (0, 1), value=1), past_key_values=cache)
    assert packed == [True, False]


# ---- Defaults


def test_who_gets_a_cache() -> None:
    """As published: a decoder as its configuration says, an encoder never, a training that recomputes never."""
    ids, keep = batch("right")
    assert isinstance(decoder()(ids, keep).past_key_values, DynamicCache)
    assert decoder()(ids, keep, use_cache=False).past_key_values is None
    assert decoder(use_cache=False)(ids, keep).past_key_values is None
    assert decoder(use_cache=False)(ids, keep, use_cache=True).past_key_values is not None
    assert decoder(is_decoder=False)(ids, keep, use_cache=True).past_key_values is None
    model = decoder().train()
    model.gradient_checkpointing_enable()
    assert model(ids, keep, use_cache=True).past_key_values is None
    assert model.eval()(ids, keep).past_key_values is not None
    bare = Case("XLMRoberta", "Model").build(is_decoder=True, use_cache=True)
    output = bare(ids, keep)
    assert list(output)[2] == "past_key_values" and len(output.past_key_values) == 2


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_flow_through_a_cache(recompute: bool) -> None:
    """A text in pieces gives the gradients of the whole; a cache that was given is left as it is by layers that are
    computed twice.
    """
    model = decoder()
    ids, keep = padded()
    late = keep[:, 4:] == 1
    whole = model(ids, keep).logits[:, 4:][late]
    expected = torch.autograd.grad(whole.square().sum(), model.roberta.encoder.layer[0].parameters())
    cache = model(ids[:, :4], keep[:, :4]).past_key_values
    if recompute:
        model.train().gradient_checkpointing_enable()
    second = model(ids[:, 4:], keep, past_key_values=cache).logits[late]
    assert_close(second, whole)
    found = torch.autograd.grad(second.square().sum(), model.roberta.encoder.layer[0].parameters())
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, tolerance=1e-4)
    assert cache.get_seq_length() == (4 if recompute else 6)


# ---- Kinds, and what is made of them


@torch.no_grad()
def test_legacy_tuples_both_ways() -> None:
    model, more = decoder(add_cross_attention=True), memory()
    ids, keep = padded()
    for extra in ({}, more):
        whole = model(ids, keep, **extra).logits
        late = keep[:, 4:] == 1
        cache = model(ids[:, :4], keep[:, :4], **extra).past_key_values
        legacy = cache.to_legacy_cache()
        assert [len(layer) for layer in legacy] == [4 if extra else 2] * 2
        assert legacy[0][0].shape == (4, 2, 4, 8)
        second = model(ids[:, 4:], keep, past_key_values=legacy, **extra)
        assert_close(second.logits[late], whole[:, 4:][late])
        assert legacy[0][0].shape == (4, 2, 4, 8), "tensors of others stay as they are"
        assert second.past_key_values.get_seq_length() == 6
        again = type(cache).from_legacy_cache(legacy)
        third = model(ids[:, 4:], keep, past_key_values=again, **extra)
        assert torch.equal(third.logits, second.logits)


@torch.no_grad()
def test_rows_are_reordered_repeated_and_chosen() -> None:
    model, more = decoder(add_cross_attention=True), memory()
    ids, keep = padded()
    whole = model(ids, keep, **more).logits[:, 5]
    order = torch.tensor([2, 2, 0, 1])
    kinds = (None, EncoderDecoderCache(StaticCache(model.config, 8), DynamicCache()))
    for given in kinds:
        cache = model(ids[:, :5], keep[:, :5], past_key_values=given, **more).past_key_values
        cache.reorder_cache(order)
        moved = {name: x[order] for name, x in more.items()}
        found = model(ids[order, 5:], keep[order], past_key_values=cache, **moved).logits[:, 0]
        assert_close(found, whole[order])
    cache = model(ids[:, :5], keep[:, :5], **more).past_key_values
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3, 6]))
    rows = torch.tensor([0, 1, 3])
    moved = {name: x[rows] for name, x in more.items()}
    assert cache.batch_size == 3
    assert_close(model(ids[rows, 5:], keep[rows], past_key_values=cache, **moved).logits[:, 0], whole[rows])


@torch.no_grad()
def test_cropped_and_reset() -> None:
    model = decoder()
    ids, keep = padded()
    whole = model(ids, keep).logits
    for crop in (3, -3):
        cache = model(ids, keep).past_key_values
        cache.crop(crop)
        assert cache.get_seq_length() == 3
        assert_close(model(ids[:, 3:], keep, past_key_values=cache).logits[:, -1], whole[:, -1])
    cache.reset()
    assert cache.get_seq_length() == 0 and not cache.is_initialized
    assert_close(model(ids, keep, past_key_values=cache).logits[keep == 1], whole[keep == 1])


@torch.no_grad()
def test_memory_is_moved_seldom() -> None:
    """Two hundred single tokens move the cache a few times, and what an output gave stays as it was."""
    model = decoder(max_position_embeddings=300)
    ids = torch.randint(4, VOCABULARY, (1, 200), generator=torch.Generator().manual_seed(1))
    cache, places, kept = None, set(), None
    for place in range(200):
        cache = model(ids[:, place : place + 1], past_key_values=cache).past_key_values
        places.add(cache.layers[0].keys.data_ptr())
        if place == 100:
            kept, copied = cache.layers[0].keys, cache.layers[0].keys.clone()
    assert len(places) <= 5
    assert torch.equal(kept, copied)
    static = StaticCache(model.config, 200)
    places = set()
    for place in range(200):
        model(ids[:, place : place + 1], past_key_values=static)
        places.add(static.layers[0].keys.data_ptr())
    assert len(places) == 1 and static.get_max_cache_shape() == 200 and static.get_seq_length() == 200


def test_from_inference_mode_on_into_the_open() -> None:
    model = decoder()
    ids = full()
    with torch.inference_mode():
        cache = model(ids[:, :3]).past_key_values
        cache = model(ids[:, 3:4], past_key_values=cache).past_key_values
    with torch.no_grad():
        found = model(ids[:, 4:], past_key_values=cache).logits
        assert_close(found, model(ids, torch.ones_like(ids)).logits[:, 4:])


def test_a_compiled_model_with_a_cache_of_a_fixed_size() -> None:
    """Nothing is compiled anew while lengths grow, with the places of the tokens or without."""
    model, ids = decoder(max_position_embeddings=64), full()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        whole = model(ids, torch.ones_like(ids)).logits
        for given in (True, False):
            cache, graphs = StaticCache(model.config, 40), counter.frame_count
            found = [model(ids[:, :2], past_key_values=cache).logits]
            for place in range(2, LENGTH):
                places = {"cache_position": torch.tensor([place])} if given else {}
                found.append(compiled(ids[:, place : place + 1], past_key_values=cache, **places).logits)
            assert counter.frame_count == graphs + 1
            assert cache.get_seq_length() == LENGTH
            assert_close(torch.cat(found, 1), whole)


class Guest:
    """A cache of another library: what it has to have."""

    def __init__(self) -> None:
        self.layers: list[Any] = []

    def update(self, key: Tensor, value: Tensor, layer_idx: int, cache_kwargs: Any = None) -> tuple[Tensor, Tensor]:
        if layer_idx == len(self.layers):
            self.layers.append(SimpleNamespace(keys=key, values=value))
        else:
            layer = self.layers[layer_idx]
            layer.keys, layer.values = torch.cat([layer.keys, key], 2), torch.cat([layer.values, value], 2)
        return self.layers[layer_idx].keys, self.layers[layer_idx].values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.layers[layer_idx].keys.shape[2] if self.layers else 0


@pytest.mark.parametrize("packing", ["never", "always"])
@torch.no_grad()
def test_a_cache_of_others(packing: str) -> None:
    model = decoder().set_packing(packing)
    ids, keep = padded()
    found = in_pieces(model, ids, keep, [3, 5], Guest())
    assert_close(found[keep == 1], model(ids, keep).logits[keep == 1])


# ---- What is refused


def held(
    layers: int = 2, parts: int = 2, heads: int = 2, size: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[tuple[Tensor, ...], ...]:
    """A tuple of keys and values of four tokens."""
    return ((torch.zeros(4, heads, 4, size, dtype=dtype),) * parts,) * layers


def test_autocast_goes_on_from_a_cache_in_float32() -> None:
    model, ids = decoder().eval(), full()
    with torch.no_grad():
        first, whole = model(ids[:, :4]), model(ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            second = model(ids[:, 4:], past_key_values=first.past_key_values)
    assert_close(second.logits.float(), whole[:, 4:], tolerance=0.05)


def test_layers_of_which_some_are_trained_have_one_cache() -> None:
    """Where gradients flow there is no room behind the tokens."""
    model, ids = decoder().requires_grad_(False), full()
    whole = model(ids).logits
    model.roberta.encoder.layer[1].requires_grad_(True)
    found = in_pieces(model, ids, torch.ones_like(ids), [1, 2, 3, 4, 5])
    assert found.requires_grad
    assert_close(found, whole)


def test_heads_that_were_pruned_after_the_cache_was_made() -> None:
    model, ids = decoder(), full()
    cache = model(ids[:, :4]).past_key_values
    model.prune_heads({1: [0]})
    with pytest.raises(InputError, match=r"keys of layer 1 of shape \(4, 2, 4, 8\), expected \(4, 1, 4, 8\)"):
        model(ids[:, 4:], past_key_values=cache)
    cache = model(ids[:, :4]).past_key_values
    assert model(ids[:, 4:], past_key_values=cache).past_key_values.get_seq_length() == LENGTH


@pytest.mark.parametrize(
    ("changes", "wrong", "message"),
    [
        ({}, {"past_key_values": ()}, "has 0 layers, expected 2"),
        ({}, {"past_key_values": ((), ())}, r"must have \(keys, values\) for each layer"),
        ({}, {"past_key_values": ((None, None),) * 2}, "as a tuple must hold tensors, received NoneType"),
        ({}, {"past_key_values": 3}, r"must be a cache \(DynamicCache.*received int"),
        ({"is_decoder": False}, {"past_key_values": DynamicCache()}, "is for a decoder"),
        ({}, {"past_key_values": held(layers=3)}, "has 3 layers, expected 2"),
        ({}, {"past_key_values": held(layers=1)}, "has 1 layer, expected 2"),
        ({}, {"past_key_values": DynamicCache(held(layers=1))}, "has 1 layer, expected 2"),
        ({}, {"past_key_values": held(size=5)}, r"expected \(batch, 2, tokens, 8\)"),
        ({}, {"past_key_values": held(heads=3)}, r"of shape \(4, 3, 4, 8\), expected \(batch, 2, tokens, 8\)"),
        ({}, {"past_key_values": DynamicCache(held(heads=3))}, r"expected \(batch, 2, tokens, 8\)"),
        ({}, {"past_key_values": held(dtype=torch.float64)}, "in torch.float64, expected torch.float32"),
        ({}, {"past_key_values": DynamicCache(held(dtype=torch.float16))}, "in torch.float16, expected torch.float32"),
        ({}, {"past_key_values": held(parts=4)}, "received 4 for layer 0 of a model with add_cross_attention=False"),
        ({}, {"past_key_values": EncoderDecoderCache(held(parts=4))}, "received 4 for layer 0"),
        ({}, {"use_cache": "yes"}, "use_cache must be True, False or None, received 'yes'"),
        ({}, {"past_key_values": [(torch.zeros(2, 2, 3, 8),) * 2] * 2}, "holds 2 rows, received input of 4 rows"),
        ({}, {"attention_mask": torch.ones(4, 6)}, "a column for each token, those of the 4"),
        ({}, {"cache_position": torch.tensor([1, 2])}, "must be the places 4 to 5"),
    ],
)
def test_refused(changes: dict[str, Any], wrong: dict[str, Any], message: str) -> None:
    model = decoder(**changes)
    ids = full()
    cache = decoder()(ids[:, :4]).past_key_values
    if "attention_mask" in wrong:
        wrong = {"attention_mask": wrong["attention_mask"][:, :5]}
    with pytest.raises(InputError, match=message):
        model(ids[:, 4:], **{"past_key_values": cache, **wrong})


def test_a_full_cache_is_refused() -> None:
    model = decoder()
    ids = full()
    cache = StaticCache(model.config, 4)
    model(ids[:, :3], past_key_values=cache)
    with pytest.raises(InputError, match="has room for 4 tokens and holds 3, received 2 more"):
        model(ids[:, 3:5], past_key_values=cache)
    with pytest.raises(InputError, match="max_cache_len must be a number of tokens"):
        StaticCache(model.config, 0)


# ---- Parts of a model that are called by themselves


@each_family
@torch.no_grad()
def test_parts_take_a_cache(family: str) -> None:
    model = decoder(family, add_cross_attention=True).roberta
    states = torch.randn(4, LENGTH, 16, generator=torch.Generator().manual_seed(5))
    other = memory()
    whole = model.encoder(states, encoder_hidden_states=other["encoder_hidden_states"])
    assert whole.past_key_values is None
    first = model.encoder(states[:, :3], encoder_hidden_states=other["encoder_hidden_states"], use_cache=True)
    cache = first.past_key_values
    second = model.encoder(
        states[:, 3:], encoder_hidden_states=other["encoder_hidden_states"], past_key_values=cache, use_cache=True
    )
    assert second.past_key_values is cache and cache.get_seq_length() == LENGTH
    assert_close(second.last_hidden_state, whole.last_hidden_state[:, 3:])
    layer, cache = model.encoder.layer[1], DynamicCache()
    parts = [layer(part, past_key_values=cache)[0] for part in states.split(2, dim=1)]
    assert_close(torch.cat(parts, 1), layer(states)[0])
