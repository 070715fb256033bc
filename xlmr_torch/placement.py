"""Devices and dtypes as users name them, checked before anything is loaded or moved; dtypes as files name them."""

from __future__ import annotations

from typing import Any

import torch

from xlmr_core.errors import InputError
from xlmr_core.placement import one_device, refuse_absent, refuse_device, refuse_dtype

__all__ = [
    *("DTYPE_OF_TAG", "TAG_OF_DTYPE"),
    *("NoValuesError", "as_device_map", "find_device", "find_dtype", "find_one_device", "refuse_meta"),
]

# By the tags of safetensors.
DTYPE_OF_TAG: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
TAG_OF_DTYPE = {dtype: tag for tag, dtype in DTYPE_OF_TAG.items()}


class NoValuesError(InputError, RuntimeError):
    """Values are asked for where there can be none. The original library raises a ``RuntimeError``."""


def find_device(device: int | str | torch.device) -> torch.device:
    """A device by number (0 is the first GPU, -1 the CPU), by name, or as it is.

    Raises:
        InputError: if there is no such device on this machine.
    """
    if isinstance(device, int):
        device = "cpu" if device < 0 else f"cuda:{device}"
    try:
        found = torch.device(device)
    except RuntimeError:
        refuse_device(device, "a GPU's number, -1, or a name such as 'cpu' or 'cuda:0'")
    if found.type not in ("cpu", "cuda", "mps", "xpu"):
        refuse_device(str(found), "'cpu', 'cuda', 'mps' or 'xpu', where models can run")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        refuse_absent(str(found), "a CUDA GPU", "PyTorch", torch.cuda.device_count(), "a CUDA build of torch")
    if found.type == "mps" and not torch.backends.mps.is_available():
        refuse_absent(str(found), "an Apple GPU", "PyTorch", None, "a build of torch for macOS")
    return found


def find_one_device(
    device: str | int | torch.device | None, device_map: str | int | torch.device | dict[str, Any] | None = None
) -> torch.device:
    """The device that ``device`` or ``device_map`` mean; a model is never spread over several.

    Raises:
        InputError: for several devices, or one that is not there.
    """
    found = one_device(device, device_map)
    if found is None:
        return torch.get_default_device()
    if found == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return find_device(found)


def as_device_map(device_map: Any, found: torch.device) -> dict[str, Any]:
    """The published ``hf_device_map`` of a model: what was passed if it says all, else the whole model and its device.

    Args:
        device_map: what was passed.
        found: the device that it means.
    """
    if isinstance(device_map, dict):
        return dict(device_map)
    return {"": (found.index or 0) if found.type == "cuda" else found.type}


def refuse_meta(device: torch.device, name: str = "new tensors") -> None:
    """Refuse to load where tensors hold no values.

    Raises:
        NoValuesError: for the meta device.
    """
    if device.type == "meta":
        raise NoValuesError(
            f"from_pretrained gives a model its values, but {name} would be on the meta device, which holds none; "
            "load outside torch.device('meta'), set_default_device('meta') and init_empty_weights(), "
            "or build an empty model there with Model(config)"
        )


def find_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A floating point dtype by name (``bfloat16``, ``torch.bfloat16``) or as it is.

    Raises:
        InputError: for anything else.
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        refuse_dtype(dtype)
    return found
