"""From files to models and back.

A model is built of shapes without drawing a value, then the checkpoint's tensors are put in place, a piece at a time, and JAX takes that memory
over. The pages of the mapped file that a piece came from are let go at once, so memory is the model once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_core import hub
from xlmr_core.checkpoint import (
    Checkpoint,
    RawTensor,
    fetch_checkpoint,
    format_asked_for,
    open_checkpoint,
    save_checkpoint,
)
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.load_plan import plan_load
from xlmr_core.loading import loading_info, model_config
from xlmr_core.parameters import Parameter, Role, stored_names
from xlmr_core.quantization import refuse_quantized
from xlmr_flax.functional import path_of, to_canonical, unflatten, with_params
from xlmr_flax.placement import find_device, find_dtype

if TYPE_CHECKING:
    from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["NOT_NEEDED", "ONLY", "from_pretrained", "save_pretrained", "to_numpy", "to_raw"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# By the tags of safetensors.
DTYPES: dict[str, Any] = {
    "F64": jnp.dtype("float64"),
    "F32": jnp.dtype("float32"),
    "F16": jnp.dtype("float16"),
    "BF16": jnp.dtype("bfloat16"),
}
TAGS = {dtype: tag for tag, dtype in DTYPES.items()}

# Published arguments about matters that do not arise here: any value will do.
NOT_NEEDED = (*hub.NOT_NEEDED, "generation_config")
# Published arguments of which only some values can be served: those values, and what to say to others.
ONLY: hub.Served = {
    **hub.ONLY,
    "variant": ((None,), "variants are not looked up; pass the path of the folder or file that holds it"),
    "quantization_config": ((None,), "this backend computes in floating point; load the original checkpoint"),
    "push_to_hub": ((False,), "this library does not upload; use huggingface_hub.upload_folder"),
}
# What goes to the model's constructor.
MODEL_ARGUMENTS = ("input_shape", "gradient_checkpointing", "add_pooling_layer")


def to_numpy(raw: RawTensor) -> np.ndarray[Any, Any]:
    """An array over the bytes of a checkpoint, without a copy; bfloat16 as JAX's own NumPy dtype."""
    return np.frombuffer(raw.data, DTYPES[raw.dtype]).reshape(raw.shape)


def to_raw(array: Any) -> RawTensor:
    """The bytes of an array, in the host's memory."""
    host = np.ascontiguousarray(array)
    return RawTensor(TAGS[host.dtype], host.shape, memoryview(host.reshape(-1).view(np.uint8)))


def from_pretrained(
    cls: type[ModelT],
    name_or_path: str | os.PathLike[str],
    dtype: Any = jnp.float32,
    *,
    config: XLMRobertaConfig | str | os.PathLike[str] | None = None,
    param_dtype: Any = None,
    device: int | str | jax.Device | None = None,
    seed: int = 0,
    _do_init: bool = True,
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
        name_or_path: a local folder, a file of weights in one, a built-in name (``xlmr-mini``), or a name on the hub.
        dtype: in which everything is computed; it leaves the parameters as they are.
        config: in place of the checkpoint's own.
        param_dtype: of the parameters; ``None`` is float32, ``"auto"`` the checkpoint's own.
        device: where the parameters go, such as ``"cpu"`` or ``"gpu:1"``; default: JAX's default device.
        seed: of the random key for parts that start fresh.
        _do_init: ``False`` returns ``(model, params)``, and the model itself holds no parameters.
        attn_implementation: ``sdpa`` (default) or ``eager``.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.load_plan.LoadReport` as ``info["report"]`` and its
            lists under their published names.
        use_safetensors, from_pt, from_tf, from_flax: which file of a folder to read. By default, and with ``from_pt``, the first of
            ``xlmr_core.formats.FORMATS`` that is there.
        **kwargs: ``gradient_checkpointing``, ``add_pooling_layer``; the hub's ``revision``, ``cache_dir``, ``local_files_only``, ``token``,
            ...; published arguments about matters that do not arise here; everything else sets a value of the config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values, or a quantized checkpoint.
        InputError: for an unknown dtype, device or implementation, or a published argument whose value cannot be served.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    where = {key: kwargs.pop(key) for key in hub.HUB_ARGUMENTS if key in kwargs}
    kwargs = hub.without_published(kwargs, ONLY, NOT_NEEDED)
    model_kwargs = {key: kwargs.pop(key) for key in MODEL_ARGUMENTS if key in kwargs}
    target = find_device(device)
    dtype = find_dtype(jnp.float32 if dtype is None else dtype)
    if param_dtype not in (None, "auto"):
        param_dtype = find_dtype(param_dtype)

    format = format_asked_for(from_pt=from_pt, from_tf=from_tf, from_flax=from_flax, use_safetensors=use_safetensors)
    folder = fetch_checkpoint(name_or_path, format, **where)
    config = model_config(cls.config_class, cls.__name__, folder, format, config, kwargs)
    config.name_or_path = str(name_or_path)
    refuse_quantized(config, folder)
    model = cls(config, dtype=dtype, _do_init=False, **model_kwargs)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    if packing is not None:
        model.set_packing(packing)

    with open_checkpoint(folder, format) as source:
        plan = plan_load(
            config,
            cls._task_head.suffix,
            source,
            pooler=model.base_model.pooler is not None,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            model=cls.__name__,
        )
        wanted = _wanted_dtype(param_dtype, config, source, plan.sources.values())
        rows = model.parameter_table()
        leaves = {}
        for name, stored in plan.sources.items():
            leaves[path_of(rows[name])] = _put(rows[name], source.tensor(stored), wanted, target)
    key = jax.random.key(seed)
    for name in plan.fresh:
        leaves[path_of(rows[name])] = jax.device_put(model._fresh(rows[name], key, wanted), target)
    config.dtype = wanted.name
    params = unflatten(leaves)
    if _do_init:
        model.params = params
    found = model if _do_init else (model, params)
    return (found, loading_info(plan.report)) if output_loading_info else found


def _put(row: Parameter, raw: RawTensor, dtype: Any, device: jax.Device | None) -> jax.Array:
    """A parameter on its device; on a CPU JAX takes the copy's memory over."""
    transposed = row.role is Role.LINEAR_WEIGHT
    return jax.device_put(raw.to_aligned(dtype, transposed=transposed, decode=to_numpy), device)


def _wanted_dtype(dtype: Any, config: XLMRobertaConfig, source: Checkpoint, names: Any) -> Any:
    """One dtype for all parameters. Without a wish it is float32, as in the 4.x releases of the original library."""
    if dtype is None:
        return jnp.dtype("float32")
    if dtype != "auto":
        return find_dtype(dtype)
    if config.dtype is not None:
        return find_dtype(config.dtype)
    return next((DTYPES[source.info(name).dtype] for name in names), jnp.dtype("float32"))


def save_pretrained(
    model: PreTrainedModel,
    folder: Path,
    *,
    params: Mapping[str, Any] | None = None,
    format: str = "safetensors",
    max_shard_size: int | str = "5GB",
) -> None:
    """Write the files of :meth:`PreTrainedModel.save_pretrained`, in a format of ``xlmr_core.formats``."""
    params = model.params if params is None else with_params(model, params).params
    rows = model.parameter_table()
    values = to_canonical(rows, params)
    tensors = {name: partial(_raw_of, values, rows[name]) for name in stored_names(rows)}
    dtype = jnp.dtype(next(iter(values.values())).dtype).name
    config = model.config.copy(architectures=[type(model).__name__.removeprefix("Flax")], dtype=dtype)
    save_checkpoint(
        folder,
        format,
        tensors,
        config,
        model._task_head.suffix,
        max_shard_size=max_shard_size,
        metadata={"format": "pt"},
        together={"config.json": config.to_json_string().encode()},
    )


def _raw_of(values: Mapping[str, Any], row: Parameter) -> RawTensor:
    return to_raw(values[row.name if row.name in values else row.tied_to])
