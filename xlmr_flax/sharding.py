"""Where parameters lie on a mesh of devices: a short table from the axes of the parameter table to those of the mesh.

mesh = Mesh(np.reshape(jax.devices(), (4, 2)), ("data", "model"))
params = jax.device_put(model.params, param_shardings(model, mesh, {**FSDP, **TENSOR_PARALLEL}))

XLA divides the work by where its inputs lie. Nothing else in a model knows of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_core.errors import InputError
from xlmr_flax.functional import flatten, unflatten
from xlmr_flax.placement import check_mesh
from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["DATA_PARALLEL", "FSDP", "TENSOR_PARALLEL", "Rules", "param_shardings"]

# From an axis of the parameter table (``xlmr_core/parameters.py``) to the axis of the mesh that it is divided over.
# Axes that are not named stay whole, and a mesh axis divides a parameter once: its first axis that asks for it.
Rules = Mapping[str, str]

# Every device holds all parameters; batches are divided.
DATA_PARALLEL: Rules = {}
# Each device holds a slice of the hidden size of every parameter and gathers the others' when a layer runs (ZeRO stage
# 3, Rajbhandari et al. 2020). All that matter have that axis.
FSDP: Rules = {"hidden": "data"}
# Each device has some heads of every layer, some inner units of every feed-forward, some words (Shoeybi et al. 2019).
TENSOR_PARALLEL: Rules = {"attention": "model", "ffn": "model", "vocab": "model"}


def param_shardings(model: PreTrainedModel, mesh: Mesh, rules: Rules) -> dict[str, Any]:
    """Shardings in a tree like ``model.params``.

    Args:
        model: whose parameters; it may be without values.
        mesh: the devices. Its axes must be of the type ``Auto``: the compiler passes shardings on.
        rules: which axis of the parameters is divided over which axis of the mesh.

    Raises:
        InputError: for an axis that the mesh or the parameter table does not have, for a mesh of another type, or if
            devices do not divide an axis evenly.
    """
    _check(model, mesh, rules)
    shapes, axes = flatten(model.params_shape_tree), flatten(model.logical_axes)
    return unflatten(
        {path: NamedSharding(mesh, _spec(path, shapes[path].shape, dims, mesh, rules)) for path, dims in axes.items()}
    )


def _check(model: PreTrainedModel, mesh: Mesh, rules: Rules) -> None:
    check_mesh("mesh", mesh)
    absent = set(rules.values()) - set(mesh.axis_names)
    if absent:
        raise InputError(
            f"the rules divide over {sorted(absent)}, the mesh has the axes {mesh.axis_names}; name one of these"
        )
    known = {dim for row in model.parameter_table().values() for dim in row.dims}
    unknown = set(rules) - known
    if unknown:
        raise InputError(f"no parameter has an axis {sorted(unknown)}, expected one of {sorted(known)}")


def _spec(
    path: tuple[str, ...], shape: tuple[int, ...], dims: tuple[str, ...], mesh: Mesh, rules: Rules
) -> PartitionSpec:
    names: list[str | None] = []
    for dim, size in zip(dims, shape, strict=True):
        name = rules.get(dim)
        if name is None or name in names:
            names.append(None)
            continue
        if size % mesh.shape[name]:
            remedy = (
                "resize_token_embeddings(pad_to_multiple_of=...)" if dim == "vocab" else "another number of devices"
            )
            raise InputError(
                f"{'/'.join(path)} has {size} along {dim}, which {mesh.shape[name]} devices do not divide evenly; use "
                f"{remedy}, "
                f"or leave {dim!r} out of the rules"
            )
        names.append(name)
    return PartitionSpec(*names)
