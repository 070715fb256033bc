"""The heads that predict tokens: masked and left-to-right language modelling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.checks import IGNORE_INDEX, check_label_shape
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS
from xlmr_core.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from xlmr_flax.checks import batch_shape, check_labels, is_concrete, is_integer
from xlmr_flax.encoder import Encoded, Needs
from xlmr_flax.functional import compiled
from xlmr_flax.heads import HeadModel, needed_positions
from xlmr_flax.linear import LayerNorm, Linear, accumulator, unset
from xlmr_flax.losses import cross_entropy
from xlmr_flax.packing import Packing, bucket

__all__ = ["CausalLM", "Decoder", "LMHead", "MaskedLM"]


class Decoder(nnx.Module):
    """The kernel (D, V) of a vocabulary projection that is not tied to the word embedding."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.kernel = unset(config.hidden_size, config.vocab_size)


class LMHead(nnx.Module):
    """States to vocabulary logits: dense, gelu, norm, projection. The gelu is the exact one whatever ``hidden_act`` says, as published."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        # ---- Layers
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # Only where it is not tied: the published tree holds it once.
        self.decoder = None if config.tie_word_embeddings else Decoder(config)
        self.bias = unset(config.vocab_size)

    def __call__(self, x: Array, embedding_VD: Array | None) -> Array:
        """(..., D) to (..., V), by the word embedding if the decoder is tied to it."""
        x = self.layer_norm(jax.nn.gelu(self.dense(x), approximate=False))
        kernel_DV = embedding_VD.T if self.decoder is None else self.decoder.kernel[...]
        product = jnp.matmul(x, kernel_DV.astype(x.dtype), preferred_element_type=accumulator(x.dtype))
        return (product + self.bias[...].astype(product.dtype)).astype(x.dtype)


class VocabularyModel(HeadModel):
    """A head that projects to the vocabulary."""

    def _build(self, config: XLMRobertaConfig) -> None:
        super()._build(config)
        # ---- Layers
        self.lm_head = LMHead(config)

    def project(self, states: Array) -> Array:
        """(..., D) to logits (..., V)."""
        tied = self.lm_head.decoder is None
        return compiled(self.lm_head, "__call__", states, self.get_input_embeddings().embedding[...] if tied else None)

    def get_output_embeddings(self) -> nnx.Module | None:
        """The vocabulary projection, ``None`` if the word embedding serves as such."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nnx.Module) -> None:
        """Replace the vocabulary projection.

        Raises:
            InputError: if it is tied to the word embedding.
        """
        if self.lm_head.decoder is None:
            raise InputError(
                "the vocabulary projection is tied to the word embedding; use set_input_embeddings, or tie_word_embeddings=False"
            )
        self.lm_head.decoder = new_embeddings

    def _resize_projection(self, rows: int, mean_resizing: bool, rng: Array) -> None:
        bias = self.lm_head.bias[...]
        self.lm_head.bias = nnx.Param(jnp.zeros(rows, bias.dtype).at[: len(bias)].set(bias[:rows]))
        if self.lm_head.decoder is not None:
            resized_VD = self._resized(self.lm_head.decoder.kernel[...].T, rows, mean_resizing, rng)
            self.lm_head.decoder.kernel = nnx.Param(resized_VD.T)


class MaskedLM(VocabularyModel):
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
    ) -> Any:
        """Predict masked tokens.

        Args:
            input_ids ... packing: as in the bare model.
            labels: integers (B, S), -100 where nothing is to be predicted; with ``masked_positions`` also (B, P), which is
                what they are where P equals S.
            masked_positions: integers (B, P), padded with -1: compute logits at these positions only.
            sparse_prediction: with labels: compute logits at labelled positions only. How many these are is a matter of values, so inside
                ``jax.jit`` use ``masked_positions``.

        Returns:
            :class:`~xlmr_core.outputs.MaskedLMOutput`; logits (B, S, V), or (B, P, V) with zeros at -1, or (number labelled, V) in
            row-major order.

        Raises:
            InputError: as in the bare model, and for labels or positions of a wrong shape, dtype or range.
        """
        model, key = self.prepare(params, dropout_rng, train)
        shape = batch_shape(
            model.config, input_ids, inputs_embeds, position_ids, labels=labels, masked_positions=masked_positions
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
            labels = check_labels(model.config, labels, model.config.vocab_size)
            if masked_positions is not None:
                labels = _labels_at(labels, masked_positions)
        if sparse_prediction and not is_concrete(labels):
            raise InputError(
                "sparse_prediction=True needs labels with values on the host, received ones that are traced or on an accelerator; "
                "pass masked_positions"
            )
        encoded, _ = model._encode(
            Needs(positions_BS=needed_positions(shape, labels, masked_positions)),
            key,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            packing=packing,
        )
        loss = None
        if masked_positions is not None:
            logits = model.logits_at(encoded, masked_positions, shape)
            if labels is not None:
                loss = cross_entropy(logits, labels)
        elif sparse_prediction:
            flat = np.asarray(labels).reshape(-1)
            labelled = np.flatnonzero(flat != IGNORE_INDEX)
            # Rounded up to few numbers of positions, for few programs; those in excess are left out again.
            padded = np.pad(labelled, (0, bucket(max(1, len(labelled))) - len(labelled)))
            found = model.project(encoded.at(padded))
            logits = found[: len(labelled)]
            counted = np.where(np.arange(len(padded)) < len(labelled), flat[padded], np.int32(IGNORE_INDEX))
            loss = cross_entropy(found, counted)
        else:
            packed = model.project(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                # Labels lie on real tokens here, so the packed rows are all that counts.
                loss = cross_entropy(packed, encoded.rows(labels, IGNORE_INDEX))
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return model.finish(output, return_dict)

    def logits_at(self, encoded: Encoded, masked_positions: Any, shape: tuple[int, int]) -> Array:
        """(B, P, V) logits at some positions, zero where the position is -1."""
        valid_BP = masked_positions >= 0
        flat_BP = _row_starts(shape) + masked_positions.clip(0)
        return _zero_unless(valid_BP, self.project(encoded.at(flat_BP)))


def _row_starts(shape: tuple[int, int]) -> Any:
    """(B, 1): the flat position of each row's first column. In an export the number of rows can be a symbol, which NumPy does not know."""
    numbers = np.arange(shape[0], dtype=np.int32) if isinstance(shape[0], int) else jnp.arange(shape[0])
    return numbers[:, None] * shape[1]


@jax.jit
def _zero_unless(valid_BP: Array, logits_BPV: Array) -> Array:
    return jnp.where(valid_BP[..., None], logits_BPV, 0)


def _labels_at(labels: Any, masked_positions: Any) -> Any:
    """Labels (B, P) of (B, S) or (B, P) ones; nothing counts where the position is -1."""
    xp = np if is_concrete(labels) and is_concrete(masked_positions) else jnp
    if tuple(labels.shape) != tuple(masked_positions.shape):
        labels = xp.take_along_axis(labels, masked_positions.clip(0), axis=1)
    return xp.where(masked_positions < 0, np.int32(IGNORE_INDEX), labels)


class CausalLM(VocabularyModel):
    """Left-to-right language modelling. ``config.is_decoder`` makes attention causal, as published; without it every token sees all."""

    _task_head = HEADS["ForCausalLM"]

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
    ) -> Any:
        """Predict each next token.

        Args:
            input_ids ... packing: as in the bare model.
            labels: integers (B, S), -100 to ignore; position i predicts the label of i + 1.
            num_items_in_batch: divide the summed loss by this number and not by the number of labels, as training with gradient
                accumulation asks.
            logits_to_keep: compute logits at the last so many positions only (0: all), or at the columns of an integer array (n,).

        Returns:
            :class:`~xlmr_core.outputs.CausalLMOutputWithCrossAttentions`; logits (B, S, V), or (B, kept, V).

        Raises:
            InputError: as in the bare model, and for labels of a wrong shape, dtype or range; for labels with ``logits_to_keep``.
        """
        model, key = self.prepare(params, dropout_rng, train)
        shape = batch_shape(model.config, input_ids, inputs_embeds, position_ids, labels=labels)
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        if labels is not None:
            if not keeps_all:
                raise InputError("labels need the logits of every position; leave logits_to_keep out")
            check_label_shape("labels", labels.shape, shape)
            labels = check_labels(model.config, labels, model.config.vocab_size)
            # The last position predicts nothing; all others predict their successor.
            xp = np if is_concrete(labels) else jnp
            labels = xp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORE_INDEX)
        kept = kept_columns(logits_to_keep, shape[1])
        wanted = None if keeps_all else (np if is_concrete(kept) else jnp).broadcast_to(kept, (shape[0], len(kept)))
        encoded, _ = model._encode(
            Needs(positions_BS=needed_positions(shape, labels, wanted)),
            key,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            packing=packing,
        )
        loss = None
        if wanted is None:
            packed = model.project(encoded.states)
            logits = encoded.unpack(packed)
            if labels is not None:
                loss = cross_entropy(packed, encoded.rows(labels, IGNORE_INDEX), num_items_in_batch)
        else:
            flat_BP = _row_starts(shape) + wanted
            logits = model.project(encoded.at(flat_BP))
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return model.finish(output, return_dict)


def check_masked_positions(masked_positions: Any, shape: tuple[int, int]) -> None:
    """Refuse positions outside the sequence.

    Raises:
        InputError: naming the shape, the dtype or the range.
    """
    if masked_positions.ndim != 2 or masked_positions.shape[0] != shape[0] or masked_positions.shape[1] == 0:
        raise InputError(
            f"masked_positions must have the shape ({shape[0]}, P) with P at least 1, received {tuple(masked_positions.shape)}"
        )
    if not is_integer(masked_positions):
        raise InputError(f"masked_positions must hold integers, received {masked_positions.dtype}")
    if is_concrete(masked_positions):
        low, high = np.asarray(masked_positions).min().item(), np.asarray(masked_positions).max().item()
        if low < -1 or high >= shape[1]:
            worst = low if low < -1 else high
            raise InputError(
                f"masked_positions must lie between -1 (none) and {shape[1] - 1} (the last token), received {worst}"
            )


def kept_columns(logits_to_keep: Any, length: int) -> Any:
    """The columns that ``logits_to_keep`` means, (n,).

    Raises:
        InputError: for a negative number, or columns outside the sequence.
    """
    if isinstance(logits_to_keep, int):
        if logits_to_keep < 0:
            raise InputError(f"logits_to_keep must not be negative, received {logits_to_keep}; 0 keeps all")
        return np.arange(max(0, length - logits_to_keep), length)
    if logits_to_keep.ndim != 1 or not is_integer(logits_to_keep):
        raise InputError(
            f"logits_to_keep must be a number or integers (n,), received {logits_to_keep.dtype} of {tuple(logits_to_keep.shape)}"
        )
    if is_concrete(logits_to_keep) and bool(((logits_to_keep < -length) | (logits_to_keep >= length)).any()):
        raise InputError(f"logits_to_keep must name columns below {length}, received {logits_to_keep.tolist()}")
    return logits_to_keep % length
