"""What TensorFlow and Keras have to know about the core's types."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import optree
import tensorflow as tf

from xlmr_core.errors import XLMRError
from xlmr_core.outputs import OUTPUT_TYPES, ModelOutput
from xlmr_tf.cache import CountedTuple

__all__ = ["register_errors", "register_outputs", "to_tensor"]


def to_tensor(array: np.ndarray[Any, Any]) -> tf.Tensor:
    """A TensorFlow tensor with the values, shape and dtype of a NumPy array."""
    return tf.convert_to_tensor(array)


def _flatten(output: ModelOutput[Any]) -> tuple[list[Any], tuple[str, ...], tuple[str, ...]]:
    return list(output.values()), tuple(output), tuple(output)


def _unflatten(output_type: type[ModelOutput[Any]], names: tuple[str, ...], values: Any) -> ModelOutput[Any]:
    return output_type(dict(zip(names, values, strict=True)))


def register_outputs() -> None:
    """Make output types, and caches in them, containers that ``fit``, ``predict`` and symbolic calls see through."""
    for output_type in OUTPUT_TYPES:
        optree.register_pytree_node(output_type, _flatten, partial(_unflatten, output_type), namespace="keras")
    optree.register_pytree_node(
        CountedTuple,
        lambda past: ((tuple(past), past.counted_B), None),
        lambda _, parts: CountedTuple.of(*parts),
        namespace="keras",
    )


def register_errors() -> None:
    """Let the core's errors come out of a call and of a graph as what they are, in their own words.

    Keras would put each between a title and a list of all arguments, AutoGraph would raise an error of its own.
    """
    XLMRError._keras_call_info_injected = True
    XLMRError.ag_pass_through = True
