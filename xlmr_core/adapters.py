"""``adapter_config.json``: what PEFT says beside the weights of an adapter, and where the model is that it changes.

Served is LoRA (Hu et al. 2022), with scales of rsLoRA (Kalajdzievski 2023) and magnitudes of DoRA (Liu et al. 2024):
what can be added to a weight. Everything else is refused by its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_core.bounded_files import is_there, read_json, refusing
from xlmr_core.errors import CheckpointError
from xlmr_core.wording import shown

__all__ = ["ADAPTER_CONFIG", "AdapterConfig", "base_of", "read_adapter_config"]

ADAPTER_CONFIG = "adapter_config.json"
SERVED = "LORA"
MERGE = "merge it with peft (merge_and_unload) and save the model"

# Settings that change what an adapter computes and leave no name of a tensor that would tell. Others that begin with
# ``use_`` are taken for one.
KNOWN_USES = ("use_rslora", "use_dora")
CHANGES = (
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "target_parameters",
    "trainable_token_indices",
)
# Ways to begin that leave the base as it is; all others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take from its weights.
PLAIN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")

MOST_PATTERN = 200
REPEATED, REPEATED_GROUP = re.compile(r"[*+{]"), re.compile(r"\)[*+{]")


@dataclass(frozen=True)
class AdapterConfig:
    """What is said of an adapter.

    Attributes:
        path: the file.
        base: name or folder of the model that it changes, as it is written there.
        revision: of the base on the hub.
        rank, alpha: of all modules, but for those that a pattern of their names gives others.
        rank_pattern, alpha_pattern: by regular expressions for the end of a name.
        rank_stabilised: whether ``alpha`` is divided by the root of the rank.
        has_magnitudes: whether rows keep magnitudes of their own (DoRA).
        model_class: the class that was trained, if it is said.
        task: PEFT's word for it, if it is said: ``SEQ_CLS``, ``TOKEN_CLS``, ...
    """

    path: Path
    base: str
    revision: str | None
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rank_stabilised: bool
    has_magnitudes: bool
    model_class: str
    task: str

    def rank_of(self, module: str) -> int:
        """The rank of a module."""
        rank: int = _by_pattern(self.rank_pattern, module, self.rank)
        return rank

    def scale(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        rank = self.rank_of(module)
        alpha: float = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), otherwise)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """What is said of the adapter in a folder.

    Raises:
        CheckpointError: if nothing is, or if it is of a kind that cannot be added to weights.
    """
    path = folder / ADAPTER_CONFIG
    with refusing(
        CheckpointError, f"{path} is no settings of an adapter as peft writes them ({{why}}); save the adapter again"
    ):
        said = read_json(path)
        if not isinstance(said, dict):
            raise ValueError("it holds no dictionary")
        _refuse_other_kinds(path, said)
        rank, alpha = said["r"], said.get("lora_alpha", 8)
        ranks, alphas = said.get("rank_pattern") or {}, said.get("alpha_pattern") or {}
        if not all(type(one) is int and 0 < one < 1 << 20 for one in (rank, *ranks.values())):
            raise ValueError(f"r and rank_pattern must be whole numbers above 0, received {shown([rank, ranks])}")
        if not all(type(one) in (int, float) and math.isfinite(one) for one in (alpha, *alphas.values())):
            raise ValueError(f"lora_alpha and alpha_pattern must be numbers, received {shown([alpha, alphas])}")
        for pattern in (*ranks, *alphas):
            _check_pattern(pattern)
        mapped = said.get("auto_mapping") or {}
        return AdapterConfig(
            path=path,
            base=_text(said, "base_model_name_or_path"),
            revision=_text(said, "revision") or None,
            rank=rank,
            alpha=float(alpha),
            rank_pattern=ranks,
            alpha_pattern=alphas,
            rank_stabilised=bool(said.get("use_rslora")),
            has_magnitudes=bool(said.get("use_dora")),
            model_class=_text(mapped, "base_model_class"),
            task=_text(said, "task_type"),
        )


def _check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression, or one that may try for hours."""
    if len(pattern) > MOST_PATTERN or len(REPEATED.findall(pattern)) > 2 or REPEATED_GROUP.search(pattern):
        raise ValueError(f"{shown(pattern)} is more than a pattern of a name")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{shown(pattern)} is no regular expression ({error})") from error


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key) or ""
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text, received {shown(value)}")
    return value


def _refuse_other_kinds(path: Path, said: Mapping[str, Any]) -> None:
    kind = said.get("peft_type")
    if kind != SERVED:
        raise CheckpointError(f"{path} is of an adapter of the kind {shown(kind)}, expected {SERVED}; {MERGE}")
    changes = [key for key in said if key.startswith("use_") and key not in KNOWN_USES] + list(CHANGES)
    for key in changes:
        if said.get(key):
            raise CheckpointError(
                f"{path} has {key}={shown(said[key])}, which is more than what is added to a weight; {MERGE}"
            )
    begun = said.get("init_lora_weights")
    if begun not in PLAIN_BEGINNINGS:
        raise CheckpointError(
            f"{path} has init_lora_weights={shown(begun)}, which changed the base's own weights; save the adapter with "
            f"path_initial_model_for_weight_conversion of peft, or {MERGE}"
        )


def base_of(folder: Path) -> str:
    """Name or folder of the model that the adapter in a folder changes. A path is taken from where the process runs, as
    peft does, or else from the adapter's folder.

    Raises:
        CheckpointError: if none is named, or as of :func:`read_adapter_config`.
    """
    config = read_adapter_config(folder)
    if not config.base:
        raise CheckpointError(
            f"{config.path} names no model that the adapter changes; write its name or folder into "
            "base_model_name_or_path"
        )
    here = Path(config.base).expanduser()
    return str(folder / here) if not is_there(here) and is_there(folder / here) else config.base
