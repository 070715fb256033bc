"""The core's checks, applied to arrays: shapes and dtypes always, values where they are concrete and on the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    "is_integer",
]


def has_values(x: Any) -> bool:
    """Whether there are values to read, on whatever device; under a transformation of JAX there are none."""
    return isinstance(x, np.ndarray | np.generic | jax.Array) and not isinstance(x, jax.core.Tracer)


def is_concrete(x: Any) -> bool:
    """Whether reading a value is possible and free of a device synchronisation."""
    if isinstance(x, np.ndarray | np.generic):
        return True
    return has_values(x) and x.is_fully_addressable and all(device.platform == "cpu" for device in x.devices())


def is_integer(x: Any) -> bool:
    """Whether an array holds integers, which booleans are not."""
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def _shape(x: Any) -> tuple[int, ...] | None:
    return None if x is None else tuple(x.shape)


def _extremes(name: str, x: Any) -> list[Extremes]:
    if x is None or x.size == 0 or not is_concrete(x):
        return []
    x = np.asarray(x)
    return [Extremes(name, x.min().item(), x.max().item())]


def check_tensors(**inputs: object) -> None:
    """Refuse lists and foreign tensors where arrays are due.

    Raises:
        InputError: naming the input and what came.
    """
    for name, value in inputs.items():
        if value is not None and not isinstance(value, np.ndarray | jax.Array):
            raise InputError(
                f"{name} must be an array of JAX or NumPy, received {type(value).__name__}; "
                "pass return_tensors='jax' or 'np' to the tokenizer, or numpy.asarray(...)"
            )


def check_mask(config: XLMRobertaConfig, name: str, mask: Any) -> None:
    """Refuse a mask that holds anything but 0 and 1.

    Raises:
        InputError: naming the dtype or the value.
    """
    if mask is None or mask.dtype == bool:
        return
    if jnp.issubdtype(mask.dtype, jnp.complexfloating):
        raise InputError(f"{name} must hold 0 and 1, received {mask.dtype}; pass the tokenizer's own mask")
    check_extremes(config, _extremes(name, mask))
    if jnp.issubdtype(mask.dtype, jnp.floating) and is_concrete(mask):
        mask = np.asarray(mask)
        between = mask[(mask != 0) & (mask != 1)]
        if between.size:
            raise InputError(
                f"{name} must hold 0 and 1 only, received {between[0].item()}; round it, or scale the scores elsewhere"
            )


def batch_shape(
    config: XLMRobertaConfig, input_ids: Any, inputs_embeds: Any, position_ids: Any, **others: object
) -> tuple[int, int]:
    """(B, S) of whichever of ids and embeddings is there, for heads that look at labels before the encoder runs.

    Args:
        config, input_ids, inputs_embeds, position_ids: as in :func:`check_encoder_inputs`.
        **others: inputs of the head, which must be arrays.

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
    for name, x in (("input_ids", input_ids), ("token_type_ids", token_type_ids), ("position_ids", position_ids)):
        if x is not None and not is_integer(x):
            raise InputError(
                f"{name} must hold integers, received {x.dtype}; pass the tokenizer's output, or inputs_embeds for vectors"
            )
    if inputs_embeds is not None and not jnp.issubdtype(inputs_embeds.dtype, jnp.floating):
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


def check_labels(config: XLMRobertaConfig, labels: Any, classes: int) -> Any:
    """Refuse class labels that are not integers in [0, classes) or -100, and return them as int32.

    Raises:
        InputError: naming the range and the value.
    """
    if not is_integer(labels):
        raise InputError(
            f"labels must hold integers here, received {labels.dtype}; convert them, or set config.problem_type"
        )
    if is_concrete(labels):
        labels = np.asarray(labels)
        check_extremes(config, _extremes("labels", labels[labels != IGNORE_INDEX]), labels=classes)
    return labels.astype(np.int32)
