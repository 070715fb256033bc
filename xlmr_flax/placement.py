"""Devices and dtypes as users name them, checked before anything is loaded or moved; dtypes as files name them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh

from xlmr_core.errors import InputError
from xlmr_core.placement import FLOAT_DTYPES, one_device, refuse_absent, refuse_device, refuse_dtype

__all__ = [
    *("DTYPE_OF_TAG", "TAG_OF_DTYPE"),
    *("check_mesh", "find_device", "find_dtype", "find_one_device", "refuse_explicit_axes"),
]

# By the tags of safetensors.
DTYPE_OF_TAG: dict[str, Any] = {
    "F64": jnp.dtype("float64"),
    "F32": jnp.dtype("float32"),
    "F16": jnp.dtype("float16"),
    "BF16": jnp.dtype("bfloat16"),
    "I64": jnp.dtype("int64"),
    "I32": jnp.dtype("int32"),
    "I16": jnp.dtype("int16"),
    "I8": jnp.dtype("int8"),
    "U32": jnp.dtype("uint32"),
    "U8": jnp.dtype("uint8"),
    "BOOL": jnp.dtype("bool"),
}
TAG_OF_DTYPE = {dtype: tag for tag, dtype in DTYPE_OF_TAG.items()}


def find_device(device: int | str | jax.Device | None) -> jax.Device | None:
    """A device by number (0 is the first accelerator, -1 the CPU), by name (``cpu``, ``gpu:1``), or as it is; ``None``
    is JAX's default.

    Raises:
        InputError: if there is no such device on this machine.
    """
    if device is None or isinstance(device, jax.Device):
        return device
    if isinstance(device, int):
        platform, index = ("cpu", 0) if device < 0 else (None, device)
    else:
        platform, _, number = str(device).partition(":")
        if number and not number.isdecimal():
            refuse_device(device, "an accelerator's number, -1, or a name such as 'cpu' or 'gpu:0'")
        index = int(number or 0)
    try:
        found = jax.devices(platform)
    except RuntimeError:
        found = []
    if isinstance(device, int) and device >= 0 and found and found[0].platform == "cpu":
        found = []
    if index >= len(found):
        kind = f"a {platform.upper()}" if platform else "an accelerator"
        refuse_absent(device, kind, "JAX", ", ".join(map(str, jax.devices())), "a JAX for your accelerator")
    return found[index]


def find_one_device(
    device: int | str | jax.Device | None, device_map: int | str | jax.Device | dict[str, Any] | None = None
) -> jax.Device | None:
    """The device that ``device`` or ``device_map`` mean; ``None`` is JAX's default.

    Raises:
        InputError: for several devices, or one that is not there.
    """
    found = one_device(device, device_map)
    return None if isinstance(found, str) and found == "auto" else find_device(found)


def find_dtype(dtype: Any) -> Any:
    """A floating point dtype by name (``bfloat16``) or as it is.

    Raises:
        InputError: for anything else.
    """
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found not in [jnp.dtype(name) for name in FLOAT_DTYPES]:
        refuse_dtype(dtype)
    return found


def check_mesh(name: str, mesh: Mesh | AbstractMesh) -> None:
    """Refuse a mesh along whose axes the compiler may not pass shardings on.

    Args:
        name: of what lies on it.
        mesh: the devices.

    Raises:
        InputError: if an axis is of another type than ``Auto``.
    """
    if any(kind is not AxisType.Auto for kind in mesh.axis_types):
        raise InputError(
            f"{name} must have axes of the type Auto, received {mesh.axis_types}; make the mesh with "
            "jax.sharding.Mesh(devices, names), or pass axis_types=(AxisType.Auto, ...) to jax.make_mesh"
        )


def refuse_explicit_axes(name: str, array: Any) -> None:
    """Refuse an array that is divided along explicit axes of a mesh, before JAX does in words about its operators.

    Inside ``jax.shard_map``, where each device sees its own part, there is none.
    """
    if not isinstance(array, jax.Array):
        return
    sharding = jax.typeof(array).sharding
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=False))
    axes = [axis for part in sharding.spec for axis in (part if isinstance(part, tuple) else (part,))]
    if any(kinds.get(axis) is AxisType.Explicit for axis in axes):
        check_mesh(f"the mesh of {name}", sharding.mesh)
