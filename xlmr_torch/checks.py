"""The core's checks, applied to tensors: shapes and dtypes always, values where they are concrete and on the host."""

from __future__ import annotations

import torch
from torch import Tensor

from xlmr_core.checks import IGNORE_INDEX, Extremes, check_extremes, check_input_shapes
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError

__all__ = [
    "batch_shape",
    "check_encoder_inputs",
    "check_labels",
    "check_mask",
    "check_tensors",
    "has_values",
    "is_concrete",
    "is_traced",
]

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def is_traced() -> bool:
    """Whether a compiler, an export, a trace or a transform of ``torch.func`` is looking on: nothing may then depend on values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()


def has_values(tensor: Tensor) -> bool:
    """Whether there are values to read, on whatever device; memory planners run models on tensors without."""
    return not is_traced() and type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type != "meta"


def is_concrete(tensor: Tensor) -> bool:
    """Whether reading a value is possible and free of a device synchronisation."""
    return has_values(tensor) and tensor.device.type == "cpu"


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _extremes(name: str, tensor: Tensor | None) -> list[Extremes]:
    if tensor is None or tensor.numel() == 0 or not is_concrete(tensor):
        return []
    low, high = tensor.aminmax()
    return [Extremes(name, low.item(), high.item())]


def check_tensors(**inputs: object) -> None:
    """Refuse lists and arrays where tensors are due.

    Raises:
        InputError: naming the input and what came.
    """
    for name, value in inputs.items():
        if value is not None and not isinstance(value, Tensor):
            raise InputError(
                f"{name} must be a torch.Tensor, received {type(value).__name__}; "
                "pass return_tensors='pt' to the tokenizer, or torch.as_tensor(...)"
            )


def check_mask(config: XLMRobertaConfig, name: str, mask: Tensor | None) -> None:
    """Refuse a mask that holds anything but 0 and 1.

    Raises:
        InputError: naming the dtype or the value.
    """
    if mask is None or mask.dtype is torch.bool:
        return
    if mask.is_complex():
        raise InputError(f"{name} must hold 0 and 1, received {mask.dtype}; pass the tokenizer's own mask")
    check_extremes(config, _extremes(name, mask))
    if mask.is_floating_point() and is_concrete(mask):
        between = mask[(mask != 0) & (mask != 1)]
        if between.numel():
            raise InputError(
                f"{name} must hold 0 and 1 only, received {between[0].item()}; round it, or scale the scores elsewhere"
            )


def batch_shape(
    config: XLMRobertaConfig,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    position_ids: Tensor | None,
    **others: object,
) -> tuple[int, int]:
    """(B, S) of whichever of ids and embeddings is there, for heads that look at labels before the encoder runs.

    Args:
        config, input_ids, inputs_embeds, position_ids: as in :func:`check_encoder_inputs`.
        **others: inputs of the head, which must be tensors.

    Raises:
        InputError: as in :func:`check_encoder_inputs`, by which everything else is checked.
    """
    check_tensors(input_ids=input_ids, inputs_embeds=inputs_embeds, position_ids=position_ids, **others)
    return check_input_shapes(
        config, input_ids=_shape(input_ids), inputs_embeds=_shape(inputs_embeds), position_ids=_shape(position_ids)
    )


def check_encoder_inputs(
    config: XLMRobertaConfig,
    *,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
) -> tuple[int, int]:
    """Check the inputs of an encoder and return (batch, length).

    Raises:
        InputError: see ``xlmr_core.checks``; also for ids that are not integers.
    """
    check_tensors(
        input_ids=input_ids,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
    )
    for name, tensor in (("input_ids", input_ids), ("token_type_ids", token_type_ids), ("position_ids", position_ids)):
        if tensor is not None and tensor.dtype not in INTEGERS:
            raise InputError(
                f"{name} must hold integers, received {tensor.dtype}; pass the tokenizer's output, or inputs_embeds for vectors"
            )
    if inputs_embeds is not None and not inputs_embeds.is_floating_point():
        raise InputError(
            f"inputs_embeds must hold floating point numbers, received {inputs_embeds.dtype}; pass ids as input_ids"
        )
    batch, length = check_input_shapes(
        config,
        input_ids=_shape(input_ids),
        inputs_embeds=_shape(inputs_embeds),
        attention_mask=_shape(attention_mask),
        token_type_ids=_shape(token_type_ids),
        position_ids=_shape(position_ids),
    )
    found = [
        *_extremes("input_ids", input_ids),
        *_extremes("token_type_ids", token_type_ids),
        *_extremes("position_ids", position_ids),
    ]
    check_extremes(config, found)
    check_mask(config, "attention_mask", attention_mask)
    return batch, length


def check_labels(config: XLMRobertaConfig, labels: Tensor, classes: int) -> Tensor:
    """Refuse class labels that are not integers in [0, classes) or -100, and return them as int64.

    Raises:
        InputError: naming the range and the value.
    """
    if labels.dtype not in INTEGERS:
        raise InputError(
            f"labels must hold integers here, received {labels.dtype}; convert them, or set config.problem_type"
        )
    labels = labels.long()
    if is_concrete(labels):
        check_extremes(config, _extremes("labels", labels[labels != IGNORE_INDEX]), labels=classes)
    return labels
