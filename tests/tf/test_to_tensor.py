"""The conversion of tokenizer output to TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_the_core_reaches_it_by_name():
    tensor = backends.to_tensor("tf", np.array([[0, 250001, 2]]))
    assert isinstance(tensor, tf.Tensor)
    assert tensor.numpy().tolist() == [[0, 250001, 2]]
