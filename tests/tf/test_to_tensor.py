"""The conversion of tokenizer output to TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

import xlmr_core.tokenization
from xlmr_core import backends

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
xlmr_tf = pytest.importorskip("xlmr_tf")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float16, np.bool_])
@pytest.mark.parametrize("shape", [(2, 3), (1, 0), ()])
def test_values_shape_and_dtype_are_kept(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    tensor = xlmr_tf.to_tensor(array)
    assert isinstance(tensor, tf.Tensor)
    assert tensor.dtype.as_numpy_dtype == dtype
    np.testing.assert_array_equal(tensor.numpy(), array, strict=True)


FAST, SLOW = (xlmr_tf.AutoTokenizer.from_pretrained("xlmr-mini", use_fast=use_fast) for use_fast in (True, False))
TEXTS = ["Guten Tag", "a good day to everybody"]


@pytest.mark.parametrize("tokenizer", [FAST, SLOW], ids=["fast", "slow"])
def test_ids_of_texts_are_of_32_bits(tokenizer):
    rows = tokenizer(TEXTS)
    for batch in (tokenizer(TEXTS, padding=True, return_tensors="tf"), tokenizer.pad(rows, return_tensors="tf")):
        assert {name: x.dtype for name, x in batch.items()} == {"input_ids": tf.int32, "attention_mask": tf.int32}
        again = tokenizer.pad(batch)
        assert {name: x.dtype for name, x in again.items()} == {"input_ids": tf.int32, "attention_mask": tf.int32}
        np.testing.assert_array_equal(again["input_ids"], batch["input_ids"])
    assert tokenizer("", add_special_tokens=False, return_tensors="tf")["input_ids"].dtype == tf.int32


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1, 2], tf.int32), ([2**40, 2], tf.int64), ([0.5, 1.5], tf.float32), (["a", "b"], tf.string)]
    + [(np.ones(2, kind), kind) for kind in (np.int64, np.float64, np.float16)],
    ids=str,
)
def test_python_numbers_get_tensorflow_s_dtypes_and_arrays_keep_theirs(values, dtype):
    labels = xlmr_core.tokenization.BatchEncoding({"labels": values}, tensor_type="tf")["labels"]
    assert labels.dtype == dtype
    rows = [{"input_ids": [0, 2], "labels": value} for value in values]
    assert FAST.pad(rows, return_tensors="tf")["labels"].dtype == dtype


def test_rows_of_tensors_of_different_lengths_are_padded():
    padded = FAST.pad([{"input_ids": tf.constant([0, 5, 2])}, {"input_ids": tf.constant([0, 2])}])
    assert padded["input_ids"].dtype == tf.int32
    np.testing.assert_array_equal(padded["input_ids"], [[0, 5, 2], [0, 2, FAST.pad_token_id]])


def test_the_core_reaches_it_by_name():
    tensor = backends.to_tensor("tf", np.array([[0, 250001, 2]]))
    assert isinstance(tensor, tf.Tensor)
    assert tensor.numpy().tolist() == [[0, 250001, 2]]
