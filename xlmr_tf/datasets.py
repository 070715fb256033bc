"""Texts, or rows of a ``datasets.Dataset``, as a ``tf.data.Dataset`` of a model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.errors import InputError

__all__ = ["collated", "prepared", "tokenized"]

TEXTS = ("text", "text_pair")
# Other names of the column of labels, which data sets have.
LABELS = ("label", "label_ids")
ANSWERS = ("start_positions", "end_positions")
# The dtype of a batch, by NumPy's letter for the kind of what is in a column.
WIDE = {"i": np.int64, "u": np.int64, "b": np.int64, "f": np.float32}


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


# ---- Rows that are encoded already


def prepared(
    rows: Any,
    inputs: Collection[str],
    *,
    batch_size: int,
    shuffle: bool,
    collate: Callable[..., Mapping[str, Any]],
    options: Mapping[str, Any],
    drop_remainder: bool,
    prefetch: bool,
) -> tf.data.Dataset:
    """The rows of a data set as batches of a model's inputs, with labels beside them.

    Sizes are declared free, so that no graph is traced anew.

    Args:
        rows: a ``datasets.Dataset``, or anything else with ``column_names``, a length, and columns by name for a list
            of row numbers.
        inputs: names that the model's call takes, labels among them; other columns are left out.
        batch_size, shuffle, drop_remainder, prefetch: see ``prepare_tf_dataset`` of a model.
        collate: makes a dictionary of arrays of a list of rows.
        options: its further arguments.

    Returns:
        A dataset of inputs by name, or where there are labels, of (inputs, labels). One input or one label stands by
        itself, several in a dictionary.

    Raises:
        InputError: for what are no rows, or no column that the model knows.
    """
    if not all(hasattr(rows, name) for name in ("column_names", "__len__", "__getitem__")) or hasattr(rows, "keys"):
        raise InputError(
            f"expected a datasets.Dataset (pip install datasets), received {type(rows).__name__}; of a DatasetDict "
            "pass one split, for arrays and tensors use fit(x, y) or tf.data.Dataset"
        )
    kept = [name for name in rows.column_names if name in inputs or name in LABELS]
    if not kept:
        raise InputError(
            f"expected columns such as input_ids, received {', '.join(rows.column_names)}; map the tokenizer over the "
            "texts first"
        )
    if len(rows) == 0:
        raise InputError("expected a data set with rows, received one without any; look at what filtered it")

    def batch_of(numbers: Sequence[int]) -> dict[str, NDArray[Any]]:
        columns = rows[[int(number) for number in numbers]]
        batch = collate([{name: columns[name][i] for name in kept} for i in range(len(numbers))], **options)
        return {name: _numbers(name, x) for name, x in batch.items() if name in inputs}

    first = batch_of(range(min(len(rows), 2)))
    names = list(first)

    def arrays(numbers: NDArray[np.int64]) -> list[NDArray[Any]]:
        batch = batch_of(numbers.tolist())
        return [batch[name] for name in names]

    def element(numbers: tf.Tensor) -> Any:
        tensors = tf.numpy_function(arrays, [numbers], [first[name].dtype for name in names])
        found = {name: tf.ensure_shape(x, [None] * first[name].ndim) for name, x in zip(names, tensors, strict=True)}
        labels = {name: found.pop(name) for name in names if "label" in name or name in ANSWERS}
        return (_alone(found), _alone(labels)) if labels else _alone(found)

    dataset = tf.data.Dataset.range(len(rows))
    if shuffle:
        dataset = dataset.shuffle(len(rows))
    # Unconverted, so that an error comes out in its own words.
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder).map(
        tf.autograph.experimental.do_not_convert(element)
    )
    return dataset.prefetch(tf.data.AUTOTUNE) if prefetch else dataset


def collated(rows: Sequence[Mapping[str, Any]], tokenizer: Any = None) -> dict[str, Any]:
    """A batch of rows: padded by a tokenizer, labels of tokens with -100.

    Args:
        rows: values by column.
        tokenizer: without one all rows must have the same length.

    Raises:
        InputError: for rows of several lengths where nothing pads them.
    """
    columns = {name: [np.asarray(row[name]).tolist() for row in rows] for name in rows[0]}
    for name in LABELS:
        if name in columns:
            columns["labels"] = columns.pop(name)
    labels = columns.pop("labels", None)
    if tokenizer is not None:
        columns = dict(tokenizer.pad(columns, return_tensors="np"))
        if labels is not None and isinstance(labels[0], list):
            labels = _padded(labels, tokenizer.padding_side)
    if labels is not None:
        columns["labels"] = labels
    for name, values in columns.items():
        if len({np.shape(value) for value in values}) > 1:
            raise InputError(
                f"{name} has rows of several lengths, expected one length; pass tokenizer= to pad each batch, or "
                "collate_fn="
            )
    return {name: np.stack(values) for name, values in columns.items()}


def _padded(labels: list[list[Any]], side: str) -> list[list[Any]]:
    length = max(map(len, labels))
    rest = [[IGNORE_INDEX] * (length - len(row)) for row in labels]
    return [row + more if side == "right" else more + row for row, more in zip(labels, rest, strict=True)]


def _numbers(name: str, x: Any) -> NDArray[Any]:
    """An array of what any framework holds, with integers of 64 and floats of 32 bits."""
    array = np.asarray(x)
    if array.dtype.kind not in WIDE:
        raise InputError(
            f"{name} must hold numbers, received {array.dtype}; map texts to ids first, labels by config.label2id"
        )
    return array.astype(WIDE[array.dtype.kind])


def _alone(named: dict[str, tf.Tensor]) -> Any:
    return next(iter(named.values())) if len(named) == 1 else named
