"""Word, position and token type embeddings, added up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.positions import first_position
from xlmr_torch.linear import unset
from xlmr_torch.packing import Packing

__all__ = ["Embeddings", "embedding", "position_ids_from_input_ids"]


def embedding(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """An ``nn.Embedding`` with unset values; see ``linear.py`` for the reason."""
    return nn.Embedding(rows, width, padding_idx=padding_idx, _weight=unset(rows, width))


def position_ids_from_input_ids(input_ids_BS: Tensor, pad_token_id: int) -> Tensor:
    """(B, S) positions: tokens that are not padding count up from ``pad_token_id + 1``, padding stays at
    ``pad_token_id``.
    """
    real = input_ids_BS.ne(pad_token_id).long()
    return real.cumsum(1) * real + pad_token_id


class Embeddings(nn.Module):
    """The sum of the three embeddings; in post-LN models normed; then dropout."""

    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, *, norm: bool) -> None:
        super().__init__()
        # ---- Layers
        self.word_embeddings = embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = embedding(config.max_position_embeddings, config.hidden_size, config.pad_token_id)
        self.token_type_embeddings = embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # ---- Config
        self.pad_token_id = config.pad_token_id
        self.first_position = first_position(config)
        self.absolute = config.position_embedding_type == "absolute"

    def forward(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        packing: Packing | None,
    ) -> Tensor:
        """Ids or embeddings of shape (B, S) or (B, S, D) to (B, S, D), or to (T, D) if packed.

        Positions follow from the ids before packing, so padding anywhere in a row leaves them right.
        """
        source = inputs_embeds if input_ids is None else input_ids
        assert source is not None
        batch, length = source.shape[:2]
        if position_ids is None:
            if input_ids is not None:
                position_ids = position_ids_from_input_ids(input_ids, self.pad_token_id)
            else:
                first = self.first_position
                position_ids = torch.arange(first, first + length, device=source.device).unsqueeze(0)
        if packing is not None:
            source = packing.pack(source)
            position_ids = packing.pack(position_ids.expand(batch, length))
            if token_type_ids is not None:
                token_type_ids = packing.pack(token_type_ids.expand(batch, length))
        # ``long`` because a look-up takes no integer narrower than 32 bits.
        x = self.word_embeddings(source.long()) if input_ids is not None else source
        if token_type_ids is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(token_type_ids.long())
        if self.absolute:
            x = x + self.position_embeddings(position_ids.long())
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
        return self.dropout(x)
