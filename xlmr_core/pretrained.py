"""What the model classes of every backend refuse alike."""

from __future__ import annotations

from typing import NoReturn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError, XLMRError

__all__ = ["check_config", "recomputes_layers", "refuse_building", "refuse_projection"]


def check_config(model: type, wanted: type[XLMRobertaConfig], config: object) -> None:
    """Refuse a configuration that no model of a class can be built from.

    Args:
        model: the class.
        wanted: the configuration of its family.
        config: what was passed.

    Raises:
        ConfigError: for the configuration of another family, or impossible values.
    """
    if not isinstance(config, XLMRobertaConfig) or config.model_type not in wanted.accepted_model_types:
        raise ConfigError(
            f"{model.__name__} expects a {wanted.__name__}, received {type(config).__name__}"
            f" (model_type {getattr(config, 'model_type', None)!r}); build one with {wanted.__name__}.from_dict(...)"
        )
    config.validate()


def recomputes_layers(config: XLMRobertaConfig) -> bool:
    """Whether a configuration asks for gradient checkpointing: files of older releases have a key for it."""
    return bool(getattr(config, "gradient_checkpointing", False))


def refuse_projection(model: type) -> NoReturn:
    """Refuse ``set_output_embeddings`` of a model that does not predict tokens.

    Raises:
        InputError: always.
    """
    raise InputError(f"{model.__name__} has no vocabulary projection to replace; use a language modelling head")


def refuse_building(auto: type) -> NoReturn:
    """Refuse the constructor of an Auto class.

    Raises:
        XLMRError: always.
    """
    raise XLMRError(
        f"{auto.__name__} is not built itself; use its from_pretrained(name_or_path) or from_config(config)"
    )
