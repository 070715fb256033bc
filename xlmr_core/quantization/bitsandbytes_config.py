"""``BitsAndBytesConfig``: how a user asks for a model that is quantized as bitsandbytes does, by published names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, overload

from xlmr_core.arguments import refuse_unknown
from xlmr_core.errors import ConfigError, ConfigWarning, warn_caller
from xlmr_core.wording import shown

__all__ = ["METHOD", "BitsAndBytesConfig"]

METHOD = "bitsandbytes"

_DTYPES = ("float32", "float16", "bfloat16")
# Codes are bytes; a dtype of two or four only changes how they are called.
_STORAGE = ("uint8", *_DTYPES)

# Fields with which the original library asks for something that is not done here: the value that asks for nothing, and
# what holds in its place.
_UNUSED: dict[str, tuple[Any, str]] = {
    "llm_int8_threshold": (6.0, "activations are not rounded here, so there are no outliers to spare"),
    "llm_int8_enable_fp32_cpu_offload": (False, "a model is on one device"),
    "llm_int8_has_fp16_weight": (False, "the weights are 8 bits wide"),
}
_said: set[str] = set()


@dataclass(frozen=True)
class BitsAndBytesConfig:
    """How to quantize a model as transformers with bitsandbytes does; see docs/quantization.md.

    Attributes:
        load_in_8bit: a byte a weight and a scale a row (LLM.int8).
        load_in_4bit: four bits a weight and a scale for 64 of them.
        llm_int8_threshold: of activations; asks for nothing here.
        llm_int8_skip_modules: names of linear layers that stay as they are, in place of the vocabulary projection:
            matched as the beginning of a name (a regular expression) or as its end.
        llm_int8_enable_fp32_cpu_offload, llm_int8_has_fp16_weight: ask for nothing here.
        bnb_4bit_compute_dtype: of products: ``float32`` (default), ``float16`` or ``bfloat16``, as a name or a dtype of
            a framework.
        bnb_4bit_quant_type: ``nf4`` or ``fp4`` (default).
        bnb_4bit_use_double_quant: the scales are quantized to 8 bits too.
        bnb_4bit_quant_storage: as what dtype the codes lie in a file: ``uint8`` (default), or a float dtype.
        says_compute_dtype: whether ``bnb_4bit_compute_dtype`` was said; else a checkpoint that is quantized already
            keeps its own.

    Raises:
        ConfigError: for a value that is none of these.

    Warns:
        ConfigWarning: once, for a value that asks for something that is not done here.
    """

    quant_method: ClassVar[str] = METHOD

    load_in_8bit: bool = False
    load_in_4bit: bool = False
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: tuple[str, ...] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    llm_int8_has_fp16_weight: bool = False
    bnb_4bit_compute_dtype: Any = None
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_quant_storage: Any = None
    says_compute_dtype: bool = field(init=False, repr=False, compare=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "says_compute_dtype", self.bnb_4bit_compute_dtype is not None)
        for name, known in (("bnb_4bit_compute_dtype", _DTYPES), ("bnb_4bit_quant_storage", _STORAGE)):
            value = getattr(self, name)
            dtype = known[0] if value is None else _dtype_name(value)
            if dtype not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, received {shown(value)}")
            object.__setattr__(self, name, dtype)
        skip: Any = self.llm_int8_skip_modules
        if skip is not None:
            if isinstance(skip, str) or not all(isinstance(name, str) for name in skip):
                raise ConfigError(f"llm_int8_skip_modules must be a list of names, received {shown(skip)}")
            object.__setattr__(self, "llm_int8_skip_modules", tuple(skip))
        for one in _arguments():
            if one.type == "bool" and not isinstance(getattr(self, one.name), bool):
                raise ConfigError(f"{one.name} must be True or False, received {shown(getattr(self, one.name))}")
        if isinstance(self.llm_int8_threshold, bool) or not isinstance(self.llm_int8_threshold, int | float):
            raise ConfigError(f"llm_int8_threshold must be a number, received {shown(self.llm_int8_threshold)}")
        if self.bnb_4bit_quant_type not in ("nf4", "fp4"):
            raise ConfigError(f"bnb_4bit_quant_type must be nf4 or fp4, received {shown(self.bnb_4bit_quant_type)}")
        if self.load_in_4bit and self.load_in_8bit:
            raise ConfigError("load_in_4bit and load_in_8bit are both True, expected one of them; leave one out")

    def is_quantizable(self) -> bool:
        """Whether it asks for anything."""
        return self.load_in_4bit or self.load_in_8bit

    def with_values(self, **values: Any) -> BitsAndBytesConfig:
        """A copy with other values."""
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """The value of ``quantization_config`` in config.json, as transformers writes it."""
        values = {one.name: getattr(self, one.name) for one in _arguments()}
        if self.llm_int8_skip_modules is not None:
            values["llm_int8_skip_modules"] = list(self.llm_int8_skip_modules)
        return {
            "_load_in_4bit": self.load_in_4bit,
            "_load_in_8bit": self.load_in_8bit,
            **values,
            "quant_method": METHOD,
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """The values that are not the default's."""
        default = BitsAndBytesConfig().to_dict()
        return {key: value for key, value in self.to_dict().items() if value != default[key]}

    def to_json_string(self, use_diff: bool = True) -> str:
        """The values as JSON, by default without those that are the default's."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[BitsAndBytesConfig, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], return_unused_kwargs: Literal[False] = ..., **kwargs: Any
    ) -> BitsAndBytesConfig: ...

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """From a dictionary such as :meth:`to_dict` gives.

        Args:
            config_dict: fields by name.
            return_unused_kwargs: the answer is ``(config, unused)``, where ``unused`` are the arguments that name no
                field.
            **kwargs: fields that win over those of ``config_dict``.

        Raises:
            ConfigError: for a value that cannot be served.
            TypeError: for a key that is no field; for an argument that names none, unless they are asked back.
        """
        known = {one.name for one in _arguments()}
        given = {
            key: value for key, value in config_dict.items() if not (key.startswith("_load_in_") or key in _METHODS)
        }
        unused = {key: value for key, value in kwargs.items() if key not in known}
        refuse_unknown([*given, *(() if return_unused_kwargs else unused)], known, "BitsAndBytesConfig()")
        config = cls(**{**given, **{key: value for key, value in kwargs.items() if key in known}})
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def of(cls, value: Any) -> BitsAndBytesConfig:
        """What was passed as ``quantization_config``: one of these, one of another library, or a dictionary.

        Raises:
            ConfigError: for something else, another method, or one that asks for neither 8 nor 4 bits.
        """
        if isinstance(value, cls):
            found = value
        else:
            values = _said_by(value) if callable(getattr(value, "to_dict", None)) else value
            if not isinstance(values, Mapping):
                raise ConfigError(
                    f"quantization_config must be a BitsAndBytesConfig or a dict, received {shown(value)}"
                )
            method = str(getattr(values.get("quant_method", METHOD), "value", values.get("quant_method", METHOD)))
            if method != METHOD:
                raise ConfigError(
                    f"quantization_config must have the quant_method {METHOD!r}, received {shown(method)}; for schemes "
                    "of this library use quantize(model, ...)"
                )
            found = cls.from_dict(values)
        if not found.is_quantizable():
            raise ConfigError(
                "quantization_config asks for nothing, expected load_in_4bit=True or load_in_8bit=True; set one of them"
            )
        for name, (nothing, why) in _UNUSED.items():
            if getattr(found, name) != nothing and name not in _said:
                _said.add(name)
                warn_caller(f"{name}={getattr(found, name)!r} asks for nothing here: {why}", ConfigWarning)
        return found


_METHODS = ("quant_method", "quantization_method")


def _arguments() -> list[Field[Any]]:
    """The published fields."""
    return [one for one in fields(BitsAndBytesConfig) if one.init]


def _said_by(config: Any) -> Any:
    """The values of another library's config, without a dtype of products that is the default's: it may not have been
    said.
    """
    values, differing = config.to_dict(), getattr(config, "to_diff_dict", None)
    if isinstance(values, Mapping) and callable(differing) and "bnb_4bit_compute_dtype" not in differing():
        return {key: value for key, value in values.items() if key != "bnb_4bit_compute_dtype"}
    return values


def _dtype_name(value: Any) -> str:
    """``bfloat16`` for that word, for ``torch.bfloat16``, and for a dtype or a type of scalars of NumPy's kind."""
    name = value if isinstance(value, str) else getattr(value, "name", None) or getattr(value, "__name__", str(value))
    return str(name).rpartition(".")[2]
