"""Quantized models: the layers of a scheme in place of a model's own.

Which weights a scheme takes and what they are stored in is in ``xlmr_core/quantization``. The layers that compute with
them are in a file of the scheme's name here, which offers ``quantize_rows``, a weight's tensors in the order of
``Scheme.stored``, and ``LAYERS``, the classes that are made of these tensors (and of a bias), by role.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from xlmr_core.errors import InputError
from xlmr_core.parameters import Role, parameters, parts_of
from xlmr_core.quantization import INT8, Scheme
from xlmr_torch.linear import is_plain

if TYPE_CHECKING:
    from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["quantize"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# By the name of the scheme; imported when it is used, because a file of kernels may look at the machine.
FILES = {"int8": "xlmr_torch.int8"}


@torch.no_grad()
def quantize(model: ModelT, scheme: Scheme = INT8) -> ModelT:
    """Quantize a model, in place, for inference: every parameter is frozen, and what is not quantized becomes float32.

    Args:
        model: any model of this package, with or without a head. One that is quantized so already stays as it is.
        scheme: how to store the weights.

    Returns:
        The same model.

    Raises:
        InputError: if a layer is no plain linear layer or embedding any more (an adapter that was not merged), or if
            the model is quantized otherwise.
    """
    if model.quantization_scheme == scheme:
        return model
    if model.quantization_scheme is not None:
        raise InputError(
            f"expected a model with its own weights to make {scheme.name} ones of, "
            f"received one with {model.quantization_scheme.name} weights; quantize the original model"
        )
    file = import_module(FILES[scheme.name])
    rows = parameters(model.config, model._task_head.suffix, pooler=model.base_model.pooler is not None, scheme=scheme)
    weights = [row for row in rows.values() if row.quantized is not None and row.role is not Role.BESIDE]
    for row in weights:
        _check_plain(model, row.name)
    for row in weights:
        path = row.name.removesuffix(".weight")
        layer = model.get_submodule(path)
        if row.tied_to is None:
            tensors = file.quantize_rows(layer.weight)
        else:
            # The very parameters of the other end.
            tensors = [model.get_parameter(str(part.tied_to)) for part in parts_of(row.name, rows).values()]
        bias = () if row.role is Role.EMBEDDING else (layer.bias,)
        model.set_submodule(path, file.LAYERS[row.role](*tensors, *bias).train(layer.training))
    model.base_model._scheme = scheme
    model.tie_weights()
    return model.float().requires_grad_(False)


def _check_plain(model: PreTrainedModel, name: str) -> None:
    path = name.removesuffix(".weight")
    layer = model.get_submodule(path)
    if not is_plain(layer) and type(layer) is not nn.Embedding:
        raise InputError(
            f"{path} must be a plain layer to be quantized, received {type(layer).__name__}; merge adapters first"
        )
