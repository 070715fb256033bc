"""``read``: the inputs of a call, checked, and what can be seen of a tensor without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xlmr_core.calls import Call
from xlmr_core.checks import (
    Kind,
    Seen,
    check_encoder_inputs,
    check_head_mask,
    check_memory,
    refuse_cache,
    refuse_type,
    warn_of_attended_padding,
)

if TYPE_CHECKING:
    from xlmr_torch.encoder import EncoderModel

__all__ = ["has_values", "is_concrete", "is_traced", "read", "see"]

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def is_traced() -> bool:
    """Whether a compiler, an export, a trace or a transform of ``torch.func`` is looking on: nothing may then depend on
    values.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()


def has_values(tensor: Tensor) -> bool:
    """Whether there are values to read, on whatever device; memory planners run models on tensors without."""
    return not is_traced() and type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type != "meta"


def is_concrete(tensor: Tensor) -> bool:
    """Whether reading a value is possible and free of a device synchronisation."""
    return has_values(tensor) and tensor.device.type == "cpu"


def see(name: str, tensor: Any) -> Seen | None:
    """What the core's checks look at; ``None`` for an input that was not passed.

    Raises:
        InputError: for what is no tensor.
    """
    if tensor is None:
        return None
    if not isinstance(tensor, Tensor):
        cure = "pass return_tensors='pt' to the tokenizer, or torch.as_tensor(...)"
        refuse_type(name, tensor, "a torch.Tensor", cure)
    return Seen(name, tuple(tensor.shape), _kind(tensor.dtype), tensor.dtype, _values(tensor))


def _kind(dtype: torch.dtype) -> Kind:
    if dtype in INTEGERS:
        return Kind.INTEGER
    if dtype.is_floating_point:
        return Kind.FLOATING
    if dtype.is_complex:
        return Kind.COMPLEX
    return Kind.BOOLEAN if dtype is torch.bool else Kind.OTHER


def _values(tensor: Tensor) -> Callable[[], np.ndarray] | None:
    if not is_concrete(tensor):
        return None
    # NumPy has no bfloat16; what is read here are masks and labels, which float32 holds as well.
    return lambda: (tensor.detach().float() if tensor.dtype is torch.bfloat16 else tensor.detach()).numpy()


def read(
    encoder: EncoderModel,
    *,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    head_mask: Any = None,
    inputs_embeds: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    past_key_values: Any = None,
    cache_position: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
) -> Call[Tensor]:
    """Check what came with a call of an encoder, or of a head on it. Arguments are those of ``EncoderModel.forward``.

    Raises:
        InputError: for inputs of a wrong type, shape, dtype or range; see :mod:`xlmr_core.checks`.
    """
    config = encoder.config
    ids = see("input_ids", input_ids)
    mask = see("attention_mask", attention_mask)
    batch, _ = check_encoder_inputs(
        config,
        input_ids=ids,
        inputs_embeds=see("inputs_embeds", inputs_embeds),
        attention_mask=mask,
        token_type_ids=see("token_type_ids", token_type_ids),
        position_ids=see("position_ids", position_ids),
    )
    refuse_cache(past_key_values=past_key_values, cache_position=cache_position)
    check_memory(
        config,
        batch,
        see("encoder_hidden_states", encoder_hidden_states),
        see("encoder_attention_mask", encoder_attention_mask),
        has_cross_attention=encoder.has_cross_attention,
    )
    check_head_mask(config, see("head_mask", head_mask))
    if mask is None and ids is not None:
        warn_of_attended_padding(config, ids)
    return Call(
        input_ids=input_ids,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        head_mask=head_mask,
        memory_BMD=encoder_hidden_states,
        memory_mask_BM=encoder_attention_mask,
        output_attentions=bool(config.output_attentions if output_attentions is None else output_attentions),
        output_hidden_states=bool(
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        ),
    )
