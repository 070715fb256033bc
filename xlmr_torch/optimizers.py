"""What of a model is trained, and at which rate: by the names of its parameters and the recipe alone."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from xlmr_core.training.depths import depth_of, lowest_trained, nothing_left, share_of
from xlmr_core.training.recipe import Recipe

__all__ = ["freeze", "optimizer_of"]


def freeze(model: nn.Module, recipe: Recipe, layers: int) -> None:
    """Take from the training what the recipe leaves as it is; what is frozen already stays so.

    Args:
        model: with its adapters, if it gets any.
        recipe: which says what.
        layers: of the encoder.

    Raises:
        InputError: if nothing is left to train, or there are not so many layers.
    """
    lowest = lowest_trained(recipe, layers)
    for name, parameter in model.named_parameters():
        if depth_of(name, layers) < lowest:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise nothing_left(type(model).__name__)


def optimizer_of(model: nn.Module, recipe: Recipe, layers: int) -> torch.optim.AdamW:
    """AdamW over what is trained: no decay of biases and norms, and each depth at its own rate.

    Args:
        model: whose parameters are where they will be trained.
        recipe: complete.
        layers: of the encoder.

    Returns:
        An optimizer. A group's ``share`` is what its rate is of the rate of the step; see ``share_of``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0  # biases and norms are vectors
            groups[share_of(name, recipe, layers), decay].append(parameter)
    return torch.optim.AdamW(
        [{"params": held, "share": share, "weight_decay": decay} for (share, decay), held in groups.items()],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=True,
    )
