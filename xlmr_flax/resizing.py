"""Models that change their shape: fewer heads, more or fewer tokens."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xlmr_core.quantization.asked import refuse_change
from xlmr_core.resizing import SPREAD, rows_wanted
from xlmr_flax.functional import read_params

__all__ = ["ResizableModel"]


class ResizableModel(nnx.Module):
    """The part of a model that changes its shape."""

    config: Any
    base_model: Any
    is_quantized: bool
    get_input_embeddings: Any
    _refuse_abstract: Any

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good: lists of heads by layer, by their original numbers."""
        self.base_model.prune_heads(heads_to_prune)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        *,
        rng: Array | None = None,
    ) -> nnx.Module:
        """Change the number of rows of the word embedding, and of the vocabulary projection and its bias.

        Rows that stay keep their values. New rows of the embedding start close around the mean of the old ones, or are
        drawn afresh with ``mean_resizing=False``; new biases start at 0.

        Args:
            new_num_tokens: rows wanted; ``None`` keeps the number (before rounding).
            pad_to_multiple_of: round the number of rows up to a multiple.
            mean_resizing: how new rows start.
            rng: the random key they are drawn with; default: the same one always.

        Returns:
            The word embedding.

        Raises:
            InputError: for a number that is not positive or cuts off the padding token, or a model without values or
                with quantized ones.
        """
        self._refuse_quantized("resize_token_embeddings")
        self._refuse_abstract(read_params(self))
        embeddings = self.get_input_embeddings()
        old = embeddings.embedding.shape[0]
        rows = rows_wanted(self.config, old, new_num_tokens, pad_to_multiple_of)
        if rows == old:
            return embeddings
        first, second = jax.random.split(jax.random.key(0) if rng is None else rng)
        embeddings.embedding = nnx.Param(self._resized(embeddings.embedding[...], rows, mean_resizing, first))
        self.config.vocab_size = self.base_model.config.vocab_size = rows
        self._resize_projection(rows, mean_resizing, second)
        return embeddings

    def _resize_projection(self, rows: int, mean_resizing: bool, rng: Array) -> None:
        """Change the number of outputs of the vocabulary projection; models with one override this."""

    def _resized(self, table: Array, rows: int, mean_resizing: bool, rng: Array) -> Array:
        """A table (rows, width) of another number of rows."""
        old, width = table.shape
        if rows <= old:
            return table[:rows]
        added = jax.random.normal(rng, (rows - old, width), jnp.float32)
        if mean_resizing:
            wide = table.astype(jnp.float32)
            added = added * wide.std(0) * SPREAD + wide.mean(0)
        else:
            added = added * self.config.initializer_range
        return jnp.concatenate([table, added.astype(table.dtype)])

    def _refuse_quantized(self, what: str) -> None:
        if self.is_quantized:
            refuse_change(what)
