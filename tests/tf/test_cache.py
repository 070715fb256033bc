"""A decoder that goes on from a cache says what it says of the whole text at once."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.tf.models import VOCABULARY, Case, assert_close, each_family, packed_calls  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_tf.cache import CountedTuple, StaticCache  # noqa: E402
from xlmr_tf.modeling_xlm_roberta import TFXLMRobertaEncoder, TFXLMRobertaLayer  # noqa: E402

BASE = "XLMRoberta"
LENGTH = 7
MASKS = {
    "full": [[1] * LENGTH] * 2,
    "left": [[0, 0, 1, 1, 1, 1, 1], [1] * LENGTH],
    "right": [[1, 1, 1, 1, 0, 0, 0], [1] * LENGTH],
    "inside": [[1, 1, 0, 0, 1, 0, 1], [1, 0, 1, 1, 1, 1, 1]],
}
CHUNKS = [4, 1, 2]
each_mask = pytest.mark.parametrize("mask", MASKS)
KINDS = {"tuple": lambda: None, "static": lambda: StaticCache.empty(LENGTH + 3)}


def decoder(family=BASE, head="ForCausalLM", **changes):
    return Case(family, head).build(**{"is_decoder": True, "use_cache": True, "num_hidden_layers": 1, **changes})


@pytest.fixture(scope="module")
def model():
    return decoder(num_hidden_layers=2)


def batch(mask="left", length=LENGTH):
    mask_BS = np.array(MASKS[mask])[:, :length]
    ids_BS = np.random.default_rng(1).integers(4, VOCABULARY, mask_BS.shape)
    return np.where(mask_BS == 1, ids_BS, 1), mask_BS


def in_chunks(model, ids, mask, sizes, past=None, **others):
    """The logits of all tokens, which come chunk by chunk, and the last cache."""
    found, start = [], 0
    for size in sizes:
        end = start + size
        output = model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=past, use_cache=True, **others)
        past, start = output.past_key_values, end
        found.append(output.logits.numpy())
    return np.concatenate(found, 1), past


def same(actual, ids, mask, model, **others):
    """They are the logits of a call without a cache, wherever the mask is 1."""
    expected = model(ids, attention_mask=mask, use_cache=False, **others).logits.numpy()
    assert_close(actual[mask == 1], expected[mask == 1])


@each_mask
@pytest.mark.parametrize(("kind", "packing"), [("tuple", "always"), ("static", "never")])
def test_chunks_are_the_whole(model, mask, kind, packing):
    ids_BS, mask_BS = batch(mask)
    model.set_packing(packing)
    with packed_calls(model) as packed:
        actual, past = in_chunks(model, ids_BS, mask_BS, CHUNKS, KINDS[kind]())
    model.set_packing("auto")
    assert packed == [packing == "always", False, False]
    assert isinstance(past, StaticCache if kind == "static" else tuple)
    same(actual, ids_BS, mask_BS, model)


@each_family
@pytest.mark.parametrize("positions", ["absolute", "relative_key", "relative_key_query"])
def test_all_positions_go_on(family, positions):
    model = decoder(family, position_embedding_type=positions)
    ids_BS, mask_BS = batch("inside")
    for kind in KINDS.values():
        actual, _ = in_chunks(model, ids_BS, mask_BS, [3, 1, 3], kind())
        same(actual, ids_BS, mask_BS, model)


@pytest.mark.parametrize(("family", "kind"), [("XLMRoberta", "tuple"), ("XLMRobertaXL", "static")])
def test_the_memory_is_computed_once(family, kind):
    model = decoder(family, add_cross_attention=True)
    ids_BS, mask_BS = batch()
    rng = np.random.default_rng(2)
    memory = {
        "encoder_hidden_states": rng.normal(size=(2, 3, 16)).astype(np.float32),
        "encoder_attention_mask": np.array([[1, 1, 0], [1, 1, 1]]),
    }
    actual, past = in_chunks(model, ids_BS, mask_BS, CHUNKS, KINDS[kind](), **memory)
    same(actual, ids_BS, mask_BS, model, **memory)
    # What stands in the cache counts, whatever memory comes later.
    other = {**memory, "encoder_hidden_states": np.zeros((2, 3, 16), np.float32)}
    first = model(ids_BS[:, :4], attention_mask=mask_BS[:, :4], past_key_values=KINDS[kind](), **memory)
    rest = model(ids_BS[:, 4:], attention_mask=mask_BS, past_key_values=first.past_key_values, **other)
    assert_close(rest.logits[mask_BS[:, 4:] == 1], actual[:, 4:][mask_BS[:, 4:] == 1])
    if kind == "tuple":
        assert [len(layer) for layer in past] == [4]
        assert past[0][0].shape == (2, 2, LENGTH, 8) and past[0][2].shape == (2, 2, 3, 8)


def test_a_tuple_of_elsewhere_counts_by_the_mask(model):
    """Arrays will do, and a static cache as a tuple is what a growing one is."""
    ids_BS, mask_BS = batch("left")
    _, static = in_chunks(model, ids_BS[:, :5], mask_BS[:, :5], [3, 2], StaticCache.empty(9))
    _, grown = in_chunks(model, ids_BS[:, :5], mask_BS[:, :5], [5])
    kept = np.broadcast_to(mask_BS[:, None, :5, None] == 1, grown[0][0].shape)
    for one, other in zip(tf.nest.flatten(static.to_legacy_cache()), tf.nest.flatten(grown), strict=True):
        assert_close(one.numpy()[kept], other.numpy()[kept])
    past = tf.nest.map_structure(lambda x: x.numpy(), grown)
    output = model(ids_BS[:, 5:], attention_mask=mask_BS, past_key_values=past)
    whole = model(ids_BS, attention_mask=mask_BS, use_cache=False).logits[:, 5:]
    assert_close(output.logits, whole)


def test_chunks_without_a_mask_count_their_padding(model):
    """What a call gives outside of graphs has counted, and other beams take their numbers with them."""
    ids_BS, _ = batch("left")
    with pytest.warns(UserWarning, match="padding"):
        whole = model(ids_BS, use_cache=False).logits
        past = model(ids_BS[:, :4], use_cache=True).past_key_values
    assert isinstance(past, CountedTuple) and past.counted_B.numpy().tolist() == [2, 4]
    second = model(ids_BS[:, 4:], past_key_values=past, use_cache=True)
    assert_close(second.logits, whole[:, 4:])
    assert second.past_key_values.counted_B.numpy().tolist() == [5, 7]
    turned = model._reorder_cache(past, tf.constant([1, 0]))
    assert_close(model(ids_BS[::-1, 4:], past_key_values=turned).logits, whole[::-1, 4:])


def test_embeddings_go_on(model):
    ids_BS, _ = batch("full")
    embeds = tf.gather(model.get_input_embeddings().embeddings, ids_BS)
    first = model(inputs_embeds=embeds[:, :4], use_cache=True)
    second = model(inputs_embeds=embeds[:, 4:], past_key_values=first.past_key_values)
    assert_close(second.logits, model(inputs_embeds=embeds).logits[:, 4:])
    assert_close(second.logits, model(ids_BS).logits[:, 4:])


def test_a_mask_with_a_row_for_each_query(model):
    ids_BS, _ = batch("full")
    seen_BSS = np.tri(LENGTH, dtype=np.int64)[None].repeat(2, 0)
    seen_BSS[:, 5, 2] = 0
    whole = model(ids_BS, attention_mask=seen_BSS, use_cache=False).logits
    for kind in KINDS.values():
        first = model(ids_BS[:, :4], attention_mask=seen_BSS[:, :4, :4], past_key_values=kind(), use_cache=True)
        rest = model(ids_BS[:, 4:], attention_mask=seen_BSS[:, 4:], past_key_values=first.past_key_values)
        assert_close(rest.logits, whole[:, 4:])


def test_the_longest_text(model):
    """As many tokens as there are positions for, and no more."""
    most = model.config.max_tokens
    ids = np.random.default_rng(3).integers(4, VOCABULARY, (1, most + 1))
    mask = np.ones_like(ids)
    actual, past = in_chunks(model, ids[:, :most], mask[:, :most], [most - 1, 1])
    same(actual, ids[:, :most], mask[:, :most], model)
    with pytest.raises(InputError, match=f"holds {most} tokens and 1 more came, expected at most {most}"):
        model(ids[:, most:], attention_mask=mask, past_key_values=past)


def test_when_a_cache_is_given(model):
    ids_BS, _ = batch("full")
    assert "past_key_values" in model(ids_BS)
    assert "past_key_values" not in model(ids_BS, use_cache=False)
    assert "past_key_values" not in model(ids_BS, past_key_values=model(ids_BS[:, :2]).past_key_values, use_cache=False)
    assert "past_key_values" not in decoder(use_cache=False)(ids_BS)
    assert "past_key_values" not in decoder(is_decoder=False)(ids_BS, use_cache=True)
    bare = decoder(head="Model")
    assert len(bare(ids_BS).past_key_values) == 1 and len(bare(ids_BS, return_dict=False)) == 3
    bare.gradient_checkpointing_enable()
    assert "past_key_values" not in bare(ids_BS, training=True) and "past_key_values" in bare(ids_BS)


def test_a_call_leaves_its_cache_as_it_is(model):
    ids_BS, mask_BS = batch()
    first = model(ids_BS[:, :4], attention_mask=mask_BS[:, :4], past_key_values=StaticCache.empty(8), use_cache=True)
    before = [key.numpy() for key, _ in first.past_key_values.layers]
    one, other = (model(ids_BS[:, 4:], attention_mask=mask_BS, past_key_values=first.past_key_values) for _ in "12")
    assert_close(one.logits, other.logits)
    assert int(first.past_key_values.get_seq_length()) == 4 and int(one.past_key_values.get_seq_length()) == LENGTH
    for key, (kept, _) in zip(before, first.past_key_values.layers, strict=True):
        assert_close(kept, key)


def test_gradients_flow_through_a_cache(model):
    """As they must for a learned prefix; with layers that are computed once more too."""
    ids_BS, _ = batch("full")
    prefix = model(ids_BS[:, :3]).past_key_values
    labels = ids_BS[:, 3:]

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(prefix)
            loss = model(ids_BS[:, 3:], past_key_values=prefix, labels=labels, use_cache=False, training=True).loss
        return tape.gradient(loss, tf.nest.flatten(prefix))

    expected = gradients()
    model.gradient_checkpointing_enable()
    actual = gradients()
    model.gradient_checkpointing_disable()
    for one, other in zip(actual, expected, strict=True):
        assert float(tf.reduce_max(tf.abs(other))) > 0
        assert_close(one, other)


@pytest.mark.parametrize("xla", [False, True])
def test_a_static_cache_is_traced_once(model, xla):
    ids_BS, mask_BS = batch()
    wide_BM = np.pad(mask_BS, ((0, 0), (0, 2)), constant_values=1)

    @tf.function(jit_compile=xla)
    def step(ids, mask, past):
        output = model(ids, attention_mask=mask, past_key_values=past)
        return output.logits, output.past_key_values

    first = model(ids_BS[:, :4], attention_mask=mask_BS[:, :4], past_key_values=StaticCache.empty(9), use_cache=True)
    past, found = first.past_key_values, [first.logits]
    for number in range(4, LENGTH):
        logits, past = step(tf.constant(ids_BS[:, number : number + 1]), tf.constant(wide_BM), past)
        found.append(logits)
    assert step.experimental_get_tracing_count() == 1
    same(np.concatenate(found, 1), ids_BS, mask_BS, model)


def test_a_graph_of_any_length(model):
    """One graph for every length of the text before, and of the new one."""
    ids_BS, mask_BS = batch()
    free, heads = tf.TensorSpec((None, None), tf.int64), tf.TensorSpec((None, 2, None, 8))

    @tf.function(input_signature=[free, free, tuple((heads, heads) for _ in range(2))])
    def step(ids, mask, past):
        output = model(ids, attention_mask=mask, past_key_values=past)
        return output.logits, output.past_key_values

    for start in (2, 4):
        past = model(ids_BS[:, :start], attention_mask=mask_BS[:, :start]).past_key_values
        logits, _ = step(tf.constant(ids_BS[:, start:]), tf.constant(mask_BS), past)
        whole = model(ids_BS, attention_mask=mask_BS).logits[:, start:]
        assert_close(logits.numpy()[mask_BS[:, start:] == 1], whole.numpy()[mask_BS[:, start:] == 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="attention_mask must have the shape"):
        step(tf.constant(ids_BS[:, 4:]), tf.constant(mask_BS[:, 1:]), past)


@pytest.mark.parametrize(
    ("past", "message"),
    [
        (np.zeros(3), "must be a tuple of 2 layers or a StaticCache, received"),
        (((np.zeros(1),),), "must be a tuple of 2 layers or a StaticCache, received 1 of them"),
        (((np.zeros(1),),) * 2, r"must hold for each layer \(keys, values\).*received \(1,\)"),
        (((np.zeros((2, 2, 3, 5)),) * 2,) * 2, r"of shape \(2, 2, 3, 5\), expected \(batch, 2, tokens, 8\)"),
        (((np.zeros((2, 3, 3, 8)),) * 2,) * 2, r"of shape \(2, 3, 3, 8\), expected \(batch, 2, tokens, 8\)"),
        (((np.zeros((2, 2, 3, 8), np.int32),) * 2,) * 2, "keys of layer 0 in int32, expected float32"),
        (((np.zeros((2, 2, 3, 8)),) * 4,) * 2, "received 4 for layer 0 of a model with add_cross_attention=False"),
        (((np.zeros((3, 2, 3, 8), np.float32),) * 2,) * 2, "holds 3 rows, received input of 2 rows"),
    ],
)
def test_what_is_no_cache(model, past, message):
    with pytest.raises(InputError, match=message):
        model(batch("full")[0], past_key_values=past)


def test_a_mask_of_the_new_tokens_alone(model):
    ids_BS, mask_BS = batch("full")
    past = model(ids_BS[:, :4]).past_key_values
    with pytest.raises(InputError, match=r"a column for each token, those of the 4 in past_key_values and the 3 new"):
        model(ids_BS[:, 4:], attention_mask=mask_BS[:, 4:], past_key_values=past)
    full = in_chunks(model, ids_BS, mask_BS, [LENGTH], StaticCache.empty(LENGTH))[1]
    with pytest.raises(InputError, match="has room for 7 tokens and holds 7, received 1 more"):
        model(ids_BS[:, :1], past_key_values=full)
    with pytest.raises(InputError, match="past_key_values is for a decoder"):
        decoder(is_decoder=False, num_hidden_layers=2)(ids_BS[:, 4:], past_key_values=past)
    with pytest.raises(InputError, match="max_cache_len must be the number of tokens"):
        StaticCache.empty(0)


def test_rows_of_other_beams(model):
    ids_BS, mask_BS = batch()
    rows = np.array([1, 1, 0])
    past = in_chunks(model, ids_BS[:, :4], mask_BS[:, :4], [4], StaticCache.empty(8))[1]
    reordered = model(ids_BS[rows, 4:], attention_mask=mask_BS[rows], past_key_values=past.reorder_cache(rows))
    whole = model(ids_BS, attention_mask=mask_BS).logits[:, 4:]
    assert_close(reordered.logits, tf.gather(whole, rows))
    twice = model(ids_BS.repeat(2, 0)[:, 4:], attention_mask=mask_BS.repeat(2, 0), past_key_values=past.repeat(2))
    assert_close(twice.logits, tf.repeat(whole, 2, 0))


def test_parts_of_a_decoder():
    """A layer and a stack of layers made by themselves give their keys and values, and go on from them."""
    config = Case(BASE, "ForCausalLM").config(is_decoder=True, add_cross_attention=True)
    x, memory = tf.random.normal((2, 5, 16)), tf.random.normal((2, 3, 16))
    bias = tf.where(tf.range(5)[None] <= tf.range(5)[:, None], 0.0, -1e9)[None, None]
    layer, stack = TFXLMRobertaLayer(config), TFXLMRobertaEncoder(config)
    whole, present = layer(x, bias, encoder_hidden_states=memory)
    assert [part.shape[2] for part in present] == [5, 5, 3, 3]
    _, past = layer(x[:, :3], bias[:, :, :3, :3], encoder_hidden_states=memory)
    rest, _ = layer(x[:, 3:], bias[:, :, 3:], encoder_hidden_states=memory, past_key_value=past)
    assert_close(rest, whole[:, 3:])
    whole = stack(x, bias).last_hidden_state
    past = stack(x[:, :3], bias[:, :, :3, :3], use_cache=True).past_key_values
    rest = stack(x[:, 3:], bias[:, :, 3:], past_key_values=past, use_cache=True)
    assert_close(rest.last_hidden_state, whole[:, 3:])
    assert rest.past_key_values[1][0].shape == (2, 2, 5, 8)
