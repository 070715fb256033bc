"""From files to models and back.

A model is built on the meta device without drawing a value, then the checkpoint's tensors are put in place. They are views into the mapped
file, so memory is the model once, and pages that are never used are never read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint, RawTensor, open_checkpoint, save_tensors
from xlmr_core.config import SHARED_DEFAULTS, XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.hub import HUB_ARGUMENTS, resolve
from xlmr_core.load_plan import LoadReport, plan_load
from xlmr_core.parameters import stored_names
from xlmr_torch.placement import find_device, find_dtype

if TYPE_CHECKING:
    from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["from_pretrained", "save_pretrained", "to_raw", "to_torch"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# By the tags of safetensors.
DTYPES: dict[str, torch.dtype] = {
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
TAGS = {dtype: tag for tag, dtype in DTYPES.items()}

# Files of a checkpoint that from_pretrained fetches from the hub.
PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json")
# Published arguments that choose between formats or memory strategies; there is one of each here.
ACCEPTED = ("low_cpu_mem_usage", "use_safetensors", "trust_remote_code", "resume_download", "proxies", "local_dir")


def to_torch(raw: RawTensor) -> Tensor:
    """A tensor over the bytes of a checkpoint, without a copy."""
    dtype = DTYPES[raw.dtype]
    if 0 in raw.shape:
        return torch.empty(raw.shape, dtype=dtype)
    return torch.frombuffer(raw.data, dtype=dtype).view(raw.shape)


def to_raw(tensor: Tensor) -> RawTensor:
    """The bytes of a tensor, in the host's memory."""
    tensor = tensor.detach().cpu().contiguous()
    flat = tensor.view(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0, dtype=torch.uint8)
    return RawTensor(TAGS[tensor.dtype], tuple(tensor.shape), memoryview(flat.numpy()))


def from_pretrained(
    cls: type[ModelT],
    name_or_path: str | os.PathLike[str],
    *model_args: Any,
    config: XLMRobertaConfig | str | os.PathLike[str] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device: str | int | torch.device | None = None,
    device_map: str | int | torch.device | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    packing: str | None = None,
    ignore_mismatched_sizes: bool = False,
    output_loading_info: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a model in evaluation mode.

    Args:
        cls: the model class.
        name_or_path: a local folder, a built-in name (``xlmr-mini``), or a name on the hub.
        *model_args, and model arguments such as ``add_pooling_layer``: passed to the constructor.
        config: in place of the checkpoint's own.
        state_dict: tensors by canonical name in place of the checkpoint's files.
        dtype: of the parameters; ``None`` is float32, ``"auto"`` the checkpoint's own. ``torch_dtype`` is its older name.
        device, device_map: where the model goes: a device, or ``{"": device}``, or ``"auto"``.
        attn_implementation: ``sdpa`` (default) or ``eager``.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.load_plan.LoadReport` as ``info["report"]`` and its
            lists under their published names.
        **kwargs: the hub's ``revision``, ``cache_dir``, ``local_files_only``, ``token``, ...; everything else sets a value of the config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values.
        InputError: for an unknown dtype, device or implementation.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    dtype = torch_dtype if dtype is None else dtype
    where = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
    for key in ACCEPTED:
        kwargs.pop(key, None)
    model_kwargs = {key: kwargs.pop(key) for key in ("add_pooling_layer",) if key in kwargs}
    target = _one_device(device if device is not None else device_map)
    if dtype not in (None, "auto"):
        dtype = find_dtype(dtype)

    folder = resolve(name_or_path, patterns=PATTERNS, **where)
    config = _config(cls, folder, config, kwargs)
    config.name_or_path = str(name_or_path)
    with torch.device("meta"):
        model = cls(config, *model_args, **model_kwargs)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    if packing is not None:
        model.set_packing(packing)

    source: Checkpoint | _StateDict = open_checkpoint(folder) if state_dict is None else _StateDict(state_dict)
    plan = plan_load(
        config,
        cls.head.suffix,
        source,
        pooler=model.base_model.pooler is not None,
        ignore_mismatched_sizes=ignore_mismatched_sizes,
    )
    wanted = _wanted_dtype(dtype, config, source, plan.sources.values())
    copy = state_dict is not None  # a file's bytes are this model's own, the caller's tensors are not
    for name, stored in plan.sources.items():
        _put(model, name, to_torch(source.tensor(stored)).to(device=target, dtype=wanted, copy=copy))
    for name in plan.fresh:
        _put(model, name, torch.empty_like(model.get_parameter(name), device=target, dtype=wanted))
    model.tie_weights()
    model.init_weights(plan.fresh)
    config.dtype = str(wanted).removeprefix("torch.")
    model.eval()
    return (model, _loading_info(plan.report)) if output_loading_info else model


def _config(
    cls: type[PreTrainedModel],
    folder: Path,
    config: XLMRobertaConfig | str | os.PathLike[str] | None,
    overrides: dict[str, Any],
) -> XLMRobertaConfig:
    known = (
        config
        if isinstance(config, XLMRobertaConfig)
        else cls.config_class.from_pretrained(folder if config is None else config)
    )
    for key in overrides:
        if not hasattr(known, key) and key not in SHARED_DEFAULTS:
            raise TypeError(
                f"{cls.__name__}.from_pretrained() does not know the argument {key!r}, and neither does its config; check the spelling"
            )
    return known.copy(**overrides)  # the caller's own object stays as it is


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, nn.Parameter(tensor))


def _wanted_dtype(dtype: torch.dtype | str | None, config: XLMRobertaConfig, source: Any, names: Any) -> torch.dtype:
    """One dtype for all parameters. Without a wish it is the default one (float32), as in the 4.x releases of the original library."""
    if dtype is None:
        return torch.get_default_dtype()
    if dtype != "auto":
        return find_dtype(dtype)
    if config.dtype is not None:
        return find_dtype(config.dtype)
    return next((DTYPES[source.info(name).dtype] for name in names), torch.get_default_dtype())


def _one_device(device: str | int | torch.device | dict[str, Any] | None) -> torch.device:
    """The device that ``device`` or ``device_map`` mean; a model is never spread over several."""
    if isinstance(device, dict):
        if len(set(map(str, device.values()))) != 1:
            raise InputError(
                f"device_map must put the whole model on one device, received {device!r}; pass device='cuda:0' or similar"
            )
        device = next(iter(device.values()))
    if device is None:
        return torch.get_default_device()
    if device in ("auto", "balanced", "balanced_low_0", "sequential"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return find_device(device)


class _StateDict:
    """A state dict read like a checkpoint file."""

    path = "the state_dict passed"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def info(self, name: str) -> Any:
        return self.tensor(name)

    def tensor(self, name: str) -> RawTensor:
        return to_raw(self._tensors[name])


def _loading_info(report: LoadReport) -> dict[str, Any]:
    return {
        "missing_keys": list(report.missing),
        "unexpected_keys": list(report.unexpected),
        "mismatched_keys": [tuple(row) for row in report.mismatched],
        "error_msgs": [],
        "report": report,
    }


def save_pretrained(
    model: PreTrainedModel,
    folder: Path,
    *,
    max_shard_size: int | str = "5GB",
    state_dict: Mapping[str, Tensor] | None = None,
    safe_serialization: bool = True,
    is_main_process: bool = True,
    **kwargs: Any,
) -> None:
    """Save ``config.json`` and safetensors; an interruption leaves an older checkpoint in the folder whole.

    Args:
        model: what to save.
        folder: made if it is missing.
        max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
        state_dict: tensors by canonical name in place of the model's own (as collected from a sharded model).
        safe_serialization: must be true; nothing here writes pickles.
        is_main_process: write only in the main process of a distributed run.
        **kwargs: ``push_to_hub=False`` and ``variant=None`` of the published signature.

    Raises:
        InputError: for ``safe_serialization=False``, or parameters on the meta device.
        ConfigError: for a config that cannot be written.
        CheckpointError: if the disk refuses.
        TypeError: for an argument that is not known.
    """
    unknown = {
        key
        for key, value in kwargs.items()
        if not (key in ("push_to_hub", "variant", "token", "save_peft_format") and not value)
    }
    if unknown:
        raise TypeError(f"save_pretrained() does not know {', '.join(sorted(unknown))}")
    if not safe_serialization:
        raise InputError(
            "safe_serialization=False would write a pickle, which can run code when it is read; leave it True"
        )
    if not is_main_process:
        return
    values = dict(state_dict) if state_dict is not None else model.state_dict()
    rows = model.parameter_table()
    stored = stored_names(rows)
    absent = [name for name in stored if name not in values and rows[name].tied_to is None]
    if absent:
        raise InputError(f"the state_dict passed lacks {', '.join(absent[:8])}; pass the model's whole state dict")
    empty = [name for name, tensor in values.items() if tensor.is_meta]
    if empty:
        raise InputError(
            f"{empty[0]} is on the meta device and holds no values; load or initialise the model before saving"
        )
    config = model.config.copy(architectures=[type(model).__name__], dtype=str(model.dtype).removeprefix("torch."))
    config.to_json_string()  # refuses before anything is written
    tensors = {name: partial(to_raw, values[name if name in values else rows[name].tied_to]) for name in stored}
    save_tensors(folder, tensors, max_shard_size=max_shard_size, metadata={"format": "pt"})
    config.save_pretrained(folder)
