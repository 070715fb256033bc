"""Raw strings in a ``tf.data.Dataset`` become a model's inputs."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.tf import tiny  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_core.tokenization import AutoTokenizer  # noqa: E402
from xlmr_tf.datasets import tokenized  # noqa: E402

# Keras about its own default of shuffle=True.
pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")

TEXTS = ["Guten Tag", "a good day to everybody", "Привет", "今日は"]
PAIRS = ["Hallo", "hello", "мир", "世界"]
LABELS = [0, 1, 2, 0]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained("xlmr-mini")


def same(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == tf.int32
        np.testing.assert_array_equal(found[name], values)


def test_texts_with_labels_and_weights(tokenizer):
    dataset = tokenized(tf.data.Dataset.from_tensor_slices((TEXTS, LABELS, [1.0] * 4)).batch(2), tokenizer)
    assert dataset.element_spec[0]["input_ids"] == tf.TensorSpec((None, None), tf.int32)
    batches = list(dataset)
    assert len(batches) == 2
    for number, (x, labels, weights) in enumerate(batches):
        part = slice(2 * number, 2 * number + 2)
        same(x, tokenizer(TEXTS[part], padding=True, return_tensors="np"))
        assert labels.numpy().tolist() == LABELS[part] and weights.shape == (2,)


def test_pairs_and_options(tokenizer):
    dataset = tf.data.Dataset.from_tensor_slices({"text": TEXTS, "text_pair": PAIRS}).batch(4)
    (found,) = tokenized(dataset, tokenizer, padding="max_length", max_length=12)
    same(found, tokenizer(TEXTS, PAIRS, padding="max_length", max_length=12, truncation=True, return_tensors="np"))


def test_fit_on_texts(tokenizer):
    model = tiny.build("XLMRobertaForSequenceClassification", vocab_size=len(tokenizer))
    dataset = tokenized(tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).batch(2), tokenizer)
    model.compile(keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(dataset, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("dataset", [tf.data.Dataset.from_tensor_slices(TEXTS), tf.data.Dataset.range(4).batch(2)])
def test_what_is_not_a_batch_of_texts_is_refused(tokenizer, dataset):
    with pytest.raises(InputError, match=r"expected batches of strings \(B,\)"):
        tokenized(dataset, tokenizer)
