"""What the loops of all backends refuse in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_core.arguments import suggestion
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.training.parts import EMBEDDING
from xlmr_core.training.recipe import Recipe
from xlmr_core.wording import shown

__all__ = ["check_parts", "check_same_weights", "check_targets", "check_widths"]


def check_parts(accumulate: int, recipe: Recipe) -> None:
    """Refuse a number of parts in which no batch can be computed.

    Raises:
        InputError: for none, and for several of a batch whose rows are compared.
    """
    if accumulate < 1:
        raise InputError(f"expected accumulate of at least 1, received {accumulate}; 1 computes a batch at once")
    if accumulate > 1 and recipe.task == EMBEDDING:
        raise InputError(
            "sentence embeddings are compared with all others of their batch, which is computed at once, received "
            f"accumulate={accumulate}; leave it out, and make batch_size smaller"
        )


def check_widths(widths: Sequence[int], width: int) -> None:
    """Refuse widths of embeddings that the model does not have.

    Raises:
        InputError: for one above ``width``.
    """
    if max(widths, default=0) > width:
        raise InputError(
            f"expected matryoshka widths of at most {width}, the model's, received {max(widths)}; leave "
            "the wider ones out"
        )


def check_targets(layers: Sequence[str], targets: Sequence[str]) -> None:
    """Refuse targets of adapters that no layer has.

    Args:
        layers: their names, with points between their parts.
        targets: the last parts of names.

    Raises:
        InputError: with the nearest one that there is.
    """
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers})
            near = suggestion(target, known, otherwise=f"choose of {', '.join(known)}")
            raise InputError(f"lora_targets: expected names of layers, received {target!r}; {near}")


def check_same_weights(folder: Path, shapes: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of other weights.

    Args:
        folder: of the checkpoint.
        shapes: of the weights that are trained, by name.
        stored: of those in the checkpoint.

    Raises:
        CheckpointError: naming some that differ.
    """
    other = sorted(name for name in {**shapes, **stored} if shapes.get(name) != stored.get(name))
    if other:
        pairs = ", ".join(f"{name} {stored.get(name, 'is absent')}, not {shapes.get(name, 'there')}" for name in other)
        raise CheckpointError(
            f"the checkpoint {folder} is of another model or trains other weights: {shown(pairs, 200)}; make the model "
            "as when the run began"
        )
