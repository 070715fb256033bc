"""Low-rank adapters beside weights that stand still (Hu et al. 2022, LoRA): two small matrices for a kernel, which lie
beside it in the tree. The model sees the sums, and so do its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from xlmr_core.training.depths import depth_of
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.refusals import check_targets
from xlmr_flax.lm_heads import VocabularyModel

if TYPE_CHECKING:
    from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["adapted", "merged"]

Leaves = Mapping[tuple[str, ...], Any]
# The names of PEFT; of a kernel (in, out) the first has the shape (in, rank), the second (rank, out).
FIRST, SECOND = "lora_A", "lora_B"


def adapted(leaves: Leaves, model: PreTrainedModel, recipe: Recipe) -> dict[tuple[str, ...], Any]:
    """Adapters of the recipe's rank, drawn as PEFT draws them, and the head that is trained whole beside them: what a
    pretrained encoder comes without. A head that predicts tokens comes with it.

    Args:
        leaves: the parameters by path.
        model: whose they are.
        recipe: ``lora_rank``, ``lora_targets`` and ``seed`` are read.

    Raises:
        InputError: if a target is no layer of the model.
    """
    layers = model.config.num_hidden_layers
    has_own_head = not isinstance(model, VocabularyModel) and model.base_model is not model
    found = {
        path: value for path, value in leaves.items() if has_own_head and depth_of(".".join(path), layers) > layers
    }
    kernels = [path for path in sorted(leaves) if path[-1] == "kernel" and path not in found]
    chosen = [path for path in kernels if any(_is_named(path, target) for target in recipe.lora_targets)]
    check_targets([".".join(path[:-1]) for path in kernels], recipe.lora_targets)
    for path, key in zip(chosen, jax.random.split(jax.random.key(recipe.seed), len(chosen)), strict=True):
        width, out = leaves[path].shape
        bound = width**-0.5
        first = jax.random.uniform(key, (width, recipe.lora_rank), jnp.float32, -bound, bound)
        found |= {(*path[:-1], FIRST): first, (*path[:-1], SECOND): jnp.zeros((recipe.lora_rank, out), jnp.float32)}
    return found


def merged(leaves: Leaves, recipe: Recipe) -> dict[tuple[str, ...], Any]:
    """The parameters of the plain model, with the adapters among them added to their kernels."""
    plain = {path: value for path, value in leaves.items() if path[-1] not in (FIRST, SECOND)}
    for path, first in leaves.items():
        if path[-1] == FIRST:
            place, second = (*path[:-1], "kernel"), leaves[(*path[:-1], SECOND)]
            plain[place] = plain[place] + recipe.lora_alpha / recipe.lora_rank * (first @ second)
    return plain


def _is_named(path: Sequence[str], target: str) -> bool:
    return ".".join(("", *path[:-1])).endswith(f".{target}")
