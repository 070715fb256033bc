"""Devices and dtypes as users name them, checked before anything is loaded or moved."""

from __future__ import annotations

import re
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.errors import InputError

__all__ = ["find_device", "find_dtype", "find_one_device"]

FLOATS = ("float32", "float16", "bfloat16", "float64")


def find_device(device: int | str) -> str:
    """A device by number (0 is the first GPU, -1 the CPU), or by name (``cpu``, ``gpu:0``, ``cuda:0``), as TensorFlow calls it.

    Raises:
        InputError: if there is no such device on this machine.
    """
    name = ("cpu" if device < 0 else f"gpu:{device}") if isinstance(device, int) else str(device).lower()
    match = re.fullmatch(r"/?(?:device:)?(cpu|gpu|cuda)(?::(\d+))?", name)
    if match is None:
        raise InputError(f"device must be a GPU's number, -1, or a name such as 'cpu' or 'gpu:0', received {device!r}")
    kind, index = "CPU" if match[1] == "cpu" else "GPU", int(match[2] or 0)
    here = len(tf.config.list_logical_devices(kind))
    if index >= here:
        raise InputError(
            f"device {device!r} asks for a {kind}, TensorFlow sees {here or 'none'} here; "
            "pass device='cpu', or install a build of tensorflow for it"
        )
    return f"/device:{kind}:{index}"


def find_one_device(device: int | str | dict[str, Any] | None) -> str | None:
    """The device that ``device`` or ``device_map`` mean; ``None`` leaves the choice to TensorFlow.

    Raises:
        InputError: for several devices, or one that is not there.
    """
    if isinstance(device, dict):
        if len(set(map(str, device.values()))) != 1:
            raise InputError(
                f"device_map must put the whole model on one device, received {device!r}; pass device='gpu:0' or similar"
            )
        device = next(iter(device.values()))
    if device in (None, "auto", "balanced", "balanced_low_0", "sequential"):
        return None
    return find_device(device)


def find_dtype(dtype: Any) -> str:
    """The dtype policy of a name (``bfloat16``, ``mixed_float16``, ``torch.float16``), a dtype or a policy.

    Raises:
        InputError: for anything else.
    """
    name = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name.removeprefix("mixed_") not in FLOATS or name in ("mixed_float32", "mixed_float64"):
        raise InputError(f"dtype must be {', '.join(FLOATS)}, mixed_float16 or mixed_bfloat16, received {dtype!r}")
    return keras.dtype_policies.get(name).name
