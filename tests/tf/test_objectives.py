"""Losses of sentence embeddings against their formulas, and what is trained at which rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.small_runs import small_recipe  # noqa: E402
from tests.tf import tiny  # noqa: E402
from xlmr_tf.contrastive import cosent, embedding_loss, in_batch_negatives, pooled  # noqa: E402
from xlmr_tf.optimizers import AdamW, freeze, optimizer_of, trained_in  # noqa: E402


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cosines(a, b):
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def one_way(scores, left_out):
    """Mean cross-entropy of each row against the columns that are not left out, the right one on the diagonal."""
    found = []
    for i, row in enumerate(scores):
        counted = [math.exp(value) for j, value in enumerate(row) if j == i or not left_out(i, j)]
        found.append(-math.log(math.exp(row[i]) / sum(counted)))
    return sum(found) / len(found)


@pytest.mark.parametrize("negatives", [0, 4])
@pytest.mark.parametrize("group", [[1, 2, 3, 4], [1, 2, 1, 3]])
def test_in_batch_negatives(group, negatives):
    first, others = vectors(4, 6), vectors(4 + negatives, 6, seed=1)
    scores = cosines(first, others) / 0.3
    there = one_way(scores, lambda i, j: j < 4 and group[i] == group[j])
    back = one_way(scores[:, :4].T, lambda i, j: group[i] == group[j])
    loss = in_batch_negatives(first, others, tf.constant(group), 0.3)
    assert float(loss) == pytest.approx((there + back) / 2, rel=1e-5)


def test_texts_that_belong_to_a_query_are_no_negatives_of_it():
    # Of the pairs (a, p), (a, q), (b, r), (r, s), with the hard negatives t, p, u, s.
    texts = ["a", "a", "b", "r", "p", "q", "r", "s", "t", "p", "u", "s"]
    own = [{texts[i], *(texts[4 + j] for j in range(4) if texts[j] == texts[i])} for i in range(4)]
    numbers = np.array([sorted(set(texts)).index(text) for text in texts])
    every = vectors(12, 6)[[texts.index(text) for text in texts]]  # the same text has the same vector
    scores = cosines(every[:4], every[4:]) / 0.3
    there = one_way(scores, lambda i, j: texts[4 + j] in own[i])
    back = one_way(scores[:, :4].T, lambda i, j: texts[4 + i] in own[j])
    loss = in_batch_negatives(every[:4], every[4:], tf.range(4), 0.3, tf.constant(numbers))
    assert float(loss) == pytest.approx((there + back) / 2, rel=1e-5)


def test_scores_order_cosines_and_each_width_counts():
    first, second, scores = vectors(4, 6), vectors(4, 6, seed=1), [0.5, 3.0, 3.0, 1.0]
    found = np.diag(cosines(first, second))
    wrong = [math.exp((found[j] - found[i]) / 0.3) for i in range(4) for j in range(4) if scores[i] > scores[j]]
    loss = cosent(first, second, tf.constant(scores), 0.3)
    assert float(loss) == pytest.approx(math.log(1 + sum(wrong)), rel=1e-5)
    assert float(cosent(first, second, tf.ones(4), 0.3)) == 0.0
    both, group = tf.concat([first, second], 0), tf.range(4)
    each = [float(in_batch_negatives(both[:4, :n], both[4:, :n], group, 0.3)) for n in (2, 4, 6)]
    assert float(embedding_loss(both, {"group": group}, 0.3, [2, 4])) == pytest.approx(sum(each) / 3, rel=1e-6)


def test_pooling():
    states, mask = tf.constant([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]]), tf.constant([[1, 1, 0]])
    assert pooled(states, mask, "mean").numpy().tolist() == [[2.0, 4.0]]
    assert pooled(tf.cast(states, tf.bfloat16), mask, "cls").numpy().tolist() == [[1.0, 2.0]]


def test_the_optimizer_is_that_of_the_paper():
    start, share, decay, rate, beta1, beta2, epsilon = vectors(3, 2), (1.0, 0.5), (0.1, 0.0), 0.02, 0.9, 0.98, 1e-4
    variables = [keras.Variable(start), keras.Variable(start)]
    optimizer = AdamW(rate, beta1, beta2, epsilon, shares=share, decays=decay)
    expected = [start.astype(np.float64), start.astype(np.float64)]
    first, second = np.zeros_like(expected), np.zeros_like(expected)
    for step in range(1, 4):
        slopes = [vectors(3, 2, seed=step) * 1e-3, vectors(3, 2, seed=step + 9)]
        optimizer.apply([tf.constant(slope) for slope in slopes], variables)
        for n, slope in enumerate(slopes):
            first[n] = beta1 * first[n] + (1 - beta1) * slope
            second[n] = beta2 * second[n] + (1 - beta2) * slope.astype(np.float64) ** 2
            spread = np.sqrt(second[n] / (1 - beta2**step)) + epsilon
            own = rate * share[n]
            expected[n] = expected[n] * (1 - own * decay[n]) - own * first[n] / (1 - beta1**step) / spread
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=2e-6)


def test_rates_and_decay_of_each_depth(tmp_path):
    model = tiny.build("XLMRobertaXLForSequenceClassification", num_hidden_layers=3)
    recipe = small_recipe(tmp_path, layer_decay=0.5, weight_decay=0.1)
    optimizer = optimizer_of(model, recipe, 3)
    found = dict(zip(trained_in(model), zip(optimizer.shares, optimizer.decays, strict=True), strict=True))
    assert len(found) == len(model.trainable_variables) and all(map(len, found))
    assert found["roberta.embeddings.word_embeddings._embeddings"] == (0.0625, 0.1)
    assert found["roberta.encoder.layer.0.attention.self.query._kernel"] == (0.125, 0.1)
    assert found["roberta.encoder.layer.0.attention.self.query.bias"] == (0.125, 0.0)
    assert found["roberta.encoder.layer.2.attention.self_attn_layer_norm.gamma"] == (0.5, 0.0)
    assert found["roberta.encoder.LayerNorm.gamma"] == (0.5, 0.0)
    assert found["classifier.out_proj._kernel"] == (1.0, 0.1)
    assert found["classifier.out_proj.bias"] == (1.0, 0.0)


@pytest.mark.parametrize(
    ("values", "frozen"),
    [
        ({"freeze_embeddings": True}, {"embeddings"}),
        ({"freeze_layers": 1}, {"embeddings", "layer.0"}),
        ({"head_only": True}, {"embeddings", "layer.0", "layer.1"}),
    ],
)
def test_what_is_frozen(values, frozen, tmp_path):
    model = tiny.build("XLMRobertaForTokenClassification", num_hidden_layers=2)
    freeze(model, small_recipe(tmp_path, **values), 2)
    left, parts = [*trained_in(model)], ("embeddings", "layer.0", "layer.1", "classifier")
    assert {part for part in parts if not any(part in name for name in left)} == frozen


def test_a_tied_table_has_one_place():
    model = tiny.build("XLMRobertaForMaskedLM")
    names = [*trained_in(model)]
    assert len(names) == len(set(names)) == len(model.trainable_variables)
    assert "roberta.embeddings.word_embeddings._embeddings" in names and "lm_head.bias" in names
    assert not any("table" in name or "/" in name for name in names)
