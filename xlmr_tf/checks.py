"""The core's checks, applied to tensors: shapes and dtypes as far as they are known, values where they are concrete and on the host."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

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
    "is_xla",
    "shape_of",
]

INTEGERS = (tf.int64, tf.int32, tf.int16, tf.int8, tf.uint8)


class _AnySize(int):
    """A size that a graph does not know: equal to every size but 0, and never too large."""

    def __eq__(self, other: object) -> bool:
        return other != 0 or isinstance(other, _AnySize)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __gt__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return "any"

    __hash__ = int.__hash__


ANY_SIZE = _AnySize(1)


def is_traced() -> bool:
    """Whether a graph is being traced: nothing may then depend on values."""
    return not tf.executing_eagerly()


def is_xla() -> bool:
    """Whether what is traced goes to XLA (``jit_compile=True``, TPUs), which wants every size to be known.

    TensorFlow has no public word for it; this is how it asks itself.
    """
    return is_traced() and bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def has_values(tensor: Any) -> bool:
    """Whether there are values to read, on whatever device."""
    return not is_traced() and hasattr(tensor, "numpy")


def is_concrete(tensor: Any) -> bool:
    """Whether reading a value is possible and free of a device synchronisation."""
    return has_values(tensor) and "CPU" in tensor.device


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape, with a size that fits anything where a graph does not know it.

    Raises:
        InputError: if not even the number of axes is known.
    """
    if tensor.shape.rank is None:
        raise InputError(
            "expected tensors of a known number of axes, received one of none; call set_shape([None, None])"
        )
    return tuple(ANY_SIZE if size is None else size for size in tensor.shape)


def _shape(tensor: Any) -> tuple[int, ...] | None:
    return None if tensor is None else shape_of(tensor)


def _extremes(name: str, tensor: Any) -> list[Extremes]:
    if tensor is None or 0 in tensor.shape or not is_concrete(tensor):
        return []
    return [Extremes(name, tf.reduce_min(tensor).numpy().item(), tf.reduce_max(tensor).numpy().item())]


def check_tensors(**inputs: object) -> None:
    """Refuse lists where tensors are due; arrays have become tensors by now.

    Raises:
        InputError: naming the input and what came.
    """
    for name, value in inputs.items():
        if value is not None and not tf.is_tensor(value):
            raise InputError(
                f"{name} must be a tf.Tensor, received {type(value).__name__}; "
                "pass return_tensors='tf' to the tokenizer, or tf.convert_to_tensor(...)"
            )


def check_mask(config: XLMRobertaConfig, name: str, mask: Any) -> None:
    """Refuse a mask that holds anything but 0 and 1.

    Raises:
        InputError: naming the dtype or the value.
    """
    if mask is None or mask.dtype is tf.bool:
        return
    if mask.dtype.is_complex:
        raise InputError(f"{name} must hold 0 and 1, received {mask.dtype.name}; pass the tokenizer's own mask")
    check_extremes(config, _extremes(name, mask))
    if mask.dtype.is_floating and is_concrete(mask):
        between = tf.boolean_mask(mask, (mask != 0) & (mask != 1))
        if between.shape[0]:
            raise InputError(
                f"{name} must hold 0 and 1 only, received {between[0].numpy().item()}; round it, or scale the scores elsewhere"
            )


def batch_shape(
    config: XLMRobertaConfig,
    input_ids: Any,
    inputs_embeds: Any,
    position_ids: Any,
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
    input_ids: Any,
    inputs_embeds: Any,
    attention_mask: Any,
    token_type_ids: Any,
    position_ids: Any,
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
                f"{name} must hold integers, received {tensor.dtype.name}; "
                "pass the tokenizer's output, or inputs_embeds for vectors"
            )
    if inputs_embeds is not None and not inputs_embeds.dtype.is_floating:
        raise InputError(
            f"inputs_embeds must hold floating point numbers, received {inputs_embeds.dtype.name}; pass ids as input_ids"
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


def check_labels(config: XLMRobertaConfig, labels: Any, classes: int) -> tf.Tensor:
    """Refuse class labels that are not integers in [0, classes) or -100, and return them as int64.

    Raises:
        InputError: naming the range and the value.
    """
    if labels.dtype not in INTEGERS:
        raise InputError(
            f"labels must hold integers here, received {labels.dtype.name}; convert them, or set config.problem_type"
        )
    labels = tf.cast(labels, tf.int64)
    if is_concrete(labels):
        counted = tf.boolean_mask(labels, labels != IGNORE_INDEX)
        check_extremes(config, _extremes("labels", counted), labels=classes)
    return labels
