"""Quantized models: the layers of a scheme in place of a model's own.

Which weights a scheme takes and what they are stored in is in ``xlmr_core/quantization``. The layers that compute with
them are in a file of ``FILES``, which offers ``encoded``, a weight's tensors by suffix, and ``layer``, the layer that
holds such tensors. Keras's own ``quantize`` is another one; see ``quantized_by_keras.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import tensorflow as tf

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import INT8, BitsAndBytes, BitsAndBytesConfig, Scheme, scheme_of
from xlmr_core.quantization.asked import refuse_layer, refuse_values, scheme_to_apply
from xlmr_core.quantization.bitsandbytes import State, state_of
from xlmr_core.quantization.widening import rows_at_once
from xlmr_tf.linear import Linear, is_loading, loading
from xlmr_tf.placement import DTYPE_OF_TAG
from xlmr_tf.values import layer_at, nodes, set_trainable
from xlmr_tf.widening import QuantizedLayer

if TYPE_CHECKING:
    from xlmr_tf.pretrained import PreTrainedModel

__all__ = ["as_written", "made_as_written", "quantize"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# By the name of the scheme; imported when it is used.
FILES = {
    "int8": "xlmr_tf.int8",
    **dict.fromkeys(("int4", "nf4", "fp4"), "xlmr_tf.four_bit"),
    "bitsandbytes": "xlmr_tf.bitsandbytes",
}
# Layers that can be quantized, as they were made.
_PLAIN = (Linear, keras.layers.Dense, keras.layers.Embedding)


def quantize(model: ModelT, scheme: str | Scheme | BitsAndBytesConfig = INT8, skip: Sequence[str] = ()) -> ModelT:
    """Quantize a model in place.

    With a scheme of this library it is for inference: every part is frozen, and what is not quantized becomes float32.
    As bitsandbytes has it, codes are frozen, and the rest keeps its dtype and may be trained. Compile the model again
    afterwards.

    Args:
        model: any model of this package, with or without a head. One that is quantized so already stays as it is.
        scheme: how to store the weights: ``int8``, ``int4``, ``nf4`` or ``fp4``, one of these with settings of its own
            (``xlmr_core.quantization.Nf4(skip=("query",))``), or a ``BitsAndBytesConfig``.
        skip: modules whose weights stay as they are, by their whole name or by steps of it, beside those that the
            scheme leaves anyway.

    Returns:
        The same model.

    Raises:
        InputError: if a layer is no plain linear layer or embedding any more (an adapter that was not merged), if the
            model is quantized otherwise, or if a weight has values that are no finite numbers.
        ConfigError: for a scheme that nobody knows, or whose settings do not fit the model.
    """
    found = scheme_to_apply(scheme, model.quantization_scheme, skip)
    if found is None:
        return model
    rows = model.published_rows()
    scheme = found.planned(rows)
    # A tied head holds the embedding itself.
    taken = [row for row in rows.values() if scheme.takes(row) and row.tied_to is None]
    for row in taken:
        _check(layer_at(model, row), row.name)
    file, states, holders = import_module(FILES[scheme.name]), {}, _holders(model)
    for row in taken:
        old, of_weight = layer_at(model, row), scheme.for_weight(row)
        with tf.device(_weight(old).value.device):
            tensors = _tensors(of_weight, row, old, file)
            bias = None if row.role is Role.EMBEDDING else old.bias
            new = file.layer(of_weight, row, tensors, bias, dtype=old.dtype_policy)
        if isinstance(scheme, BitsAndBytes) and scheme.found is None:
            states[row.name] = file.state_in(new)
        _replace(holders[id(old)], old, new)
    if isinstance(scheme, BitsAndBytes):
        scheme = scheme.known(states) if scheme.found is None else scheme
        model.config.quantization_config = scheme.written()  # published
    else:
        if model.variable_dtype != "float32":
            model.set_dtype("float32")
        _freeze(model)
    model._take_scheme(scheme)
    model._forget_functions()
    return model


# ---- In Keras's own files


def as_written(scheme: Scheme | None) -> dict[str, Any] | None:
    """How a model is quantized, as plain values."""
    if scheme is None:
        return None
    states = scheme.found or {} if isinstance(scheme, BitsAndBytes) else {}
    found = {name: (state.kind, state.storage, state.shape, state.text.decode()) for name, state in states.items()}
    return {"quantization_config": scheme.written(), "states": {name: list(state) for name, state in found.items()}}


def _as_read(written: Mapping[str, Any]) -> Scheme:
    """The way back from :func:`as_written`."""
    scheme = scheme_of(XLMRobertaConfig.from_dict({"quantization_config": written["quantization_config"]}))
    assert scheme is not None
    if not isinstance(scheme, BitsAndBytes):
        return scheme
    states = {
        name: state_of(text.encode(), name, storage) if text else State(kind, storage=storage, shape=tuple(shape))
        for name, (kind, storage, shape, text) in written["states"].items()
    }
    return scheme.known(states)


def made_as_written(make: Callable[[], ModelT], written: Mapping[str, Any]) -> ModelT:
    """A model that is quantized as another one was, with fresh values around codes that are zero.

    Args:
        make: makes one that is not quantized.
        written: what :func:`as_written` told of the other one.
    """
    with loading() as unset:
        model = quantize(make(), _as_read(written))
    for _, layer in nodes(model):
        if isinstance(layer, QuantizedLayer):
            layer.set_to_zero()
    for part in unset:
        part.init_weights([name for name, row in part.parameter_table().items() if row.quantized is None])
    return model


# ---- The parts of a model


def _tensors(scheme: Scheme, row: Parameter, layer: Any, file: Any) -> dict[str, Any]:
    """The tensors of a weight, by suffix; in a model that is about to be loaded, what they will be."""
    if is_loading():
        return {part.suffix: tf.TensorSpec(part.shape, DTYPE_OF_TAG[part.dtype]) for part in scheme.stored(row)}
    values = tf.convert_to_tensor(_weight(layer))
    found: dict[str, Any] = file.encoded(scheme, values if row.role is Role.EMBEDDING else tf.transpose(values))
    return found


def _weight(layer: Any) -> keras.Variable:
    return layer._embeddings if isinstance(layer, keras.layers.Embedding) else layer._kernel


def _check(layer: Any, name: str) -> None:
    """Refuse a layer that is not as it was made, and values for which there is no scale."""
    if type(layer) not in _PLAIN or layer.lora_enabled:
        refuse_layer(name.removesuffix(".weight"), type(layer))
    if is_loading():
        return
    weight = _weight(layer)
    step = rows_at_once(weight.shape[1])
    for begin in range(0, weight.shape[0], step):
        if not tf.reduce_all(tf.math.is_finite(weight[begin : begin + step])):
            refuse_values(name)


def _holders(model: PreTrainedModel) -> dict[int, list[tuple[keras.layers.Layer, str]]]:
    """The layers that hold a layer, and their attributes, by its id."""
    found: dict[int, list[tuple[keras.layers.Layer, str]]] = {}
    for _, node in nodes(model):
        if isinstance(node, keras.layers.Layer):
            for attribute, part in vars(node).items():
                if isinstance(part, keras.layers.Layer):
                    found.setdefault(id(part), []).append((node, attribute))
    return found


def _replace(holders: list[tuple[keras.layers.Layer, str]], old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Put a layer in the place of another one, in Keras's accounts too."""
    for holder, attribute in holders:
        tracker = holder._tracker
        if tracker.is_in_store("layers", old):
            tracker.replace_tracked_value("layers", old, new)
        setattr(holder, attribute, new)


def _freeze(model: PreTrainedModel) -> None:
    """Freeze all that is in a model. The model itself stays such that a part can be trained again."""
    for part in (*model._layers, *model._trainable_variables):
        set_trainable(part, False)
