"""Arrays to and from NumPy, and the output types as containers that JAX sees through."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from xlmr_core.errors import InputError
from xlmr_core.outputs import OUTPUT_TYPES, ModelOutput

__all__ = ["register_outputs", "to_tensor"]


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
                f"expected integers of 32 bits, which is what JAX keeps, received {array.min()} to {array.max()}; set "
                "jax_enable_x64"
            )
        array = array.astype(np.int32)
    elif not jax.config.jax_enable_x64 and array.dtype == np.float64:
        array = array.astype(np.float32)
    return jnp.asarray(array)


def _flatten(output: ModelOutput[Any]) -> tuple[list[Any], tuple[str, ...]]:
    return list(output.values()), tuple(output)


def _flatten_with_keys(output: ModelOutput[Any]) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    return [(jax.tree_util.DictKey(name), value) for name, value in output.items()], tuple(output)


def _unflatten(output_type: type[ModelOutput[Any]], names: tuple[str, ...], values: Any) -> ModelOutput[Any]:
    output = output_type()
    # Not through the constructor: JAX puts None and other markers in the places of arrays, and each has to keep its
    # place.
    dict.update(output, zip(names, values, strict=True))
    return output


def register_outputs(output_types: Iterable[type[ModelOutput[Any]]] = OUTPUT_TYPES) -> None:
    """Make output types containers that every transformation sees through, and that ``jax.export`` can write."""
    for output_type in output_types:
        jax.tree_util.register_pytree_with_keys(
            output_type, _flatten_with_keys, partial(_unflatten, output_type), flatten_func=_flatten
        )
        # An exported program writes its outputs' types by these names.
        export.register_pytree_node_serialization(
            output_type,
            serialized_name=f"xlmr.{output_type.__name__}",
            serialize_auxdata=lambda names: json.dumps(names).encode(),
            deserialize_auxdata=lambda written: tuple(json.loads(written)),
        )
