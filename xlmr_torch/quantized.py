"""Quantized models: the layers of a scheme in place of a model's own.

Which weights a scheme takes and what they are stored in is in ``xlmr_core/quantization``. The layers that compute with
them are in a file of ``FILES``, which offers ``encoded``, a weight's tensors by suffix, and ``layer``, the layer that
holds such tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import INT8, BitsAndBytes, BitsAndBytesConfig, Scheme
from xlmr_core.quantization.asked import refuse_layer, refuse_values, scheme_to_apply
from xlmr_torch.linear import is_plain
from xlmr_torch.placement import DTYPE_OF_TAG
from xlmr_torch.values import tensor_at
from xlmr_torch.widening import WidenedLinear

if TYPE_CHECKING:
    from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["leave_file", "prepare", "quantize"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# By the name of the scheme; imported when it is used, because a file of kernels may look at the machine.
FILES = {
    "int8": "xlmr_torch.int8",
    **dict.fromkeys(("int4", "nf4", "fp4"), "xlmr_torch.four_bit"),
    "bitsandbytes": "xlmr_torch.bitsandbytes",
}


@torch.no_grad()
def quantize(model: ModelT, scheme: str | Scheme | BitsAndBytesConfig = INT8, skip: Sequence[str] = ()) -> ModelT:
    """Quantize a model in place.

    With a scheme of this library it is for inference: every parameter is frozen, and what is not quantized becomes
    float32. As bitsandbytes has it, codes are frozen, and the rest keeps its dtype and may be trained.

    Args:
        model: any model of this package, with or without a head. One that is quantized so already stays as it is.
        scheme: how to store the weights: ``int8``, ``int4``, ``nf4`` or ``fp4``, one of these with settings of its own
            (``xlmr_core.quantization.Nf4(skip=("query",))``), or a ``BitsAndBytesConfig``.
        skip: modules whose weights stay as they are, by their whole name or by steps of it, beside those that the
            scheme leaves anyway.

    Returns:
        The same model.

    Raises:
        InputError: if a layer is no plain linear layer or embedding any more (an adapter that was not merged), or if
            the model is quantized otherwise, or a weight holds values that are no numbers.
        ConfigError: for a scheme that nobody knows, or whose settings do not fit the model.
    """
    found = scheme_to_apply(scheme, model.quantization_scheme, skip)
    if found is None:
        return model
    rows = model.published_rows()
    scheme = found.planned(rows)
    taken = [row for row in rows.values() if scheme.takes(row)]
    for row in taken:
        _check_plain(model, row.name)
        _check_values(model, row)
    file, states = import_module(FILES[scheme.name]), {}
    for row in taken:
        layer = model.get_submodule(_path(row))
        bias = None if row.role is Role.EMBEDDING else layer.bias
        of_weight = scheme.for_weight(row)
        made = file.layer(of_weight, row, _tensors(model, of_weight, row, layer.weight, file), bias)
        model.set_submodule(_path(row), made.train(layer.training))
        if isinstance(scheme, BitsAndBytes) and scheme.found is None:
            states[row.name] = file.state_in(made)
    if isinstance(scheme, BitsAndBytes):
        scheme = scheme.known(states) if scheme.found is None else scheme
        model.config.quantization_config = scheme.written()  # published
    else:
        model.float().requires_grad_(False)
    model._take_scheme(scheme)
    model.tie_weights()
    leave_file(model)
    return model


@torch.no_grad()
def leave_file(model: PreTrainedModel) -> None:
    """Copy what a model still has of the file that it was loaded from, so that the file does not stay mapped: it is as
    large as the model was, and counts as memory of this process.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_cpu and tensor.is_floating_point():
            tensor.data = tensor.data.clone()


def prepare(model: PreTrainedModel) -> None:
    """Make what kernels read beside the codes, which a compiler would leave out."""
    for layer in model.modules():
        if isinstance(layer, WidenedLinear):
            layer.prepare()


def _tensors(model: PreTrainedModel, scheme: Scheme, row: Parameter, weight: Tensor, file: Any) -> dict[str, Tensor]:
    """The tensors of a weight, by suffix: of what is tied the very ones of the other end."""
    stored = scheme.stored(row)
    if row.tied_to is not None:
        return {part.suffix: tensor_at(model, scheme.part_name(row.tied_to, part.suffix)) for part in stored}
    if weight.is_meta:  # in a model that is about to be loaded
        return {part.suffix: torch.empty(part.shape, dtype=DTYPE_OF_TAG[part.dtype], device="meta") for part in stored}
    found: dict[str, Tensor] = file.encoded(scheme, weight)
    return found


def _path(row: Parameter) -> str:
    return row.name.removesuffix(".weight")


def _check_plain(model: PreTrainedModel, name: str) -> None:
    path = name.removesuffix(".weight")
    layer = model.get_submodule(path)
    if not is_plain(layer) and type(layer) is not nn.Embedding:
        refuse_layer(path, type(layer))


def _check_values(model: PreTrainedModel, row: Parameter) -> None:
    weight = tensor_at(model, row.name)
    if row.tied_to is None and not weight.is_meta and not torch.stack(torch.aminmax(weight)).isfinite().all():
        refuse_values(row.name)
