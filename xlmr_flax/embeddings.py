"""Word, position and token type embeddings, added up."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_flax.linear import LayerNorm, dropout, unset

__all__ = ["Embedding", "Embeddings", "create_position_ids_from_input_ids", "position_ids_from_input_ids"]


class Embedding(nnx.Module):
    """A table (rows, width) to look vectors up in; that of ``padding_idx`` gets no gradient, as published."""

    def __init__(self, rows: int, width: int, padding_idx: int | None = None) -> None:
        # ---- Layers
        self.embedding = unset(rows, width)
        # ---- Config
        self.padding_idx = padding_idx

    def __call__(self, ids: Array) -> Array:
        """Integers (...) to vectors (..., D)."""
        x = jnp.take(self.embedding[...], ids, axis=0)
        return x if self.padding_idx is None else _without_gradient(x, ids == self.padding_idx)


def _without_gradient(x: Array, where: Array) -> Array:
    return jnp.where(where[..., None], jax.lax.stop_gradient(x), x)


def position_ids_from_input_ids(input_ids_BS: Any, pad_token_id: int, counted_B: Any = None) -> Any:
    """(B, S) positions: tokens count up from ``pad_token_id + 1``, padding stays at ``pad_token_id``.

    Of NumPy arrays in NumPy.

    Args:
        input_ids_BS: integers.
        pad_token_id: of the config.
        counted_B: how many tokens came before in each row, in a cache.
    """
    real = (input_ids_BS != pad_token_id).astype("int32")
    counts_BS = real.cumsum(1, dtype="int32")
    if counted_B is not None:
        counts_BS = counts_BS + counted_B[:, None]
    return counts_BS * real + pad_token_id


def create_position_ids_from_input_ids(input_ids: Any, padding_idx: int) -> Any:
    """The published name of :func:`position_ids_from_input_ids`."""
    return position_ids_from_input_ids(input_ids, padding_idx)


class Embeddings(nnx.Module):
    """The sum of the three embeddings; in post-LN models normed; then dropout."""

    def __init__(self, config: XLMRobertaConfig, *, norm: bool) -> None:
        # ---- Layers
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size, config.pad_token_id)
        self.token_type_embeddings = Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None
        # ---- Config
        self.dropout_probability = config.hidden_dropout_prob
        self.absolute = config.position_embedding_type == "absolute"

    def __call__(
        self,
        source: Array,
        token_type_ids: Array | None,
        position_ids: Array,
        dtype: jnp.dtype,
        key: Array | None = None,
    ) -> Array:
        """Ids (B, S), or embeddings (B, S, D), to states (B, S, D) of the dtype that sums are made in."""
        x = self.word_embeddings(source) if jnp.issubdtype(source.dtype, jnp.integer) else source
        x = x.astype(dtype)
        if token_type_ids is None:
            x = x + self.token_type_embeddings.embedding[0].astype(dtype)
        else:
            x = x + self.token_type_embeddings(token_type_ids).astype(dtype)
        if self.absolute:
            x = x + self.position_embeddings(position_ids).astype(dtype)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
        return dropout(x, self.dropout_probability, key)
