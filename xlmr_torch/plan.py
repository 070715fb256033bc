"""``plan``: how a checked call runs. Packed or padded, which masks, which memory; decided once, before any layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.calls import Call, Plan
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.packing import Needs, first_token_is_enough, may_pack
from xlmr_torch.cache import Cache, Slots, Unchanged, of_tokens, places_of, see_cache
from xlmr_torch.inputs import is_concrete, is_traced
from xlmr_torch.kernels import AttentionPlan, causal_from, causal_keep, mask_bias
from xlmr_torch.packed_attention import can_be_causal
from xlmr_torch.packing import choose_packing

if TYPE_CHECKING:
    from xlmr_torch.encoder import EncoderModel

__all__ = ["plan", "plan_by_bias", "plan_by_biases"]


def plan(encoder: EncoderModel, call: Call[Tensor], needs: Needs[Tensor]) -> Plan[Tensor]:
    """Decide how a call runs. Traceable: where values cannot be read, nothing depends on them.

    Args:
        encoder: the model, which knows its kernel and its mode of packing.
        call: the checked call.
        needs: what will be read of the states.
    """
    config, dtype = encoder.config, encoder._states_dtype
    packing = None
    can_pack = _can_pack(encoder, call.source.device) and not _counts_by_keys(call)
    if can_pack and may_pack(config, encoder.attn_implementation, call, needs):
        packing = choose_packing(encoder.packing, call.attention_mask, call.source, needs)
    memory_attention = head_mask_LN = None
    if call.memory_BMD is not None:
        memory_attention = _attention(encoder, call.memory_mask_BM, None, call.output_attentions)
    if call.head_mask is not None:
        head_mask_LN = call.head_mask.expand(config.num_hidden_layers, config.num_attention_heads)
    cache = None if call.cache is None else _cache_to_run_with(encoder, call)
    if packing is not None:
        attention = AttentionPlan(causal=config.is_decoder, packing=packing, rounds=encoder.encoder.rounds_attention)
    elif cache is None or (isinstance(cache, Slots) and cache.begins):
        attention = _attention(encoder, call.attention_mask, call.source.shape[1], call.output_attentions)
    else:
        attention = _attention_with_cache(encoder, call, cache)
    planned = Plan(
        attention=attention,
        memory_attention=memory_attention,
        memory_BMD=None if call.memory_BMD is None else call.memory_BMD.to(dtype),
        head_mask_LN=head_mask_LN,
        cache=cache,
        output_hidden_states=call.output_hidden_states,
    )
    # With gradients somebody may ask what every token did; a graph of somebody else's has all that it shows.
    answers = not (encoder.training or torch.is_grad_enabled() or is_traced())
    if answers and first_token_is_enough(config, call, needs):
        return replace(planned, last=replace(planned, attention=attention.of_first_tokens()))
    return planned


def _cache_to_run_with(encoder: EncoderModel, call: Call[Tensor]) -> Any:
    """What the layers add to and read from: the cache of the call, or as much of it as they may see."""
    assert call.past is not None
    layers = encoder.encoder
    if layers.recomputes:
        return Unchanged(call.cache)
    known = isinstance(of_tokens(call.cache), Cache) and call.past.length is not None
    if known and layers._compiled_call_impl is not None and not is_traced():
        return Slots(call.cache, call.past.length, call.source.shape[1])
    return call.cache


def _counts_by_keys(call: Call[Tensor]) -> bool:
    """Whether the call begins a cache of another library that has a fixed size: some count the tokens in them by the
    keys that are not zero, which those of padding would be.
    """
    return call.past is not None and call.past.capacity is not None and not isinstance(of_tokens(call.cache), Cache)


def _can_pack(encoder: EncoderModel, device: torch.device) -> bool:
    """Whether PyTorch has a kernel for packed tokens here: compiled, none has dropout, and on a GPU not all
    are causal.
    """
    config = encoder.config
    drops = encoder.training and config.attention_probs_dropout_prob > 0
    if drops and (is_traced() or encoder.encoder._compiled_call_impl is not None):
        return False
    return not config.is_decoder or can_be_causal(device, encoder.dtype, config.head_size)


def _attention(encoder: EncoderModel, mask: Tensor | None, length: Any, return_weights: bool) -> AttentionPlan:
    """How padded tokens attend: to each other, which has a ``length`` and may be causal, or to a memory, which has
    none.
    """
    # A mask with a row for each query has said everything already, as published.
    causal = encoder.config.is_decoder and length is not None and (mask is None or mask.dim() == 2)
    plain = _plain(encoder, return_weights, causal=causal)
    if mask is None:
        return plain
    seen, concrete = mask != 0, is_concrete(mask)
    # A mask without zeros needs no bias; whether it has any is looked at only where that costs nothing.
    if concrete and bool(seen.all()):
        return plain
    keep = seen[:, None] if mask.dim() == 3 else seen[:, None, None]
    empty_rows = concrete and not bool(seen.any(-1).all())
    if causal:
        keep = keep & causal_keep(length, mask.device)
        empty_rows = empty_rows or (concrete and not bool(seen[:, 0].all()))
    return _with_bias(encoder, plain, keep, empty_rows)


def _attention_with_cache(encoder: EncoderModel, call: Call[Tensor], cache: Any) -> AttentionPlan:
    """How new tokens attend to those in a cache and to each other: query i sees the columns up to its own place."""
    assert call.past is not None
    length, past, mask = call.source.shape[1], call.past, call.attention_mask
    places_S = places_of(call)
    total = None if past.length is None else past.length + length
    columns = cache.columns if isinstance(cache, Slots) else past.capacity or total
    assert columns is not None, "only of a cache of a fixed size it is not known how many tokens are in it"
    plain = replace(_plain(encoder, call.output_attentions, causal=False), places_S=places_S)
    keep = causal_from(places_S, columns) if length > 1 or columns != total else None
    seen = None if mask is None else mask != 0
    if seen is not None and not (is_concrete(seen) and bool(seen.all())):
        # A mask with a row for each query has said everything already.
        order = keep if seen.dim() == 2 else None
        seen = F.pad(seen, (0, columns - seen.shape[-1]))
        seen = seen[:, None] if seen.dim() == 3 else seen[:, None, None]
        keep = seen if order is None else seen & order
    if keep is None:
        return plain
    empty_rows = seen is not None and is_concrete(keep) and not bool(keep.any(-1).all())
    return _with_bias(encoder, plain, keep, empty_rows)


def _plain(encoder: EncoderModel, return_weights: bool, *, causal: bool) -> AttentionPlan:
    """Attention without a bias."""
    implementation = "eager" if return_weights else encoder.attn_implementation
    return AttentionPlan(implementation=implementation, causal=causal, return_weights=return_weights)


def _with_bias(encoder: EncoderModel, plain: AttentionPlan, keep: Tensor, empty_rows: bool) -> AttentionPlan:
    """The same with a bias.

    Args:
        encoder: the model.
        plain: attention without.
        keep: booleans, broadcastable to (B, N, S, M): true where a key is attended to.
        empty_rows: whether a query is known to see no key.
    """
    dtype = encoder._states_dtype
    if torch.amp.is_autocast_available(keep.device.type) and torch.is_autocast_enabled(keep.device.type):
        dtype = torch.get_autocast_dtype(keep.device.type)
    # A query without keys attends uniformly. float16's range is too small for a bias that makes it so, and the fused
    # kernel's backward pass loses the number of keys there (its gradients come out as many times too large).
    eager = empty_rows and (dtype is torch.float16 or torch.is_grad_enabled())
    implementation = "eager" if eager else plain.implementation
    return replace(plain, implementation=implementation, bias=mask_bias(keep, dtype))


# ---- Parts of a model that are called by themselves: with a mask as published, and without a plan


def plan_by_bias(
    config: XLMRobertaConfig,
    source: Tensor,
    bias: Tensor | None,
    return_weights: bool,
    *,
    own: bool,
    cache: Any,
    number: int = 0,
) -> AttentionPlan:
    """How an attention block attends that was given the published arguments.

    Args:
        config: of the block.
        source: (B, M, D), the states that are attended to.
        bias: the additive mask, or booleans that are true where a key is attended to.
        return_weights: probabilities are wanted.
        own: whether the states attend to each other, and not to a memory.
        cache: a decoder's cache, to which the states are added.
        number: of the layer.

    Raises:
        InputError: for something that is no cache, or a mask that was not made for a block.
    """
    places_S, columns = None, source.shape[1]
    if cache is not None and own:
        past = see_cache(config, cache, number)[1]
        held = past.length or 0
        places_S = torch.arange(held, held + source.shape[1], device=source.device)
        columns = past.capacity or held + source.shape[1]
    if bias is not None and bias.dim() != 4:
        raise InputError(
            f"a part of a model expects attention_mask of shape (B, 1, 1 or S, {columns}), "
            f"received {tuple(bias.shape)}; make it with model.get_extended_attention_mask(attention_mask, shape)"
        )
    if bias is not None and bias.dtype is torch.bool:
        bias = mask_bias(bias, source.dtype)
    causal = own and config.is_decoder and bias is None
    if causal and places_S is not None:
        bias, causal = mask_bias(causal_from(places_S, columns)[None, None], source.dtype), False
    return AttentionPlan(
        implementation="eager" if return_weights else config._attn_implementation or "sdpa",
        bias=bias,
        causal=causal,
        return_weights=bool(return_weights),
        places_S=places_S,
    )


def plan_by_biases(
    config: XLMRobertaConfig,
    hidden_states: Tensor,
    bias: Tensor | None,
    head_mask_LN: Tensor | None,
    memory_BMD: Tensor | None,
    memory_bias: Tensor | None,
    output_attentions: bool,
    output_hidden_states: bool = False,
    *,
    cache: Any,
    number: int = 0,
) -> Plan[Tensor]:
    """How a layer, or a stack of them, runs that was given the published arguments; see :func:`plan_by_bias`."""
    cache = None if cache is None else see_cache(config, cache)[0]
    memory_attention = None
    if memory_BMD is not None:
        if not config.add_cross_attention:
            raise InputError(
                "encoder_hidden_states are for a layer with cross-attention, expected None; "
                "set add_cross_attention=True in the configuration"
            )
        memory_attention = plan_by_bias(config, memory_BMD, memory_bias, output_attentions, own=False, cache=None)
    return Plan(
        attention=plan_by_bias(config, hidden_states, bias, output_attentions, own=True, cache=cache, number=number),
        memory_attention=memory_attention,
        memory_BMD=memory_BMD,
        head_mask_LN=head_mask_LN,
        cache=cache,
        output_hidden_states=bool(output_hidden_states),
    )
