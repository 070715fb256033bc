"""Texts in a ``tf.data.Dataset`` as a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.errors import InputError

__all__ = ["tokenized"]

TEXTS = ("text", "text_pair")


def tokenized(dataset: tf.data.Dataset, tokenizer: Any, **options: Any) -> tf.data.Dataset:
    """A dataset of batches of strings with the strings as ids and mask, ready for ``fit``.

    The tokenizer runs in Python, beside the training of the batch before. Sizes are declared free, so that no graph is
    traced anew.

    Args:
        dataset: batches of texts (B,), or of ``{"text": ..., "text_pair": ...}``; alone, or in a tuple with labels and
            with weights of examples.
        tokenizer: whose ``input_ids``, ``attention_mask`` and ``token_type_ids`` the model takes.
        **options: of the call of the tokenizer; by default ``padding=True, truncation=True``.

    Returns:
        A dataset of the same structure, with int32 tensors by name in the place of the texts.

    Raises:
        InputError: for elements that are not texts.
    """
    names = tuple(tokenizer.model_input_names)

    def encode(*columns: NDArray[Any]) -> tuple[NDArray[np.int32], ...]:
        texts = [[text.decode("utf-8") for text in column.tolist()] for column in columns]
        encoded = tokenizer(*texts, **{"padding": True, "truncation": True, **options}, return_tensors="np")
        return tuple(encoded[name].astype(np.int32) for name in names)

    def inputs_of(x: Any) -> dict[str, tf.Tensor]:
        columns = [x[name] for name in TEXTS if name in x] if isinstance(x, Mapping) else [x]
        if not columns or any(column.dtype != tf.string or column.shape.rank != 1 for column in columns):
            raise InputError(
                f"expected batches of strings (B,), or of {' and '.join(TEXTS)} by name, received {x!r}; batch the "
                "dataset first"
            )
        tensors = tf.numpy_function(encode, columns, [tf.int32] * len(names))
        return {name: tf.ensure_shape(x_BS, (None, None)) for name, x_BS in zip(names, tensors, strict=True)}

    def of_element(x: Any, *others: Any) -> Any:
        return (inputs_of(x), *others) if others else inputs_of(x)

    # Unconverted, so that an error comes out in its own words.
    return dataset.map(tf.autograph.experimental.do_not_convert(of_element)).prefetch(tf.data.AUTOTUNE)
