"""``read``: the inputs of a call, checked, and what can be seen of a tensor without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xlmr_core.calls import Call, read_call
from xlmr_core.checks import Kind, Seen, refuse_layout, refuse_type

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
        of_tokenizer, conversion = "return_tensors='pt'", "torch.as_tensor(...)"
        refuse_type(name, tensor, "a torch.Tensor", of_tokenizer=of_tokenizer, conversion=conversion)
    if tensor.is_nested:
        refuse_layout(name, "nested", f"torch.nested.to_padded_tensor({name}, ...) and a mask")
    if tensor.layout is not torch.strided:
        refuse_layout(name, "sparse", f"{name}.to_dense()")
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


def read(encoder: EncoderModel, **inputs: Any) -> Call[Tensor]:
    """Check what came with a call of an encoder, or of a head on it; see :func:`xlmr_core.calls.read_call`.

    Args:
        encoder: the bare model.
        **inputs: the arguments of ``EncoderModel.forward``, all but those that only some heads take.
    """
    return read_call(
        encoder.config,
        see,
        inputs,
        has_cross_attention=encoder.has_cross_attention,
        see_cache=encoder._see_cache if "use_cache" in inputs else None,
        recomputes=encoder.encoder.recomputes,
    )
