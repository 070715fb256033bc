"""The heads that predict tokens: masked and left-to-right language modelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.calls import called_like
from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.head_checks import (
    check_class_labels,
    check_kept_columns,
    check_masked_positions,
    check_where_logits_are_computed,
)
from xlmr_core.heads import HEADS
from xlmr_core.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from xlmr_core.packing import Needs
from xlmr_torch.encoder import Encoded
from xlmr_torch.generation import GenerationMixin
from xlmr_torch.heads import HeadModel, chosen_positions, labelled_positions
from xlmr_torch.inputs import has_values, see
from xlmr_torch.later import Source, later, may_wait
from xlmr_torch.linear import linear, values_follow
from xlmr_torch.losses import cross_entropy
from xlmr_torch.mask_predict import MaskPredictMixin

__all__ = ["CausalLM", "LMHead", "MaskedLM"]


class LMHead(nn.Module):
    """States to vocabulary logits: dense, gelu, norm, projection. The gelu is the exact one whatever ``hidden_act``
    says, as published.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = linear(config.hidden_size, config.vocab_size)
        self.bias = self.decoder.bias
        if not self.bias.is_meta:
            nn.init.zeros_(self.bias)  # as published, where no model gives its values

    def forward(self, features: Tensor, **kwargs: Any) -> Tensor:
        """(..., D) to (..., V)."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(features))))


class VocabularyModel(HeadModel):
    """A head that projects to the vocabulary."""

    head_class: ClassVar[type[LMHead]]
    lm_head: LMHead
    _tied_weights_keys: ClassVar[dict[str, str] | None] = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        # ---- Layers
        with values_follow():
            self.lm_head = self.head_class(config)
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

    def _predict(
        self, encoded: Encoded, labels_BS: Tensor | None, return_dict: bool | None, divisor: int | Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Source | None]:
        """The loss, the logits of every position, and in place of these what they can be computed from later: where
        labels are few, and nobody looks on who would tell the difference.

        Args:
            encoded: the states.
            labels_BS: int64, what each position predicts.
            return_dict: of the call.
            divisor: of the loss, see :func:`~xlmr_torch.losses.cross_entropy`.
        """
        labels_n = None if labels_BS is None else encoded.rows(labels_BS)
        if labels_n is not None and self._may_wait(encoded.states, labels_n, return_dict):
            labelled = (labels_n != IGNORE_INDEX).nonzero().squeeze(1)
            if 2 * len(labelled) <= len(labels_n):
                logits_nV = self.lm_head(encoded.states.flatten(0, -2).index_select(0, labelled))
                loss = cross_entropy(logits_nV, labels_n[labelled], divisor)
                return loss, None, Source(self.lm_head, encoded.states, encoded.unpack)
        packed = self.lm_head(encoded.states)
        # Labels lie on real tokens here, so the packed rows are all that counts.
        loss = None if labels_n is None else cross_entropy(packed.flatten(0, -2), labels_n, divisor)
        return loss, encoded.unpack(packed), None

    def _may_wait(self, states: Tensor, labels_n: Tensor, return_dict: bool | None) -> bool:
        """Whether logits may be computed when they are read."""
        head = self.lm_head
        is_known = getattr(type(head), "forward", None) is LMHead.forward
        return is_known and self._returns_output(return_dict) and has_values(labels_n) and may_wait(head, states)


class MaskedLM(MaskPredictMixin, VocabularyModel):
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
    ) -> MaskedLMOutput[Tensor]:
        """Predict masked tokens.

        Args:
            input_ids ... return_dict: as in the bare model.
            labels: integers (B, S), -100 where nothing is to be predicted; with ``masked_positions`` also (B, P), which
                is what they are where P equals S.
            masked_positions: integers (B, P), padded with -1: compute logits at these positions only.
            sparse_prediction: with labels: compute logits at labelled positions only.

        Returns:
            :class:`~xlmr_core.outputs.MaskedLMOutput`; logits (B, S, V), or (B, P, V) with zeros at -1, or (number
            labelled, V) in row-major order. With ``labels`` alone they are computed when they are read, see
            ``later.py``.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        call = self._read(
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
        labels = self._labels(call.source, labels, masked_positions, sparse_prediction)
        if masked_positions is None:
            needed_BS = labelled_positions(labels)
        else:
            needed_BS = chosen_positions(masked_positions, call.source.shape[1])
        encoded = self._encode(call, Needs(positions_BS=needed_BS))
        loss = source = None
        if masked_positions is not None:
            logits = self.logits_at(encoded, masked_positions, call.source.shape[1])
            if labels is not None:
                loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
        elif sparse_prediction:
            assert labels is not None
            flat = labels.flatten()
            labelled = (flat != IGNORE_INDEX).nonzero().squeeze(1)
            logits = self.lm_head(encoded.at(labelled))
            loss = cross_entropy(logits, flat[labelled])
        else:
            loss, logits, source = self._predict(encoded, labels, return_dict)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output if source is None else later(output, source), return_dict)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...

    def _labels(self, source: Tensor, labels: Any, masked_positions: Any, sparse_prediction: bool) -> Tensor | None:
        """The checked labels of a call, (B, S), or (B, P) with ``masked_positions``."""
        shape = tuple(source.shape[:2])
        check_where_logits_are_computed(
            labelled=labels is not None,
            masked_positions=masked_positions is not None,
            sparse_prediction=sparse_prediction,
        )
        check_masked_positions(see("masked_positions", masked_positions), *shape)
        shapes = [shape] if masked_positions is None else [shape, masked_positions.shape]
        check_class_labels(see("labels", labels), self.config.vocab_size, *shapes)
        if labels is None:
            return None
        labels = labels.long()
        if masked_positions is None:
            return labels
        if tuple(labels.shape) != tuple(masked_positions.shape):
            labels = labels.gather(1, masked_positions.long().clamp(min=0))
        return labels.masked_fill(masked_positions < 0, IGNORE_INDEX)

    def logits_at(self, encoded: Encoded, masked_positions: Tensor, length: int) -> Tensor:
        """(B, P, V) logits at some positions, zero where the position is -1."""
        valid_BP = masked_positions >= 0
        rows = torch.arange(len(masked_positions), device=masked_positions.device)[:, None] * length
        flat_BP = rows + masked_positions.long().clamp(min=0)
        if not has_values(masked_positions):
            logits = self.lm_head(encoded.at(flat_BP.flatten())).unflatten(0, valid_BP.shape)
            return logits.masked_fill(~valid_BP[..., None], 0)
        logits_nV = self.lm_head(encoded.at(flat_BP[valid_BP]))
        if bool(valid_BP.all()):
            return logits_nV.unflatten(0, valid_BP.shape)
        logits = logits_nV.new_zeros((valid_BP.numel(), logits_nV.shape[-1]))
        return logits.index_copy(0, valid_BP.flatten().nonzero().squeeze(1), logits_nV).unflatten(0, valid_BP.shape)


class CausalLM(GenerationMixin, VocabularyModel):
    """Left-to-right language modelling. ``config.is_decoder`` makes attention causal, as published; without it every
    token sees all.
    """

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
    ) -> CausalLMOutputWithCrossAttentions[Tensor]:
        """Predict each next token.

        Args:
            input_ids ... return_dict: as in the bare model.
            labels: integers (B, S), -100 to ignore; position i predicts the label of i + 1.
            num_items_in_batch: divide the summed loss by this number and not by the number of labels, as trainers with
                gradient accumulation ask.
            logits_to_keep: compute logits at the last so many positions only (0: all), or at the columns of an integer
                tensor (n,).

        Returns:
            :class:`~xlmr_core.outputs.CausalLMOutputWithCrossAttentions`; logits (B, S, V), or (B, kept, V).
            With few ``labels`` they are computed when they are read, see ``later.py``.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range; for labels with ``logits_to_keep``.
        """
        call = self._read(
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
        batch, length = call.source.shape[:2]
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        columns = logits_to_keep if isinstance(logits_to_keep, int) else see("logits_to_keep", logits_to_keep)
        check_kept_columns(columns, length, labelled=labels is not None)
        check_class_labels(see("labels", labels), self.config.vocab_size, (batch, length))
        if labels is not None:
            # The last position predicts nothing; all others predict their successor.
            labels = F.pad(labels.long()[:, 1:], (0, 1), value=IGNORE_INDEX)
        if keeps_all:
            needed_BS = labelled_positions(labels)
        else:
            kept = kept_columns(logits_to_keep, length)
            needed_BS = chosen_positions(kept.expand(batch, -1), length)
        encoded = self._encode(call, Needs(positions_BS=needed_BS))
        loss = source = None
        if keeps_all:
            loss, logits, source = self._predict(encoded, labels, return_dict, num_items_in_batch)
        else:
            logits = self.lm_head(encoded.unpack(encoded.states)[:, kept.to(encoded.states.device)])
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=encoded.past_key_values,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return self.finish(output if source is None else later(output, source), return_dict)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...


def kept_columns(logits_to_keep: int | Tensor, length: int) -> Tensor:
    """The columns that ``logits_to_keep`` means, (n,): the last so many, or those named, negative ones from the end."""
    if isinstance(logits_to_keep, int):
        return torch.arange(max(0, length - logits_to_keep), length)
    return logits_to_keep.long() % length
