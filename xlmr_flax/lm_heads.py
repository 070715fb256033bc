"""The heads that predict tokens: masked and left-to-right language modelling."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.head_checks import (
    check_class_labels,
    check_kept_columns,
    check_masked_positions,
    check_where_logits_are_computed,
    refuse_tied_projection,
)
from xlmr_core.heads import HEADS
from xlmr_core.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from xlmr_core.packing import Needs
from xlmr_flax.cache import Cache, see_cache
from xlmr_flax.encoder import Encoded
from xlmr_flax.functional import compiled
from xlmr_flax.generation import GenerationMixin
from xlmr_flax.heads import HeadModel, chosen_positions, class_labels, labelled_positions
from xlmr_flax.inputs import has_values, is_concrete, see
from xlmr_flax.linear import LayerNorm, Linear, accumulator, by_rows, unset
from xlmr_flax.losses import cross_entropy, labelled_cross_entropy
from xlmr_flax.mask_predict import MaskPredictMixin
from xlmr_flax.packing import Packing, bucket
from xlmr_flax.widening import QuantizedLayer

__all__ = ["CausalLM", "Decoder", "LMHead", "MaskedLM"]


class Decoder(nnx.Module):
    """The kernel (D, V) of a vocabulary projection that is not tied to the word embedding."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.kernel = unset(config.hidden_size, config.vocab_size)

    def product(self, x: Array) -> Array:
        """(..., D) to (..., V), in the dtype that sums are made in."""
        return jnp.matmul(x, self.kernel[...].astype(x.dtype), preferred_element_type=accumulator(x.dtype))


class LMHead(nnx.Module):
    """States to vocabulary logits: dense, gelu, norm, projection.

    The gelu is the exact one whatever ``hidden_act`` says, as published.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # Only where it is not tied: the published tree holds it once.
        self.decoder = None if config.tie_word_embeddings else Decoder(config)
        self.bias = unset(config.vocab_size)

    def __call__(self, x: Array, embedding_VD: Array | QuantizedLayer | None) -> Array:
        """(..., D) to (..., V), by the word embedding, or the layer that holds it quantized, if the decoder is tied to
        it.
        """
        x = self.layer_norm(jax.nn.gelu(self.dense.wide(x), approximate=False)).astype(x.dtype)
        if self.decoder is not None:
            product = self.decoder.product(x)
        elif isinstance(embedding_VD, QuantizedLayer):
            product = embedding_VD.product(x)
        else:
            product = by_rows(x, embedding_VD)
        return (product + self.bias[...].astype(product.dtype)).astype(x.dtype)


class VocabularyModel(HeadModel):
    """A head that projects to the vocabulary."""

    def _build(self, config: XLMRobertaConfig) -> None:
        super()._build(config)
        # ---- Layers
        self.lm_head = LMHead(config)

    def project(self, states: Array) -> Array:
        """(..., D) to logits (..., V)."""
        return _projected(self.projection(), states)

    def projection(self) -> tuple[LMHead, Any]:
        """The head, and the word embedding, or the layer that holds it quantized, if the decoder is tied to that."""
        table: Any = None
        if self.lm_head.decoder is None:
            table = self.get_input_embeddings()
            table = table if isinstance(table, QuantizedLayer) else table.embedding[...]
        return self.lm_head, table

    def get_output_embeddings(self) -> nnx.Module | None:
        """The vocabulary projection, ``None`` if the word embedding serves as such."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nnx.Module) -> None:
        """Replace the vocabulary projection.

        Raises:
            InputError: if it is tied to the word embedding.
        """
        if self.lm_head.decoder is None:
            refuse_tied_projection()
        self.lm_head.decoder = new_embeddings

    def _resize_projection(self, rows: int, mean_resizing: bool, rng: Array) -> None:
        bias = self.lm_head.bias[...]
        self.lm_head.bias = nnx.Param(jnp.zeros(rows, bias.dtype).at[: len(bias)].set(bias[:rows]))
        if self.lm_head.decoder is not None:
            resized_VD = self._resized(self.lm_head.decoder.kernel[...].T, rows, mean_resizing, rng)
            self.lm_head.decoder.kernel = nnx.Param(resized_VD.T)


class MaskedLM(MaskPredictMixin, VocabularyModel):
    """Masked language modelling."""

    _task_head = HEADS["ForMaskedLM"]

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
        masked_positions: Any = None,
        sparse_prediction: bool = False,
    ) -> MaskedLMOutput[Array]:
        """Predict masked tokens.

        Args:
            input_ids ... packing: as in the bare model.
            labels: integers (B, S), -100 where nothing is to be predicted; with ``masked_positions`` also (B, P), which
                is what they are where P equals S. Inside ``jax.jit`` or ``jax.grad`` the loss is computed from the
                labelled positions, and logits that the function does not return are not.
            masked_positions: integers (B, P), padded with -1: compute logits at these positions only.
            sparse_prediction: with labels: compute logits at labelled positions only. How many these are the values
                decide, so inside ``jax.jit`` use ``masked_positions``.

        Returns:
            :class:`~xlmr_core.outputs.MaskedLMOutput`; logits (B, S, V), or (B, P, V) with zeros at -1, or
            (number labelled, V) in row-major order.

        Raises:
            InputError: as in the bare model, and for labels or positions of a wrong shape, dtype or range.
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
        labels = model._labels(call.source, labels, masked_positions, sparse_prediction)
        length = call.source.shape[1]
        if masked_positions is None:
            needed_BS = labelled_positions(labels)
        else:
            needed_BS = chosen_positions(masked_positions, length)
        encoded, _ = model._encode(call, Needs(positions_BS=needed_BS), key, packing)
        loss = None
        if masked_positions is not None:
            logits = model.logits_at(encoded, masked_positions, length)
            if labels is not None:
                loss = cross_entropy(logits, labels)
        elif sparse_prediction:
            logits, loss = model._sparse(encoded, labels)
        else:
            packed = model.project(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                # Labels lie on real tokens here, so the packed rows are all that counts.
                rows = encoded.rows(labels, IGNORE_INDEX)
                if has_values(packed):
                    loss = cross_entropy(packed, rows)
                else:  # of a step that returns the loss alone, the compiler then leaves all logits out
                    loss = labelled_cross_entropy(_projected, model.projection(), encoded.states, rows)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return model.finish(output, return_dict)

    def _labels(self, source: Any, labels: Any, masked_positions: Any, sparse_prediction: bool) -> Any:
        """The checked labels of a call, (B, S), or (B, P) with ``masked_positions``."""
        shape, target = tuple(source.shape[:2]), see("labels", labels)
        check_where_logits_are_computed(
            labelled=labels is not None,
            masked_positions=masked_positions is not None,
            sparse_prediction=sparse_prediction,
            values_are_known=is_concrete(labels),
        )
        check_masked_positions(see("masked_positions", masked_positions), *shape)
        shapes = [shape] if masked_positions is None else [shape, masked_positions.shape]
        check_class_labels(target, self.config.vocab_size, *shapes)
        if labels is None:
            return None
        labels = class_labels(labels)
        if masked_positions is None:
            return labels
        xp = np if is_concrete(labels) and is_concrete(masked_positions) else jnp
        if tuple(labels.shape) != tuple(masked_positions.shape):
            labels = xp.take_along_axis(labels, masked_positions.clip(0), axis=1)
        return xp.where(masked_positions < 0, np.int32(IGNORE_INDEX), labels)

    def _sparse(self, encoded: Encoded, labels_BS: np.ndarray) -> tuple[Array, Array]:
        """Logits (n, V) at the labelled positions, and the loss there."""
        flat = labels_BS.reshape(-1)
        labelled = np.flatnonzero(flat != IGNORE_INDEX)
        # Rounded up to few numbers of positions, for few programs; those in excess are left out again.
        padded = np.pad(labelled, (0, bucket(max(1, len(labelled))) - len(labelled)))
        found = self.project(encoded.at(padded))
        counted = np.where(np.arange(len(padded)) < len(labelled), flat[padded], np.int32(IGNORE_INDEX))
        return found[: len(labelled)], cross_entropy(found, counted)

    def logits_at(self, encoded: Encoded, masked_positions: Any, length: int) -> Array:
        """(B, P, V) logits at some positions, zero where the position is -1."""
        flat_BP = _flat_positions(masked_positions.clip(0), length)
        return _zero_unless(masked_positions >= 0, self.project(encoded.at(flat_BP)))


def _projected(projection: tuple[LMHead, Any], states: Array) -> Array:
    head, table = projection
    logits: Array = compiled(head, "__call__", states, table)
    return logits


def _flat_positions(columns_BP: Any, length: int) -> Any:
    """(B, P): the flat positions of columns."""
    rows = columns_BP.shape[0]
    # In an export the number of rows can be a symbol, which NumPy does not know.
    numbers = np.arange(rows, dtype=np.int32) if isinstance(rows, int) else jnp.arange(rows)
    return numbers[:, None] * length + columns_BP


@jax.jit
def _zero_unless(valid_BP: Array, logits_BPV: Array) -> Array:
    return jnp.where(valid_BP[..., None], logits_BPV, 0)


class CausalLM(GenerationMixin, VocabularyModel):
    """Left-to-right language modelling.

    ``config.is_decoder`` makes attention causal, as published; without it every token sees all.
    """

    _task_head = HEADS["ForCausalLM"]

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """An empty cache of a fixed size; see :meth:`xlmr_flax.encoder.EncoderModel.init_cache`."""
        cache: Cache = self.roberta.init_cache(batch_size, max_length)
        return cache

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
        logits_to_keep: Any = 0,
        num_items_in_batch: Any = None,
    ) -> CausalLMOutputWithCrossAttentions[Array]:
        """Predict each next token.

        Args:
            input_ids ... packing: as in the bare model.
            labels: integers (B, S), -100 to ignore; position i predicts the label of i + 1.
            num_items_in_batch: divide the summed loss by this number and not by the number of labels, as training with
                gradient accumulation asks.
            logits_to_keep: compute logits at the last so many positions only (0: all), or at the columns of an integer
                array (n,).

        Returns:
            :class:`~xlmr_core.outputs.CausalLMOutputWithCrossAttentions`; logits (B, S, V), or (B, kept, V).

        Raises:
            InputError: as in the bare model, and for labels of a wrong shape, dtype or range; for labels with
                ``logits_to_keep``.
        """
        model, key = self.prepare(params, dropout_rng, train)
        call = model._read(
            see_cache=partial(see_cache, model.config),
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
        batch, length = call.source.shape[:2]
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        columns = logits_to_keep if isinstance(logits_to_keep, int) else see("logits_to_keep", logits_to_keep)
        check_kept_columns(columns, length, labelled=labels is not None)
        check_class_labels(see("labels", labels), model.config.vocab_size, (batch, length))
        if labels is not None:
            labels = class_labels(labels)
            # The last position predicts nothing; all others predict their successor.
            xp = np if is_concrete(labels) else jnp
            labels = xp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORE_INDEX)
        if keeps_all:
            needed_BS = labelled_positions(labels)
        else:
            kept = kept_columns(logits_to_keep, length)
            kept_BP = (np if is_concrete(kept) else jnp).broadcast_to(kept, (batch, len(kept)))
            needed_BS = chosen_positions(kept_BP, length)
        encoded, _ = model._encode(call, Needs(positions_BS=needed_BS), key, packing)
        loss = None
        if keeps_all:
            packed = model.project(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                loss = cross_entropy(packed, encoded.rows(labels, IGNORE_INDEX), num_items_in_batch)
        else:
            logits = model.project(encoded.at(_flat_positions(kept_BP, length)))
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=encoded.cache,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return model.finish(output, return_dict)


def kept_columns(logits_to_keep: Any, length: int) -> Any:
    """The columns that ``logits_to_keep`` means, (n,): the last so many, or those named, negative ones from the end."""
    if isinstance(logits_to_keep, int):
        return np.arange(max(0, length - logits_to_keep), length)
    return logits_to_keep % length
