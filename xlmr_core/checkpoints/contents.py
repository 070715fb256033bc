"""What is in a file that does not hold the model that was asked for, in words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["contents", "kept_elsewhere"]

# Names that say where the values of a model are, if they are not in the file: what the file is, and what to do.
KEPT_ELSEWHERE = (
    (
        re.compile(r"(^|\.)(lora_\w+|base_layer|ia3_l)(\.|$)"),
        "it holds adapters, whose effect is not in the weights beside them",
        "merge them first (merge_and_unload() of peft), or load the base model and the adapter with peft",
    ),
    (
        re.compile(r"(^|[._])flat_param"),
        "it holds the flat parameters of FSDP",
        "save a full state dict (FullStateDictConfig, or get_model_state_dict with full_state_dict=True)",
    ),
    (
        re.compile(r"(fp32_flat_groups|single_partition_of_fp32_groups|base_optimizer_state)\b"),
        "it holds the state of DeepSpeed's optimizer",
        "run the zero_to_fp32.py that lies in the folder of the checkpoint, and load the file that it writes",
    ),
    (
        re.compile(r"\.(weight_orig|weight_g|parametrizations\..*)$"),
        "its weights are parametrized (pruned or normalised)",
        "remove the parametrization in the model (torch.nn.utils.parametrize, torch.nn.utils.prune) and save again",
    ),
)
MOST_GROUPS = 5


class Listed(Protocol):
    """The part of a ``Checkpoint`` that is looked at."""

    @property
    def names(self) -> Sequence[str]: ...
    def info(self, name: str) -> Any: ...


def contents(file: Listed) -> str:
    """How many tensors there are, under which first steps of names, and the largest."""
    names = tuple(file.names)
    if not names:
        return "it holds no tensors"
    groups = Counter(re.split(r"[./]", name)[0] for name in names).most_common()
    shown = ", ".join(f"{group[:40]} ({count})" for group, count in groups[:MOST_GROUPS])
    more = f" and {len(groups) - MOST_GROUPS} more" if len(groups) > MOST_GROUPS else ""
    largest = max(names, key=lambda name: math.prod(file.info(name).shape))
    count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"it holds {count}, under {shown}{more}, the largest {largest[:100]} of shape {file.info(largest).shape}"


def kept_elsewhere(names: Sequence[str]) -> tuple[str, str] | None:
    """What a file is that has the values of a model in another form, and what to do; ``None`` if no name says so."""
    return next(
        ((what, remedy) for pattern, what, remedy in KEPT_ELSEWHERE if any(map(pattern.search, names))),
        None,
    )
