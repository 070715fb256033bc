"""Models that change their shape: more or fewer tokens, fewer heads."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import xlmr_flax  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402
from xlmr_flax.functional import flatten  # noqa: E402


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["ForMaskedLM", "Model"])
@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({"new_num_tokens": 70}, 70),
        ({"new_num_tokens": 20}, 20),
        ({"new_num_tokens": 70, "pad_to_multiple_of": 64}, 128),
        ({"pad_to_multiple_of": 8}, 64),
        ({"new_num_tokens": 70, "mean_resizing": False}, 70),
        ({}, 61),
    ],
)
def test_resize(head, tied, arguments, rows):
    model = models.model(head, tie_word_embeddings=tied)
    model.params = jax.tree.map(lambda x: x + 1, model.params)
    old = flatten(model.params)
    embedding = model.resize_token_embeddings(**arguments)
    assert embedding is model.get_input_embeddings() and model.config.vocab_size == rows
    new, kept = flatten(model.params), min(rows, 61)
    table = model.parameter_table()
    assert set(new) == set(old)
    assert {row.shape for row in table.values() if "vocab" in row.dims} >= {(rows, 24)}
    for path, x in new.items():
        axis = {"embedding": 0, "bias": 0, "kernel": 1}.get(path[-1], 0)
        if path[-2:] in (("word_embeddings", "embedding"), ("lm_head", "bias"), ("decoder", "kernel")):
            assert x.shape[axis] == rows
            np.testing.assert_array_equal(x.take(np.arange(kept), axis), old[path].take(np.arange(kept), axis))
            if path[-1] == "bias":
                assert not x[kept:].any()
            elif rows > 61:
                fresh = x.take(np.arange(61, rows), axis)
                assert (fresh.std(axis) > 0).all()
                if "mean_resizing" not in arguments:
                    np.testing.assert_allclose(fresh.mean(axis), old[path].mean(axis), atol=1e-4)
        else:
            np.testing.assert_array_equal(x, old[path])
    if head == "ForMaskedLM":
        assert model(np.array([[0, 5, 2]])).logits.shape == (1, 3, rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new_num_tokens": 0}, r"above pad_token_id \(1\), received 0"),
        ({"new_num_tokens": 1}, r"above pad_token_id \(1\), received 1"),
        ({"new_num_tokens": 70.0}, r"received 70\.0"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of must be a positive integer, received 0"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(InputError, match=message):
        models.model().resize_token_embeddings(**arguments)
    with pytest.raises(InputError, match="_do_init=False"):
        models.model(_do_init=False).resize_token_embeddings(70)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_pruned_head_is_a_masked_head(family, tmp_path):
    model = models.model(family=family)
    given = models.batch()
    mask = np.array([[1, 0, 1], [0, 1, 0]], np.float32)
    where = given["attention_mask"] == 1
    expected = model(**given, head_mask=mask).logits[where]
    model.prune_heads({0: [1]})
    model.prune_heads({0: [1], 1: [0, 2]})
    assert model.config.pruned_heads == {0: [1], 1: [0, 2]}
    layers = model.params["roberta"]["encoder"]["layer"]
    assert layers["0"]["attention"]["self"]["query"]["kernel"].shape == (24, 16)
    assert layers["1"]["attention"]["output"]["dense"]["kernel"].shape == (8, 24)
    np.testing.assert_allclose(model(**given).logits[where], expected, atol=1e-5)
    np.testing.assert_allclose(model(**given, head_mask=mask).logits[where], expected, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = getattr(xlmr_flax, f"Flax{family}ForMaskedLM").from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(**given).logits, model(**given).logits)
    with pytest.raises(InputError, match="cannot be scanned"):
        model.set_scan_layers(True)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({0: [0, 1, 2]}, "leaves no attention head in layer 0"),
        ({0: [3]}, "which this model does not have"),
        ({2: [0]}, "which this model does not have"),
    ],
)
def test_heads_that_cannot_be_pruned(heads, message):
    model = models.model()
    before = model.params
    with pytest.raises(ConfigError, match=message):
        model.prune_heads(heads)
    assert model.config.pruned_heads == {}
    jax.tree.map(np.testing.assert_array_equal, model.params, before)


def test_pruning_without_values():
    model = models.model(_do_init=False)
    model.prune_heads({0: [1]})
    assert model.params_shape_tree["roberta"]["encoder"]["layer"]["0"]["attention"]["self"]["key"]["bias"].shape == (
        16,
    )
