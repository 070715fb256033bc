"""From files to models and back.

A model is built without drawing a value or touching its memory, then the checkpoint's tensors are put in place, a piece at a time. The pages of
the mapped file that a piece came from are given back at once, so memory is the model once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

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
from xlmr_core.errors import InputError
from xlmr_core.formats.tensors import TensorInfo
from xlmr_core.load_plan import plan_load
from xlmr_core.loading import loading_info, model_config
from xlmr_core.parameters import Role, stored_names
from xlmr_core.quantization import refuse_quantized
from xlmr_tf.linear import loading
from xlmr_tf.placement import find_dtype, find_one_device

if TYPE_CHECKING:
    from xlmr_tf.pretrained import PreTrainedModel

__all__ = ["NOT_NEEDED", "ONLY", "from_pretrained", "save_pretrained", "to_raw"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# The dtype of a policy's variables by the tags of safetensors.
DTYPES: dict[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

# Published arguments about matters that do not arise here: any value will do.
NOT_NEEDED = (
    *hub.NOT_NEEDED,
    *("low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "offload_buffers", "weights_only"),
    *("generation_config", "use_kernels", "load_weight_prefix", "tf_to_pt_weight_rename"),
)
_NOT_QUANTIZED = (
    "this backend computes in floating point; xlmr_torch.optimize_for_inference(model, dtype='int8') quantizes"
)
# Published arguments of which only some values can be served: those values, and what to say to others.
ONLY: hub.Served = {
    **hub.ONLY,
    "variant": ((None,), "variants are not looked up; pass the path of the folder or file that holds it"),
    "quantization_config": ((None,), _NOT_QUANTIZED),
    "load_in_8bit": ((False,), _NOT_QUANTIZED),
    "load_in_4bit": ((False,), _NOT_QUANTIZED),
    "key_mapping": ((None,), "names are mapped by the loader itself; rename the tensors, or pass state_dict="),
    "push_to_hub": ((False,), "this library does not upload; use huggingface_hub.upload_folder"),
}


def to_raw(values: NDArray[Any]) -> RawTensor:
    """The bytes of an array, NumPy's extension type for bfloat16 included."""
    if values.dtype.name == "bfloat16":
        raw = RawTensor.from_numpy(values.view(np.uint16))
        return RawTensor("BF16", raw.shape, raw.data)
    return RawTensor.from_numpy(values)


def from_pretrained(
    cls: type[ModelT],
    name_or_path: str | os.PathLike[str] | None,
    *model_args: Any,
    config: XLMRobertaConfig | str | os.PathLike[str] | None = None,
    state_dict: Mapping[str, Any] | None = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    device: str | int | None = None,
    device_map: str | int | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    packing: str | None = None,
    ignore_mismatched_sizes: bool = False,
    output_loading_info: bool = False,
    use_safetensors: bool | None = None,
    from_pt: bool = False,
    from_tf: bool = False,
    from_flax: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a model, from a checkpoint of any format in ``xlmr_core.formats``.

    Args:
        cls: the model class.
        name_or_path: a local folder, a file of weights in one, a built-in name (``xlmr-mini``), or a name on the hub; ``None`` if
            ``config`` and ``state_dict`` say all.
        *model_args, and model arguments such as ``add_pooling_layer``, ``name``, ``trainable``: passed to the constructor.
        config: in place of the checkpoint's own.
        state_dict: arrays by canonical name and in canonical layout, in place of the checkpoint's files.
        dtype: the dtype policy, ``mixed_float16`` and ``mixed_bfloat16`` included; ``None`` is Keras's global one, ``"auto"`` the
            checkpoint's own dtype. ``torch_dtype`` is its older name.
        device, device_map: where the variables go: ``cpu``, ``gpu:0``, or a GPU's number; by default TensorFlow's choice.
        attn_implementation: ``sdpa`` (default) or ``eager``.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.load_plan.LoadReport` as ``info["report"]`` and its
            lists under their published names.
        use_safetensors, from_pt, from_tf, from_flax: which file of a folder to read. By default, and with ``from_pt``, the first of
            ``xlmr_core.formats.FORMATS`` that is there.
        **kwargs: the hub's ``revision``, ``cache_dir``, ``local_files_only``, ``token``, ...; published arguments about matters that do not
            arise here (``low_cpu_mem_usage``, ...); everything else sets a value of the config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values, or quantized weights.
        InputError: for an unknown dtype, device or implementation, or a published argument whose value cannot be served.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    dtype = torch_dtype if dtype is None else dtype
    where = {key: kwargs.pop(key) for key in hub.HUB_ARGUMENTS if key in kwargs}
    kwargs = hub.without_published(kwargs, ONLY, NOT_NEEDED)
    of_model = ("add_pooling_layer", "name", "trainable")
    model_kwargs = {key: kwargs.pop(key) for key in of_model if key in kwargs}
    target = find_one_device(device if device is not None else device_map)
    if dtype not in (None, "auto"):
        dtype = find_dtype(dtype)

    format = format_asked_for(from_pt=from_pt, from_tf=from_tf, from_flax=from_flax, use_safetensors=use_safetensors)
    if name_or_path is not None:
        folder = fetch_checkpoint(name_or_path, format, **where)
    elif config is None or state_dict is None:
        raise InputError("expected a name or folder, received None; pass one, or both config= and state_dict=")
    else:
        folder = Path()
    config = model_config(cls.config_class, cls.__name__, folder, format, config, kwargs)
    config.name_or_path = "" if name_or_path is None else str(name_or_path)
    refuse_quantized(config, folder)
    source: Checkpoint | _StateDict = open_checkpoint(folder, format) if state_dict is None else _StateDict(state_dict)
    if dtype == "auto":
        dtype = find_dtype(config.dtype) if config.dtype is not None else _dtype_in(source)
    with loading(), tf.device(target):
        model = cls(config, *model_args, dtype=dtype, **model_kwargs)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    if packing is not None:
        model.set_packing(packing)

    plan = plan_load(
        config,
        cls._task_head.suffix,
        source,
        pooler=model.base_model.pooler is not None,
        ignore_mismatched_sizes=ignore_mismatched_sizes,
        model=cls.__name__,
    )
    rows = model.parameter_table()
    for name, stored in plan.sources.items():
        _put(model.get_parameter(name), source.tensor(stored), transposed=rows[name].role is Role.LINEAR_WEIGHT)
    model.init_weights(plan.fresh)
    config.dtype = str(model.variable_dtype)
    return (model, loading_info(plan.report)) if output_loading_info else model


def _put(variable: keras.Variable, raw: RawTensor, *, transposed: bool) -> None:
    """Fill a variable; not by updates of rows: one that ever had such an update is copied by TensorFlow whenever it is read."""
    variable.assign(_in_place(raw.to_aligned(tf.as_dtype(variable.dtype).as_numpy_dtype, transposed=transposed)))


def _in_place(values: NDArray[Any]) -> tf.Tensor:
    """A tensor of the memory of an array; TensorFlow's own conversion copies."""
    bits = values.view(f"u{values.itemsize}")  # NumPy does not exchange bfloat16
    return tf.bitcast(tf.experimental.dlpack.from_dlpack(bits.__dlpack__()), values.dtype)


def _dtype_in(source: Checkpoint | _StateDict) -> str | None:
    """The dtype of the first floating point tensor."""
    tags = (source.info(name).dtype for name in source.names)
    return next((DTYPES[tag] for tag in tags if tag in DTYPES), None)


class _StateDict:
    """Arrays by name, read like a checkpoint file."""

    path = Path("the state_dict passed")

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._arrays)

    def info(self, name: str) -> TensorInfo:
        raw = self.tensor(name)
        return TensorInfo(raw.dtype, tuple(raw.shape), self.path)

    def tensor(self, name: str) -> RawTensor:
        return to_raw(np.asarray(self._arrays[name]))


def save_pretrained(model: PreTrainedModel, folder: Path, *, max_shard_size: int | str = "5GB") -> None:
    """Write the files of :meth:`PreTrainedModel.save_pretrained`."""
    rows = model.parameter_table()
    known = {id(model.get_parameter(name)) for name in rows}
    # Adapters are added to the values of their layers.
    own = [v.path for v in model.weights if id(v) not in known and not v.name.startswith("lora_")]
    if own:
        warnings.warn(
            f"{', '.join(own[:8])} {'is' if len(own) == 1 else 'are'} no part of a published {model.config.model_type} model and not saved; "
            "save a class of your own with model.save_weights(...) beside it",
            UserWarning,
            stacklevel=3,
        )
    config = model.config.copy(architectures=[type(model).__name__.removeprefix("TF")], dtype=str(model.variable_dtype))
    vars(config).pop("quantization_config", None)  # of the checkpoint that the config may have come from
    save_tensors(
        folder,
        {name: partial(_raw_of, model, name) for name in stored_names(rows)},
        max_shard_size=max_shard_size,
        metadata={"format": "pt"},
        together={"config.json": config.to_json_string().encode()},
    )


def _raw_of(model: PreTrainedModel, name: str) -> RawTensor:
    return to_raw(model.get_values(name))
