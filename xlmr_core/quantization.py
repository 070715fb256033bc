"""What an int8 checkpoint is: which weights are int8, how its ``config.json`` says so.

An int8 weight has one float32 scale a row (an output channel, a token of the vocabulary) beside it, under its name with ``_scale`` added:
``weight[row] * weight_scale[row]`` is the value.
"""

from __future__ import annotations

import re
from typing import Any

from xlmr_core.config_base import PretrainedConfig
from xlmr_core.errors import ConfigError

__all__ = ["INT8", "INT8_WEIGHTS", "SCALE_SUFFIX", "is_int8"]

# The value of ``quantization_config`` in the config.json of an int8 checkpoint. The version moves when older readers would misread it.
INT8: dict[str, Any] = {"quant_method": "xlmr-int8", "version": 1}
SCALE_SUFFIX = "_scale"

# By bare name (without ``roberta.``): nearly all bytes and nearly all work. Position and type embeddings, norms, biases, poolers and the
# small projections of heads stay float32: under one percent of both, and a head can start fresh and be trained.
INT8_WEIGHTS = re.compile(
    r"embeddings\.word_embeddings\.weight"
    r"|encoder\.layer\.\d+\..*(query|key|value|dense)\.weight"
    r"|lm_head\.decoder\.weight"
)


def is_int8(config: PretrainedConfig) -> bool:
    """Whether a checkpoint's config says that its weights are int8.

    Raises:
        ConfigError: for the quantization of another library or a newer version.
    """
    said = getattr(config, "quantization_config", None)
    if said is None:
        return False
    if said == INT8:
        return True
    method = said.get("quant_method") if isinstance(said, dict) else said
    if method == INT8["quant_method"]:
        raise ConfigError(
            f"quantization_config must be {INT8!r}, received {said!r}; the checkpoint needs another release of this library"
        )
    raise ConfigError(
        f"config.json has the quantization_config of another library (quant_method {method!r}), expected none or {INT8!r}; "
        "load the checkpoint it was made from, and quantize that"
    )
