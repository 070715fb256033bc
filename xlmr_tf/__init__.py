"""The Keras backend of xlmr. It holds the tensor conversion (``return_tensors="tf"``); the models come in a later release."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["to_tensor"]


def to_tensor(array: np.ndarray[Any, Any]) -> tf.Tensor:
    """A TensorFlow tensor with the values, shape and dtype of a NumPy array."""
    return tf.convert_to_tensor(array)
