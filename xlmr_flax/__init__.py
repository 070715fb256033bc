"""The Flax backend of xlmr. It holds the tensor conversion (``return_tensors="jax"``); the models come in a later release."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_core.errors import InputError

__all__ = ["to_tensor"]


def to_tensor(array: np.ndarray[Any, Any]) -> jax.Array:
    """A JAX array with the values and shape of a NumPy array.

    64-bit integers and floats become 32-bit ones unless JAX was told to keep them (``jax_enable_x64``).

    Raises:
        InputError: if an integer does not fit 32 bits.
    """
    if not jax.config.jax_enable_x64 and array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        limits = np.iinfo(np.int32)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise InputError(
                f"expected integers of 32 bits, which is what JAX keeps, received {array.min()} to {array.max()}; set jax_enable_x64"
            )
        array = array.astype(np.int32)
    elif not jax.config.jax_enable_x64 and array.dtype == np.float64:
        array = array.astype(np.float32)
    return jnp.asarray(array)
