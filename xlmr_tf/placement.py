"""Devices and dtypes as users name them, checked before anything is loaded or moved; dtypes as files name them."""

from __future__ import annotations

import re
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.placement import FLOAT_DTYPES, one_device, refuse_absent, refuse_device, refuse_dtype

__all__ = ["DTYPE_OF_TAG", "TAG_OF_NAME", "find_device", "find_one_device", "find_policy"]

POLICIES = (*FLOAT_DTYPES, "mixed_float16", "mixed_bfloat16")
# By the names of dtypes; the tags are those of safetensors.
TAG_OF_NAME: dict[str, str] = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
DTYPE_OF_TAG = {tag: tf.as_dtype(name) for name, tag in TAG_OF_NAME.items()}


def find_device(device: int | str) -> str:
    """A device by number (0 is the first GPU, -1 the CPU), or by name (``cpu``, ``gpu:0``, ``cuda:0``), as TensorFlow
    calls it.

    Raises:
        InputError: if there is no such device on this machine.
    """
    name = ("cpu" if device < 0 else f"gpu:{device}") if isinstance(device, int) else str(device).lower()
    match = re.fullmatch(r"/?(?:device:)?(cpu|gpu|cuda)(?::(\d+))?", name)
    if match is None:
        refuse_device(device, "a GPU's number, -1, or a name such as 'cpu' or 'gpu:0'")
    kind, index = "CPU" if match[1] == "cpu" else "GPU", int(match[2] or 0)
    here = len(tf.config.list_logical_devices(kind))
    if index >= here:
        refuse_absent(device, f"a {kind}", "TensorFlow", here, "a build of tensorflow for it")
    return f"/device:{kind}:{index}"


def find_one_device(device: int | str | None, device_map: int | str | dict[str, Any] | None = None) -> str | None:
    """The device that ``device`` or ``device_map`` mean; ``None`` leaves the choice to TensorFlow.

    Raises:
        InputError: for several devices, or one that is not there.
    """
    found = one_device(device, device_map)
    return None if found in (None, "auto") else find_device(found)


def find_policy(dtype: Any) -> str:
    """The dtype policy of a name (``bfloat16``, ``mixed_float16``, ``torch.float16``), a dtype or a policy.

    Raises:
        InputError: for anything else.
    """
    name = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name not in POLICIES:
        refuse_dtype(dtype, POLICIES)
    return keras.dtype_policies.get(name).name
