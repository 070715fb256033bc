"""What PyTorch has to know about the core's types."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from xlmr_core.outputs import OUTPUT_TYPES, ModelOutput
from xlmr_torch.later import LATER

__all__ = ["register_outputs", "to_tensor"]


def to_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor with the array's values; memory is shared where the array allows it."""
    return torch.from_numpy(np.ascontiguousarray(array))


def _flatten(output: ModelOutput[Any]) -> tuple[list[Any], tuple[str, ...]]:
    return list(output.values()), tuple(output)


def _flatten_with_keys(output: ModelOutput[Any]) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    return [(pytree.MappingKey(name), value) for name, value in output.items()], tuple(output)


def _unflatten(output_type: type[ModelOutput[Any]], values: Any, names: tuple[str, ...]) -> ModelOutput[Any]:
    return output_type(dict(zip(names, values, strict=True)))


def register_outputs() -> None:
    """Make the output types containers that compilation, export and data parallelism see through."""
    for output_type in OUTPUT_TYPES:
        pytree.register_pytree_node(
            output_type,
            _flatten,
            partial(_unflatten, output_type),
            serialized_type_name=f"xlmr_core.outputs.{output_type.__name__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )
    for output_type, waiting in LATER.items():
        pytree.register_pytree_node(
            waiting, _flatten, partial(_unflatten, output_type), flatten_with_keys_fn=_flatten_with_keys
        )
