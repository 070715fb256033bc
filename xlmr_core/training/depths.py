"""How deep a parameter stands in a model, by its name: what a recipe leaves as it is, and at which rate it is trained.

Depths: 0 are the embeddings, 1 to L the layers, L + 1 what stands on them (a head, a pooler, adapters of both).
"""

from __future__ import annotations

import re

from xlmr_core.errors import InputError
from xlmr_core.training.recipe import Recipe

__all__ = ["depth_of", "lowest_trained", "nothing_left", "share_of"]

_PLACE = re.compile(r"(?:^|\.)(embeddings|encoder)\.(?:layer\.(\d+)\.)?")


def depth_of(name: str, layers: int) -> int:
    """The depth of a parameter.

    Args:
        name: of the parameter in any model of these packages, a wrapped one too, with points between its parts.
        layers: of the encoder.
    """
    place = _PLACE.search(name)
    if place is None:
        return layers + 1
    if place[1] == "embeddings":
        return 0
    # Beside its layers an XL encoder has a norm on the last one.
    return layers if place[2] is None else int(place[2]) + 1


def lowest_trained(recipe: Recipe, layers: int) -> int:
    """The lowest depth that a recipe trains.

    Args:
        recipe: which says what stays as it is.
        layers: of the encoder.

    Raises:
        InputError: if there are not so many layers.
    """
    if recipe.freeze_layers > layers:
        raise InputError(
            f"expected freeze_layers of at most {layers}, the layers of this model, received {recipe.freeze_layers}; "
            "head_only=true trains the head alone"
        )
    lowest = layers + 1 if recipe.head_only else 0
    if recipe.freeze_embeddings or recipe.freeze_layers:
        lowest = max(lowest, recipe.freeze_layers + 1)
    return lowest


def share_of(name: str, recipe: Recipe, layers: int) -> float:
    """What the rate of a parameter is of the rate of the step: ``layer_decay`` to the power of the depths above it
    (Howard and Ruder 2018; Clark et al. 2020, ELECTRA).
    """
    return recipe.layer_decay ** (layers + 1 - depth_of(name, layers))


def nothing_left(model: str) -> InputError:
    """The error of a model, by the name of its class, of which nothing is left to train."""
    return InputError(
        f"nothing of {model} is left to train: it has no head, or all of it is frozen; "
        "leave out head_only, or train adapters (lora_rank)"
    )
