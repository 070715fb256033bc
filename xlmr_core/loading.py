"""What ``from_pretrained`` and ``save_pretrained`` of every backend do around a model: they read the arguments, find
the files and the configuration, and give account.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from xlmr_core.arguments import (
    FORMAT_ARGUMENTS,
    HUB_ARGUMENTS,
    LOADER_ARGUMENTS,
    MODEL_NOT_NEEDED,
    MODEL_ONLY,
    PART,
    check_known,
    refuse_unknown,
    without_published,
)
from xlmr_core.checkpoints.found import Found, fetch, fetch_files, format_asked_for, read_config_values
from xlmr_core.checkpoints.load_plan import UNUSED, LoadReport, TensorFile
from xlmr_core.config import AutoConfig, EncoderDecoderConfig, ModelConfig, XLMRobertaConfig
from xlmr_core.config_base import check_name
from xlmr_core.errors import InputError
from xlmr_core.formats.parts import names_of_model
from xlmr_core.formats.safetensors_format import OWN_NAMES
from xlmr_core.formats.tensors import RawTensor, TensorInfo
from xlmr_core.parameters import Parameter

__all__ = [
    "Request",
    "SideToLoad",
    "StateDict",
    "auto_checkpoint",
    "config_to_save",
    "dtype_wanted",
    "loading_info",
    "metadata_to_save",
    "model_config",
    "read_request",
    "sides_to_load",
]

# The dtype of a parameter by the tag in the file.
DTYPE_OF_FLOAT_TAG = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Request:
    """What a call of ``from_pretrained`` asks for, found and checked.

    Attributes:
        found: the checkpoint; ``None`` where a state dict takes its place.
        config: of the model.
        constructor: arguments that go to the model's constructor, by name.
        part: which of several models in a state dict is meant.
    """

    found: Found | None
    config: ModelConfig
    constructor: dict[str, Any]
    part: str | None = None

    @property
    def source(self) -> str:
        """Where the weights are, for messages."""
        return "the state_dict passed" if self.found is None else str(self.found.folder)


def read_request(
    kind: Any,
    name_or_path: str | os.PathLike[str] | Found | None,
    config: ModelConfig | str | os.PathLike[str] | None,
    has_state_dict: bool,
    arguments: Mapping[str, Any],
) -> Request:
    """Read the arguments of ``from_pretrained`` that say nothing about the framework.

    Args:
        kind: the model class.
        name_or_path: the checkpoint; ``None`` if ``config`` and a state dict say all.
        config: in place of the checkpoint's own.
        has_state_dict: whether one was passed.
        arguments: all others, by name.

    Raises:
        ModelNotFoundError: if the name or folder cannot be found.
        CheckpointError, ConfigError: for a configuration that cannot be read or is another model's.
        InputError: for a published argument whose value cannot be served.
        TypeError: for an argument that neither the loader, nor the model, nor the configuration knows.
    """
    if name_or_path is not None and not isinstance(name_or_path, Found):
        check_name(name_or_path, f"{kind.__name__}.from_pretrained()")
    format, where = _where_to_look(arguments)
    left = without_published(arguments, MODEL_ONLY, (*MODEL_NOT_NEEDED, *HUB_ARGUMENTS, *FORMAT_ARGUMENTS, PART))
    names, takes_any = kind._constructor_arguments()
    own_names = set(left) - kind.config_class._known_names()  # a name of the configuration is the configuration's
    constructor = {key: left.pop(key) for key in (own_names if takes_any else own_names & names)}
    found = None
    values: Callable[[], dict[str, Any]] = dict
    if name_or_path is None:
        if config is None or not has_state_dict:
            raise InputError("expected a name or folder, received None; pass one, or both config= and state_dict=")
    elif has_state_dict and not isinstance(name_or_path, Found):
        # Only the configuration is asked of it; there need be no weights.
        values = partial(read_config_values, fetch_files(name_or_path, format, **where), format)
    else:
        found = fetch(name_or_path, format, **where)
        found = replace(found, part=arguments.get(PART, found.part))
        values = found.config_values
    others = {*names, *LOADER_ARGUMENTS, *HUB_ARGUMENTS, *FORMAT_ARGUMENTS}
    own = model_config(kind.config_class, kind.__name__, values, config, left, others)
    name = found.name if found is not None else name_or_path
    own.name_or_path = "" if name is None else str(name)
    return Request(None if has_state_dict else found, own, constructor, arguments.get(PART))


def model_config(
    kind: type[Any],
    caller: str,
    values: Callable[[], dict[str, Any]],
    config: ModelConfig | str | os.PathLike[str] | None,
    overrides: Mapping[str, Any],
    others: Iterable[str] = (),
) -> ModelConfig:
    """The configuration of a model to load, the checkpoint's own or the one that was passed, with values replaced.

    Args:
        kind: the configuration of the model's family.
        caller: the model class, for messages.
        values: reads the checkpoint's own.
        config: in place of the checkpoint's own; a caller's own object stays as it is.
        overrides: values by name.
        others: names of what else the call takes, for messages.

    Raises:
        ConfigError: for a configuration of another family, or values that no model can be built from.
        TypeError: for a name that no configuration knows.
    """
    if config is None:
        known = kind.from_dict(values())
    elif isinstance(config, XLMRobertaConfig | EncoderDecoderConfig):
        known = config
    else:
        known = kind.from_pretrained(config)
    check_known(known, overrides, f"{caller}.from_pretrained()", others)
    own: ModelConfig = known.copy(**overrides)
    return own


def auto_checkpoint(
    name_or_path: str | os.PathLike[str], arguments: Mapping[str, Any]
) -> tuple[ModelConfig, str | os.PathLike[str] | Found]:
    """The configuration that tells an Auto class which model to build, and what the model's class loads.

    Args:
        name_or_path: the checkpoint.
        arguments: of ``from_pretrained``; ``config`` wins, and the hub's and ``FORMAT_ARGUMENTS`` say where to look.

    Raises:
        ModelNotFoundError, CheckpointError, ConfigError: if there is no such checkpoint, or none that says what it is.
    """
    config = arguments.get("config")
    check_name(name_or_path, "from_pretrained")
    if isinstance(config, XLMRobertaConfig | EncoderDecoderConfig):
        return config, name_or_path
    format, where = _where_to_look(arguments)
    if config is not None:
        return AutoConfig.from_pretrained(config, **where), name_or_path
    found = replace(fetch(name_or_path, format, **where), part=arguments.get(PART))
    return found.config(), found


@dataclass(frozen=True)
class SideToLoad:
    """One of the two models that an encoder-decoder is made of.

    Attributes:
        model: it itself, if it was passed.
        config: to load it with.
        source: the checkpoint.
        arguments: of its ``from_pretrained``.
    """

    model: Any
    config: XLMRobertaConfig | None
    source: str | os.PathLike[str] | Found | None
    arguments: dict[str, Any]


def sides_to_load(
    caller: str,
    encoder: str | os.PathLike[str] | None,
    decoder: str | os.PathLike[str] | None,
    arguments: Mapping[str, Any],
) -> tuple[SideToLoad, SideToLoad, dict[str, Any]]:
    """What ``from_encoder_decoder_pretrained`` is to load.

    Args:
        caller: what to call the place in messages.
        encoder, decoder: the two checkpoints.
        arguments: for the encoder and for the decoder, with ``encoder_`` and ``decoder_`` in front (``encoder_model``
            is a model in place of a checkpoint), and values of the configuration of both, without.

    Returns:
        The encoder, the decoder, and the values.

    Raises:
        ModelNotFoundError, CheckpointError, ConfigError: if there is no such checkpoint.
        InputError: if one of the two is not named.
        TypeError: for an argument that is none of these.
    """
    known = EncoderDecoderConfig._known_names() - {"encoder", "decoder"}
    of: dict[str, dict[str, Any]] = {"encoder_": {}, "decoder_": {}, "": {}}
    for name, value in arguments.items():
        prefix = next((prefix for prefix in of if name.startswith(prefix) and name not in known), "")
        if not prefix:
            refuse_unknown([name], known, caller, [f"{side}config" for side in of])
        of[prefix][name.removeprefix(prefix)] = value
    return (
        _side_to_load(caller, "encoder", encoder, of["encoder_"]),
        _side_to_load(caller, "decoder", decoder, of["decoder_"]),
        of[""],
    )


def _side_to_load(caller: str, side: str, name: str | os.PathLike[str] | None, arguments: dict[str, Any]) -> SideToLoad:
    model = arguments.pop("model", None)
    if model is not None:
        return SideToLoad(model, None, None, {})
    if name is None:
        raise InputError(
            f"{caller} expects an encoder and a decoder, received no {side}; pass the name or folder of its "
            f"checkpoint, or {side}_model="
        )
    config, source = auto_checkpoint(name, arguments)
    arguments.pop("config", None)
    if not isinstance(config, XLMRobertaConfig):
        raise InputError(
            f"the {side} must be one encoder or decoder, received the encoder-decoder {str(name)!r}; take a side of it "
            f"with {side}_part='{side}.'"
        )
    decodes = side == "decoder"
    if (config.is_decoder, config.add_cross_attention) != (decodes, decodes):
        config = config.copy(is_decoder=decodes, add_cross_attention=decodes)
    return SideToLoad(None, config, source, arguments)


def _where_to_look(arguments: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The format that is asked for, and the arguments of the hub."""
    format = format_asked_for(**{key: arguments[key] for key in FORMAT_ARGUMENTS if key in arguments})
    return format, {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}


def dtype_wanted(asked: Any, default: Any, config: ModelConfig, source: TensorFile, names: Iterable[str]) -> Any:
    """The one dtype of a model's parameters.

    Args:
        asked: what was passed; ``None`` for the default, ``"auto"`` for the checkpoint's own.
        default: as in the 4.x releases of the original library, not the checkpoint's.
        config: says the checkpoint's dtype; where it does not, the first floating point tensor does.
        source: the tensors.
        names: of those to look at.
    """
    if asked is None:
        return default
    if asked != "auto":
        return asked
    if config.dtype is not None:
        return config.dtype
    tags = (source.info(name).dtype for name in names)
    return next((DTYPE_OF_FLOAT_TAG[tag] for tag in tags if tag in DTYPE_OF_FLOAT_TAG), default)


class StateDict:
    """Tensors in memory by canonical name, read like a checkpoint file. What a wrapper or a training program put around
    the names or the dictionary is found as in a file.

    Args:
        tensors: the framework's own, by name; also in dictionaries inside.
        describe: the tag and the shape of a tensor.
        to_raw: its bytes.
        part: which of several models is meant.

    Raises:
        CheckpointError: if there are several models and none is asked for.
    """

    path = Path("the state_dict passed")

    def __init__(
        self,
        tensors: Mapping[str, Any],
        describe: Callable[[Any], tuple[str, tuple[int, ...]]],
        to_raw: Callable[[Any], RawTensor],
        part: str | None = None,
    ) -> None:
        flat, places = _flat(tensors)
        names = names_of_model(self.path, tuple(flat), places if any(places.values()) else {}, part)
        self._tensors = {canonical: flat[name] for name, canonical in names.items()}
        self._describe, self._to_raw = describe, to_raw

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are there."""
        return tuple(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """What a header would say; values are not brought to the host for it."""
        return TensorInfo(*self._describe(self._tensors[name]), self.path)

    def tensor(self, name: str) -> RawTensor:
        """The tensor."""
        return self._to_raw(self._tensors[name])


def _flat(tensors: Mapping[str, Any], place: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a dictionary and of those inside it by the keys that lead to them, and the place of each."""
    flat: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value in tensors.items():
        if isinstance(value, Mapping):
            inner, where = _flat(value, f"{place}{key}.")
            flat |= inner
            places |= where
        elif value is not None and not isinstance(value, str | bytes | int | float):  # which are no weights
            flat[f"{place}{key}"] = value
            places[f"{place}{key}"] = place
    return flat, places


def loading_info(report: LoadReport) -> dict[str, Any]:
    """A report and its lists under their published names, as ``output_loading_info=True`` returns them."""
    return {
        "missing_keys": list(report.missing),
        "unexpected_keys": [*report.unexpected, *(row.name for row in report.dropped if row.why in UNUSED)],
        "mismatched_keys": [(row.name, row.received, row.expected) for row in report.mismatched],
        "error_msgs": [],
        "report": report,
    }


def metadata_to_save(names: Iterable[str], rows: Mapping[str, Parameter]) -> dict[str, str]:
    """The texts in a file: the one that the original library asks for, and one of ours if some names are a
    user's own.
    """
    own = any(name not in rows or rows[name].own for name in names)
    return {"format": "pt", **(OWN_NAMES if own else {})}


def config_to_save(config: ModelConfig, architecture: str, dtype: str) -> ModelConfig:
    """The configuration that stands beside saved weights.

    Args:
        config: of the model.
        architecture: the class, by its published name in PyTorch.
        dtype: of the parameters.
    """
    saved = config.copy(architectures=[architecture], dtype=dtype)
    vars(saved).pop("quantization_config", None)  # of the checkpoint that the config may have come from
    return saved
