"""What stands on the encoder for each task. The families in ``modeling_*`` put their own encoder below; ``lm_heads.py``
predicts tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
import tensorflow as tf
from keras import ops

from xlmr_core.calls import Call, called_like
from xlmr_core.checks import IGNORE_INDEX, MASKED_SCORE
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.head_checks import (
    check_class_labels,
    check_num_labels_of_answers,
    check_sample_weight,
    check_sequence_labels,
    check_shape_of_choices,
    check_span,
    columns_of_sequence_labels,
)
from xlmr_core.heads import HEADS
from xlmr_core.outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from xlmr_core.packing import Needs
from xlmr_tf.encoder import Encoded, EncoderModel, flat
from xlmr_tf.inputs import fitted, read, see, shape_of
from xlmr_tf.linear import dims, dropout, linear
from xlmr_tf.losses import cross_entropy, sequence_loss, span_loss
from xlmr_tf.pretrained import PreTrainedModel

__all__ = [
    "ClassificationHead",
    "HeadModel",
    "MultipleChoice",
    "QuestionAnswering",
    "SequenceClassification",
    "TokenClassification",
]


class ClassificationHead(keras.layers.Layer):
    """The first token's state to class logits: dropout, dense, tanh, dropout, projection."""

    def __init__(self, config: XLMRobertaConfig, *, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size, dtype)
        self.dropout = classifier_dropout(config, dtype)
        self.out_proj = linear(config.hidden_size, config.num_labels, dtype)
        self.built = True

    def call(self, first_BD: tf.Tensor) -> tf.Tensor:
        """(B, D), or as published (B, S, D) whose first token is taken, to (B, K)."""
        first_BD = first_BD[:, 0] if len(first_BD.shape) == 3 else first_BD
        return self.out_proj(self.dropout(ops.tanh(self.dense(self.dropout(first_BD)))))


def classifier_dropout(config: XLMRobertaConfig, dtype: Any) -> keras.layers.Dropout:
    """The dropout of classification heads."""
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return dropout(rate, dtype)


class HeadModel(PreTrainedModel):
    """An encoder with a head. Subclasses set ``_task_head``; families set ``encoder_class``.

    Args:
        config: the model's configuration.
        dtype: the dtype policy, such as ``mixed_bfloat16``; by default Keras's global one.
        **kwargs: ``name`` and ``trainable``, as of every Keras model.
    """

    encoder_class: ClassVar[type[EncoderModel]]

    def __init__(self, config: XLMRobertaConfig, *, dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(config, dtype=dtype, **kwargs)
        # ---- Layers
        self.roberta = self.encoder_class(config, add_pooling_layer=self._task_head.pooler, dtype=self.dtype_policy)

    def head_names(self) -> list[str]:
        """Canonical names of the head's own parameters."""
        return [name for name in self.parameter_table() if not name.startswith("roberta.")]

    def _read(self, **inputs: Any) -> Call[tf.Tensor]:
        """Check the inputs of a call."""
        return read(self.base_model, **inputs)

    def _encode(self, call: Call[tf.Tensor], needs: Needs[tf.Tensor]) -> Encoded:
        """Run the encoder for a head."""
        return self.roberta(call=call, needs=needs)


class SequenceClassification(HeadModel):
    """Classification or regression of a whole sequence from its first token."""

    _task_head = HEADS["ForSequenceClassification"]

    def __init__(self, config: XLMRobertaConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        # ---- Layers
        self.num_labels = config.num_labels
        self.classifier = ClassificationHead(config, dtype=self.dtype_policy)
        self.post_init(self.head_names())

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool | None = None,
        *,
        sample_weight: Any = None,
    ) -> SequenceClassifierOutput[tf.Tensor]:
        """Classify sequences.

        Args:
            input_ids ... return_dict, training: as in the bare model.
            labels: see :func:`xlmr_core.head_checks.check_sequence_labels`.
            sample_weight: factors of the rows' losses, (B,); of several classes or numbers also one each, (B, K).

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
        batch = shape_of(call.source)[0]
        check_sequence_labels(self.config, see("labels", labels), batch, self.num_labels)
        each = () if labels is None else shape_of(labels)[1:]
        check_sample_weight(see("sample_weight", sample_weight), labels is not None, batch, *each)
        rows = dims(call.source)[0]
        columns = columns_of_sequence_labels(self.config, see("labels", labels), self.num_labels)
        labels = fitted("labels", labels, (rows,), (rows, columns))
        sample_weight = fitted("sample_weight", sample_weight, (rows,), (rows, 1), (rows, self.num_labels))
        encoded = self._encode(call, Needs(first_token=self._task_head.reads_first_token, nothing_else=True))
        logits = self.classifier(encoded.first_tokens())
        loss = None if labels is None else sequence_loss(self.config, logits, labels, sample_weight)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...


class MultipleChoice(HeadModel):
    """Choice between several sequences by a score of each."""

    _task_head = HEADS["ForMultipleChoice"]

    def __init__(self, config: XLMRobertaConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        # ---- Layers
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.classifier = linear(config.hidden_size, 1, self.dtype_policy)
        self.post_init(self.head_names())

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool | None = None,
        *,
        sample_weight: Any = None,
    ) -> MultipleChoiceModelOutput[tf.Tensor]:
        """Score the choices of each example.

        Args:
            input_ids, token_type_ids, attention_mask, position_ids: (B, C, S).
            inputs_embeds: (B, C, S, D).
            labels: integers (B,), the index of the right choice.
            sample_weight: factors of the rows' losses, (B,).

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
        shape = dims(input_ids if inputs_embeds is None else inputs_embeds)[:3]
        rows = shape[0]
        call = self._read(
            input_ids=_flat(input_ids),
            attention_mask=_flat(fitted("attention_mask", attention_mask, shape)),
            token_type_ids=_flat(fitted("token_type_ids", token_type_ids, shape)),
            position_ids=_flat(fitted("position_ids", position_ids, shape)),
            head_mask=head_mask,
            inputs_embeds=_flat(inputs_embeds),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        check_class_labels(see("labels", labels), choices, (batch,), (batch, 1))
        check_sample_weight(see("sample_weight", sample_weight), labels is not None, batch)
        labels = fitted("labels", labels, (rows,), (rows, 1))
        sample_weight = fitted("sample_weight", sample_weight, (rows,), (rows, 1))
        encoded = self._encode(call, Needs(first_token=self._task_head.reads_first_token, nothing_else=True))
        assert self.roberta.pooler is not None
        pooled = self.roberta.pooler(encoded.first_tokens())
        logits = tf.reshape(self.classifier(self.dropout(pooled)), shape[:2])
        loss = None
        if labels is not None:
            weights_B = None if sample_weight is None else tf.reshape(sample_weight, (-1,))
            loss = cross_entropy(logits, tf.reshape(labels, (-1,)), weights_n=weights_B)
        output = MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...


class TokenClassification(HeadModel):
    """Classification of every token."""

    _task_head = HEADS["ForTokenClassification"]
    # Whether a label at a masked position counts: in base and large it does, in XL it does not, as published.
    counts_masked_labels: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        # ---- Layers
        self.num_labels = config.num_labels
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.classifier = linear(config.hidden_size, config.num_labels, self.dtype_policy)
        self.post_init(self.head_names())

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool | None = None,
        *,
        sample_weight: Any = None,
    ) -> TokenClassifierOutput[tf.Tensor]:
        """Classify tokens.

        Args:
            input_ids ... return_dict, training: as in the bare model.
            labels: integers (B, S), -100 to ignore.
            sample_weight: factors of the labels' losses, (B,) or (B, S).

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
        shape = shape_of(call.source)[:2]
        check_class_labels(see("labels", labels), self.num_labels, shape)
        check_sample_weight(see("sample_weight", sample_weight), labels is not None, *shape)
        rows, length = dims(call.source)[:2]
        labels = fitted("labels", labels, (rows, length))
        sample_weight = fitted("sample_weight", sample_weight, (rows,), (rows, 1), (rows, length))
        if labels is not None:
            labels = tf.cast(labels, tf.int64)
            mask = call.attention_mask
            counts = self.counts_masked_labels or mask is None
            if not counts and mask.shape.is_compatible_with(labels.shape):
                labels = tf.where(mask == 0, tf.constant(IGNORE_INDEX, labels.dtype), labels)
        encoded = self._encode(call, Needs(positions_BS=labelled_positions(labels)))
        packed = self.classifier(self.dropout(encoded.states))
        loss = None
        if labels is not None:
            weights = weights_of(sample_weight, labels)
            weights_n = None if weights is None else encoded.rows(weights)
            loss = cross_entropy(flat_logits(packed), encoded.rows(labels), weights_n=weights_n)
        output = TokenClassifierOutput(
            loss=loss,
            logits=encoded.unpack(packed),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...


class QuestionAnswering(HeadModel):
    """Extractive question answering: scores of every token as start and as end of the answer."""

    _task_head = HEADS["ForQuestionAnswering"]

    def __init__(self, config: XLMRobertaConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        check_num_labels_of_answers(config)
        # ---- Layers
        self.qa_outputs = linear(config.hidden_size, config.num_labels, self.dtype_policy)
        self.post_init(self.head_names())

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        start_positions: Any = None,
        end_positions: Any = None,
        training: bool | None = None,
        *,
        sample_weight: Any = None,
    ) -> QuestionAnsweringModelOutput[tf.Tensor]:
        """Score tokens as start and end of an answer.

        Args:
            input_ids ... return_dict, training: as in the bare model.
            start_positions, end_positions: integers (B,); a position outside the sequence is ignored. The loss
                normalises over all positions, masked ones included, as published, so with them the padded path is
                taken.
            sample_weight: factors of the rows' losses, (B,), or of start and end (B, 2).

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
        batch = shape_of(call.source)[0]
        check_span(see("start_positions", start_positions), see("end_positions", end_positions), batch)
        check_sample_weight(see("sample_weight", sample_weight), start_positions is not None, batch, 2)
        rows = dims(call.source)[0]
        start_positions = fitted("start_positions", start_positions, (rows,), (rows, 1))
        end_positions = fitted("end_positions", end_positions, (rows,), (rows, 1))
        sample_weight = fitted("sample_weight", sample_weight, (rows,), (rows, 1), (rows, 2))
        encoded = self._encode(call, Needs(every_position=start_positions is not None))
        start_logits, end_logits = tf.unstack(encoded.unpack(self.qa_outputs(encoded.states), MASKED_SCORE), axis=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions, sample_weight)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...


def flat_logits(logits: tf.Tensor) -> tf.Tensor:
    """(..., K) to (n, K)."""
    return tf.reshape(logits, (-1, logits.shape[-1]))


def _flat(x: tf.Tensor | None) -> tf.Tensor | None:
    """(B, C, ...) to (B * C, ...)."""
    return None if x is None else flat(x)


def labelled_positions(labels_BS: tf.Tensor | None) -> tf.Tensor | None:
    """Bool (B, S): where there is a label."""
    return None if labels_BS is None else labels_BS != IGNORE_INDEX


def weights_of(sample_weight: Any, labels: tf.Tensor) -> tf.Tensor | None:
    """A weight for each of the labels (B, ...), from one a row or from one each."""
    if sample_weight is None:
        return None
    return tf.broadcast_to(tf.reshape(sample_weight, (dims(labels)[0], -1)), tf.shape(labels))


def chosen_positions(columns_BP: tf.Tensor, length: Any) -> tf.Tensor:
    """Bool (B, S): the columns that are chosen in each row, -1 for none."""
    return tf.reduce_any(tf.one_hot(columns_BP, length, on_value=True, off_value=False, dtype=tf.bool), axis=1)
