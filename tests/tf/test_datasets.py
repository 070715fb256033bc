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


# ---- Rows that are encoded already


class Rows:
    """What is asked of a ``datasets.Dataset``."""

    def __init__(self, **columns):
        self.columns = columns
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, numbers):
        return {name: [values[number] for number in numbers] for name, values in self.columns.items()}


def encoded(tokenizer, **more):
    return Rows(text=TEXTS, **tokenizer(TEXTS), **more)


def test_rows_become_padded_batches(tokenizer):
    model = tiny.build("XLMRobertaForSequenceClassification")
    data = model.prepare_tf_dataset(encoded(tokenizer, label=LABELS), 2, shuffle=False, tokenizer=tokenizer)
    batches = list(data)
    assert data.element_spec[0]["input_ids"] == tf.TensorSpec((None, None), tf.int64) and len(batches) == 2
    for number, (x, labels) in enumerate(batches):
        part = slice(2 * number, 2 * number + 2)
        expected = tokenizer(TEXTS[part], padding=True, return_tensors="np")
        assert set(x) == set(expected) and labels.numpy().tolist() == LABELS[part]
        for name, values in expected.items():
            np.testing.assert_array_equal(x[name], values)
    shuffled = model.prepare_tf_dataset(encoded(tokenizer, label=LABELS), 3, tokenizer=tokenizer)
    assert [len(labels) for _, labels in shuffled] == [3]  # the rest is left out, as published


def test_fit_on_rows_with_labels_of_tokens(tokenizer):
    model = tiny.build("XLMRobertaForTokenClassification", vocab_size=len(tokenizer))
    labels = [[token % tiny.CLASSES for token in row] for row in tokenizer(TEXTS)["input_ids"]]
    data = model.prepare_tf_dataset(encoded(tokenizer, labels=labels), batch_size=4, shuffle=False, tokenizer=tokenizer)
    ((x, y),) = data
    np.testing.assert_array_equal(y != -100, x["attention_mask"] == 1)
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit(data, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_rows_without_labels_and_a_collator(tokenizer):
    def collate(rows, width):
        ids = np.array([(row["input_ids"] * width)[:width] for row in rows])
        return {"input_ids": tf.constant(ids), "unknown": ids}

    model = tiny.build("XLMRobertaForQuestionAnswering")
    data = model.prepare_tf_dataset(
        encoded(tokenizer), 4, shuffle=False, collate_fn=collate, collate_fn_args={"width": 5}
    )
    (ids,) = data
    assert ids.shape == (4, 5)  # one input stands by itself
    data = model.prepare_tf_dataset(
        encoded(tokenizer, start_positions=LABELS, end_positions=LABELS), 4, shuffle=False, tokenizer=tokenizer
    )
    ((_, y),) = data
    assert set(y) == {"start_positions", "end_positions"}


def test_what_are_no_rows_is_said(tokenizer):
    model = tiny.build("XLMRobertaForSequenceClassification")
    rows = encoded(tokenizer, label=LABELS)
    for given, message in (
        (
            [1, 2],
            r"expected a datasets.Dataset \(pip install datasets\), received list; of a DatasetDict pass one split",
        ),
        ({"train": rows}, "received dict"),
        (Rows(text=TEXTS), "expected columns such as input_ids, received text; map the tokenizer over the texts first"),
        (Rows(input_ids=[]), "expected a data set with rows"),
        (rows, "input_ids has rows of several lengths, expected one length; pass tokenizer="),
        (Rows(input_ids=[[0, 2]] * 2, label=["bad", "good"]), "labels must hold numbers, received .*config.label2id"),
    ):
        with pytest.raises(InputError, match=message):
            model.prepare_tf_dataset(given)
