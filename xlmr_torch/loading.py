"""From files to models and back.

A model is built without values, then the checkpoint's tensors are put in place. They are views into the mapped file, so
memory is the model once, and pages that are never used are never read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from xlmr_core.checkpoints.load_plan import LoadPlan, TensorFile, plan_load
from xlmr_core.checkpoints.saving import save_tensors
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.formats.base import PUBLISHED
from xlmr_core.formats.parts import names_of_model, plain_names
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.generation.config import GENERATION_CONFIG_NAME, read_generation_config
from xlmr_core.loading import StateDict, config_to_save, dtype_wanted, loading_info, metadata_to_save, read_request
from xlmr_core.own_classes import check_dtypes, check_ties
from xlmr_core.parameters import Parameter, stored_names
from xlmr_core.quantization import scheme_of
from xlmr_core.quantization.asked import asked_while_loading, loaded_as_asked, refuse_dtype_around
from xlmr_core.quantization.own import OwnScheme
from xlmr_torch.generation import GenerationMixin
from xlmr_torch.linear import loading
from xlmr_torch.placement import (
    DTYPE_OF_TAG,
    TAG_OF_DTYPE,
    as_device_map,
    find_dtype,
    find_one_device,
    refuse_meta,
)
from xlmr_torch.quantized import quantize
from xlmr_torch.values import places, put, share, tensor_at
from xlmr_torch.widening import QuantizedLayer

if TYPE_CHECKING:
    from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["from_pretrained", "save_pretrained", "to_raw", "to_torch"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")


def to_torch(raw: RawTensor) -> Tensor:
    """A tensor over the bytes of a checkpoint, without a copy."""
    dtype = DTYPE_OF_TAG[raw.dtype]
    if 0 in raw.shape:
        return torch.empty(raw.shape, dtype=dtype)
    return torch.frombuffer(raw.data, dtype=dtype).view(raw.shape)


def to_raw(tensor: Tensor) -> RawTensor:
    """The bytes of a tensor, in the host's memory."""
    tensor = tensor.detach().cpu().contiguous()
    flat = tensor.view(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0, dtype=torch.uint8)
    return RawTensor(TAG_OF_DTYPE[tensor.dtype], tuple(tensor.shape), memoryview(flat.numpy()))


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
    quantization_config: Any = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a model in evaluation mode, from a checkpoint of any format in ``xlmr_core.formats``.

    Args:
        cls: the model class.
        name_or_path: a local folder, a file of weights in one, a built-in name (``xlmr-mini``), or a name on the hub;
            ``None`` if ``config`` and ``state_dict`` say all.
        *model_args, and arguments of the constructor such as ``add_pooling_layer``: passed to it.
        config: in place of the checkpoint's own.
        state_dict: tensors by canonical name in place of the checkpoint's files.
        dtype: of the parameters; ``None`` is float32, ``"auto"`` the checkpoint's own. ``torch_dtype`` is its older
            name.
        device, device_map: where the model goes: a device, or ``{"": device}``, or ``"auto"``.
        attn_implementation: see :meth:`PreTrainedModel.set_attn_implementation`; ``sdpa`` by default.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.checkpoints.load_plan.LoadReport` as
            ``info["report"]`` and its lists under their published names.
        quantization_config: a ``BitsAndBytesConfig``, of this library or another, or a dictionary of its fields: the
            linear layers are quantized as they are loaded (docs/quantization.md). ``load_in_8bit=True`` and
            ``load_in_4bit=True`` are its older names.
        **kwargs: ``use_safetensors``, ``from_tf``, ``from_flax`` say which file of a folder to read:
            ``model.safetensors`` (``False``: ``pytorch_model.bin``), ``tf_model.h5`` or ``flax_model.msgpack``; by
            default the first of ``xlmr_core.formats.FORMATS`` that is there. Further the hub's ``revision``,
            ``cache_dir``, ``local_files_only``, ``token``, ...; ``part``, which of several models in a file; published
            arguments that ask for nothing here (``low_cpu_mem_usage``, ...); everything else sets a value of the
            config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values, or weights that another library
            quantized.
        InputError: for an unknown dtype, device or implementation, a published argument whose value cannot be
            served, or where new tensors are put on the meta device, which holds no values.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    dtype = torch_dtype if dtype is None else dtype
    refuse_meta(torch.get_default_device())
    target = find_one_device(device, device_map)
    if dtype not in (None, "auto"):
        dtype = find_dtype(dtype)
    request = read_request(cls, name_or_path, config, state_dict is not None, kwargs)
    config = request.config
    asked = asked_while_loading(quantization_config, load_in_8bit, load_in_4bit)
    source: TensorFile = (
        request.found.open()
        if request.found is not None
        else StateDict(state_dict, lambda x: (TAG_OF_DTYPE[x.dtype], tuple(x.shape)), to_raw, request.part)
    )
    scheme = scheme_of(config, source)
    if asked is not None and scheme is not None:
        scheme = loaded_as_asked(asked, scheme)
    with loading():
        model = cls(config, *model_args, **request.constructor)
    if scheme is not None:
        model = quantize(model, scheme)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    if packing is not None:
        model.set_packing(packing)
    rows = model.parameter_table()
    plan = plan_load(
        config,
        cls._task_head.suffix,
        source,
        ignore_mismatched_sizes=ignore_mismatched_sizes,
        model=cls.__name__,
        rows=rows,
    )
    if isinstance(scheme, OwnScheme) and dtype in (None, "auto"):
        dtype = torch.float32
    wanted = find_dtype(dtype_wanted(dtype, torch.get_default_dtype(), config, source, plan.sources.values()))
    if isinstance(scheme, OwnScheme) and wanted is not torch.float32:
        refuse_dtype_around(scheme, wanted)
    # A file's bytes are this model's own, the caller's tensors are not.
    _fill(model, rows, plan, source, target, wanted, copy=state_dict is not None)
    if isinstance(scheme, OwnScheme):
        model.requires_grad_(False)
    if asked is not None and scheme is None:
        model = quantize(model, asked)
    if device_map is not None:
        model.hf_device_map = as_device_map(device_map, target)
    config.dtype = str(wanted).removeprefix("torch.")
    if request.found is not None and isinstance(model, GenerationMixin):
        model.generation_config = read_generation_config(request.found.beside(GENERATION_CONFIG_NAME), config)
    model.eval()
    return (model, loading_info(plan.report)) if output_loading_info else model


def _fill(
    model: PreTrainedModel,
    rows: Mapping[str, Parameter],
    plan: LoadPlan,
    source: TensorFile,
    target: torch.device,
    wanted: torch.dtype,
    *,
    copy: bool,
) -> None:
    """Give every place of a model its values, on the device and in the dtype that are wanted."""
    for name, stored in plan.sources.items():
        dtype = _dtype_of(rows[name], tensor_at(model, name), wanted)
        put(model, name, to_torch(source.tensor(stored)).to(device=target, dtype=dtype, copy=copy))
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer):
            layer.is_mapped = not copy
    # What a user's class added and the file lacks is as the class made it, if that was more than a place.
    fresh = [name for name in plan.fresh if not rows[name].own or tensor_at(model, name).is_meta]
    for name in fresh:
        place = tensor_at(model, name)
        put(model, name, torch.empty_like(place, device=target, dtype=_dtype_of(rows[name], place, wanted)))
    for row in rows.values():
        if row.tied_to in rows:  # also where it is the user's class that shares
            share(model, row.name, row.tied_to)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        refuse_meta(tensor.device, name)  # a context such as accelerate's init_empty_weights has taken it away
    model.init_weights(fresh)
    default = torch.get_default_dtype()  # of what a user's constructor filled, if it did not say another
    model._apply(lambda x: x.to(device=target, dtype=wanted if x.dtype is default else None))


def _dtype_of(row: Parameter, place: Tensor, wanted: torch.dtype) -> torch.dtype | None:
    """The dtype that a stored tensor is to have: the model's, unless the table, or a user's class, say another."""
    if not row.own:
        return wanted if row.dtype is None else None
    return wanted if place.dtype is torch.get_default_dtype() else place.dtype


def save_pretrained(
    model: PreTrainedModel,
    folder: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write the files of :meth:`PreTrainedModel.save_pretrained`."""
    rows = model.parameter_table()
    values = dict(state_dict) if state_dict is not None else model.state_dict()
    empty = [name for name, tensor in values.items() if tensor.is_meta]
    if empty:
        raise InputError(
            f"{empty[0]} is on the meta device and holds no values; load or initialise the model before saving"
        )
    placeholders = [name for name, tensor in values.items() if not tensor.numel() and PUBLISHED.match(name)]
    if placeholders:
        raise InputError(
            f"{placeholders[0]} is a placeholder without values, as DeepSpeed ZeRO-3 and FSDP leave them; gather the "
            "whole state dict and pass it as state_dict="
        )
    if state_dict is None:
        _check_ties(model, rows)
    tensors = _tensors_to_save(rows, values, "state_dict() of the model" if state_dict is None else "state_dict passed")
    config = config_to_save(model.config, _class_name(model), str(model.dtype).removeprefix("torch."))
    if model.quantization_scheme is not None:
        config.quantization_config = model.quantization_scheme.written()
    together = {"config.json": config.to_json_string().encode()}
    if isinstance(model, GenerationMixin):
        together[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string().encode()
    save_tensors(
        folder,
        {name: partial(to_raw, tensor) for name, tensor in tensors.items()},
        max_shard_size=max_shard_size,
        metadata=metadata_to_save(tensors, rows),
        together=together,
    )


def _class_name(model: PreTrainedModel) -> str:
    """The name of a model's class, before which FSDP2 puts one of its own."""
    return next(kind for kind in type(model).__mro__ if not kind.__module__.startswith("torch.")).__name__


def _tensors_to_save(rows: Mapping[str, Parameter], values: Mapping[str, Tensor], whose: str) -> dict[str, Tensor]:
    """What a checkpoint stores of a state dict: what is tied once, and whatever else is in it."""
    known = [name for name in stored_names(rows) if not rows[name].own]
    absent = [name for name in known if name not in values and rows[name].tied_to is None]
    if absent:  # of a wrapper, perhaps
        names = names_of_model(f"the {whose}", tuple(values), {}, None)
        values = {canonical: values[name] for name, canonical in names.items()}
        absent = [name for name in absent if name not in values]
    if absent:
        raise InputError(f"the {whose} lacks {', '.join(absent[:8])}; pass the model's whole state dict")
    others = (name for name in values if name not in rows or rows[name].own)
    stored = [*known, *(name for name in others if name not in rows or rows[name].tied_to not in rows)]
    plain = plain_names(stored)
    tensors = {plain[name]: values[name if name in values else rows[name].tied_to or name] for name in stored}
    check_dtypes(
        {name: TAG_OF_DTYPE.get(tensor.dtype) for name, tensor in tensors.items()},
        {name: tensor.dtype for name, tensor in tensors.items()},
    )
    return tensors


def _check_ties(model: PreTrainedModel, rows: Mapping[str, Parameter]) -> None:
    """Refuse a tied parameter whose values would be lost; copies that say the same are no loss."""
    here = places(model)
    for row in rows.values():
        if row.tied_to in here and here[row.name].tensor != here[row.tied_to].tensor:
            one, other = tensor_at(model, row.name), tensor_at(model, row.tied_to)
            if one.shape == other.shape and torch.equal(one, other.to(one.device)):
                here[row.name] = here[row.tied_to]
    check_ties(rows, here)
