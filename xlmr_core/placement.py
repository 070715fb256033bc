"""Devices and dtypes as users name them: what is decided before a framework is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from xlmr_core.errors import InputError

__all__ = ["FLOAT_DTYPES", "one_device", "refuse_absent", "refuse_device", "refuse_dtype"]

FLOAT_DTYPES = ("float32", "float16", "bfloat16", "float64")
# Values of the published ``device_map`` that leave the choice to the framework.
_ANY_DEVICE = ("auto", "balanced", "balanced_low_0", "sequential")


def one_device(device: Any, device_map: Any) -> Any:
    """The device that ``device`` or ``device_map`` mean: a model is never spread over several.

    Returns:
        What was passed as the device, ``"auto"`` for any of the words that leave the choice, ``None`` if nothing was
        passed.

    Raises:
        InputError: for several devices.
    """
    found = device_map if device is None else device
    if isinstance(found, dict):
        if len(set(map(str, found.values()))) != 1:
            raise InputError(
                f"device_map must put the whole model on one device, received {found!r}; pass device='cpu' or similar"
            )
        found = next(iter(found.values()))
    return "auto" if isinstance(found, str) and found in _ANY_DEVICE else found


def refuse_device(device: Any, forms: str) -> NoReturn:
    """Refuse what names no device.

    Args:
        device: what was passed.
        forms: what a device can be.

    Raises:
        InputError: always.
    """
    raise InputError(f"device must be {forms}, received {device!r}")


def refuse_absent(device: Any, kind: str, framework: str, here: Any, build: str) -> NoReturn:
    """Refuse a device that is not on this machine.

    Args:
        device: what was passed.
        kind: what it asks for.
        framework: what looked for it.
        here: which ones, or how many, it found.
        build: what to install where there is one.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"device {device!r} asks for {kind}, {framework} sees {here or 'none'} here; "
        f"pass device='cpu', or install {build}"
    )


def refuse_dtype(dtype: Any, choices: Sequence[str] = FLOAT_DTYPES) -> NoReturn:
    """Refuse a dtype in which no model computes.

    Raises:
        InputError: always.
    """
    raise InputError(f"dtype must be {', '.join(choices[:-1])} or {choices[-1]}, received {dtype!r}")
