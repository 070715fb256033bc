"""From files to models and back.

A model is built on the meta device without drawing a value, then the checkpoint's tensors are put in place. They are views into the mapped
file, so memory is the model once, and pages that are never used are never read.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from xlmr_core import hub
from xlmr_core.checkpoint import (
    Checkpoint,
    RawTensor,
    fetch_checkpoint,
    format_asked_for,
    open_checkpoint,
    save_tensors,
)
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.config_base import known_names
from xlmr_core.errors import InputError
from xlmr_core.formats.tensors import TensorInfo
from xlmr_core.load_plan import plan_load
from xlmr_core.loading import loading_info, model_config
from xlmr_core.parameters import Parameter, Role, stored_names
from xlmr_core.quantization import scheme_of
from xlmr_torch.placement import find_dtype, find_one_device
from xlmr_torch.pretrained import drawing

if TYPE_CHECKING:
    from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["NOT_NEEDED", "ONLY", "from_pretrained", "save_pretrained", "to_raw", "to_torch"]

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

# Published arguments about matters that do not arise here: any value will do.
NOT_NEEDED = (
    *hub.NOT_NEEDED,
    *("low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "offload_buffers", "weights_only"),
    *("generation_config", "use_kernels", "adapter_kwargs"),
)
_QUANTIZE_LATER = "a checkpoint loads as it is; quantize the model with optimize_for_inference(model, dtype='int8')"
# Published arguments of which only some values can be served: those values, and what to say to others.
ONLY: hub.Served = {
    **hub.ONLY,
    "variant": ((None,), "variants are not looked up; pass the path of the folder or file that holds it"),
    "quantization_config": ((None,), _QUANTIZE_LATER),
    "load_in_8bit": ((False,), _QUANTIZE_LATER),
    "load_in_4bit": ((False,), _QUANTIZE_LATER),
    "key_mapping": ((None,), "names are mapped by the loader itself; rename the tensors, or pass state_dict="),
    **dict.fromkeys(("tp_plan", "tp_size", "device_mesh"), ((None,), "shard the model with torch.distributed")),
    "push_to_hub": ((False,), "this library does not upload; use huggingface_hub.upload_folder"),
}


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
    name_or_path: str | os.PathLike[str] | None,
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
    use_safetensors: bool | None = None,
    from_tf: bool = False,
    from_flax: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a model in evaluation mode, from a checkpoint of any format in ``xlmr_core.formats``.

    Args:
        cls: the model class.
        name_or_path: a local folder, a file of weights in one, a built-in name (``xlmr-mini``), or a name on the hub; ``None`` if
            ``config`` and ``state_dict`` say all.
        *model_args, and arguments of the constructor such as ``add_pooling_layer``: passed to it.
        config: in place of the checkpoint's own.
        state_dict: tensors by canonical name in place of the checkpoint's files.
        dtype: of the parameters; ``None`` is float32, ``"auto"`` the checkpoint's own. ``torch_dtype`` is its older name.
        device, device_map: where the model goes: a device, or ``{"": device}``, or ``"auto"``.
        attn_implementation: ``sdpa`` (default) or ``eager``.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.load_plan.LoadReport` as ``info["report"]`` and its
            lists under their published names.
        use_safetensors, from_tf, from_flax: which file of a folder to read: ``model.safetensors`` (``False``: ``pytorch_model.bin``),
            ``tf_model.h5`` or ``flax_model.msgpack``. By default the first of ``xlmr_core.formats.FORMATS`` that is there.
        **kwargs: the hub's ``revision``, ``cache_dir``, ``local_files_only``, ``token``, ...; published arguments about matters that do not
            arise here (``low_cpu_mem_usage``, ...); everything else sets a value of the config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values, or weights that another library quantized.
        InputError: for an unknown dtype, device or implementation, or a published argument whose value cannot be served.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    dtype = torch_dtype if dtype is None else dtype
    where = {key: kwargs.pop(key) for key in hub.HUB_ARGUMENTS if key in kwargs}
    kwargs = hub.without_published(kwargs, ONLY, NOT_NEEDED)
    taken = inspect.signature(cls).parameters
    others = set(kwargs) - known_names(cls.config_class())
    if not any(argument.kind is argument.VAR_KEYWORD for argument in taken.values()):
        others &= taken.keys()
    model_kwargs = {key: kwargs.pop(key) for key in others}
    target = find_one_device(device if device is not None else device_map)
    if dtype not in (None, "auto"):
        dtype = find_dtype(dtype)

    format = format_asked_for(from_tf=from_tf, from_flax=from_flax, use_safetensors=use_safetensors)
    if name_or_path is not None:
        folder = fetch_checkpoint(name_or_path, format, **where)
    elif config is None or state_dict is None:
        raise InputError("expected a name or folder, received None; pass one, or both config= and state_dict=")
    else:
        folder = Path()
    config = model_config(cls.config_class, cls.__name__, folder, format, config, kwargs)
    config.name_or_path = "" if name_or_path is None else str(name_or_path)
    scheme = scheme_of(config)
    with _unfilled(cls):
        model = cls(config, *model_args, **model_kwargs)
    if scheme is not None:
        from xlmr_torch.quantized import quantize

        model = quantize(model, scheme)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    if packing is not None:
        model.set_packing(packing)

    source: Checkpoint | _StateDict = open_checkpoint(folder, format) if state_dict is None else _StateDict(state_dict)
    rows = model.parameter_table()
    plan = plan_load(
        config,
        cls._task_head.suffix,
        source,
        ignore_mismatched_sizes=ignore_mismatched_sizes,
        model=cls.__name__,
        rows=rows,
    )
    if scheme is not None and dtype in (None, "auto"):
        dtype = torch.float32
    wanted = _wanted_dtype(dtype, config, source, plan.sources.values())
    if scheme is not None and wanted is not torch.float32:
        around = f"an {scheme.name} model is float32 around its {scheme.name} weights"
        raise InputError(f"{around}, received dtype={wanted}; leave dtype out")
    copy = state_dict is not None  # a file's bytes are this model's own, the caller's tensors are not
    fresh = [name for name in plan.fresh if rows[name].role is not Role.OWN]
    for name, stored in plan.sources.items():
        dtype = _dtype_of(rows[name], _at(model, name), wanted)
        _put(model, name, to_torch(source.tensor(stored)).to(device=target, dtype=dtype, copy=copy))
    for name in fresh:
        place = _at(model, name)
        _put(model, name, torch.empty_like(place, device=target, dtype=_dtype_of(rows[name], place, wanted)))
    for row in rows.values():
        if row.tied_to in rows:  # also where it is the user's class that shares
            model._share(row.name, row.tied_to)
    with drawing(True):
        model.init_weights(fresh)
        model._init_undrawn(plan.fresh)
    if not _is_ours(cls):
        default = torch.get_default_dtype()  # of what the class's own constructor filled, if it did not say another
        model._apply(lambda x: x.to(device=target, dtype=wanted if x.dtype is default else None))
    if scheme is not None:
        model.requires_grad_(False)
    config.dtype = str(wanted).removeprefix("torch.")
    model.eval()
    return (model, loading_info(plan.report)) if output_loading_info else model


def _unfilled(cls: type[PreTrainedModel]) -> AbstractContextManager[Any]:
    """Where to build a model whose values are to be loaded: without memory, or, where a user's constructor may draw or compute values
    that no file holds, for real. Memory that nobody touches costs nothing there either.
    """
    return torch.device("meta") if _is_ours(cls) else drawing(False)


def _is_ours(cls: type[PreTrainedModel]) -> bool:
    kinds = (cls, getattr(cls, "encoder_class", cls))
    return all(str(kind.__init__.__module__).startswith("xlmr_torch.") for kind in kinds)


def _dtype_of(row: Parameter, place: Tensor, wanted: torch.dtype) -> torch.dtype | None:
    """The dtype that a stored tensor is to have: the model's, unless the table, or a user's class, say another."""
    if row.role is not Role.OWN:
        return wanted if row.dtype is None else None
    return wanted if place.dtype is torch.get_default_dtype() else place.dtype


def _at(model: nn.Module, name: str) -> Tensor:
    """The tensor of a key of the state dict."""
    module, _, attribute = name.rpartition(".")
    found: Tensor = getattr(model.get_submodule(module), attribute)
    return found


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    module, _, attribute = name.rpartition(".")
    place = model.get_submodule(module)
    if attribute in place._buffers:
        place._buffers[attribute] = tensor
    else:
        wants = getattr(place, attribute).requires_grad  # a class may have frozen it
        setattr(place, attribute, nn.Parameter(tensor, requires_grad=wants and tensor.is_floating_point()))


def _wanted_dtype(dtype: torch.dtype | str | None, config: XLMRobertaConfig, source: Any, names: Any) -> torch.dtype:
    """One dtype for all parameters. Without a wish it is the default one (float32), as in the 4.x releases of the original library."""
    if dtype is None:
        return torch.get_default_dtype()
    if dtype != "auto":
        return find_dtype(dtype)
    if config.dtype is not None:
        return find_dtype(config.dtype)
    return next((DTYPES[source.info(name).dtype] for name in names), torch.get_default_dtype())


class _StateDict:
    """A state dict read like a checkpoint file."""

    path = Path("the state_dict passed")

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def info(self, name: str) -> TensorInfo:
        # Not from the raw tensor: that would bring the values to the host each time.
        tensor = self._tensors[name]
        return TensorInfo(TAGS[tensor.dtype], tuple(tensor.shape), self.path)

    def tensor(self, name: str) -> RawTensor:
        return to_raw(self._tensors[name])


def save_pretrained(
    model: PreTrainedModel,
    folder: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write the files of :meth:`PreTrainedModel.save_pretrained`."""
    values = dict(state_dict) if state_dict is not None else model.state_dict()
    rows = model.parameter_table()
    known = [name for name in stored_names(rows) if rows[name].role is not Role.OWN]
    absent = [name for name in known if name not in values and rows[name].tied_to is None]
    if absent:
        whose = "state_dict() of the model" if state_dict is None else "state_dict passed"
        raise InputError(f"the {whose} lacks {', '.join(absent[:8])}; pass the model's whole state dict")
    others = (name for name in values if name not in rows or rows[name].role is Role.OWN)
    stored = [*known, *(name for name in others if name not in rows or rows[name].tied_to not in rows)]
    odd = [name for name in stored if name in values and values[name].dtype not in TAGS]
    if odd:
        raise InputError(f"{odd[0]} is {values[odd[0]].dtype}, which no checkpoint here holds; convert or remove it")
    empty = [name for name, tensor in values.items() if tensor.is_meta]
    if empty:
        raise InputError(
            f"{empty[0]} is on the meta device and holds no values; load or initialise the model before saving"
        )
    config = model.config.copy(architectures=[type(model).__name__], dtype=str(model.dtype).removeprefix("torch."))
    vars(config).pop("quantization_config", None)  # of the checkpoint that the config may have come from
    if model.quantization_scheme is not None:
        config.quantization_config = model.quantization_scheme.written()
    tensors = {name: partial(to_raw, values[name if name in values else rows[name].tied_to]) for name in stored}
    save_tensors(
        folder,
        tensors,
        max_shard_size=max_shard_size,
        metadata={"format": "pt"},
        together={"config.json": config.to_json_string().encode()},
    )
