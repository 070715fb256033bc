"""From files to models and back.

A model is built of shapes without drawing a value, then the checkpoint's tensors are put in place, a piece at a time,
and JAX takes that memory over. The pages of the mapped file that a piece came from are let go at once, so memory is the
model once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xlmr_core.checkpoints.load_plan import LoadPlan, LoadWarning, TensorFile, plan_load
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.formats import Checkpoint
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.generation.config import GENERATION_CONFIG_NAME, read_generation_config
from xlmr_core.loading import StateDict, config_to_save, dtype_wanted, loading_info, metadata_to_save, read_request
from xlmr_core.own_classes import check_dtypes, check_ties, own_names, refuse_lost
from xlmr_core.parameters import Parameter, stored_names
from xlmr_core.quantization import scheme_of
from xlmr_core.quantization.asked import asked_while_loading, loaded_as_asked, refuse_dtype_around
from xlmr_core.quantization.own import OwnScheme
from xlmr_flax.functional import flatten, in_layout, is_transposed, unflatten, with_params, write_params
from xlmr_flax.generation import GenerationMixin
from xlmr_flax.linear import loading
from xlmr_flax.placement import DTYPE_OF_TAG, TAG_OF_DTYPE, find_dtype, find_one_device
from xlmr_flax.quantized import quantize
from xlmr_flax.values import lost, places, spots
from xlmr_flax.widening import Derived

if TYPE_CHECKING:
    from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["from_pretrained", "save_pretrained", "to_numpy", "to_raw"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")

# What stands in a safetensors file of ours whose parameters are not float32.
PARAMETERS = {"parameters": "flax"}


def to_numpy(raw: RawTensor) -> np.ndarray[Any, Any]:
    """An array over the bytes of a checkpoint, without a copy; bfloat16 as JAX's own NumPy dtype."""
    return np.frombuffer(raw.data, DTYPE_OF_TAG[raw.dtype]).reshape(raw.shape)


def to_raw(array: Any) -> RawTensor:
    """The bytes of an array, in the host's memory."""
    host = np.asarray(array)
    flat = np.ascontiguousarray(host).reshape(-1)
    return RawTensor(TAG_OF_DTYPE[host.dtype], host.shape, memoryview(flat.view(np.uint8)))


def from_pretrained(
    cls: type[ModelT],
    name_or_path: str | os.PathLike[str] | None,
    dtype: Any = jnp.float32,
    *,
    config: XLMRobertaConfig | str | os.PathLike[str] | None = None,
    state_dict: Mapping[str, Any] | None = None,
    param_dtype: Any = None,
    torch_dtype: Any = None,
    device: int | str | jax.Device | None = None,
    device_map: int | str | jax.Device | dict[str, Any] | None = None,
    seed: int = 0,
    _do_init: bool = True,
    attn_implementation: str | None = None,
    packing: str | None = None,
    ignore_mismatched_sizes: bool = False,
    output_loading_info: bool = False,
    quantization_config: Any = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a model, from a checkpoint of any format in ``xlmr_core.formats``.

    Args:
        cls: the model class.
        name_or_path: a local folder, a file of weights in one, a built-in name (``xlmr-mini``), or a name on the hub;
            ``None`` if ``config`` and ``state_dict`` say all.
        dtype: in which everything is computed; it leaves the parameters as they are.
        config: in place of the checkpoint's own.
        state_dict: arrays by canonical name and in canonical layout, in place of the checkpoint's files.
        param_dtype: of the parameters; ``"auto"`` is the checkpoint's own, ``None`` is float32, but parameters that a
            Flax model saved stay as they were, with a warning where that is not float32. ``torch_dtype``, which says
            the same in scripts for PyTorch, is taken for it.
        device, device_map: where the parameters go, such as ``"cpu"`` or ``"gpu:1"``; default: JAX's default device.
        seed: of the random key for parts that start fresh.
        _do_init: ``False`` returns ``(model, params)``, and the model itself holds no parameters; quantized weights,
            which are none, it holds.
        attn_implementation: ``sdpa`` (default) or ``eager``.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.checkpoints.load_plan.LoadReport` as
            ``info["report"]`` and its lists under their published names.
        quantization_config: a ``BitsAndBytesConfig``, of this library or another, or a dictionary of its fields: the
            linear layers are quantized as they are loaded (docs/quantization.md). ``load_in_8bit=True`` and
            ``load_in_4bit=True`` are its older names.
        **kwargs: ``use_safetensors``, ``from_pt``, ``from_tf``, ``from_flax`` say which file of a folder to read; by
            default, and with ``from_pt``, the first of ``xlmr_core.formats.FORMATS`` that is there. Further what the
            constructor takes (``gradient_checkpointing``, ``add_pooling_layer``, a user's own); the hub's ``revision``,
            ``cache_dir``, ``local_files_only``, ``token``, ...; ``part``, which of several models in a file; published
            arguments that ask for nothing here (``low_cpu_mem_usage``, ...); everything else sets a value of the
            config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values, or weights that another library
            quantized.
        InputError: for an unknown dtype, device or implementation, or a published argument whose value cannot be
            served.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    param_dtype = torch_dtype if param_dtype is None else param_dtype
    target = find_one_device(device, device_map)
    dtype = find_dtype(jnp.float32 if dtype is None else dtype)
    if param_dtype not in (None, "auto"):
        param_dtype = find_dtype(param_dtype)
    request = read_request(cls, name_or_path, config, state_dict is not None, kwargs)
    config = request.config
    asked = asked_while_loading(quantization_config, load_in_8bit, load_in_4bit)
    opened = (
        request.found.open()
        if request.found is not None
        else nullcontext(StateDict(state_dict, _describe, to_raw, request.part))
    )
    with opened as source:
        scheme = scheme_of(config, source)
        if asked is not None and scheme is not None:
            scheme = loaded_as_asked(asked, scheme)
        with loading():
            model = cls(config, **request.constructor)
            if scheme is not None:
                model = quantize(model, scheme)
        model._set_dtype(dtype)
        model._config.seed = seed
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
        if isinstance(scheme, OwnScheme):
            if param_dtype not in (None, "auto", jnp.float32):
                refuse_dtype_around(scheme, param_dtype)
            param_dtype = jnp.dtype("float32")
        default = None if _is_of_flax(source) else "float32"
        wanted = dtype_wanted(param_dtype, default, config, source, plan.sources.values())
        wanted = None if wanted is None else find_dtype(wanted)
        params = _fill(model, rows, plan, source, target, wanted, model.key)
    config.dtype = _dtype_of(model, params).name
    if wanted is None and config.dtype != "float32":
        warnings.warn(
            f"the parameters are {config.dtype}, as a Flax model saved them; pass param_dtype='float32' to train them, "
            "or param_dtype='auto' if they are to stay so",
            LoadWarning,
            stacklevel=3,
        )
    if request.found is not None and isinstance(model, GenerationMixin):
        model.generation_config = read_generation_config(request.found.beside(GENERATION_CONFIG_NAME), config)
    if _do_init or asked is not None:
        model.params = params
    if asked is not None and scheme is None:
        model = quantize(model, asked)
    if not _do_init and asked is not None:
        params = model.params
        write_params(model, model.params_shape_tree)
    found = model if _do_init else (model, params)
    return (found, loading_info(plan.report)) if output_loading_info else found


def _fill(
    model: PreTrainedModel,
    rows: Mapping[str, Parameter],
    plan: LoadPlan,
    source: TensorFile,
    target: jax.Device | None,
    wanted: Any,
    key: jax.Array,
) -> dict[str, Any]:
    """The tree of a model's parameters with their values; other variables are filled in their places.

    Without a ``wanted`` dtype each has that of the file, and what is drawn afresh is float32.
    """
    here, leaves = spots(model), {}
    for name, row in rows.items():
        if row.tied_to is not None:
            continue
        spot = here[name]
        if name in plan.sources:
            place = spot.variable.get_value().dtype
            raw = source.tensor(plan.sources[name])
            dtype = _kept(raw.dtype) if wanted is None else wanted
            if row.quantized is not None or (row.own and place != jnp.float32):
                dtype = place
            # On a CPU JAX takes the copy's memory over.
            value = jax.device_put(raw.to_aligned(dtype, transposed=is_transposed(row), decode=to_numpy), target)
        else:
            value = jax.device_put(model._fresh(row, key, jnp.float32 if wanted is None else wanted), target)
        if isinstance(spot.variable, nnx.Param):
            leaves[spot.path] = value
        else:
            spot.variable.set_value(value)
    if target is not None:
        for _, node in nnx.iter_graph(model):
            if isinstance(node, Derived):
                node.set_value(jax.device_put(node.get_value(), target))
    return unflatten(leaves)


def _is_of_flax(source: TensorFile) -> bool:
    """Whether a Flax model, of the original library or of this one, wrote a file; of others the dtype is no sign that
    parameters are to have it.
    """
    return isinstance(source, Checkpoint) and (
        source.format == "flax"
        or source.metadata.get("format") == "flax"
        or PARAMETERS.items() <= source.metadata.items()
    )


def _kept(tag: str) -> Any:
    """The dtype of a parameter that is stored with a tag: its own, if JAX keeps floating point numbers of that size."""
    dtype = DTYPE_OF_TAG[tag]
    if jnp.issubdtype(dtype, jnp.floating):
        return jax.dtypes.canonicalize_dtype(dtype)
    return jnp.dtype(jnp.float32)


def _dtype_of(model: PreTrainedModel, params: Mapping[str, Any]) -> Any:
    """The dtype that the config of a model says of it: that of the word embedding, or of what comes after it if that is
    quantized.
    """
    rows = (row for row in model.parameter_table().values() if row.tied_to is None and row.dtype is None)
    return flatten(params)[spots(model)[next(rows).name].path].dtype


def _describe(array: Any) -> tuple[str, tuple[int, ...]]:
    array = array if isinstance(array, jax.Array) else np.asarray(array)
    return TAG_OF_DTYPE[jnp.dtype(array.dtype)], tuple(array.shape)


def save_pretrained(
    model: PreTrainedModel,
    folder: Path,
    *,
    params: Mapping[str, Any] | None = None,
    format: str = "safetensors",
    max_shard_size: int | str = "5GB",
) -> None:
    """Write the files of :meth:`PreTrainedModel.save_pretrained`, in a format of ``xlmr_core.formats``."""
    leaves = flatten(model.params if params is None else with_params(model, params).params)
    rows, here = model.parameter_table(), spots(model)
    own, scheme = own_names(rows), model.quantization_scheme
    if scheme is not None and format != "safetensors":
        raise InputError(
            f"safe_serialization=False writes floating point weights, received a model with {scheme.name} ones; leave "
            "it True"
        )
    if own and format != "safetensors":
        raise InputError(
            f"safe_serialization=False writes the published parameters only, expected none beside them, received "
            f"{', '.join(own[:8])}; leave it True"
        )
    refuse_lost(lost(model), type(model), "keep settings in the config and values in nnx.Param or nnx.Variable")
    check_ties(rows, places(model, rows))
    stored = {name: rows[rows[name].tied_to or name] for name in stored_names(rows)}
    values = {}
    for name, row in stored.items():
        spot = here[row.name]
        values[name] = leaves[spot.path] if isinstance(spot.variable, nnx.Param) else spot.variable.get_value()
    check_dtypes(
        {name: TAG_OF_DTYPE.get(jnp.dtype(value.dtype)) for name, value in values.items()},
        {name: value.dtype for name, value in values.items()},
    )
    dtypes = [jnp.dtype(value.dtype) for name, value in values.items() if stored[name].dtype is None]
    half = any(jnp.issubdtype(dtype, jnp.floating) and dtype != jnp.float32 for dtype in dtypes)
    config = config_to_save(model.config, type(model).__name__.removeprefix("Flax"), dtypes[0].name)
    if scheme is not None:
        config.quantization_config = scheme.written()
    together = {"config.json": config.to_json_string().encode()}
    if isinstance(model, GenerationMixin):
        together[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string().encode()
    save_checkpoint(
        folder,
        format,
        {name: partial(_raw_of, value, stored[name]) for name, value in values.items()},
        config,
        model._task_head.suffix,
        max_shard_size=max_shard_size,
        metadata={**metadata_to_save(values, rows), **(PARAMETERS if half else {})},
        together=together,
    )


def _raw_of(value: Any, row: Parameter) -> RawTensor:
    return to_raw(in_layout(row, value))
