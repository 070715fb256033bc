"""The values of a model: which parameters it has, how they start, in which variable each lies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import Head
from xlmr_core.own_classes import Place, check_encoder, table_of
from xlmr_core.parameters import Init, Parameter, Role, parameters
from xlmr_core.quantization import Scheme
from xlmr_tf.linear import leave_unset
from xlmr_tf.widening import QuantizedLayer

__all__ = [
    "ModelValues",
    "keras_mode",
    "layer_at",
    "lost",
    "nodes",
    "nowhere",
    "parts",
    "places",
    "set_trainable",
    "share",
    "unbuilt",
    "value_at",
    "variable_at",
]

# The variables of ordinary layers: the attribute, its published name, and what it is.
ORDINARY: dict[type, dict[str, tuple[str, Role]]] = {
    keras.layers.Dense: {"_kernel": ("weight", Role.LINEAR_WEIGHT), "bias": ("bias", Role.LINEAR_BIAS)},
    keras.layers.Embedding: {"_embeddings": ("weight", Role.EMBEDDING)},
    keras.layers.LayerNormalization: {"gamma": ("weight", Role.NORM_SCALE), "beta": ("bias", Role.NORM_BIAS)},
}
ATTRIBUTE_OF_ROLE = {role: attribute for names in ORDINARY.values() for attribute, (_, role) in names.items()}
# Attributes whose published name Keras keeps for itself.
NAMES = {"output_": "output"}
# Where Keras, TensorFlow and we keep account of layers and variables that are in other attributes too.
ACCOUNTS = ("_arguments", "_layers", "_trainable_variables", "_non_trainable_variables", "_functional", "_self_")


class ModelValues:
    """The part of a model that has to do with the values of its parameters; a base before ``keras.Model``."""

    config: XLMRobertaConfig
    trainable: bool
    base_model: Any
    base_model_prefix: ClassVar[str]
    quantization_scheme: Scheme | None
    _task_head: ClassVar[Head]

    def parameter_table(self) -> dict[str, Parameter]:
        """The rows of the parameter table that this model has, by canonical name.

        What a user's code added stands behind them, what it took away is not there.

        Raises:
            InputError: for a class with layers of its own but no encoder as ``self.roberta``.
        """
        known = self.published_rows()
        return table_of(known, places(self, known))

    def published_rows(self) -> dict[str, Parameter]:
        """The rows of the parameter table for a published model like this.

        Raises:
            InputError: for a model that Keras's own ``quantize`` was called on, whose weights no checkpoint holds.
        """
        encoder = self.base_model
        check_encoder(
            type(self), "TFXLMRobertaModel", hasattr(encoder, "pooler") and self.base_model_prefix == "roberta"
        )
        self._refuse_keras_mode()
        return parameters(
            self.config,
            self._task_head.suffix,
            pooler=encoder.pooler is not None,
            scheme=self.quantization_scheme,
        )

    def _refuse_keras_mode(self) -> None:
        mode = keras_mode(self)
        if mode is not None:
            raise InputError(
                f"expected a model with its published parameters, received one that quantize({mode!r}) of Keras has "
                "changed, which only Keras's own files hold; call model.save('model.keras'), or quantize another one "
                "with xlmr_tf.quantize"
            )

    def get_parameter(self, name: str) -> keras.Variable:
        """The variable of a canonical name. A linear weight lies transposed in it, (in, out)."""
        rows = self.parameter_table()
        return variable_at(self, rows[rows[name].tied_to or name])

    def get_values(self, name: str) -> NDArray[Any]:
        """The values of a canonical name in their canonical layout, with adapters added; a copy."""
        rows = self.parameter_table()
        return value_at(self, rows[rows[name].tied_to or name])

    # ---- How they start

    def post_init(self, names: Iterable[str] | None = None) -> None:
        """Draw fresh values; the end of every constructor. Nothing is drawn where values are about to be loaded.

        Models inside have drawn or loaded theirs, so what is in them stays as it is.
        """
        if not self.trainable:  # which Keras has told the model alone, before there were parts of it
            set_trainable(self, False)
        if leave_unset(self):
            return
        if names is None and self.base_model is not self:
            names = [name for name in self.parameter_table() if not name.startswith("roberta.")]
        self.init_weights(names)

    def init_weights(self, names: Iterable[str] | None = None) -> None:
        """Draw fresh values by the parameter table, for all parameters or for some canonical names.

        A user's layers, and models inside, are as their constructors made them.
        """
        rows = self.parameter_table()
        for name in rows if names is None else names:
            row = rows[name]
            if row.tied_to is None and row.init is not Init.OWN and row.role is not Role.BESIDE:
                self._draw(row)

    def _draw(self, row: Parameter) -> None:
        variable = variable_at(self, row)
        if row.init in (Init.NORMAL, Init.NORMAL_PADDED):
            # A quantized weight is drawn as a whole, and then quantized.
            shape, dtype = (row.quantized.shape, "float32") if row.quantized else (variable.shape, variable.dtype)
            values = keras.random.normal(shape, 0.0, self.config.initializer_range, dtype=dtype)
            if row.init is Init.NORMAL_PADDED:
                values *= tf.cast(tf.range(len(values)) != self.config.pad_token_id, values.dtype)[:, None]
            if row.quantized:
                layer_at(self, row).set_values(values)
            else:
                variable.assign(values)
        else:
            variable.assign(tf.fill(variable.shape, tf.cast(1.0 if row.init is Init.ONES else 0.0, variable.dtype)))


def keras_mode(model: Any) -> str | None:
    """How Keras's own ``quantize`` has changed the layers of a model: ``int8`` or ``int4``; ``None`` if it has not."""
    modes = (layer.quantization_mode for layer in model._flatten_layers(include_self=False))
    return next((mode for mode in modes if mode is not None), None)


# ---- Variables by canonical name


def places(model: Any, known: Mapping[str, Parameter]) -> dict[str, Place]:
    """Every place of a variable; one that is in several is where it is found first.

    Args:
        model: the model.
        known: the rows of its table. Those that are tied have no variable of their own, so they are where their other
            end is.
    """
    found, seen = {}, set()
    for path, node in nodes(model):
        if isinstance(node, QuantizedLayer):
            for attribute, name in node.stored_names.items():
                part = getattr(node, attribute)
                seen.add(id(part))
                found[path + name] = Place(node.stored_shape(attribute), id(part), Role.BESIDE)
            continue
        ordinary = next((names for kind, names in ORDINARY.items() if isinstance(node, kind)), {})
        for attribute, part in parts(node):
            if isinstance(part, keras.Variable) and id(part) not in seen and not _is_adapter(attribute):
                seen.add(id(part))
                name, role = ordinary.get(attribute, (attribute, Role.OWN))
                shape = tuple(part.shape)
                found[path + name] = Place(shape[::-1] if role is Role.LINEAR_WEIGHT else shape, id(part), role)
    for name, row in known.items():
        if row.tied_to in found:
            found.setdefault(name, found[row.tied_to])
    return found


def lost(model: Any, here: Mapping[str, Place]) -> list[str]:
    """The variables of a model that would not be saved: those without a name, and those of TensorFlow, of which Keras
    does not know."""
    return list(dict.fromkeys([*nowhere(model, {place.tensor for place in here.values()}), *_of_tensorflow(model)]))


def nowhere(model: Any, kept: Collection[int]) -> list[str]:
    """The paths of variables that are in no attribute, list or dictionary, so that they have no name.

    Args:
        model: the model.
        kept: the ids of variables that have one.
    """
    variables: list[Any] = []
    for _, node in nodes(model):
        if isinstance(node, keras.layers.Layer):
            variables += [*node._trainable_variables, *node._non_trainable_variables]
            for part in (part for value in vars(node).values() if isinstance(value, set) for part in value):
                variables += part.weights if isinstance(part, keras.layers.Layer) else [part]
    found = (x for x in variables if isinstance(x, keras.Variable) and id(x) not in kept and not _is_adapter(x.name))
    return list(dict.fromkeys(variable.path for variable in found))


def _of_tensorflow(model: Any) -> Iterator[str]:
    """The paths of variables that are TensorFlow's own and not Keras's."""
    for path, node in nodes(model):
        for name, part in vars(node).items() if isinstance(node, keras.layers.Layer) else parts(node):
            if isinstance(part, tf.Variable):
                yield path + name
            elif isinstance(part, tf.Module):
                yield from (f"{path}{name}.{variable.name}" for variable in part.variables)


def share(model: Any, row: Parameter, other: Parameter) -> None:
    """Let the place of a row hold the very variable of another one."""
    holder, attribute = _holder(model, row)
    variable = variable_at(model, other)
    own = getattr(holder, attribute)
    if own is variable:
        return
    holder._tracker.unlock()
    holder._untrack_variable(own)
    setattr(holder, attribute, variable)
    holder._tracker.lock()


def set_trainable(part: Any, flag: bool) -> None:
    """Set whether a layer and what is in it, or a variable, is trained.

    Keras on TensorFlow passes over an attribute that has the value already, and would leave what is in the layer as it
    is.
    """
    part.trainable = not flag
    part.trainable = flag


def unbuilt(model: Any) -> list[str]:
    """The paths of layers that have no variables yet, because they were never built."""
    return [path[:-1] for path, node in nodes(model) if isinstance(node, keras.layers.Layer) and not node.built]


def _is_adapter(name: str) -> bool:
    return name.startswith("lora_")  # it is added to the values of its layer


def nodes(value: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Layers, lists and dictionaries, each once, with the beginning of the names of what is in them."""
    seen = set() if seen is None else seen
    if id(value) in seen or not isinstance(value, keras.layers.Layer | Mapping | list | tuple):
        return
    seen.add(id(value))
    yield path, value
    for name, part in parts(value):
        yield from nodes(part, f"{path}{NAMES.get(name, name)}.", seen)


def parts(value: Any) -> list[tuple[str, Any]]:
    """What a layer, a list or a dictionary holds, by attribute, number or key."""
    if isinstance(value, keras.Sequential) or hasattr(value, "operations"):
        return [(str(number), layer) for number, layer in enumerate(value.layers)]
    if isinstance(value, keras.layers.Layer):
        return [(name, part) for name, part in vars(value).items() if not name.startswith(ACCOUNTS)]
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    return [(str(number), part) for number, part in enumerate(value)]


def layer_at(model: Any, row: Parameter) -> Any:
    """The layer that holds a parameter, or a tensor of a quantized weight; of a user's class also a list or
    dictionary.
    """
    name = row.name if row.quantized is None else row.quantized.weight
    value = model
    for step in name.split(".")[:-1]:
        value = _step(value, step)
    return value


def _holder(model: Any, row: Parameter) -> tuple[Any, str]:
    """What holds a variable, and under which attribute or key."""
    value = layer_at(model, row)
    if isinstance(value, QuantizedLayer):
        attributes = {stored: attribute for attribute, stored in value.stored_names.items()}
        path = row.name.rpartition(".")[0] if row.quantized is None else _path(row.quantized.weight)
        return value, attributes[row.name.removeprefix(f"{path}.")]
    return value, ATTRIBUTE_OF_ROLE.get(row.role, row.name.rpartition(".")[2])


def _path(weight: str) -> str:
    return weight.removesuffix(".weight")


def _step(value: Any, step: str) -> Any:
    return next(part for name, part in parts(value) if NAMES.get(name, name) == step)


def variable_at(model: Any, row: Parameter) -> keras.Variable:
    """The variable of a row that is not tied."""
    found: keras.Variable = _step(*_holder(model, row))
    return found


def value_at(model: Any, row: Parameter) -> NDArray[Any]:
    """The values of a row that is not tied, in the canonical layout, with adapters added; a copy."""
    holder, attribute = _holder(model, row)
    if isinstance(holder, QuantizedLayer):
        return holder.stored_value(attribute)
    # With adapters the public attribute is a sum.
    public = attribute.removeprefix("_") if row.role is not Role.OWN else attribute
    value = getattr(holder, public) if isinstance(holder, keras.layers.Layer) else _step(holder, attribute)
    values: NDArray[Any] = tf.convert_to_tensor(value).numpy()
    return np.ascontiguousarray(values.T) if row.role is Role.LINEAR_WEIGHT else values
