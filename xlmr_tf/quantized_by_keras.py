"""Keras's own quantization, ``model.quantize("int8")`` and ``"int4"``: what our layers have to know of it.

It is another one than that of ``quantized.py``: projections and embeddings of every size become int8 or int4, by
output channel or by groups of inputs, in variables that only Keras's own files hold. ``save_pretrained`` refuses them.

A table of Keras is (V, D): ``codes / scale[:, None]``, and of int4 in groups of columns ``(codes - zero) * scale``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.errors import InputError
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.widening import spans
from xlmr_tf.values import nodes

__all__ = ["QuantizedByKeras", "first_row", "quantize_as_written", "table_product", "written_by_keras"]


class QuantizedByKeras:
    """The part of a model that Keras's own quantization calls; stands before ``keras.Model`` among the bases."""

    quantization_scheme: Scheme | None

    def quantize(self, mode: str | None = None, config: Any = None, filters: Any = None, **kwargs: Any) -> None:
        """Keras's own.

        Args:
            mode: ``int8``, ``int4``, or another one of ``keras.Model.quantize``.
            config, filters, **kwargs: as there.

        Raises:
            InputError: for a model that is quantized by ``xlmr_tf.quantize``, or was loaded so.
        """
        if self.quantization_scheme is not None:
            raise InputError(
                f"quantize of Keras takes a model with weights of floating point, received one that is quantized as "
                f"{self.quantization_scheme.name}; call it on the original model"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Layer .* does not have a `quantize`")  # norms and dropout
            super().quantize(mode=mode, config=config, filters=filters, **kwargs)  # type: ignore[misc]


def written_by_keras(model: keras.Model) -> dict[str, Any]:
    """How Keras has quantized the layers of a model, as plain values by their paths; empty if it has not."""
    return {
        path: keras.saving.serialize_keras_object(layer.quantization_config)
        for path, layer in nodes(model)
        if isinstance(layer, keras.layers.Layer) and layer.quantization_mode is not None
    }


def quantize_as_written(model: keras.Model, written: Mapping[str, Any]) -> None:
    """Quantize the layers of a model that :func:`written_by_keras` has told of one like it."""
    for path, layer in [*nodes(model)]:
        if path in written and isinstance(layer, keras.layers.Layer):
            layer.quantize(config=keras.saving.deserialize_keras_object(written[path]))


# ---- Tables


def first_row(table: keras.layers.Embedding) -> tf.Tensor:
    """(D,): the row 0 of a table, whether Keras has quantized it or not."""
    return table.embeddings[0] if table.quantization_mode is None else table(tf.zeros((), tf.int32))


def table_product(x: tf.Tensor, table: keras.layers.Embedding) -> tf.Tensor:
    """(n, D) times a transposed table (V, D) that Keras has quantized: (n, V)."""
    columns: list[tf.Tensor] = []
    for begin, end in spans(table.input_dim, table.output_dim):
        with tf.control_dependencies(columns[-1:]):  # a graph would widen all rows at once
            columns.append(tf.matmul(x, tf.cast(_rows(table, begin, end), x.dtype), transpose_b=True))
    return columns[0] if len(columns) == 1 else tf.concat(columns, 1)


def _rows(table: keras.layers.Embedding, begin: int, end: int) -> tf.Tensor:
    codes, scale = table._embeddings[begin:end], tf.cast(table.embeddings_scale[begin:end], tf.float32)
    if table.quantization_mode == "int4":
        codes = keras.quantizers.unpack_int4(codes, table.output_dim, axis=-1)
    values = tf.cast(codes, tf.float32)
    if scale.shape.rank == 1:
        return values / scale[:, None]
    groups = tf.cast(table.g_idx, tf.int32)
    zero = tf.cast(tf.gather(table.embeddings_zero[begin:end], groups, axis=1), tf.float32)
    return (values - zero) * tf.gather(scale, groups, axis=1)
