"""Word, position and token type embeddings, added up."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.positions import first_position
from xlmr_tf.linear import dims, dropout, layer_norm, unset
from xlmr_tf.packing import Packing
from xlmr_tf.quantized_by_keras import first_row

__all__ = ["Embeddings", "embedding", "position_ids_from_input_ids"]


def embedding(rows: int, width: int, dtype: Any) -> keras.layers.Embedding:
    """A built ``keras.layers.Embedding`` with unset values; see ``linear.py`` for the reason."""
    layer = keras.layers.Embedding(rows, width, embeddings_initializer=unset, dtype=dtype)
    layer.build(None)
    return layer


def position_ids_from_input_ids(
    input_ids_BS: tf.Tensor, pad_token_id: int, counted_B: tf.Tensor | None = None
) -> tf.Tensor:
    """(B, S) positions: tokens that are not padding count up from ``pad_token_id + 1``, padding stays at
    ``pad_token_id``.

    Args:
        input_ids_BS: integers.
        pad_token_id: of the model.
        counted_B: how many such tokens of each row came before.
    """
    real = ops.cast(ops.not_equal(input_ids_BS, pad_token_id), "int32")
    positions = ops.cumsum(real, axis=1)
    if counted_B is not None:
        positions = positions + ops.cast(counted_B, "int32")[:, None]
    return positions * real + pad_token_id


class Embeddings(keras.layers.Layer):
    """The sum of the three embeddings; in post-LN models normed; then dropout."""

    LayerNorm: keras.layers.LayerNormalization | None

    def __init__(self, config: XLMRobertaConfig, *, norm: bool, dtype: Any = None) -> None:
        super().__init__(dtype=dtype)
        dtype = self.dtype_policy
        # ---- Layers
        self.word_embeddings = embedding(config.vocab_size, config.hidden_size, dtype)
        self.position_embeddings = embedding(config.max_position_embeddings, config.hidden_size, dtype)
        self.token_type_embeddings = embedding(config.type_vocab_size, config.hidden_size, dtype)
        self.LayerNorm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype) if norm else None
        self.dropout = dropout(config.hidden_dropout_prob, dtype)
        # ---- Config
        self.pad_token_id = config.pad_token_id
        self.first_position = first_position(config)
        self.absolute = config.position_embedding_type == "absolute"
        self.built = True

    def call(
        self,
        input_ids: Any,
        inputs_embeds: Any,
        token_type_ids: Any,
        position_ids: Any,
        packing: Packing | None,
        counted_B: Any = None,
    ) -> tf.Tensor:
        """Ids or embeddings of shape (B, S) or (B, S, D) to (B, S, D), or to (T, D) if packed.

        Positions follow from the ids before packing, so padding anywhere in a row leaves them right; they go on from
        the ``counted_B`` tokens of each row that are in a cache.
        """
        source = inputs_embeds if input_ids is None else input_ids
        batch, length = dims(source)[:2]
        if position_ids is None:
            if input_ids is not None:
                position_ids = position_ids_from_input_ids(input_ids, self.pad_token_id, counted_B)
            else:
                position_ids = tf.range(self.first_position, self.first_position + length)[None]
                position_ids = position_ids if counted_B is None else position_ids + counted_B[:, None]
        if packing is not None:
            source = packing.pack(source)
            position_ids = packing.pack(tf.broadcast_to(position_ids, (batch, length)))
            if token_type_ids is not None:
                token_type_ids = packing.pack(tf.broadcast_to(token_type_ids, (batch, length)))
        x = self.without_padding(self.word_embeddings, source) if input_ids is not None else source
        if token_type_ids is None:
            x = x + ops.cast(first_row(self.token_type_embeddings), x.dtype)
        else:
            x = x + self.token_type_embeddings(token_type_ids)
        if self.absolute:
            x = x + self.without_padding(self.position_embeddings, position_ids)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
        return self.dropout(x)

    def without_padding(self, table: keras.layers.Embedding, ids: tf.Tensor) -> tf.Tensor:
        """Look up, without a gradient to the row of the padding, as published."""
        x = table(ids)
        # expand_dims, because LiteRT has no built-in operator for [..., None].
        return ops.where(ops.expand_dims(ops.equal(ids, self.pad_token_id), -1), ops.stop_gradient(x), x)
