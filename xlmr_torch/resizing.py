"""Models that change their shape: fewer heads, more or fewer tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.quantization.asked import refuse_change
from xlmr_core.resizing import SPREAD, rows_wanted

__all__ = ["ResizableModel"]


class ResizableModel(nn.Module):
    """The part of a model that changes its shape."""

    config: XLMRobertaConfig
    base_model: Any
    is_quantized: bool
    get_input_embeddings: Any
    get_output_embeddings: Any
    tie_weights: Any

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good: lists of heads by layer, by their original numbers."""
        self.base_model.prune_heads(heads_to_prune)

    @torch.no_grad()
    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Change the number of rows of the word embedding, and of the vocabulary projection and its bias.

        Rows that stay keep their values. New rows of the embedding start close around the mean of the old ones, or are
        drawn afresh with ``mean_resizing=False``; new biases start at 0.

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
        assert isinstance(embeddings, nn.Embedding)
        old = embeddings.num_embeddings
        rows = rows_wanted(self.config, old, new_num_tokens, pad_to_multiple_of)
        if rows == old:
            return embeddings
        embeddings.weight = self._resized(embeddings.weight, rows, mean_resizing)
        embeddings.num_embeddings = rows
        self.config.vocab_size = self.base_model.config.vocab_size = self.vocab_size = rows
        self._resize_projection(rows, mean_resizing)
        self.tie_weights()
        return embeddings

    def _resize_projection(self, rows: int, mean_resizing: bool) -> None:
        """Change the number of outputs of the vocabulary projection, if there is one."""
        decoder = self.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            return
        if not self.config.tie_word_embeddings:
            decoder.weight = self._resized(decoder.weight, rows, mean_resizing)
        if decoder.bias is not None:
            kept = decoder.bias[:rows]
            bias = torch.cat([kept, kept.new_zeros(rows - len(kept))])
            self.set_output_bias(nn.Parameter(bias, requires_grad=decoder.bias.requires_grad))
        decoder.out_features = rows

    def _resized(self, table: Tensor, rows: int, mean_resizing: bool) -> nn.Parameter:
        """A table (rows, width) of another number of rows."""
        old = table.shape[0]
        resized = table.new_empty((rows, *table.shape[1:]))
        resized[: min(old, rows)] = table[: min(old, rows)]
        if rows > old and mean_resizing:
            std, mean = torch.std_mean(table.float(), dim=0, correction=0)
            resized[old:] = torch.randn(rows - old, *mean.shape, device=mean.device) * std * SPREAD + mean
        elif rows > old:
            resized[old:].normal_(0.0, self.config.initializer_range)
        return nn.Parameter(resized, requires_grad=table.requires_grad)

    def set_output_bias(self, bias: nn.Parameter) -> None:
        """Replace the bias of the vocabulary projection."""
        self.get_output_embeddings().bias = bias

    def _refuse_quantized(self, what: str) -> None:
        if self.is_quantized:
            refuse_change(what)
