"""``plan``: how a checked call runs. Packed or padded, which masks, which memory; decided once, before any layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from xlmr_core.calls import Call, Plan
from xlmr_core.packing import Needs, first_token_is_enough, may_pack
from xlmr_tf.cache import Cache
from xlmr_tf.inputs import is_concrete
from xlmr_tf.kernels import AttentionPlan, causal_keep, mask_bias
from xlmr_tf.linear import dims
from xlmr_tf.packing import choose_packing

if TYPE_CHECKING:
    from xlmr_tf.encoder import EncoderModel

__all__ = ["plan"]


def plan(encoder: EncoderModel, call: Call[tf.Tensor], needs: Needs[tf.Tensor]) -> Plan[tf.Tensor]:
    """Decide how a call runs. Traceable: where values cannot be read, nothing depends on them.

    Args:
        encoder: the model, which knows its kernel and its mode of packing.
        call: the checked call.
        needs: what will be read of the states.
    """
    config = encoder.config
    packing = None
    if may_pack(config, encoder.attn_implementation, call, needs):
        packing = choose_packing(encoder.packing, call.attention_mask, call.source, needs)
    memory_attention = head_mask_LN = None
    if call.memory_BMD is not None:
        memory_attention = _memory_attention(encoder, call.memory_mask_BM, call.output_attentions)
    if call.head_mask is not None:
        head_mask_LN = tf.broadcast_to(call.head_mask, (config.num_hidden_layers, config.num_attention_heads))
    cache = cache_of(call)
    if packing is not None:
        attention = AttentionPlan(causal=config.is_decoder, packing=packing)
    else:
        attention = _attention(encoder, call.attention_mask, dims(call.source)[1], cache, call.output_attentions)
    planned = Plan(
        attention=attention,
        memory_attention=memory_attention,
        memory_BMD=call.memory_BMD,
        head_mask_LN=head_mask_LN,
        cache=cache,
        output_hidden_states=call.output_hidden_states,
    )
    if first_token_is_enough(config, call, needs):
        return replace(planned, last=replace(planned, attention=attention.of_first_tokens()))
    return planned


def cache_of(call: Call[tf.Tensor]) -> Cache | None:
    """What a call's layers add their keys and values to: a copy of the cache that came, or an empty one if the call is
    to give one.
    """
    if call.cache is None:
        return Cache() if call.use_cache else None
    cache: Cache = call.cache.copy()
    if cache.layers and cache.counted_B is None:
        cache.counted_B = _counted(call.attention_mask, cache.length, dims(call.source)[0])
    return cache


def _counted(mask: tf.Tensor | None, past: Any, batch: Any) -> tf.Tensor:
    """(B,): how many tokens of a cache are no padding, where nobody has counted them: as many as the mask keeps."""
    if mask is None or mask.shape.rank == 3:
        return tf.fill((batch,), past)
    return tf.reduce_sum(tf.cast(mask[:, :past] != 0, tf.int32), 1)


def _attention(
    encoder: EncoderModel, mask: Any, length: Any, cache: Cache | None, return_weights: bool
) -> AttentionPlan:
    """How padded tokens attend to each other, and to those of a cache.

    Args:
        encoder: the model.
        mask: of the call, or ``None``.
        length: of the new tokens.
        cache: what they are added to.
        return_weights: probabilities are wanted.
    """
    past = 0 if cache is None else cache.length
    columns = length if cache is None else cache.columns(length)
    has_free_places = cache is not None and cache.has_free_places
    # A mask with a row for each query has said everything already, as published.
    causal = encoder.config.is_decoder and (mask is None or mask.shape.rank == 2)
    is_last = isinstance(length, int) and length == 1 and not has_free_places  # a token that sees all before it
    keep = causal_keep(length, columns, past)[None, None] if causal and not is_last else None
    if not _keeps_all(mask) or (has_free_places and not causal):
        seen = _by_query(mask != 0, columns)
        keep = seen if keep is None else keep & seen
    bias = None if keep is None else mask_bias(keep, encoder.compute_dtype)
    return AttentionPlan(bias=bias, return_weights=return_weights)


def _memory_attention(encoder: EncoderModel, mask: Any, return_weights: bool) -> AttentionPlan:
    """How tokens attend to a memory."""
    bias = None if _keeps_all(mask) else mask_bias(_by_query(mask != 0), encoder.compute_dtype)
    return AttentionPlan(bias=bias, return_weights=return_weights)


def _keeps_all(mask: Any) -> bool:
    """Whether a mask has no zeros and so needs no bias, which is looked at only where that costs nothing."""
    return mask is None or (is_concrete(mask) and bool(tf.reduce_all(mask != 0)))


def _by_query(mask: tf.Tensor, columns: Any = None) -> tf.Tensor:
    """(B, 1, 1 or S, M) of a mask (B, M) or (B, S, M), which may end before the free places of a cache."""
    if isinstance(columns, int) and mask.shape[-1] is not None and mask.shape[-1] < columns:
        mask = tf.pad(mask, [*[[0, 0]] * (mask.shape.rank - 1), [0, columns - mask.shape[-1]]])
    mask = tf.expand_dims(mask, 1)
    return mask if mask.shape.rank == 4 else tf.expand_dims(mask, 1)
