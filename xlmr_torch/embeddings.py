"""Word, position and token type embeddings, added up."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.positions import first_position
from xlmr_torch.linear import begun, unset
from xlmr_torch.packing import Packing

__all__ = ["Embeddings", "create_position_ids_from_input_ids", "embedding", "position_ids_from_input_ids"]


def embedding(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """An ``nn.Embedding``; see ``linear.py`` for its values."""
    return begun(nn.Embedding(rows, width, padding_idx=padding_idx, _weight=unset(rows, width)))


def position_ids_from_input_ids(input_ids_BS: Tensor, pad_token_id: int, counted_B: Tensor | None = None) -> Tensor:
    """(B, S) positions: tokens that are not padding count up from ``pad_token_id + 1``, padding stays at
    ``pad_token_id``.

    Args:
        input_ids_BS: the tokens.
        pad_token_id: id of padding.
        counted_B: how many that are not padding came before, in a cache.
    """
    real = input_ids_BS.ne(pad_token_id).long()
    count = real.cumsum(1) if counted_B is None else real.cumsum(1) + counted_B[:, None]
    return count * real + pad_token_id


def create_position_ids_from_input_ids(input_ids: Tensor, padding_idx: int, past_key_values_length: int = 0) -> Tensor:
    """:func:`position_ids_from_input_ids` under its published name.

    Args:
        input_ids: integers (B, S).
        padding_idx: id of padding.
        past_key_values_length: tokens that came before, from which the count goes on.
    """
    positions = position_ids_from_input_ids(input_ids, padding_idx)
    return positions + past_key_values_length * input_ids.ne(padding_idx) if past_key_values_length else positions


class Embeddings(nn.Module):
    """The sum of the three embeddings; in post-LN models normed; then dropout."""

    pre_norm: ClassVar[bool]
    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.word_embeddings = embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = embedding(config.max_position_embeddings, config.hidden_size, config.pad_token_id)
        self.token_type_embeddings = embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = None if self.pre_norm else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # ---- Config
        self.padding_idx = config.pad_token_id
        self.first_position = first_position(config)
        self.position_embedding_type = config.position_embedding_type

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values_length: int = 0,
        *,
        packing: Packing | None = None,
        counted_B: Tensor | None = None,
    ) -> Tensor:
        """Ids or embeddings of shape (B, S) or (B, S, D) to (B, S, D), or to (T, D) if packed.

        Positions follow from the ids before packing, so padding anywhere in a row leaves them right. They go on from
        ``counted_B``, the tokens of each row in a cache that are no padding.
        """
        source = inputs_embeds if input_ids is None else input_ids
        assert source is not None
        batch, length = source.shape[:2]
        if position_ids is None:
            if input_ids is not None and counted_B is not None:
                position_ids = position_ids_from_input_ids(input_ids, self.padding_idx, counted_B)
            elif input_ids is not None:
                position_ids = create_position_ids_from_input_ids(input_ids, self.padding_idx, past_key_values_length)
            else:
                position_ids = self.create_position_ids_from_inputs_embeds(source)
                position_ids = position_ids if counted_B is None else position_ids + counted_B[:, None]
        # Every layer is given as many rows as there are texts: whoever looks on counts by them.
        position_ids = position_ids.expand(batch, length)
        if token_type_ids is not None:
            token_type_ids = token_type_ids.expand(batch, length)
        if packing is not None:
            source = packing.pack(source)
            position_ids = packing.pack(position_ids)
            # One row of zeros serves all tokens.
            token_type_ids = position_ids.new_zeros(1) if token_type_ids is None else packing.pack(token_type_ids)
        elif token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        # ``long`` because a look-up takes no integer narrower than 32 bits.
        x = self.word_embeddings(source.long()) if input_ids is not None else source
        types = self.token_type_embeddings(token_type_ids.long())
        # Vectors of another dtype become the model's, as in Keras and Flax.
        x = (x if input_ids is not None else x.to(types.dtype)) + types
        if self.position_embedding_type == "absolute":
            x = x + self.position_embeddings(position_ids.long())
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
        return self.dropout(x)

    # ---- Published names that no model here needs

    create_position_ids_from_input_ids = staticmethod(create_position_ids_from_input_ids)

    def create_position_ids_from_inputs_embeds(self, inputs_embeds: Tensor, padding_idx: int | None = None) -> Tensor:
        """(B, S) positions that count up, because embeddings do not show what is padding."""
        first = self.first_position if padding_idx is None else padding_idx + 1
        length = inputs_embeds.shape[1]
        return torch.arange(first, first + length, device=inputs_embeds.device).expand(inputs_embeds.shape[:2])

    @property
    def position_ids(self) -> Tensor:
        """(1, rows): the numbers of the rows of the position table, a buffer of the published module. Scripts that
        lengthen the table set it; nothing reads it.
        """
        table = self.position_embeddings.weight
        return self.__dict__.get("_position_ids", torch.arange(table.shape[0], device=table.device).unsqueeze(0))

    @position_ids.setter
    def position_ids(self, value: Tensor) -> None:
        self.__dict__["_position_ids"] = value

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """As in any module; the published buffer ``position_ids`` is set."""
        if name == "position_ids":
            self.position_ids = tensor
        else:
            super().register_buffer(name, tensor, persistent)
