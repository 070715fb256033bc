"""Between modules and pure functions: parameters as plain nested dictionaries in the published Flax layout, and parts
of a model as compiled functions of them.

A path in the tree is the canonical name with another last step
(``roberta/encoder/layer/0/attention/self/query/kernel``), a kernel is the transposed weight. Tensors of quantized
weights (``query/weight``, ``query/weight_scale``) lie as in files, and are in a tree of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from flax import core, nnx, traverse_util

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.parameters import Parameter, Role
from xlmr_flax.placement import refuse_explicit_axes

__all__ = [
    "StaticConfig",
    "attribute_of",
    "compiled",
    "flatten",
    "from_canonical",
    "is_transposed",
    "path_of",
    "paths",
    "read_params",
    "to_canonical",
    "unflatten",
    "with_params",
    "write_params",
]

Path = tuple[str, ...]

# The last step of a path, by the role of a parameter.
LAST_STEP = {
    Role.EMBEDDING: "embedding",
    Role.LINEAR_WEIGHT: "kernel",
    Role.LINEAR_BIAS: "bias",
    Role.NORM_SCALE: "scale",
    Role.NORM_BIAS: "bias",
}


class StaticConfig:
    """A configuration as JAX's compilation cache needs it: hashable, equal where all values are equal.

    Beside it are the ``seed`` and the ``input_shape`` that a model was made with, and its ``generation_config``, on
    which no graph depends.
    """

    def __init__(self, config: XLMRobertaConfig, seed: int = 0, input_shape: tuple[int, ...] = (1, 1)) -> None:
        self.config = config
        self.seed = seed
        self.input_shape = tuple(input_shape)
        self.generation_config: Any = None

    def _key(self) -> tuple[type, str]:
        return type(self.config), repr(sorted(vars(self.config).items()))

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticConfig) and self._key() == other._key()


# ---- Parts of a model as compiled functions


def compiled(module: nnx.Module, method: str, *arrays: Any) -> Any:
    """Run a method of a module as one compiled function of its parameters and of ``arrays``.

    Programs are kept by the structure of the module, the shapes of the arrays and what is static in their trees. Inside
    another compiled function it becomes part of that.

    Args:
        module: whose method it is.
        method: its name.
        *arrays: arrays, trees of them, or ``None``.
    """
    return _compiled(method, module, arrays)


# The module goes in as the pytree that it is: ``nnx.split`` looks for references that are shared, of which a function
# that changes nothing need not know, and takes several milliseconds of each call.
@partial(jax.jit, static_argnums=0)
def _compiled(method: str, module: nnx.Module, arrays: Any) -> Any:
    return getattr(module, method)(*arrays)


# ---- Parameters as a nested dictionary


def flatten(params: Mapping[str, Any]) -> dict[Path, Any]:
    """Leaves by path."""
    return traverse_util.flatten_dict(core.unfreeze(params))


def unflatten(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """The nested dictionary of leaves by path."""
    return traverse_util.unflatten_dict(dict(leaves))


def read_params(module: nnx.Module, kind: type[nnx.Variable[Any]] = nnx.Param) -> dict[str, Any]:
    """The parameters of a module, or its variables of another kind: arrays, or shapes and dtypes where values were
    never set.
    """
    return nnx.to_pure_dict(nnx.state(module, kind))


def write_params(module: nnx.Module, params: Mapping[str, Any], kind: type[nnx.Variable[Any]] = nnx.Param) -> None:
    """Put parameters into a module, or variables of another kind."""
    nnx.update(module, nnx.State(_checked(module, params, read_params(module, kind), kind)))


def with_params(module: nnx.Module, params: Mapping[str, Any], kind: type[nnx.Variable[Any]] = nnx.Param) -> Any:
    """The same module with other parameters, or variables of another kind; the module itself stays as it is."""
    graphdef, own, rest = nnx.split(module, kind, ...)
    return nnx.merge(graphdef, nnx.State(_checked(module, params, nnx.to_pure_dict(own), kind)), rest)


def _checked(
    module: nnx.Module, params: Mapping[str, Any], own: Mapping[str, Any], kind: type[nnx.Variable[Any]]
) -> dict[str, Any]:
    """The parameters as plain dictionaries.

    Args:
        module: for which they are.
        params: what came.
        own: the module's, or their shapes.
        kind: of the variables.

    Raises:
        InputError: if some are missing, if there are others, for another shape, or where explicit axes of a mesh
            divide one.
    """
    given, expected = flatten(params), flatten(own)
    what, tree = ("parameters", "params") if kind is nnx.Param else ("tensors of quantized weights", "codes")
    for which, paths_ in (
        ("lack", expected.keys() - given.keys()),
        ("have, beside the model's,", given.keys() - expected.keys()),
    ):
        if paths_:
            shown = ", ".join("/".join(map(str, path)) for path in sorted(paths_, key=str)[:8])
            raise InputError(
                f"expected the {len(expected)} {what} of {type(module).__name__}, received {len(given)} "
                f"that {which} {shown}; "
                f"pass a tree such as model.{tree} (what stands under {tree!r}, not the variables around it)"
            )
    for path, value in given.items():
        refuse_explicit_axes("/".join(map(str, path)), value)
        if tuple(value.shape) != tuple(expected[path].shape):
            raise InputError(
                f"{'/'.join(path)} must have the shape {tuple(expected[path].shape)}, received {tuple(value.shape)}; "
                "load parameters that fit the config"
            )
    return unflatten(given)


# ---- Canonical names


def path_of(row: Parameter) -> Path:
    """Where a parameter of the table stands in the tree."""
    if row.quantized is not None:
        *steps, _ = row.quantized.weight.split(".")
        return *steps, attribute_of(row.quantized.suffix)
    *steps, last = row.name.split(".")
    return *steps, LAST_STEP.get(row.role, last)


def attribute_of(suffix: str) -> str:
    """The attribute in which a layer holds a tensor of a quantized weight."""
    return f"weight{suffix.replace('.', '_')}"


def paths(rows: Mapping[str, Parameter]) -> dict[str, Path]:
    """The path of each parameter by canonical name; tied ones have none of their own, and what is quantized is no
    parameter.
    """
    return {name: path_of(row) for name, row in rows.items() if row.tied_to is None and row.quantized is None}


def from_canonical(rows: Mapping[str, Parameter], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of parameters from arrays by canonical name and in canonical layout.

    Args:
        rows: the parameter table of the model.
        tensors: NumPy or JAX arrays; tied names may be left out.
    """
    return unflatten({path: in_layout(rows[name], tensors[name]) for name, path in paths(rows).items()})


def to_canonical(rows: Mapping[str, Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by canonical name and in canonical layout from a tree of parameters (or of gradients); tied ones once."""
    leaves = flatten(params)
    return {name: in_layout(rows[name], leaves[path]) for name, path in paths(rows).items()}


def is_transposed(row: Parameter) -> bool:
    """Whether an array lies the other way round than in the canonical layout: weights of linear layers do, unless they
    are quantized.
    """
    return row.role is Role.LINEAR_WEIGHT and row.quantized is None


def in_layout(row: Parameter, array: Any) -> Any:
    """A canonical array in Flax's layout, and the other way round."""
    return array.T if is_transposed(row) else array
