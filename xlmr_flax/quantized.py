"""Quantized models: the layers of a scheme in place of a model's own.

Which weights a scheme takes and what they are stored in is in ``xlmr_core/quantization``. The layers that compute with
them are in a file of ``FILES``, which offers ``layer``, the layer that holds such tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import INT8, BitsAndBytes, BitsAndBytesConfig, Scheme
from xlmr_core.quantization.asked import refuse_layer, refuse_values, scheme_to_apply
from xlmr_core.quantization.widening import rows_at_once
from xlmr_flax.embeddings import Embedding
from xlmr_flax.functional import in_layout, read_params, write_params
from xlmr_flax.linear import Linear, is_loading
from xlmr_flax.placement import DTYPE_OF_TAG, TAG_OF_DTYPE
from xlmr_flax.values import layer_at, put_layer

if TYPE_CHECKING:
    from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["quantize"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# By the name of the scheme.
FILES = {
    "int8": "xlmr_flax.int8",
    **dict.fromkeys(("int4", "nf4", "fp4"), "xlmr_flax.four_bit"),
    "bitsandbytes": "xlmr_flax.bitsandbytes",
}


def quantize(model: ModelT, scheme: str | Scheme | BitsAndBytesConfig = INT8, skip: Sequence[str] = ()) -> ModelT:
    """Quantize a model in place.

    Quantized weights are no parameters any more: ``model.codes`` has them, beside ``model.params``. With a scheme of
    this library what is not quantized becomes float32; as bitsandbytes has it, it keeps its dtype.

    Args:
        model: any model of this package, with or without a head. One that is quantized so already stays as it is.
        scheme: how to store the weights: ``int8``, ``int4``, ``nf4`` or ``fp4``, one of these with settings of its own
            (``xlmr_core.quantization.Nf4(skip=("query",))``), or a ``BitsAndBytesConfig``.
        skip: modules whose weights stay as they are, by their whole name or by steps of it, beside those that the
            scheme leaves anyway.

    Returns:
        The same model.

    Raises:
        InputError: if a layer is no plain linear layer or embedding any more, if the model is quantized otherwise, if
            it holds no values, or values that are no finite numbers.
        ConfigError: for a scheme that nobody knows, or whose settings do not fit the model.
    """
    found = scheme_to_apply(scheme, model.quantization_scheme, skip)
    if found is None:
        return model
    if not is_loading():
        model._refuse_abstract(read_params(model))
    rows = model.published_rows()
    scheme = found.planned(rows)
    # What is tied has no layer of its own.
    taken = [row for row in rows.values() if scheme.takes(row) and row.tied_to is None]
    layers = {row.name: layer_at(model, _path(row)) for row in taken}
    for row in taken:
        _check_plain(_path(row), layers[row.name])
    file = import_module(FILES[scheme.name])
    tensors = {row.name: _tensors(scheme, row, layers[row.name]) for row in taken}
    if isinstance(scheme, BitsAndBytes) and scheme.found is None:
        scheme = scheme.known({name: file.state_in(parts) for name, parts in tensors.items()})
    # Nothing is refused any more.
    for row in taken:
        made = file.layer(
            scheme.for_weight(row), row, tensors.pop(row.name), getattr(layers.pop(row.name), "bias", None)
        )
        put_layer(model, _path(row), made)
    if isinstance(scheme, BitsAndBytes):
        model.config.quantization_config = scheme.written()  # published
    elif not is_loading():
        write_params(model, jax.tree.map(_float32, read_params(model)))
    model._take_scheme(scheme)
    return model


def _tensors(scheme: Scheme, row: Parameter, layer: Any) -> dict[str, Any]:
    """The tensors of a weight, by suffix, where the weight is; of one that is about to be loaded shapes and dtypes."""
    weight = (layer.embedding if row.role is Role.EMBEDDING else layer.kernel).get_value()
    if isinstance(weight, jax.ShapeDtypeStruct):
        stored = scheme.for_weight(row).stored(row)
        return {part.suffix: jax.ShapeDtypeStruct(part.shape, DTYPE_OF_TAG[part.dtype]) for part in stored}
    where = weight.sharding if weight.committed else None
    if isinstance(where, NamedSharding):  # each device has all of it
        where = NamedSharding(where.mesh, PartitionSpec())
    tag = TAG_OF_DTYPE.get(weight.dtype, "F32")
    parts = _encoded(scheme.for_weight(row).of_dtype(tag), row, in_layout(row, np.asarray(weight)))
    return {suffix: jax.device_put(part, where) for suffix, part in parts.items()}


def _encoded(scheme: Scheme, row: Parameter, weight: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a weight (N, K) by suffix: the very bits of the scheme's ``encode``."""
    step = rows_at_once(weight.shape[1]) if scheme.by_rows else weight.shape[0]
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for begin in range(0, weight.shape[0], step):
        piece = np.asarray(weight[begin : begin + step], np.float32)
        if not np.isfinite(piece).all():
            refuse_values(row.name)
        for suffix, part in scheme.encode(piece).items():
            found.setdefault(suffix, []).append(part)
    whole = {suffix: pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for suffix, pieces in found.items()}
    dtypes = {stored.suffix: DTYPE_OF_TAG[stored.dtype] for stored in scheme.stored(row)}
    # NumPy has no bfloat16: codes that are called so come as integers.
    return {suffix: part.view(dtypes.get(suffix, part.dtype)) for suffix, part in whole.items()}


def _float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _path(row: Parameter) -> str:
    return row.name.removesuffix(".weight")


def _check_plain(path: str, layer: Any) -> None:
    from xlmr_flax.lm_heads import Decoder  # which is built on this

    if type(layer) not in (Linear, Embedding, Decoder):
        refuse_layer(path, type(layer))
