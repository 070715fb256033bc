"""The conversion of tokenizer output to JAX."""

from __future__ import annotations

import numpy as np
import pytest

from xlmr_core import backends
from xlmr_core.errors import InputError

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")
xlmr_flax = pytest.importorskip("xlmr_flax")

NARROWED = {"int64": "int32", "float64": "float32"}


@pytest.mark.parametrize("dtype", ["int64", "int32", "float64", "float32", "float16", "bool"])
@pytest.mark.parametrize("shape", [(2, 3), (1, 0), ()])
def test_values_and_shape_are_kept(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    tensor = xlmr_flax.to_tensor(array)
    assert isinstance(tensor, jax.Array)
    assert str(tensor.dtype) == NARROWED.get(dtype, dtype)
    assert tensor.shape == shape
    np.testing.assert_array_equal(np.asarray(tensor), array)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_an_integer_that_would_wrap_around_is_refused(value):
    with pytest.raises(InputError, match="jax_enable_x64"):
        xlmr_flax.to_tensor(np.array([value]))


def test_the_core_reaches_it_by_name():
    tensor = backends.to_tensor("jax", np.array([[0, 250001, 2]]))
    assert isinstance(tensor, jax.Array)
    assert tensor.tolist() == [[0, 250001, 2]]
