"""What the model classes and the Auto classes of every backend decide alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from xlmr_core.arguments import MODEL_NOT_NEEDED, MODEL_ONLY, refuse_unknown, without_published
from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import ConfigError, InputError, XLMRError
from xlmr_core.wording import an

__all__ = [
    "arguments_to_build",
    "check_auto_config",
    "check_config",
    "dtype_to_build",
    "recomputes_layers",
    "refuse_building",
    "refuse_projection",
    "register_model",
    "registered_model",
]


# ---- A configuration to build from


def check_config(model: type, wanted: type[ModelConfig], config: object) -> None:
    """Refuse a configuration that no model of a class can be built from.

    Args:
        model: the class.
        wanted: the configuration of its family.
        config: what was passed.

    Raises:
        ConfigError: for the configuration of another family, impossible values, or what is no configuration.
    """
    if issubclass(wanted, EncoderDecoderConfig):
        if not isinstance(config, EncoderDecoderConfig):
            _refuse_config(model.__name__, wanted, config, f"{model.__name__}.from_pretrained")
        config.validate()
        return
    is_xl = issubclass(wanted, XLMRobertaXLConfig)
    if not isinstance(config, XLMRobertaConfig):
        _refuse_config(model.__name__, wanted, config, f"{model.__name__}.from_pretrained")
    if isinstance(config, XLMRobertaXLConfig) is not is_xl:
        family = "XLMRoberta" if is_xl else "XLMRobertaXL"
        raise ConfigError(
            f"{model.__name__} expects {an(wanted.__name__)}, received {type(config).__name__} "
            f"(model_type {config.model_type!r}); use the class of that family, whose name has {family} in it"
        )
    config.validate()


def recomputes_layers(config: XLMRobertaConfig) -> bool:
    """Whether a configuration asks for gradient checkpointing: files of older releases have a key for it."""
    return bool(getattr(config, "gradient_checkpointing", False))


def check_auto_config(auto: type, config: object, wanted: type[ModelConfig] = XLMRobertaConfig) -> None:
    """Refuse what an Auto class cannot build a model from.

    Args:
        auto: the class.
        config: what was passed.
        wanted: what its models are built from.

    Raises:
        ConfigError: if it is no such configuration.
    """
    if not isinstance(config, wanted):
        _refuse_config(f"{auto.__name__}.from_config()", wanted, config, f"{auto.__name__}.from_pretrained")


def _refuse_config(caller: str, wanted: type, config: object, load: str) -> NoReturn:
    """Say what was received in the place of a configuration, and how to make one of it."""
    remedy = f"build one with {wanted.__name__}(...)"
    received = an(type(config).__name__)
    if isinstance(config, str | os.PathLike):
        received, remedy = f"the name {str(config)!r}", f"to load what it names, use {load}({str(config)!r})"
    elif isinstance(config, type):
        received = f"the class {config.__name__}"
    elif config is None:
        received = "None"
    elif isinstance(config, Mapping):
        remedy = f"build one with {wanted.__name__}.from_dict(...)"
    elif isinstance(config, EncoderDecoderConfig):
        remedy = "use AutoModelForSeq2SeqLM, or the class of its encoder with config.encoder"
    elif isinstance(config, XLMRobertaConfig):
        remedy = f"build one with {wanted.__name__}.from_encoder_decoder_configs(encoder, decoder)"
    elif hasattr(config, "to_dict"):  # another library's
        received = f"{type(config).__name__} of {type(config).__module__.partition('.')[0]}"
        remedy = f"build one with {wanted.__name__}.from_dict(config.to_dict())"
    raise ConfigError(f"{caller} expects {an(wanted.__name__)}, received {received}; {remedy}")


def dtype_to_build(asked: Any, config: ModelConfig) -> Any:
    """The dtype of a model that is built from a configuration by an Auto class; ``None`` for the framework's default.

    Args:
        asked: what was passed; ``None`` and ``"auto"`` leave it to the configuration.
        config: says the dtype of the checkpoint that it came from.
    """
    if asked is None or (isinstance(asked, str) and asked == "auto"):
        return None if config.dtype == "auto" else config.dtype
    return asked


def arguments_to_build(auto: type, kind: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What ``from_config`` of an Auto class hands on to the constructor of the model's class.

    Args:
        auto: the Auto class.
        kind: the model's class.
        arguments: by name.

    Raises:
        InputError: for a published argument whose value cannot be served.
        TypeError: for an argument that nothing knows.
    """
    left = without_published(arguments, MODEL_ONLY, MODEL_NOT_NEEDED)
    names, takes_any = kind._constructor_arguments()
    if not takes_any:
        others = [*names, *("dtype", "torch_dtype", "attn_implementation", "packing")]
        refuse_unknown(left, names, f"{auto.__name__}.from_config()", others)
    return left


# ---- Auto classes

# Models of users, by the Auto class and the configuration class.
REGISTERED: dict[tuple[type, type], type] = {}


def register_model(
    auto: type, config_class: type[XLMRobertaConfig], model_class: type, base: type, exist_ok: bool
) -> None:
    """Let an Auto class build models of a user's class for configurations of a class.

    Args:
        auto: the Auto class.
        config_class: of the configurations.
        model_class: of the models.
        base: what all models of the backend derive from.
        exist_ok: let it take the place of another one.

    Raises:
        ConfigError: for classes of another kind or that do not belong together, or a configuration that has a model.
    """
    for received, wanted in ((config_class, XLMRobertaConfig), (model_class, base)):
        if not (isinstance(received, type) and issubclass(received, wanted)):
            name = getattr(received, "__name__", None) or repr(received)
            raise ConfigError(
                f"{auto.__name__}.register expects a class derived from {wanted.__name__}, received {name}; "
                "pass the class of the configuration, then that of the model"
            )
    expected = getattr(model_class, "config_class", None)
    if expected is not config_class:
        raise ConfigError(
            f"{model_class.__name__} has config_class {getattr(expected, '__name__', expected)}, received "
            f"{config_class.__name__}; set config_class = {config_class.__name__} in it"
        )
    taken = (auto, config_class) in REGISTERED or config_class in (XLMRobertaConfig, XLMRobertaXLConfig)
    if taken and not exist_ok:
        raise ConfigError(
            f"{auto.__name__} has a model for {config_class.__name__}; register a configuration of your own, or pass "
            "exist_ok=True"
        )
    REGISTERED[auto, config_class] = model_class


def registered_model(auto: type, config: XLMRobertaConfig) -> type | None:
    """The class that was registered for a configuration, if there is one."""
    return REGISTERED.get((auto, type(config)))


def refuse_building(auto: type) -> NoReturn:
    """Refuse the constructor of an Auto class.

    Raises:
        XLMRError: always.
    """
    raise XLMRError(
        f"{auto.__name__} is not built itself; use its from_pretrained(name_or_path) or from_config(config)"
    )


# ---- Models


def refuse_projection(model: type) -> NoReturn:
    """Refuse ``set_output_embeddings`` of a model that does not predict tokens.

    Raises:
        InputError: always.
    """
    raise InputError(f"{model.__name__} has no vocabulary projection to replace; use a language modelling head")
