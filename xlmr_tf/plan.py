"""``plan``: how a checked call runs. Packed or padded, which masks, which memory; decided once, before any layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from xlmr_core.calls import Call, Plan
from xlmr_core.packing import Needs, may_pack
from xlmr_tf.inputs import is_concrete
from xlmr_tf.kernels import AttentionPlan, causal_bias, causal_keep, mask_bias
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
        memory_attention = _attention(encoder, call.memory_mask_BM, None, call.output_attentions)
    if call.head_mask is not None:
        head_mask_LN = tf.broadcast_to(call.head_mask, (config.num_hidden_layers, config.num_attention_heads))
    if packing is not None:
        attention = AttentionPlan(causal=config.is_decoder, packing=packing)
    else:
        attention = _attention(encoder, call.attention_mask, dims(call.source)[1], call.output_attentions)
    return Plan(
        attention=attention,
        memory_attention=memory_attention,
        memory_BMD=call.memory_BMD,
        head_mask_LN=head_mask_LN,
        output_hidden_states=call.output_hidden_states,
    )


def _attention(encoder: EncoderModel, mask: Any, length: Any, return_weights: bool) -> AttentionPlan:
    """How padded tokens attend: to each other, which has a ``length`` and may be causal, or to a memory, which has
    none.
    """
    # A mask with a row for each query has said everything already, as published.
    causal = encoder.config.is_decoder and length is not None and (mask is None or mask.shape.rank == 2)
    dtype = encoder.compute_dtype
    # A mask without zeros needs no bias; whether it has any is looked at only where that costs nothing.
    if mask is None or (is_concrete(mask) and bool(tf.reduce_all(mask != 0))):
        bias = causal_bias(length, dtype) if causal else None
        return AttentionPlan(bias=bias, return_weights=return_weights)
    keep = tf.expand_dims(mask != 0, 1)
    keep = keep if mask.shape.rank == 3 else tf.expand_dims(keep, 1)
    bias = mask_bias(keep & causal_keep(length) if causal else keep, dtype)
    return AttentionPlan(bias=bias, return_weights=return_weights)
