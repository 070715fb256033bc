"""The values of a model: which parameters it has, how they start, in which variable each lies."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import Head
from xlmr_core.own_classes import Place, check_encoder, table_of
from xlmr_core.parameters import Init, Parameter, Role, parameters
from xlmr_core.quantization import BitsAndBytes, Scheme
from xlmr_core.quantization.asked import refuse_drawing
from xlmr_flax.embeddings import Embedding
from xlmr_flax.functional import Path, flatten, in_layout, path_of, unflatten
from xlmr_flax.linear import LayerNorm, Linear
from xlmr_flax.widening import Derived

__all__ = ["ModelValues", "Spot", "layer_at", "lost", "places", "put_layer", "spots"]

# The variables of ordinary layers: the attribute, its published name, and what it is.
_LINEAR = {"kernel": ("weight", Role.LINEAR_WEIGHT), "bias": ("bias", Role.LINEAR_BIAS)}
_EMBEDDING = {"embedding": ("weight", Role.EMBEDDING)}
_NORM = {"scale": ("weight", Role.NORM_SCALE), "bias": ("bias", Role.NORM_BIAS)}
ORDINARY: dict[type, dict[str, tuple[str, Role]]] = {
    **dict.fromkeys((Linear, nnx.Linear), _LINEAR),
    **dict.fromkeys((Embedding, nnx.Embed), _EMBEDDING),
    **dict.fromkeys((LayerNorm, nnx.LayerNorm), _NORM),
}
# How a parameter of a layer of ours starts where a user's class holds it without values.
INIT_OF_ROLE = {
    Role.EMBEDDING: Init.NORMAL,
    Role.LINEAR_WEIGHT: Init.NORMAL,
    Role.LINEAR_BIAS: Init.ZEROS,
    Role.NORM_SCALE: Init.ONES,
    Role.NORM_BIAS: Init.ZEROS,
}
# What changes from call to call, counts the steps of training or follows from the rest is no part of a checkpoint.
PASSING = (nnx.RngState, nnx.Intermediate, nnx.Cache, nnx.OptState, nnx.metrics.MetricState, Derived)


class Spot(NamedTuple):
    """A tensor's variable, its path in a tree of parameters, what it is, and how it starts without values."""

    variable: nnx.Variable[Any]
    path: Path
    role: Role
    init: Init

    @property
    def is_abstract(self) -> bool:
        """Whether the variable has a shape and no values."""
        return isinstance(self.variable.get_value(), jax.ShapeDtypeStruct)


class ModelValues(nnx.Module):
    """The part of a model that has to do with the values of its parameters."""

    config: Any
    base_model: Any
    base_model_prefix: ClassVar[str]
    _task_head: ClassVar[Head]
    quantization_scheme: Scheme | None

    def parameter_table(self) -> dict[str, Parameter]:
        """The rows of the parameter table that this model has, by canonical name.

        What a user's code added stands behind them, what it took away is not there.

        Raises:
            InputError: for a class with layers of its own but no encoder as ``self.roberta``.
        """
        check_encoder(type(self), "FlaxXLMRobertaModel", self._has_encoder())
        known = self.published_rows()
        return table_of(known, places(self, known))

    def published_rows(self) -> dict[str, Parameter]:
        """The rows of the parameter table for a published model like this."""
        config: XLMRobertaConfig = self.config
        return parameters(
            config,
            self._task_head.suffix,
            pooler=self.base_model.pooler is not None,
            scheme=self.quantization_scheme,
        )

    def _has_encoder(self) -> bool:
        return hasattr(self.base_model, "pooler") and self.base_model_prefix == "roberta"

    @property
    def logical_axes(self) -> dict[str, Any]:
        """The names of every parameter's axes (``hidden``, ``ffn``, ``vocab``, ...), in a tree like ``params``.

        Shardings are derived from them.
        """
        here = spots(self)
        rows = [row for row in self.parameter_table().values() if row.tied_to is None and _is_param(here[row.name])]
        return unflatten(
            {here[row.name].path: row.dims[::-1] if row.role is Role.LINEAR_WEIGHT else row.dims for row in rows}
        )

    # ---- How they start

    def init_weights(
        self, rng: Array, input_shape: tuple[int, ...] = (1, 1), params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Fresh parameters by the parameter table; the model itself stays as it is.

        A user's layers are as their constructors made them.

        Args:
            rng: a random key.
            input_shape: of the published signature.
            params: a tree whose parameters are kept; only those that it lacks are drawn.
        """
        given = {} if params is None else flatten(params)
        here, drawn = spots(self), {}
        for row in self.parameter_table().values():
            if row.tied_to is None and _is_param(here[row.name]):
                path = here[row.name].path
                drawn[path] = given[path] if path in given else self._fresh(row, rng)
        return unflatten(drawn)

    def _fresh(self, row: Parameter, rng: Array, dtype: Any = jnp.float32) -> Array:
        if row.init is Init.OWN:
            value = spots(self)[row.name].variable.get_value()
            return value.astype(dtype) if value.dtype == jnp.float32 else value
        if row.quantized is not None:
            # It is drawn as a whole, and then quantized.
            if isinstance(row.quantized.scheme, BitsAndBytes):
                refuse_drawing()
            _, name, suffix, shape = row.quantized
            whole = replace(row, name=name, shape=shape, role=Role.EMBEDDING, quantized=None)
            return jnp.asarray(row.quantized.scheme.encode(np.asarray(self._fresh(whole, rng)))[suffix])
        if row.init not in (Init.NORMAL, Init.NORMAL_PADDED):
            return jnp.full(row.shape, 1.0 if row.init is Init.ONES else 0.0, dtype)
        # A key by name, so that a parameter's values depend on no other parameter.
        key = jax.random.fold_in(rng, zlib.crc32(row.name.encode()))
        values = jax.random.normal(key, row.shape, jnp.float32) * self.config.initializer_range
        if row.init is Init.NORMAL_PADDED:
            values = values.at[self.config.pad_token_id].set(0.0)
        return in_layout(row, values).astype(dtype)


def _is_param(spot: Spot) -> bool:
    return isinstance(spot.variable, nnx.Param)


# ---- Variables by canonical name


def places(model: ModelValues, known: Mapping[str, Parameter]) -> dict[str, Place]:
    """Every place of a variable.

    Args:
        model: the model.
        known: the rows of its table. Those that are tied have no variable of their own, so they are where their other
            end is.
    """
    found = {}
    for name, spot in spots(model).items():
        shape = tuple(spot.variable.get_value().shape)
        init = spot.init if spot.is_abstract else Init.OWN
        found[name] = Place(
            shape[::-1] if spot.role is Role.LINEAR_WEIGHT else shape, id(spot.variable), spot.role, init
        )
    for name, row in known.items():
        if row.tied_to in found:
            found.setdefault(name, found[row.tied_to])
    return found


def spots(model: nnx.Module) -> dict[str, Spot]:
    """Where the tensors of a checkpoint lie, by canonical name.

    One that is in several places has one path, as in ``params``.
    """
    paths = {id(node): path for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Variable)}
    published: dict[Path, tuple[str, Parameter]] = {}
    found = {}
    for path, holder, variable in _walk(model, (), published):
        if path in published:
            name, row = published[path]
            role, init = Role.BESIDE if row.quantized else row.role, row.init
        else:
            ordinary = next((names for kind, names in ORDINARY.items() if isinstance(holder, kind)), {})
            last, role = ordinary.get(path[-1], (path[-1], Role.OWN))
            name, init = ".".join((*path[:-1], last)), INIT_OF_ROLE.get(role, Init.OWN)
        found[name] = Spot(variable, paths[id(variable)], role, init)
    return found


def layer_at(model: nnx.Module, path: str) -> Any:
    """The layer of a name."""
    layer: Any = model
    for step in path.split("."):
        layer = layer[step] if isinstance(layer, Mapping | nnx.Dict) else getattr(layer, step)
    return layer


def put_layer(model: nnx.Module, path: str, layer: nnx.Module) -> None:
    """Put another layer into the place of a name, which is an attribute."""
    holder, _, attribute = path.rpartition(".")
    setattr(layer_at(model, holder) if holder else model, attribute, layer)


def lost(model: nnx.Module) -> list[str]:
    """The paths of arrays that are in no variable, and of variables that are in no attribute, list or dictionary: they
    would not be saved."""
    kept = {id(spot.variable) for spot in spots(model).values()}
    return [
        ".".join(map(str, path))
        for path, node in nnx.iter_graph(model)
        if _is_bare(node) or (isinstance(node, nnx.Variable) and not isinstance(node, PASSING) and id(node) not in kept)
    ]


def _is_bare(node: Any) -> bool:
    """Whether a node is an array by itself. A random key is none."""
    return isinstance(node, jax.Array | np.ndarray) and not jnp.issubdtype(node.dtype, jax.dtypes.prng_key)


def _walk(
    holder: Any, path: Path, published: dict[Path, tuple[str, Parameter]]
) -> Iterator[tuple[Path, Any, nnx.Variable[Any]]]:
    """Path, holder and variable, through attributes, lists and dictionaries.

    ``published`` gets the paths that the tables of this model and of the models inside know, and the names that these
    have here.
    """
    if isinstance(holder, ModelValues) and holder._has_encoder():
        rows = [row for row in holder.published_rows().values() if row.tied_to is None]
        published.update({path + path_of(row): (".".join((*path, row.name)), row) for row in rows})
    for name, part in _parts(holder):
        if isinstance(part, nnx.Variable) and not isinstance(part, PASSING):
            yield (*path, name), holder, part
        else:
            yield from _walk(part, (*path, name), published)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping | nnx.Dict):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, list | tuple | nnx.List):
        return [(str(number), part) for number, part in enumerate(value)]
    if isinstance(value, nnx.Pytree):
        return [(name, part) for name, part in vars(value).items() if not name.startswith("_pytree__")]
    return []
