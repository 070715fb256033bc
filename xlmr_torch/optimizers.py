"""What of a model is trained, and at which rate: by the names of its parameters and the recipe alone.

Depths: 0 are the embeddings, 1 to L the layers, L + 1 what stands on them (a head, a pooler, adapters of both).
"""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch import nn

from xlmr_core.errors import InputError
from xlmr_core.training.recipe import Recipe

__all__ = ["depth_of", "freeze", "optimizer_of"]

_PLACE = re.compile(r"(?:^|\.)(embeddings|encoder)\.(?:layer\.(\d+)\.)?")


def depth_of(name: str, layers: int) -> int:
    """The depth of a parameter.

    Args:
        name: of the parameter in any model of this package, a wrapped one too.
        layers: of the encoder.
    """
    place = _PLACE.search(name)
    if place is None:
        return layers + 1
    if place[1] == "embeddings":
        return 0
    # Beside its layers an XL encoder has a norm on the last one.
    return layers if place[2] is None else int(place[2]) + 1


def freeze(model: nn.Module, recipe: Recipe, layers: int) -> None:
    """Take from the training what the recipe leaves as it is; what is frozen already stays so.

    Args:
        model: with its adapters, if it gets any.
        recipe: which says what.
        layers: of the encoder.

    Raises:
        InputError: if nothing is left to train, or there are not so many layers.
    """
    if recipe.freeze_layers > layers:
        raise InputError(
            f"expected freeze_layers of at most {layers}, the layers of this model, received {recipe.freeze_layers}; "
            "head_only=true trains the head alone"
        )
    lowest = layers + 1 if recipe.head_only else 0
    if recipe.freeze_embeddings or recipe.freeze_layers:
        lowest = max(lowest, recipe.freeze_layers + 1)
    for name, parameter in model.named_parameters():
        if depth_of(name, layers) < lowest:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"nothing of {type(model).__name__} is left to train: it has no head, or all of it is frozen; "
            "leave out head_only, or train adapters (lora_rank)"
        )


def optimizer_of(model: nn.Module, recipe: Recipe, layers: int) -> torch.optim.AdamW:
    """AdamW over what is trained: no decay of biases and norms, and each depth at its own rate.

    Args:
        model: whose parameters are where they will be trained.
        recipe: complete.
        layers: of the encoder.

    Returns:
        An optimizer. A group's ``share`` is what its rate is of the rate of the step: ``layer_decay`` to the power of
        the depths above it (Howard and Ruder 2018; Clark et al. 2020, ELECTRA).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = recipe.layer_decay ** (layers + 1 - depth_of(name, layers))
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0  # biases and norms are vectors
            groups[share, decay].append(parameter)
    return torch.optim.AdamW(
        [{"params": held, "share": share, "weight_decay": decay} for (share, decay), held in groups.items()],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=True,
    )
