"""Quantization schemes: which weights are stored in fewer bits, in which tensors each lies, how config.json says so.

A scheme is a class of :mod:`xlmr_core.quantization.base` in a file of its own and a row of ``SCHEMES``. The parameter
table, load plans and the commands ask it; nothing outside knows of its names, dtypes or shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xlmr_core.config_base import PretrainedConfig
from xlmr_core.errors import ConfigError
from xlmr_core.quantization.base import Scheme, Stored
from xlmr_core.quantization.int8 import INT8

if TYPE_CHECKING:
    from xlmr_core.checkpoints.load_plan import TensorFile

__all__ = ["INT8", "SCHEMES", "Scheme", "Stored", "refuse_quantized", "scheme_of"]

# By the name that a user asks for it.
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (INT8,)}


def scheme_of(config: PretrainedConfig, file: TensorFile | None = None) -> Scheme | None:
    """The scheme of a checkpoint's weights, as its config says; ``None`` if they are plain.

    Args:
        config: of the checkpoint.
        file: its open weights, for a scheme of which they say more than the config.

    Raises:
        ConfigError: for the quantization of another library or another version.
    """
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    method = said.get("quant_method") if isinstance(said, Mapping) else said
    for scheme in SCHEMES.values():
        if method == scheme.written()["quant_method"]:
            found = scheme.read(said)
            return found if file is None else found.in_file(file)
    known = " or ".join(repr(scheme.written()) for scheme in SCHEMES.values())
    raise ConfigError(
        f"config.json has the quantization_config of another library (quant_method {method!r}), "
        f"expected none or {known}; "
        "load the checkpoint it was made from, and quantize that"
    )


def refuse_quantized(config: PretrainedConfig, checkpoint: object) -> None:
    """What a backend without quantized layers asks before it loads.

    Raises:
        ConfigError: if the weights are quantized, whoever did it.
    """
    scheme = scheme_of(config)
    if scheme is not None:
        raise ConfigError(
            f"{checkpoint} holds {scheme.name} weights, expected floating point ones, in which this backend computes; "
            "load the checkpoint it was made from, or load this one with xlmr_torch"
        )
