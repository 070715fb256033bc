"""What users ask of quantized models, and what they are refused: one answer for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from xlmr_core.errors import ConfigWarning, InputError, warn_caller
from xlmr_core.quantization import BitsAndBytes, BitsAndBytesConfig, Scheme, find_scheme, scheme_with
from xlmr_core.quantization.own import OwnScheme

__all__ = [
    *("asked_while_loading", "loaded_as_asked", "scheme_to_apply"),
    *("refuse_cast", "refuse_change", "refuse_drawing", "refuse_dtype_around", "refuse_gradient", "refuse_layer"),
    *("refuse_training", "refuse_values"),
]


# ---- Of from_pretrained


def asked_while_loading(value: Any, load_in_8bit: bool, load_in_4bit: bool) -> BitsAndBytesConfig | None:
    """How a model is to be quantized while it is loaded; ``None`` if nothing is said of it.

    Args:
        value: ``quantization_config``: a ``BitsAndBytesConfig`` of this library or another, or a dictionary.
        load_in_8bit, load_in_4bit: the older names.

    Raises:
        InputError: for both.
        ConfigError: for what :meth:`BitsAndBytesConfig.of` refuses.
    """
    if value is None and not (load_in_8bit or load_in_4bit):
        return None
    if value is not None and (load_in_8bit or load_in_4bit):
        raise InputError("expected quantization_config alone, received load_in_8bit or load_in_4bit too; pass one")
    return BitsAndBytesConfig.of(
        BitsAndBytesConfig(load_in_8bit=load_in_8bit, load_in_4bit=load_in_4bit) if value is None else value
    )


def loaded_as_asked(asked: BitsAndBytesConfig, scheme: Scheme) -> Scheme:
    """The scheme of a checkpoint that is quantized already, computing in the dtype that is asked for, or its own where
    none is.

    Raises:
        InputError: if it is quantized otherwise.

    Warns:
        ConfigWarning: if more is asked than that dtype.
    """
    if not isinstance(scheme, BitsAndBytes) or asked.load_in_4bit is not scheme.config.load_in_4bit:
        raise InputError(
            f"the checkpoint has {scheme.name} weights already, received quantization_config={asked.to_diff_dict()!r}; "
            "leave it out, or load the checkpoint it was made from"
        )
    config = scheme.config
    if asked.says_compute_dtype:
        config = config.with_values(bnb_4bit_compute_dtype=asked.bnb_4bit_compute_dtype)
    decided = {name: getattr(config, name) for name in ("llm_int8_skip_modules", "bnb_4bit_compute_dtype")}
    if asked.with_values(**decided) != config:
        warn_caller(
            "the checkpoint is quantized already, and as its config.json says: of quantization_config only "
            "bnb_4bit_compute_dtype is used",
            ConfigWarning,
        )
    return replace(scheme, config=config)


def refuse_dtype_around(scheme: OwnScheme, received: object) -> NoReturn:
    """Refuse a dtype other than float32 around the weights of a scheme of ours."""
    raise InputError(
        f"an {scheme.name} model is float32 around its {scheme.name} weights, received dtype={received}; "
        "leave dtype out"
    )


# ---- Of quantize


def scheme_to_apply(
    asked: str | Scheme | BitsAndBytesConfig, own: Scheme | None, skip: Sequence[str] = ()
) -> Scheme | None:
    """How to quantize a model; ``None`` if it is quantized so already.

    Args:
        asked: by the user.
        own: of the model.
        skip: modules that stay as they are, beside those that the scheme leaves anyway.

    Raises:
        ConfigError: for a scheme that nobody knows.
        InputError: if the model is quantized otherwise.
    """
    scheme = find_scheme(asked)
    if skip:
        scheme = scheme_with(scheme, skip)
    if own is None:
        return scheme
    if not _is_the_same(own, scheme):
        raise InputError(
            f"expected a model with its own weights to make {scheme.name} ones of, "
            f"received one with {own.name} weights; quantize the original model"
        )
    return None


def _is_the_same(own: Scheme, asked: Scheme) -> bool:
    """Whether a model is quantized as asked; a model knows what it left, also where nothing was said of it."""
    if not isinstance(own, BitsAndBytes) or not isinstance(asked, BitsAndBytes):
        return own.written() == asked.written()
    config = asked.config
    if config.llm_int8_skip_modules is None and not asked.skip:
        config = config.with_values(llm_int8_skip_modules=own.config.llm_int8_skip_modules)
    return own.config == config and not asked.skip


def refuse_layer(path: str, kind: type) -> NoReturn:
    """Refuse to quantize a layer that is no plain one."""
    raise InputError(f"{path} must be a plain layer to be quantized, received {kind.__name__}; merge adapters first")


def refuse_values(name: str) -> NoReturn:
    """Refuse to quantize a weight with values that are no finite numbers."""
    raise InputError(f"{name} has values for which there is no scale (infinite, or not a number); mend it, or skip it")


# ---- Of quantized models


def refuse_change(what: str) -> NoReturn:
    """Refuse what changes the weights of a quantized model, by its name."""
    raise InputError(
        f"{what} changes weights, which a quantized model does not allow; change the original model, then quantize it"
    )


def refuse_cast(scheme: Scheme, kept: object, received: object) -> NoReturn:
    """Refuse another dtype around quantized weights, which are not cast with the rest."""
    raise InputError(
        f"a model quantized as {scheme.name} stays in {kept} around its quantized weights, received {received}; "
        "leave its dtype, or load or quantize the original model in another"
    )


def refuse_drawing() -> NoReturn:
    """Refuse fresh values for a weight as bitsandbytes has it: what lies beside it depends on them."""
    raise InputError("a weight of bitsandbytes is not drawn afresh; draw the original model, and quantize that")


def refuse_gradient(remedy: str) -> NoReturn:
    """Refuse a gradient through a layer that rounds its inputs.

    Args:
        remedy: how the framework computes without gradients.
    """
    raise InputError(f"gradients do not flow through int8 layers; {remedy}, or train the original model")


def refuse_training(scheme: str) -> NoReturn:
    """Refuse a gradient with respect to codes of a scheme of this name."""
    raise InputError(
        f"the weights of a model quantized as {scheme} are codes, which take no gradient; train adapters, "
        "or the head alone, or the original model"
    )
