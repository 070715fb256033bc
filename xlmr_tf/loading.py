"""From files to models and back.

A model is built without drawing a value or touching its memory, then the checkpoint's tensors are put in place, a piece
at a time. The pages of the mapped file that a piece came from are given back at once, so memory is the model once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.checkpoints.load_plan import LoadPlan, TensorFile, plan_load
from xlmr_core.checkpoints.saving import save_tensors
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.generation.config import GENERATION_CONFIG_NAME, read_generation_config
from xlmr_core.loading import StateDict, config_to_save, dtype_wanted, loading_info, metadata_to_save, read_request
from xlmr_core.own_classes import check_dtypes, check_ties, refuse_lost
from xlmr_core.parameters import Parameter, Role, stored_names
from xlmr_core.quantization import scheme_of
from xlmr_core.quantization.asked import asked_while_loading, loaded_as_asked, refuse_dtype_around
from xlmr_core.quantization.own import OwnScheme
from xlmr_tf.generation import GenerationMixin
from xlmr_tf.linear import loading
from xlmr_tf.placement import TAG_OF_NAME, find_one_device, find_policy
from xlmr_tf.quantized import quantize
from xlmr_tf.values import lost, places, unbuilt, value_at, variable_at

if TYPE_CHECKING:
    from xlmr_tf.pretrained import PreTrainedModel

__all__ = ["from_pretrained", "save_pretrained", "to_raw"]

ModelT = TypeVar("ModelT", bound="PreTrainedModel")


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
        *model_args, and arguments of the constructor such as ``add_pooling_layer``, ``name``: passed to it.
        config: in place of the checkpoint's own.
        state_dict: arrays by canonical name and in canonical layout, in place of the checkpoint's files.
        dtype: the dtype policy, ``mixed_float16`` and ``mixed_bfloat16`` included; ``None`` is Keras's global one,
            ``"auto"`` the checkpoint's own dtype. ``torch_dtype`` is its older name.
        device, device_map: where the variables go: ``cpu``, ``gpu:0``, or a GPU's number; by default TensorFlow's
            choice.
        attn_implementation: ``sdpa`` (default) or ``eager``.
        packing: see :meth:`PreTrainedModel.set_packing`.
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        output_loading_info: return ``(model, info)``, with the :class:`~xlmr_core.checkpoints.load_plan.LoadReport` as
            ``info["report"]`` and its lists under their published names.
        quantization_config: a ``BitsAndBytesConfig``, of this library or another, or a dictionary of its fields: the
            linear layers are quantized as they are loaded (docs/quantization.md). ``load_in_8bit=True`` and
            ``load_in_4bit=True`` are its older names.
        **kwargs: ``use_safetensors``, ``from_pt``, ``from_tf``, ``from_flax`` say which file of a folder to read; by
            default, and with ``from_pt``, the first of ``xlmr_core.formats.FORMATS`` that is there. Further the hub's
            ``revision``, ``cache_dir``, ``local_files_only``, ``token``, ...; ``part``, which of several models in a
            file; published arguments that ask for nothing here (``low_cpu_mem_usage``, ...); everything else sets a
            value of the config.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError: if the files are damaged or do not fit.
        ConfigError: for a config of another architecture or impossible values, or weights that another library
            quantized.
        InputError: for an unknown dtype, device or implementation, a published argument whose value cannot be served,
            or a layer of a user's class that the file has values for and that has no variables yet.
        TypeError: for an argument that neither the loader, nor the model, nor the config knows.
    """
    dtype = torch_dtype if dtype is None else dtype
    target = find_one_device(device, device_map)
    if dtype not in (None, "auto"):
        dtype = find_policy(dtype)
    request = read_request(cls, name_or_path, config, state_dict is not None, kwargs)
    config = request.config
    asked = asked_while_loading(quantization_config, load_in_8bit, load_in_4bit)
    source: TensorFile = (
        request.found.open()
        if request.found is not None
        else StateDict(state_dict, _describe, lambda x: to_raw(np.asarray(x)), request.part)
    )
    scheme = scheme_of(config, source)
    if asked is not None and scheme is not None:
        scheme = loaded_as_asked(asked, scheme)
    if isinstance(scheme, OwnScheme):
        dtype = _policy_around(scheme, dtype)
    policy = dtype_wanted(dtype, None, config, source, source.names)
    arguments = request.constructor if policy is None else {**request.constructor, "dtype": find_policy(policy)}
    with loading() as unset, tf.device(target):
        model = cls(config, *model_args, **arguments)
        if scheme is not None:
            model = quantize(model, scheme)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    if packing is not None:
        model.set_packing(packing)

    _refuse_unbuilt(model, source)
    rows = model.parameter_table()
    plan = plan_load(
        config,
        cls._task_head.suffix,
        source,
        ignore_mismatched_sizes=ignore_mismatched_sizes,
        model=cls.__name__,
        rows=rows,
    )
    _fill(model, rows, plan, source, unset)
    if asked is not None and scheme is None:
        model = quantize(model, asked)
    config.dtype = str(model.variable_dtype)
    if request.found is not None and isinstance(model, GenerationMixin):
        model.generation_config = read_generation_config(request.found.beside(GENERATION_CONFIG_NAME), config)
    return (model, loading_info(plan.report)) if output_loading_info else model


def _policy_around(scheme: OwnScheme, asked: Any) -> str:
    """The dtype policy around weights of a scheme of ours: one with float32 variables.

    Raises:
        InputError: if another one is asked for.
    """
    default = keras.config.dtype_policy()
    if asked in (None, "auto"):
        return str(default.name) if default.variable_dtype == "float32" else "float32"
    policy = keras.dtype_policies.get(asked)
    if policy.variable_dtype != "float32":
        refuse_dtype_around(scheme, policy.name)
    return str(policy.name)


def _fill(
    model: PreTrainedModel, rows: Mapping[str, Parameter], plan: LoadPlan, source: TensorFile, unset: list[Any]
) -> None:
    """Give every variable of a model, and of the models inside that were left unset, its values."""
    for name, stored in plan.sources.items():
        _put(variable_at(model, rows[name]), rows[name], source.tensor(stored))
    # What a user's class added and the file lacks is as the class made it, but for models inside that were left unset.
    model.init_weights(plan.fresh)
    missing = {id(variable_at(model, rows[name])) for name in plan.fresh}
    for part in unset:
        if part is not model and part is not model.base_model:
            table = part.parameter_table()
            own = [name for name, row in table.items() if row.tied_to is None]
            part.init_weights([name for name in own if id(variable_at(part, table[name])) in missing])


def _refuse_unbuilt(model: PreTrainedModel, source: TensorFile) -> None:
    """Refuse to load values of a layer that has no variables yet: they would be passed over."""
    for path in unbuilt(model):
        found = [name for name in source.names if name.startswith(f"{path}.")]
        if found:
            raise InputError(
                f"{found[0]} has no place yet, because {path} is not built: expected a class that builds its layers in "
                f"its constructor; call self.{path}.build(shape) there"
            )


def _put(variable: keras.Variable, row: Parameter, raw: RawTensor) -> None:
    """Fill a variable, and not row by row: TensorFlow copies one that ever had such an update whenever it is read."""
    dtype = tf.as_dtype(variable.dtype)
    if row.quantized is not None and dtype == tf.uint8:
        raw = RawTensor("U8", tuple(variable.shape), raw.data)  # codes are bytes, whatever a file calls them
    transposed = row.role is Role.LINEAR_WEIGHT and row.quantized is None
    values = raw.to_aligned(dtype.as_numpy_dtype, transposed=transposed)
    variable.assign(_in_place(values) if values.size and (dtype.is_floating or row.quantized) else values)


def _in_place(values: NDArray[Any]) -> tf.Tensor:
    """A tensor of the memory of an array; TensorFlow's own conversion copies."""
    bits = values.view(f"u{values.itemsize}")  # NumPy does not exchange bfloat16
    return tf.bitcast(tf.experimental.dlpack.from_dlpack(bits.__dlpack__()), values.dtype)


def _describe(array: Any) -> tuple[str, tuple[int, ...]]:
    raw = to_raw(np.asarray(array))
    return raw.dtype, tuple(raw.shape)


def save_pretrained(model: PreTrainedModel, folder: Path, *, max_shard_size: int | str = "5GB") -> None:
    """Write the files of :meth:`PreTrainedModel.save_pretrained`."""
    rows = model.parameter_table()
    here = places(model, rows)
    refuse_lost(lost(model, here), type(model), "keep layers and variables of Keras (add_weight, not tf.Variable)")
    check_ties(rows, here)
    stored = {name: rows[rows[name].tied_to or name] for name in stored_names(rows)}
    dtypes = {name: str(variable_at(model, row).dtype) for name, row in stored.items()}
    check_dtypes({name: TAG_OF_NAME.get(dtype) for name, dtype in dtypes.items()}, dtypes)
    config = config_to_save(model.config, type(model).__name__.removeprefix("TF"), str(model.variable_dtype))
    if model.quantization_scheme is not None:
        config.quantization_config = model.quantization_scheme.written()
    together = {"config.json": config.to_json_string().encode()}
    if isinstance(model, GenerationMixin):
        together[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string().encode()
    save_tensors(
        folder,
        {name: partial(_raw_of, model, row) for name, row in stored.items()},
        max_shard_size=max_shard_size,
        metadata=metadata_to_save(stored, rows),
        together=together,
    )


def _raw_of(model: PreTrainedModel, row: Parameter) -> RawTensor:
    return to_raw(value_at(model, row))
