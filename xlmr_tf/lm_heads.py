"""The heads that predict tokens: masked and left-to-right language modelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from xlmr_core.calls import called_like
from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.head_checks import (
    check_class_labels,
    check_kept_columns,
    check_masked_positions,
    check_sample_weight,
    check_where_logits_are_computed,
)
from xlmr_core.heads import HEADS
from xlmr_core.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from xlmr_core.packing import Needs
from xlmr_tf.activations import ACTIVATIONS
from xlmr_tf.cache import see_cache
from xlmr_tf.encoder import Encoded
from xlmr_tf.generation import GenerationMixin
from xlmr_tf.heads import HeadModel, chosen_positions, flat_logits, labelled_positions, weights_of
from xlmr_tf.inputs import fitted, is_traced, is_xla, see, shape_of
from xlmr_tf.linear import Linear, dims, layer_norm, linear, replace_values, unset
from xlmr_tf.losses import cross_entropy, next_tokens
from xlmr_tf.mask_predict import MaskPredictMixin
from xlmr_tf.quantized_by_keras import table_product
from xlmr_tf.widening import QuantizedLayer

__all__ = ["CausalLM", "LMHead", "MaskedLM"]


class LMHead(keras.layers.Layer):
    """States to vocabulary logits: dense, gelu, norm, projection. The gelu is the exact one whatever ``hidden_act``
    says, as published.

    Args:
        config: sizes, and whether the projection is tied to the word embedding.
        table: the word embedding.
        dtype: the dtype policy.
    """

    decoder: Linear | None

    def __init__(self, config: XLMRobertaConfig, table: keras.layers.Embedding, *, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        # ---- Layers
        self.dense = linear(config.hidden_size, config.hidden_size, dtype)
        self.layer_norm = layer_norm(config.hidden_size, config.layer_norm_eps, dtype)
        self.bias = self.add_weight((config.vocab_size,), initializer=unset, name="bias")
        # ---- Tying
        self.table = table if config.tie_word_embeddings else None
        self.decoder = (
            None if config.tie_word_embeddings else linear(config.hidden_size, config.vocab_size, dtype, bias=False)
        )
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """(..., D) to (..., V)."""
        x = self.layer_norm(ACTIVATIONS["gelu"](self.dense(x)))
        *leading, width = dims(x)
        x_nD = tf.reshape(x, (-1, width))
        product = self._table_product(x_nD, self.table) if self.decoder is None else self.decoder(x_nD)
        if is_xla() and x_nD.shape[0] == 1:
            product = kept_apart(product)
        logits = product + tf.cast(self.bias, x.dtype)
        return tf.reshape(logits, (*leading, dims(logits)[-1]))

    def _table_product(self, x_nD: tf.Tensor, table: Any) -> tf.Tensor:
        """(n, D) to (n, V): by the embedding, which may be quantized."""
        if isinstance(table, QuantizedLayer):
            return tf.cast(table.product(x_nD), x_nD.dtype)
        if table.quantization_mode is not None:
            return table_product(x_nD, table)
        return tf.matmul(x_nD, tf.cast(table.embeddings, x_nD.dtype), transpose_b=True)


@tf.custom_gradient
def kept_apart(x: tf.Tensor) -> Any:
    """``x`` itself, which XLA does not compute together with what comes behind it.

    A product of one row together with the sum behind it runs in a single thread, and a token of a generation is one
    row.
    """
    from tensorflow.compiler.tf2xla.python.xla import optimization_barrier

    return optimization_barrier(x)[0], lambda gradient: gradient


class VocabularyModel(HeadModel):
    """A head that projects to the vocabulary."""

    lm_head: LMHead

    def __init__(self, config: XLMRobertaConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        # ---- Layers
        self.lm_head = LMHead(config, self.get_input_embeddings(), dtype=self.dtype_policy)
        self.post_init(self.head_names())

    def get_output_embeddings(self) -> keras.layers.Layer:
        """The vocabulary projection: the word embedding itself if it is tied to it."""
        return self.lm_head.table if self.lm_head.decoder is None else self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: Linear) -> None:
        """Replace the vocabulary projection, which is not tied to the word embedding from then on; the head's bias
        stays.
        """
        self.lm_head.decoder, self.lm_head.table = new_embeddings, None

    def set_output_bias(self, bias: Any) -> None:
        """Replace the values of the vocabulary projection's bias, (V,)."""
        replace_values(self.lm_head, "bias", tf.convert_to_tensor(bias))

    def _loss(
        self, encoded: Encoded, packed: tf.Tensor, labels_BS: tf.Tensor, weights_BS: Any, divisor: Any = None
    ) -> tf.Tensor:
        """The loss of a call, from the logits of all states.

        In a graph, from those of the labelled positions alone: who trains by the loss, as ``fit`` does without metrics,
        reads no others, and what nobody reads TensorFlow leaves out. XLA wants to know how many they are.
        """
        if is_traced() and not is_xla():
            return self._labelled(encoded, labels_BS, weights_BS, divisor)[1]
        # Labels lie on real tokens here, so the packed rows are all that counts.
        weights_n = None if weights_BS is None else encoded.rows(weights_BS)
        return cross_entropy(flat_logits(packed), encoded.rows(labels_BS), divisor, weights_n)

    def _labelled(
        self, encoded: Encoded, labels_BS: tf.Tensor, weights_BS: Any, divisor: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits (n, V) at the labelled positions, and the loss there."""
        flat = tf.reshape(labels_BS, (-1,))
        labelled = tf.where(flat != IGNORE_INDEX)[:, 0]
        logits_nV = self.lm_head(encoded.at(labelled))
        weights_n = None if weights_BS is None else tf.gather(tf.reshape(weights_BS, (-1,)), labelled)
        return logits_nV, cross_entropy(logits_nV, tf.gather(flat, labelled), divisor, weights_n)

    def _resize_projection(self, rows: int, mean_resizing: bool) -> None:
        decoder, bias = self.lm_head.decoder, self.lm_head.bias
        if decoder is not None:
            table_VD = self._resized(tf.transpose(decoder._kernel), rows, mean_resizing)
            replace_values(decoder, "_kernel", tf.transpose(table_VD))
            decoder.units = rows
        self.set_output_bias(tf.pad(bias[:rows], [[0, max(0, rows - bias.shape[0])]]))


class MaskedLM(MaskPredictMixin, VocabularyModel):
    """Masked language modelling."""

    _task_head = HEADS["ForMaskedLM"]

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
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        masked_positions: Any = None,
        sparse_prediction: bool = False,
        sample_weight: Any = None,
    ) -> MaskedLMOutput[tf.Tensor]:
        """Predict masked tokens.

        Args:
            input_ids ... return_dict, training, encoder_hidden_states, encoder_attention_mask: as in the bare model.
            labels: integers (B, S), -100 where nothing is to be predicted; with ``masked_positions`` also (B, P), which
                is what they are where P equals S.
            masked_positions: integers (B, P), padded with -1: compute logits at these positions only.
            sparse_prediction: with labels: compute logits at labelled positions only.
            sample_weight: factors of the labels' losses, (B,) or of the labels' shape.

        Returns:
            :class:`~xlmr_core.outputs.MaskedLMOutput`; logits (B, S, V), or (B, P, V) with zeros at -1, or (number
            labelled, V) in row-major order.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range; for ``sparse_prediction`` under XLA.
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
        length = dims(call.source)[1]
        if masked_positions is not None and tf.is_tensor(masked_positions) and masked_positions.shape.rank == 2:
            rows = dims(call.source)[0]
            masked_positions = fitted("masked_positions", masked_positions, (rows, dims(masked_positions)[1]))
        labels, weights = self._labels(call.source, labels, sample_weight, masked_positions, sparse_prediction)
        if masked_positions is None:
            needed_BS = labelled_positions(labels)
        else:
            needed_BS = chosen_positions(masked_positions, length)
        encoded = self._encode(call, Needs(positions_BS=needed_BS))
        loss = None
        if masked_positions is not None:
            logits = self.logits_at(encoded, masked_positions, length)
            if labels is not None:
                weights_n = None if weights is None else tf.reshape(weights, (-1,))
                loss = cross_entropy(flat_logits(logits), tf.reshape(labels, (-1,)), weights_n=weights_n)
        elif sparse_prediction:
            logits, loss = self._labelled(encoded, labels, weights)
        else:
            packed = self.lm_head(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                loss = self._loss(encoded, packed, labels, weights)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...

    def _labels(
        self, source: tf.Tensor, labels: Any, sample_weight: Any, masked_positions: Any, sparse_prediction: bool
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """The checked labels of a call and their weights, (B, S), or (B, P) with ``masked_positions``."""
        shape = shape_of(source)[:2]
        check_where_logits_are_computed(
            labelled=labels is not None,
            masked_positions=masked_positions is not None,
            sparse_prediction=sparse_prediction,
            values_are_known=not is_xla(),
        )
        places = see("masked_positions", masked_positions)
        check_masked_positions(places, *shape)
        shapes = [shape] if places is None else [shape, places.shape]
        check_class_labels(see("labels", labels), self.config.vocab_size, *shapes)
        size = shape if labels is None else shape_of(labels)
        check_sample_weight(see("sample_weight", sample_weight), labels is not None, *size)
        if labels is None:
            return None, None
        rows, length = dims(source)[:2]
        labels = fitted("labels", labels, (rows, length), *([] if places is None else [dims(masked_positions)]))
        sample_weight = fitted("sample_weight", sample_weight, (rows,), (rows, 1), dims(labels))
        weights = weights_of(sample_weight, labels)
        labels = tf.cast(labels, tf.int64)
        if masked_positions is None:
            return labels, weights
        return labels_at(masked_positions, labels), None if weights is None else at_places(masked_positions, weights)

    def logits_at(self, encoded: Encoded, masked_positions: tf.Tensor, length: Any) -> tf.Tensor:
        """(B, P, V) logits at some positions, zero where the position is -1."""
        valid_BP = masked_positions >= 0
        batch, places = dims(masked_positions)
        rows = tf.range(tf.cast(batch, tf.int64))[:, None] * tf.cast(length, tf.int64)
        flat_BP = rows + tf.maximum(tf.cast(masked_positions, tf.int64), 0)
        vocabulary = self.config.vocab_size
        if is_xla():
            logits_nV = self.lm_head(encoded.at(tf.reshape(flat_BP, (-1,))))
            logits_BPV = tf.reshape(logits_nV, (batch, places, vocabulary))
            return tf.where(valid_BP[..., None], logits_BPV, tf.zeros((), logits_BPV.dtype))
        logits_nV = self.lm_head(encoded.at(tf.boolean_mask(flat_BP, valid_BP)))
        return tf.scatter_nd(tf.where(valid_BP), logits_nV, tf.cast(tf.stack([batch, places, vocabulary]), tf.int64))


class CausalLM(GenerationMixin, VocabularyModel):
    """Left-to-right language modelling. ``config.is_decoder`` makes attention causal, as published; without it every
    token sees all.
    """

    _task_head = HEADS["ForCausalLM"]

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool | None = None,
        *,
        logits_to_keep: Any = 0,
        num_items_in_batch: Any = None,
        sample_weight: Any = None,
    ) -> CausalLMOutputWithCrossAttentions[tf.Tensor]:
        """Predict each next token.

        Args:
            input_ids ... return_dict, training: as in the bare model, the cache too.
            labels: integers (B, S), -100 to ignore; position i predicts the label of i + 1.
            logits_to_keep: compute logits at the last so many positions only (0: all), or at the columns of an integer
                tensor (n,).
            num_items_in_batch: divide the summed loss by this number and not by the number of labels, as loops with
                gradient accumulation ask.
            sample_weight: factors of the labels' losses, (B,) or (B, S).

        Returns:
            :class:`~xlmr_core.outputs.CausalLMOutputWithCrossAttentions`; logits (B, S, V), or (B, kept, V).

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
            see_cache=see_cache,
            recomputes=self.base_model.encoder.gradient_checkpointing and bool(training),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        batch, length = dims(call.source)[:2]
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        columns = logits_to_keep if isinstance(logits_to_keep, int) else see("logits_to_keep", logits_to_keep)
        check_kept_columns(columns, length, labelled=labels is not None)
        shape = shape_of(call.source)[:2]
        check_class_labels(see("labels", labels), self.config.vocab_size, shape)
        check_sample_weight(see("sample_weight", sample_weight), labels is not None, *shape)
        labels = fitted("labels", labels, (batch, length))
        sample_weight = fitted("sample_weight", sample_weight, (batch,), (batch, 1), (batch, length))
        weights = None
        if labels is not None:
            weights = weights_of(sample_weight, labels)
            labels = next_tokens(tf.cast(labels, tf.int64), IGNORE_INDEX)
        if keeps_all:
            needed_BS = labelled_positions(labels)
        else:
            kept = kept_columns(logits_to_keep, length)
            needed_BS = chosen_positions(tf.broadcast_to(kept[None], (batch, dims(kept)[0])), length)
        encoded = self._encode(call, Needs(positions_BS=needed_BS))
        loss = None
        if keeps_all:
            packed = self.lm_head(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                weights = None if weights is None else next_tokens(weights, 0)
                loss = self._loss(encoded, packed, labels, weights, num_items_in_batch)
        else:
            logits = self.lm_head(tf.gather(encoded.unpack(encoded.states), kept, axis=1))
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=encoded.past_key_values,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...


def labels_at(masked_positions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """(B, P) labels of the masked positions, from (B, S) or (B, P) ones; -100 where there is none."""
    return tf.where(masked_positions < 0, tf.constant(IGNORE_INDEX, labels.dtype), at_places(masked_positions, labels))


def at_places(masked_positions: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """(B, P) of a (B, S), or what is (B, P) already; anything where there is no position."""
    places, columns = dims(masked_positions)[1], dims(x)[1]
    positions = tf.maximum(tf.cast(masked_positions, tf.int64), 0)

    def gathered() -> tf.Tensor:
        return tf.gather(x, positions, batch_dims=1)

    if isinstance(places, int) and isinstance(columns, int):
        return x if places == columns else gathered()
    return tf.cond(tf.equal(places, columns), lambda: x, gathered)  # which of the two it is shows when the graph runs


def kept_columns(logits_to_keep: Any, length: Any) -> tf.Tensor:
    """The columns that ``logits_to_keep`` means, (n,): the last so many, or those named, negative ones from the end."""
    if isinstance(logits_to_keep, int):
        return tf.range(tf.maximum(0, length - logits_to_keep), length)
    return tf.math.floormod(tf.cast(logits_to_keep, tf.int32), length)
