"""Models that change their shape: fewer heads, more or fewer tokens."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.quantization.asked import refuse_change
from xlmr_core.resizing import SPREAD, rows_wanted
from xlmr_tf.linear import replace_values

__all__ = ["ResizableModel"]


class ResizableModel:
    """The part of a model that changes its shape; a base before ``keras.Model``."""

    config: XLMRobertaConfig
    base_model: Any
    is_quantized: bool
    get_input_embeddings: Any
    _forget_functions: Any

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good: lists of heads by layer, by their original numbers.

        Compile the model again afterwards.
        """
        self.base_model.prune_heads(heads_to_prune)
        self._forget_functions()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> keras.layers.Embedding:
        """Change the number of rows of the word embedding, and of the vocabulary projection and its bias.

        Rows that stay keep their values. New rows of the embedding start close around the mean of the old ones, or are
        drawn afresh with ``mean_resizing=False``; new biases start at 0. Compile the model again afterwards.

        Args:
            new_num_tokens: rows wanted; ``None`` keeps the number (before rounding).
            pad_to_multiple_of: round the number of rows up to a multiple.
            mean_resizing: how new rows start.

        Returns:
            The word embedding.

        Raises:
            InputError: for a number that is not positive or cuts off the padding token; for a quantized model.
        """
        self._refuse_quantized("resize_token_embeddings")
        embeddings = self.get_input_embeddings()
        old = embeddings.input_dim
        rows = rows_wanted(self.config, old, new_num_tokens, pad_to_multiple_of)
        if rows == old:
            return embeddings
        replace_values(embeddings, "_embeddings", self._resized(embeddings._embeddings, rows, mean_resizing))
        embeddings.input_dim = rows
        self.config.vocab_size = self.base_model.config.vocab_size = rows
        self._resize_projection(rows, mean_resizing)
        self._forget_functions()
        return embeddings

    def _resize_projection(self, rows: int, mean_resizing: bool) -> None:
        """Change the number of outputs of the vocabulary projection; models with one override this."""

    def _resized(self, table: Any, rows: int, mean_resizing: bool) -> tf.Tensor:
        """A table (rows, width) of another number of rows."""
        table = tf.convert_to_tensor(table)
        old, kept, shape = table.shape[0], table[:rows], (max(0, rows - table.shape[0]), table.shape[1])
        if rows > old and mean_resizing:
            mean, variance = tf.nn.moments(tf.cast(table, tf.float32), [0])
            added = keras.random.normal(shape) * tf.sqrt(variance) * SPREAD + mean
        else:
            added = keras.random.normal(shape, 0.0, self.config.initializer_range)
        return tf.concat([kept, tf.cast(added, table.dtype)], 0)

    def _refuse_quantized(self, what: str) -> None:
        if self.is_quantized:
            refuse_change(what)
