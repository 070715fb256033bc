"""What stands on the encoder for each task. The families in ``modeling_*`` put their own encoder below; ``lm_heads.py``
predicts tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from xlmr_core.calls import Call, called_like
from xlmr_core.checks import IGNORE_INDEX, MASKED_SCORE
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.head_checks import (
    check_class_labels,
    check_num_labels_of_answers,
    check_sequence_labels,
    check_shape_of_choices,
    check_span,
)
from xlmr_core.heads import HEADS
from xlmr_core.outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from xlmr_core.packing import Needs
from xlmr_torch.encoder import Encoded, EncoderModel
from xlmr_torch.inputs import read, see
from xlmr_torch.linear import linear, values_follow
from xlmr_torch.losses import cross_entropy, sequence_loss, span_loss
from xlmr_torch.pretrained import PreTrainedModel

__all__ = [
    "ClassificationHead",
    "HeadModel",
    "MultipleChoice",
    "QuestionAnswering",
    "SequenceClassification",
    "TokenClassification",
]


class ClassificationHead(nn.Module):
    """The first token's state to class logits: dropout, dense, tanh, dropout, projection."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size)
        self.dropout = classifier_dropout(config)
        self.out_proj = linear(config.hidden_size, config.num_labels)

    def forward(self, features: Tensor, **kwargs: Any) -> Tensor:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, K)."""
        first_BD = features[:, 0] if features.dim() == 3 else features
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(first_BD)))))


def classifier_dropout(config: XLMRobertaConfig) -> nn.Dropout:
    """The dropout of classification heads."""
    return nn.Dropout(config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout)


class HeadModel(PreTrainedModel):
    """An encoder with a head. Subclasses set ``_task_head``; families set ``encoder_class``."""

    encoder_class: ClassVar[type[EncoderModel]]

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        # ---- Layers
        self.roberta = self.encoder_class(config, add_pooling_layer=self._task_head.pooler)

    def head_names(self) -> list[str]:
        """Canonical names of the head's own parameters."""
        return [name for name in self.parameter_table() if not name.startswith("roberta.")]

    def _read(self, **inputs: Any) -> Call[Tensor]:
        """Check the inputs of a call."""
        return read(self.base_model, **inputs)

    def _encode(self, call: Call[Tensor], needs: Needs[Tensor]) -> Encoded:
        """Run the encoder for a head. Called as a module, so that hooks on it see the call."""
        return self.roberta(call=call, needs=self._onlookers.needs(self, call, needs))


class SequenceClassification(HeadModel):
    """Classification or regression of a whole sequence from its first token."""

    _task_head = HEADS["ForSequenceClassification"]
    head_class: ClassVar[type[ClassificationHead]]

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        # ---- Layers
        self.num_labels = config.num_labels
        with values_follow():
            self.classifier = self.head_class(config)
        # ---- Tying
        self.post_init(self.head_names())

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput[Tensor]:
        """Classify sequences.

        Args:
            input_ids ... return_dict: as in the bare model.
            labels: see :func:`xlmr_core.head_checks.check_sequence_labels`.

        Returns:
            :class:`~xlmr_core.outputs.SequenceClassifierOutput`; logits (B, K).

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
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_sequence_labels(self.config, see("labels", labels), call.source.shape[0], self.num_labels)
        encoded = self._encode(call, Needs(first_token=self._task_head.reads_first_token, nothing_else=True))
        logits = self.classifier(encoded.first_tokens())
        loss = None if labels is None else sequence_loss(self.config, logits, labels)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...


class MultipleChoice(HeadModel):
    """Choice between several sequences by a score of each."""

    _task_head = HEADS["ForMultipleChoice"]

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        # ---- Layers
        self.dropout = classifier_dropout(config)
        with values_follow():
            self.classifier = linear(config.hidden_size, 1)
        # ---- Tying
        self.post_init(self.head_names())

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MultipleChoiceModelOutput[Tensor]:
        """Score the choices of each example.

        Args:
            input_ids, token_type_ids, attention_mask, position_ids: (B, C, S).
            inputs_embeds: (B, C, S, D).
            labels: integers (B,), the index of the right choice.

        Returns:
            :class:`~xlmr_core.outputs.MultipleChoiceModelOutput`; logits (B, C).

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        batch, choices = check_shape_of_choices(
            input_ids=see("input_ids", input_ids),
            inputs_embeds=see("inputs_embeds", inputs_embeds),
            others=[
                see("attention_mask", attention_mask),
                see("token_type_ids", token_type_ids),
                see("position_ids", position_ids),
            ],
        )
        call = self._read(
            input_ids=_flat(input_ids),
            attention_mask=_flat(attention_mask),
            token_type_ids=_flat(token_type_ids),
            position_ids=_flat(position_ids),
            head_mask=head_mask,
            inputs_embeds=_flat(inputs_embeds),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_class_labels(see("labels", labels), choices, (batch,), (batch, 1))
        encoded = self._encode(call, Needs(first_token=self._task_head.reads_first_token, nothing_else=True))
        assert encoded.pooler_output is not None
        logits = self.classifier(self.dropout(encoded.pooler_output)).view(batch, choices)
        loss = None if labels is None else cross_entropy(logits, labels.flatten())
        output = MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...


class TokenClassification(HeadModel):
    """Classification of every token."""

    _task_head = HEADS["ForTokenClassification"]
    # Whether a label at a masked position counts: in base and large it does, in XL it does not, as published.
    counts_masked_labels: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        # ---- Layers
        self.num_labels = config.num_labels
        self.dropout = classifier_dropout(config)
        with values_follow():
            self.classifier = linear(config.hidden_size, config.num_labels)
        # ---- Tying
        self.post_init(self.head_names())

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput[Tensor]:
        """Classify tokens.

        Args:
            input_ids ... return_dict: as in the bare model.
            labels: integers (B, S), -100 to ignore.

        Returns:
            :class:`~xlmr_core.outputs.TokenClassifierOutput`; logits (B, S, K).

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
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_class_labels(see("labels", labels), self.num_labels, call.source.shape[:2])
        if labels is not None:
            labels = labels.long()
            if not self.counts_masked_labels and attention_mask is not None and attention_mask.shape == labels.shape:
                labels = labels.masked_fill(attention_mask == 0, IGNORE_INDEX)
        encoded = self._encode(call, Needs(positions_BS=labelled_positions(labels)))
        packed = self.classifier(self.dropout(encoded.states))
        loss = None
        if labels is not None:
            loss = cross_entropy(packed.flatten(0, -2), encoded.rows(labels))
        output = TokenClassifierOutput(
            loss=loss,
            logits=encoded.unpack(packed),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...


class QuestionAnswering(HeadModel):
    """Extractive question answering: scores of every token as start and as end of the answer."""

    _task_head = HEADS["ForQuestionAnswering"]

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        check_num_labels_of_answers(config)
        # ---- Layers
        with values_follow():
            self.qa_outputs = linear(config.hidden_size, config.num_labels)
        # ---- Tying
        self.post_init(self.head_names())

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput[Tensor]:
        """Score tokens as start and end of an answer.

        Args:
            input_ids ... return_dict: as in the bare model.
            start_positions, end_positions: integers (B,); a position outside the sequence is ignored. The loss
                normalises over all positions, masked ones included, as published, so with them the padded path is
                taken.

        Returns:
            :class:`~xlmr_core.outputs.QuestionAnsweringModelOutput`; logits (B, S), ``MASKED_SCORE`` (-10000) where
            packing left a masked position out.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range; for one of the two positions without the other.
        """
        call = self._read(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        batch = call.source.shape[0]
        check_span(see("start_positions", start_positions), see("end_positions", end_positions), batch)
        encoded = self._encode(call, Needs(every_position=start_positions is not None))
        start_logits, end_logits = encoded.unpack(self.qa_outputs(encoded.states), MASKED_SCORE).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...


def _flat(x: Tensor | None) -> Tensor | None:
    """(B, C, ...) to (B * C, ...)."""
    return None if x is None else x.flatten(0, 1)


def labelled_positions(labels_BS: Tensor | None) -> Tensor | None:
    """Bool (B, S): where there is a label."""
    return None if labels_BS is None else labels_BS != IGNORE_INDEX


def chosen_positions(columns_BP: Tensor, length: int) -> Tensor:
    """Bool (B, S): the columns that are chosen in each row, -1 for none."""
    chosen = torch.zeros(columns_BP.shape[0], length + 1, dtype=torch.bool, device=columns_BP.device)
    # Column -1 is the spare last one.
    return chosen.scatter_(1, columns_BP.long() % (length + 1), True)[:, :-1]
