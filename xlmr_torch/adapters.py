"""Low-rank adapters by PEFT (Hu et al. 2022, LoRA; on weights of four bits Dettmers et al. 2023, QLoRA).

PEFT puts them into the model and writes them; it is imported when a recipe asks for a rank. What is here says which
modules are trained whole beside them, and what the weights of the plain model are with its adapters added, which PEFT
does not do for weights that are codes.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xlmr_core.errors import InputError, MissingBackendError
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.refusals import check_targets
from xlmr_torch.lm_heads import VocabularyModel
from xlmr_torch.pretrained import PreTrainedModel
from xlmr_torch.widening import WidenedLinear

__all__ = ["adapted", "merged", "merged_values"]

ADAPTER = "default"


def adapted(model: PreTrainedModel, recipe: Recipe) -> nn.Module:
    """The model with adapters of the recipe's rank, which are trained together with a head of its own.

    Args:
        model: it is changed in place, and frozen. Its weights may be codes, as ``BitsAndBytesConfig`` makes them.
        recipe: ``lora_rank``, ``lora_alpha`` and ``lora_targets`` are read.

    Returns:
        A ``peft.PeftModel``.

    Raises:
        MissingBackendError: if PEFT is not installed.
        InputError: if a target is no layer of the model, or the head is stored as codes too.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingBackendError(
            "peft is needed for adapters (lora_rank) and is not installed; install it with: pip install peft"
        )
    _check_targets(model, recipe.lora_targets)
    from peft import LoraConfig, PeftModel

    head = whole_modules(model)
    parts = [
        part for name, module in model.named_modules() if name.rpartition(".")[2] in head for part in module.modules()
    ]
    if any(isinstance(part, WidenedLinear) for part in parts):
        raise InputError(
            f"{', '.join(head)}: expected float weights, which are trained beside the adapters, received codes; load "
            f"the model with BitsAndBytesConfig(..., llm_int8_skip_modules={head})"
        )
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=list(recipe.lora_targets),
        modules_to_save=head or None,
    )
    return PeftModel(model, config)


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Embedding | WidenedLinear)]
    check_targets(names, targets)


def whole_modules(model: PreTrainedModel) -> list[str]:
    """The modules that are trained whole: those that a pretrained encoder comes without.

    A head that predicts tokens comes with it, and shares its largest weight with the embeddings.
    """
    if isinstance(model, VocabularyModel) or model.base_model is model:
        return []
    own = [name for name, part in model.named_children() if part is not model.base_model and [*part.parameters()]]
    return [*own, "pooler"] if getattr(model.base_model, "pooler", None) is not None else own


def merged_values(model: Any) -> dict[str, Tensor]:
    """The state of the plain model, codes widened and adapters added; nothing is changed.

    Args:
        model: of :func:`adapted`.
    """
    found: dict[str, Tensor] = {}

    def take(part: nn.Module, name: str) -> None:
        if hasattr(part, "modules_to_save"):
            take(part.modules_to_save[ADAPTER], name)
        elif hasattr(part, "get_delta_weight"):
            take(part.base_layer, name)
            found[f"{name}.weight"] = found[f"{name}.weight"] + part.get_delta_weight(ADAPTER)
        elif isinstance(part, WidenedLinear):
            found.update({f"{name}.weight": part.dequantize(), f"{name}.bias": part.bias})
        else:
            for own, parameter in part.named_parameters(recurse=False):
                found[f"{name}.{own}".lstrip(".")] = parameter
            for own, child in part.named_children():
                take(child, f"{name}.{own}".lstrip("."))

    with torch.no_grad():
        take(model.get_base_model(), "")
        return {name: value.detach().float() for name, value in found.items()}


def merged(model: Any) -> PreTrainedModel:
    """The plain model in float32, with the adapters added to its weights.

    Args:
        model: of :func:`adapted`.
    """
    base = model.get_base_model()
    config = copy.deepcopy(base.config)
    vars(config).pop("quantization_config", None)
    bare = {"add_pooling_layer": False} if getattr(base, "pooler", base) is None else {}
    with torch.device("meta"):
        plain = type(base)(config, **bare)
    plain.load_state_dict(merged_values(model), assign=True)
    return plain.eval()
