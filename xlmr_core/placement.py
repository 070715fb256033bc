"""Devices and dtypes as users name them: what is decided before a framework is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from xlmr_core.errors import InputError

__all__ = ["FLOAT_DTYPES", "one_device", "refuse_device", "refuse_dtype"]

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


def refuse_device(device: Any, accelerator: str, example: str) -> NoReturn:
    """Refuse what is no device's name.

    Args:
        device: what was passed.
        accelerator: what is counted from 0, with its article.
        example: the name of one.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"device must be {accelerator}'s number, -1, or a name such as 'cpu' or {example!r}, received {device!r}"
    )


def refuse_dtype(dtype: Any, choices: Sequence[str] = FLOAT_DTYPES) -> NoReturn:
    """Refuse a dtype in which no model computes.

    Raises:
        InputError: always.
    """
    raise InputError(f"dtype must be {', '.join(choices[:-1])} or {choices[-1]}, received {dtype!r}")
