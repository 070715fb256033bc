"""What stands on the encoder for each task.

The families in ``modeling_*`` put their own encoder below; ``lm_heads.py`` predicts tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.calls import Call
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
from xlmr_flax.encoder import Encoded, EncoderModel
from xlmr_flax.functional import compiled
from xlmr_flax.inputs import is_concrete, narrow, read, see
from xlmr_flax.linear import Linear, dropout
from xlmr_flax.losses import cross_entropy, sequence_loss, span_loss
from xlmr_flax.packing import Packing
from xlmr_flax.pretrained import PreTrainedModel

__all__ = [
    "ClassificationHead",
    "HeadModel",
    "MultipleChoice",
    "QuestionAnswering",
    "SequenceClassification",
    "TokenClassification",
]


class ClassificationHead(nnx.Module):
    """The first token's state to class logits: dropout, dense, tanh, dropout, projection."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.out_proj = Linear(config.hidden_size, config.num_labels)
        # ---- Config
        self.dropout_probability = classifier_dropout(config)

    def __call__(self, first_BD: Array, key: Array | None = None) -> Array:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, K)."""
        first_BD = first_BD[:, 0] if first_BD.ndim == 3 else first_BD
        first_key, second_key = (None, None) if key is None else jax.random.split(key)
        x = jnp.tanh(self.dense(dropout(first_BD, self.dropout_probability, first_key)))
        return self.out_proj(dropout(x, self.dropout_probability, second_key))


def classifier_dropout(config: XLMRobertaConfig) -> float:
    """The dropout of classification heads."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


class HeadModel(PreTrainedModel):
    """An encoder with a head. Subclasses set ``_task_head``; families set ``encoder_class``."""

    encoder_class: ClassVar[type[EncoderModel]]

    def _build(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.roberta = self.encoder_class(config, _do_init=False, add_pooling_layer=self._task_head.pooler)

    def head_names(self) -> list[str]:
        """Canonical names of the head's own parameters."""
        return [name for name in self.parameter_table() if not name.startswith("roberta.")]

    def _read(self, **inputs: Any) -> Call[Any]:
        """Check the inputs of a call."""
        return read(self.base_model, **inputs)

    def _encode(
        self, call: Call[Any], needs: Needs[Any], key: Array | None, packing: Packing | None
    ) -> tuple[Encoded, Array | None]:
        """Run the encoder for a head; returns its states, and the random key that is left for the head."""
        encoder_key, head_key = (None, None) if key is None else jax.random.split(key)
        train = key is not None
        encoded = self.roberta(call=call, needs=needs, dropout_rng=encoder_key, train=train, packing=packing)
        return encoded, head_key


class SequenceClassification(HeadModel):
    """Classification or regression of a whole sequence from its first token."""

    _task_head = HEADS["ForSequenceClassification"]

    def _build(self, config: XLMRobertaConfig) -> None:
        super()._build(config)
        # ---- Layers
        self.num_labels = config.num_labels
        self.classifier = ClassificationHead(config)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        *,
        inputs_embeds: Any = None,
        labels: Any = None,
        packing: Packing | None = None,
    ) -> SequenceClassifierOutput[Array]:
        """Classify sequences.

        Args:
            input_ids ... packing: as in the bare model.
            labels: see :func:`xlmr_core.head_checks.check_sequence_labels`.

        Returns:
            :class:`~xlmr_core.outputs.SequenceClassifierOutput`; logits (B, K).

        Raises:
            InputError: as in the bare model, and for labels of a wrong shape, dtype or range.
        """
        model, key = self.prepare(params, dropout_rng, train)
        call = model._read(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_sequence_labels(model.config, see("labels", labels), call.source.shape[0], model.num_labels)
        needs = Needs(first_token=model._task_head.reads_first_token, nothing_else=True)
        encoded, head_key = model._encode(call, needs, key, packing)
        logits = compiled(model.classifier, "__call__", encoded.first_tokens(), head_key)
        loss = None if labels is None else sequence_loss(model.config, logits, labels)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return model.finish(output, return_dict)


class MultipleChoice(HeadModel):
    """Choice between several sequences by a score of each."""

    _task_head = HEADS["ForMultipleChoice"]

    def _build(self, config: XLMRobertaConfig) -> None:
        super()._build(config)
        # ---- Layers
        self.classifier = Linear(config.hidden_size, 1)
        # ---- Config
        self.dropout_probability = classifier_dropout(config)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        *,
        inputs_embeds: Any = None,
        labels: Any = None,
        packing: Packing | None = None,
    ) -> MultipleChoiceModelOutput[Array]:
        """Score the choices of each example.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids: (B, C, S).
            head_mask ... return_dict: as in the bare model.
            inputs_embeds: (B, C, S, D).
            labels: integers (B,), the index of the right choice.
            packing: of the B * C flattened sequences.

        Returns:
            :class:`~xlmr_core.outputs.MultipleChoiceModelOutput`; logits (B, C).

        Raises:
            InputError: as in the bare model, and for labels of a wrong shape, dtype or range.
        """
        model, key = self.prepare(params, dropout_rng, train)
        batch, choices = check_shape_of_choices(
            input_ids=see("input_ids", input_ids),
            inputs_embeds=see("inputs_embeds", inputs_embeds),
            others=[
                see("attention_mask", attention_mask),
                see("token_type_ids", token_type_ids),
                see("position_ids", position_ids),
            ],
        )
        call = model._read(
            input_ids=_flat(input_ids),
            attention_mask=_flat(attention_mask),
            token_type_ids=_flat(token_type_ids),
            position_ids=_flat(position_ids),
            head_mask=head_mask,
            inputs_embeds=_flat(inputs_embeds),
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_class_labels(see("labels", labels), choices, (batch,), (batch, 1))
        needs = Needs(first_token=model._task_head.reads_first_token, nothing_else=True)
        encoded, head_key = model._encode(call, needs, key, packing)
        pooled = dropout(model.roberta.pool(encoded), model.dropout_probability, head_key)
        logits = compiled(model.classifier, "__call__", pooled).reshape(batch, choices)
        loss = None if labels is None else cross_entropy(logits, class_labels(labels).reshape(-1))
        output = MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return model.finish(output, return_dict)


class TokenClassification(HeadModel):
    """Classification of every token."""

    _task_head = HEADS["ForTokenClassification"]
    # Whether a label at a masked position counts: in base and large it does, in XL it does not, as published.
    counts_masked_labels: ClassVar[bool] = True

    def _build(self, config: XLMRobertaConfig) -> None:
        super()._build(config)
        # ---- Layers
        self.num_labels = config.num_labels
        self.classifier = Linear(config.hidden_size, config.num_labels)
        # ---- Config
        self.dropout_probability = classifier_dropout(config)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        *,
        inputs_embeds: Any = None,
        labels: Any = None,
        packing: Packing | None = None,
    ) -> TokenClassifierOutput[Array]:
        """Classify tokens.

        Args:
            input_ids ... packing: as in the bare model.
            labels: integers (B, S), -100 to ignore.

        Returns:
            :class:`~xlmr_core.outputs.TokenClassifierOutput`; logits (B, S, K).

        Raises:
            InputError: as in the bare model, and for labels of a wrong shape, dtype or range.
        """
        model, key = self.prepare(params, dropout_rng, train)
        call = model._read(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_class_labels(see("labels", labels), model.num_labels, call.source.shape[:2])
        if labels is not None:
            labels = class_labels(labels)
            if not model.counts_masked_labels and attention_mask is not None and attention_mask.shape == labels.shape:
                xp = np if is_concrete(labels) and is_concrete(attention_mask) else jnp
                labels = xp.where(attention_mask == 0, np.int32(IGNORE_INDEX), labels)
        encoded, head_key = model._encode(call, Needs(positions_BS=labelled_positions(labels)), key, packing)
        states = dropout(encoded.states, model.dropout_probability, head_key)
        packed = compiled(model.classifier, "__call__", states)
        loss = None
        if labels is not None:
            loss = cross_entropy(packed, encoded.rows(labels, IGNORE_INDEX))
        output = TokenClassifierOutput(
            loss=loss,
            logits=encoded.unpack(packed),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return model.finish(output, return_dict)


class QuestionAnswering(HeadModel):
    """Extractive question answering: scores of every token as start and as end of the answer."""

    _task_head = HEADS["ForQuestionAnswering"]

    def _build(self, config: XLMRobertaConfig) -> None:
        super()._build(config)
        check_num_labels_of_answers(config)
        # ---- Layers
        self.qa_outputs = Linear(config.hidden_size, config.num_labels)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        *,
        inputs_embeds: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        packing: Packing | None = None,
    ) -> QuestionAnsweringModelOutput[Array]:
        """Score tokens as start and end of an answer.

        Args:
            input_ids ... packing: as in the bare model.
            start_positions, end_positions: integers (B,); a position outside the sequence is ignored. The loss
                normalises over all positions, masked ones included, as published, so with them the padded path
                is taken.

        Returns:
            :class:`~xlmr_core.outputs.QuestionAnsweringModelOutput`; logits (B, S), ``MASKED_SCORE`` (-10000) where
            packing left a masked position out.

        Raises:
            InputError: as in the bare model; for one of the two positions without the other.
        """
        model, key = self.prepare(params, dropout_rng, train)
        call = model._read(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        batch = call.source.shape[0]
        check_span(see("start_positions", start_positions), see("end_positions", end_positions), batch)
        encoded, _ = model._encode(call, Needs(every_position=start_positions is not None), key, packing)
        logits_BS2 = encoded.unpack(compiled(model.qa_outputs, "__call__", encoded.states), MASKED_SCORE)
        start_logits, end_logits = logits_BS2[..., 0], logits_BS2[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return model.finish(output, return_dict)


def _flat(x: Any) -> Any:
    """(B, C, ...) to (B * C, ...)."""
    return None if x is None else x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def class_labels(labels: Any) -> Any:
    """Checked labels as int32, in NumPy where they have their values."""
    return narrow(np.asarray(labels) if is_concrete(labels) else labels)


def labelled_positions(labels_BS: Any) -> Any:
    """Bool (B, S): where there is a label."""
    return None if labels_BS is None else labels_BS != IGNORE_INDEX


def chosen_positions(columns_BP: Any, length: int) -> Any:
    """Bool (B, S): the columns that are chosen in each row, -1 for none.

    Columns without values stay as they are: nothing can be packed by them.
    """
    if not is_concrete(columns_BP):
        return columns_BP
    chosen = np.zeros((columns_BP.shape[0], length + 1), bool)
    # Column -1 is the spare last one.
    np.put_along_axis(chosen, np.asarray(columns_BP) % (length + 1), True, axis=1)
    return chosen[:, :-1]
