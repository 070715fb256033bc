"""The heads that predict tokens: masked and left-to-right language modelling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checks import IGNORE_INDEX, check_label_shape
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS
from xlmr_core.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from xlmr_torch.checks import INTEGERS, batch_shape, check_labels, has_values, is_concrete
from xlmr_torch.encoder import Encoded, Needs
from xlmr_torch.heads import HeadModel, needed_positions
from xlmr_torch.linear import linear
from xlmr_torch.losses import cross_entropy

__all__ = ["CausalLM", "LMHead", "MaskedLM"]


class LMHead(nn.Module):
    """States to vocabulary logits: dense, gelu, norm, projection. The gelu is the exact one whatever ``hidden_act`` says, as published."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = linear(config.hidden_size, config.vocab_size)
        self.bias = self.decoder.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(x))))


class VocabularyModel(HeadModel):
    """A head that projects to the vocabulary."""

    lm_head: LMHead

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        # ---- Layers
        self.lm_head = LMHead(config)
        # ---- Tying
        self.post_init(self.head_names())

    def get_output_embeddings(self) -> nn.Linear:
        """The vocabulary projection."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the vocabulary projection; its bias becomes the head's bias."""
        self.lm_head.decoder = new_embeddings
        self.lm_head.bias = new_embeddings.bias

    def set_output_bias(self, bias: nn.Parameter) -> None:
        """Replace the bias of the vocabulary projection."""
        self.lm_head.decoder.bias = self.lm_head.bias = bias


class MaskedLM(VocabularyModel):
    """Masked language modelling."""

    _task_head = HEADS["ForMaskedLM"]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        masked_positions: Tensor | None = None,
        sparse_prediction: bool = False,
    ) -> Any:
        """Predict masked tokens.

        Args:
            input_ids ... return_dict: as in the bare model.
            labels: integers (B, S), -100 where nothing is to be predicted; with ``masked_positions`` also (B, P), which is
                what they are where P equals S.
            masked_positions: integers (B, P), padded with -1: compute logits at these positions only.
            sparse_prediction: with labels: compute logits at labelled positions only.

        Returns:
            :class:`~xlmr_core.outputs.MaskedLMOutput`; logits (B, S, V), or (B, P, V) with zeros at -1, or (number labelled, V) in
            row-major order.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        shape = batch_shape(
            self.config, input_ids, inputs_embeds, position_ids, labels=labels, masked_positions=masked_positions
        )
        if sparse_prediction and labels is None:
            raise InputError(
                "sparse_prediction=True computes logits at labelled positions and needs labels; pass labels, or masked_positions"
            )
        if sparse_prediction and masked_positions is not None:
            raise InputError(
                "sparse_prediction and masked_positions both choose where logits are computed; pass one of them"
            )
        if masked_positions is not None:
            check_masked_positions(masked_positions, shape)
        if labels is not None:
            shapes = [shape] if masked_positions is None else [shape, tuple(masked_positions.shape)]
            check_label_shape("labels", labels.shape, *shapes)
            labels = check_labels(self.config, labels, self.config.vocab_size)
            if masked_positions is not None and tuple(labels.shape) != tuple(masked_positions.shape):
                labels = labels.gather(1, masked_positions.long().clamp(min=0))
            if masked_positions is not None:
                labels = labels.masked_fill(masked_positions < 0, IGNORE_INDEX)
        encoded = self._encode(
            Needs(positions_BS=needed_positions(shape, labels, masked_positions)),
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        loss = None
        if masked_positions is not None:
            logits = self.logits_at(encoded, masked_positions, shape)
            if labels is not None:
                loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
        elif sparse_prediction:
            assert labels is not None
            flat = labels.flatten()
            labelled = (flat != IGNORE_INDEX).nonzero().squeeze(1)
            logits = self.lm_head(encoded.at(labelled))
            loss = cross_entropy(logits, flat[labelled])
        else:
            packed = self.lm_head(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                # Labels lie on real tokens here, so the packed rows are all that counts.
                loss = cross_entropy(packed.flatten(0, -2), encoded.rows(labels))
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    def logits_at(self, encoded: Encoded, masked_positions: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, P, V) logits at some positions, zero where the position is -1."""
        valid_BP = masked_positions >= 0
        rows = torch.arange(shape[0], device=masked_positions.device)[:, None] * shape[1]
        flat_BP = rows + masked_positions.long().clamp(min=0)
        if not has_values(masked_positions):
            logits = self.lm_head(encoded.at(flat_BP.flatten())).unflatten(0, valid_BP.shape)
            return logits.masked_fill(~valid_BP[..., None], 0)
        logits_nV = self.lm_head(encoded.at(flat_BP[valid_BP]))
        if bool(valid_BP.all()):
            return logits_nV.unflatten(0, valid_BP.shape)
        logits = logits_nV.new_zeros((valid_BP.numel(), logits_nV.shape[-1]))
        return logits.index_copy(0, valid_BP.flatten().nonzero().squeeze(1), logits_nV).unflatten(0, valid_BP.shape)


class CausalLM(VocabularyModel):
    """Left-to-right language modelling. ``config.is_decoder`` makes attention causal, as published; without it every token sees all."""

    _task_head = HEADS["ForCausalLM"]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        *,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
    ) -> Any:
        """Predict each next token.

        Args:
            input_ids ... return_dict: as in the bare model.
            labels: integers (B, S), -100 to ignore; position i predicts the label of i + 1.
            num_items_in_batch: divide the summed loss by this number and not by the number of labels, as trainers with gradient
                accumulation ask.
            logits_to_keep: compute logits at the last so many positions only (0: all), or at the columns of an integer tensor (n,).

        Returns:
            :class:`~xlmr_core.outputs.CausalLMOutputWithCrossAttentions`; logits (B, S, V), or (B, kept, V).

        Raises:
            InputError: for inputs of a wrong shape, dtype or range; for labels with ``logits_to_keep``.
        """
        shape = batch_shape(self.config, input_ids, inputs_embeds, position_ids, labels=labels)
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        if labels is not None:
            if not keeps_all:
                raise InputError("labels need the logits of every position; leave logits_to_keep out")
            check_label_shape("labels", labels.shape, shape)
            labels = check_labels(self.config, labels, self.config.vocab_size)
            # The last position predicts nothing; all others predict their successor.
            labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
        kept = kept_columns(logits_to_keep, shape[1])
        encoded = self._encode(
            Needs(positions_BS=needed_positions(shape, labels, None if keeps_all else kept.expand(shape[0], -1))),
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            cache_position=cache_position,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        loss = None
        if keeps_all:
            packed = self.lm_head(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                loss = cross_entropy(packed.flatten(0, -2), encoded.rows(labels), num_items_in_batch)
        else:
            logits = self.lm_head(encoded.unpack(encoded.states)[:, kept.to(encoded.states.device)])
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return self.finish(output, return_dict)


def check_masked_positions(masked_positions: Tensor, shape: tuple[int, int]) -> None:
    """Refuse positions outside the sequence.

    Raises:
        InputError: naming the shape, the dtype or the range.
    """
    if masked_positions.dim() != 2 or masked_positions.shape[0] != shape[0] or masked_positions.shape[1] == 0:
        raise InputError(
            f"masked_positions must have the shape ({shape[0]}, P) with P at least 1, received {tuple(masked_positions.shape)}"
        )
    if masked_positions.dtype not in INTEGERS:
        raise InputError(f"masked_positions must hold integers, received {masked_positions.dtype}")
    if is_concrete(masked_positions):
        low, high = (value.item() for value in masked_positions.aminmax())
        if low < -1 or high >= shape[1]:
            worst = low if low < -1 else high
            raise InputError(
                f"masked_positions must lie between -1 (none) and {shape[1] - 1} (the last token), received {worst}"
            )


def kept_columns(logits_to_keep: int | Tensor, length: int) -> Tensor:
    """The columns that ``logits_to_keep`` means, (n,).

    Raises:
        InputError: for a negative number, or columns outside the sequence.
    """
    if isinstance(logits_to_keep, int):
        if logits_to_keep < 0:
            raise InputError(f"logits_to_keep must not be negative, received {logits_to_keep}; 0 keeps all")
        return torch.arange(max(0, length - logits_to_keep), length)
    if logits_to_keep.dim() != 1 or logits_to_keep.dtype not in INTEGERS:
        raise InputError(
            f"logits_to_keep must be a number or integers (n,), received {logits_to_keep.dtype} of {tuple(logits_to_keep.shape)}"
        )
    if is_concrete(logits_to_keep) and bool(((logits_to_keep < -length) | (logits_to_keep >= length)).any()):
        raise InputError(f"logits_to_keep must name columns below {length}, received {logits_to_keep.tolist()}")
    return logits_to_keep.long() % length
