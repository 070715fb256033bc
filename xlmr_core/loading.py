"""What ``from_pretrained`` of every backend does around the building of a model: it finds the configuration and gives account."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core.checkpoint import fetch_checkpoint, format_asked_for, read_config, read_config_values
from xlmr_core.config import AutoConfig, XLMRobertaConfig
from xlmr_core.config_base import check_known
from xlmr_core.hub import HUB_ARGUMENTS
from xlmr_core.load_plan import UNUSED, LoadReport

__all__ = ["FORMAT_ARGUMENTS", "auto_config", "loading_info", "model_config"]

# Published arguments that say which file of a folder to read, see :func:`xlmr_core.checkpoint.format_asked_for`.
FORMAT_ARGUMENTS = ("use_safetensors", "from_pt", "from_tf", "from_flax")


def model_config(
    kind: type[XLMRobertaConfig],
    caller: str,
    folder: Path,
    format: str | None,
    config: XLMRobertaConfig | str | os.PathLike[str] | None,
    overrides: Mapping[str, Any],
) -> XLMRobertaConfig:
    """The configuration of a model to load, the checkpoint's own or the one that was passed, with values replaced.

    Args:
        kind: the configuration of the model's family.
        caller: the model class, for messages.
        folder: of the checkpoint.
        format: of its weights, as for :func:`xlmr_core.checkpoint.open_checkpoint`.
        config: in place of the checkpoint's own; a caller's own object stays as it is.
        overrides: values by name.

    Raises:
        ConfigError: for a configuration of another family, or values that no model can be built from.
        TypeError: for a name that no configuration knows.
    """
    if config is None:
        known = kind.from_dict(read_config_values(folder, format))
    elif isinstance(config, XLMRobertaConfig):
        known = config
    else:
        known = kind.from_pretrained(config)
    check_known(known, overrides, f"{caller}.from_pretrained()")
    return known.copy(**overrides)


def auto_config(name_or_path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> XLMRobertaConfig:
    """The configuration that tells an Auto class which model to build, found and read once.

    Args:
        name_or_path: the checkpoint.
        arguments: of ``from_pretrained``; ``config`` wins, and the hub's and ``FORMAT_ARGUMENTS`` say where to look.

    Raises:
        ModelNotFoundError, CheckpointError, ConfigError: if there is no such checkpoint, or none that says what it is.
    """
    config = arguments.get("config")
    if isinstance(config, XLMRobertaConfig):
        return config
    where = {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
    if config is not None:
        found: XLMRobertaConfig = AutoConfig.from_pretrained(config, **where)
        return found
    format = format_asked_for(**{key: arguments[key] for key in FORMAT_ARGUMENTS if key in arguments})
    return read_config(fetch_checkpoint(name_or_path, format, **where), format)


def loading_info(report: LoadReport) -> dict[str, Any]:
    """A report and its lists under their published names, as ``output_loading_info=True`` returns them."""
    return {
        "missing_keys": list(report.missing),
        "unexpected_keys": [*report.unexpected, *(row.name for row in report.dropped if row.why in UNUSED)],
        "mismatched_keys": [(row.name, row.received, row.expected) for row in report.mismatched],
        "error_msgs": [],
        "report": report,
    }
