"""Quantization schemes: which weights are stored in fewer bits, in which tensors each lies, how config.json says so.

A scheme is a class of :mod:`xlmr_core.quantization.base` in a file of its own and a row of ``SCHEMES``. The parameter
table, load plans and the commands ask it; nothing outside knows of its names, dtypes or shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xlmr_core.config_base import PretrainedConfig
from xlmr_core.errors import ConfigError
from xlmr_core.quantization.base import Scheme, Stored
from xlmr_core.quantization.bitsandbytes import BitsAndBytes
from xlmr_core.quantization.bitsandbytes_config import BitsAndBytesConfig
from xlmr_core.quantization.four_bit import FP4, INT4, NF4, FourBit
from xlmr_core.quantization.int8 import INT8
from xlmr_core.quantization.own import OwnScheme
from xlmr_core.wording import shown

if TYPE_CHECKING:
    from xlmr_core.checkpoints.load_plan import TensorFile

__all__ = [
    *("BITSANDBYTES", "FP4", "INT4", "INT8", "IN_FILE", "NF4", "SCHEMES"),
    "BitsAndBytes",
    "BitsAndBytesConfig",
    "Scheme",
    "Stored",
    *("find_scheme", "scheme_of", "scheme_with"),
]

# Our own, by the name that a user asks for it.
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (INT8, INT4, NF4, FP4)}
# What a file calls it that says itself how its weights are quantized.
IN_FILE = "quantization_config"
# What bitsandbytes writes, by the name that a user asks for it where there is no ``BitsAndBytesConfig``.
BITSANDBYTES: dict[str, BitsAndBytes] = {
    "bitsandbytes-nf4": BitsAndBytes(
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    ),
    "bitsandbytes-fp4": BitsAndBytes(BitsAndBytesConfig(load_in_4bit=True)),
    "bitsandbytes-int8": BitsAndBytes(BitsAndBytesConfig(load_in_8bit=True)),
}


def find_scheme(asked: str | Scheme | BitsAndBytesConfig) -> Scheme:
    """The scheme that a user means: by name, with settings of its own, or as bitsandbytes.

    Raises:
        ConfigError: for a name that nobody knows, or what :meth:`BitsAndBytesConfig.of` refuses.
    """
    if isinstance(asked, Scheme):
        return asked
    if isinstance(asked, Mapping) or callable(getattr(asked, "to_dict", None)):
        return BitsAndBytes(BitsAndBytesConfig.of(asked))
    found = (SCHEMES.get(asked) or BITSANDBYTES.get(asked)) if isinstance(asked, str) else None
    if found is None:
        raise ConfigError(
            f"scheme must be one of {', '.join((*SCHEMES, *BITSANDBYTES))}, a scheme with settings of its own or a "
            f"BitsAndBytesConfig, received {shown(asked)}"
        )
    return found


def scheme_with(name: str | Scheme, skip: Sequence[str] = (), group_size: int | None = None) -> Scheme:
    """A scheme by name, with settings where something is said of them.

    Args:
        name: of ``SCHEMES`` or ``BITSANDBYTES``, or a scheme to change.
        skip: modules that stay as they are, beside those that the scheme leaves anyway.
        group_size: how many values share a scale.

    Raises:
        ConfigError: for an unknown name, a ``skip`` that is no list of names, or a group size for a scheme without
            groups.
    """
    scheme = find_scheme(name)
    if isinstance(skip, str) or not all(isinstance(name, str) for name in skip):
        raise ConfigError(f"skip must be a list of names of modules, received {shown(skip)}; put it into a list")
    if group_size is not None:
        if not isinstance(scheme, FourBit):
            known = ", ".join(name for name, other in SCHEMES.items() if isinstance(other, FourBit))
            raise ConfigError(f"group_size must be None for {name}, received {group_size}; it is a setting of {known}")
        scheme = replace(scheme, group_size=group_size)
    if skip:
        assert isinstance(scheme, BitsAndBytes | OwnScheme)
        scheme = replace(scheme, skip=(*scheme.skip, *skip))
    return scheme


def scheme_of(config: PretrainedConfig, file: TensorFile | None = None) -> Scheme | None:
    """The scheme of a checkpoint's weights, as its config says; ``None`` if they are plain.

    Args:
        config: of the checkpoint.
        file: its open weights, for a scheme of which they say more than the config.

    Raises:
        ConfigError: for the quantization of another library or another version.
        CheckpointError: for a file that is not quantized as its config says.
    """
    said = getattr(config, "quantization_config", None)
    if said is None and file is not None:
        # A graph says it itself: another one with the same config.json may stand beside it.
        said = _said_in(getattr(file, "metadata", {}).get(IN_FILE))
    if said is None:
        return None
    method = said.get("quant_method") if isinstance(said, Mapping) else said
    known = {scheme.written()["quant_method"]: scheme for scheme in (*SCHEMES.values(), BitsAndBytes())}
    if not isinstance(method, str) or method not in known:
        raise ConfigError(
            f"config.json has the quantization_config of another library (quant_method {method!r}), "
            f"expected none or one of {', '.join(map(repr, known))}; "
            "load the checkpoint it was made from, and quantize that"
        )
    found = known[method].read(said)
    return found if file is None else found.in_file(file)


def _said_in(text: object) -> Any:
    """What a file says of its quantization, in JSON; ``None`` where it says nothing."""
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"expected JSON for {IN_FILE} in the file, received {shown(text)}; export it again"
        ) from error
