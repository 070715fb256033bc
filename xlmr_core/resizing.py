"""The numbers behind a model that changes its shape: rows of the vocabulary, heads that are pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.config_checks import layers_from_the_first
from xlmr_core.errors import InputError

__all__ = ["SPREAD", "heads_to_prune_now", "rows_wanted"]

# New rows of a table start at the mean of the old ones, apart from each other by this part of their standard deviation:
# were they all alike, no gradient could tell them apart (Hewitt 2021).
SPREAD = 1e-9**0.5


def rows_wanted(config: XLMRobertaConfig, old: int, new_num_tokens: Any, pad_to_multiple_of: Any) -> int:
    """How many rows ``resize_token_embeddings`` leaves.

    Args:
        config: of the model.
        old: rows that are there.
        new_num_tokens: rows wanted; ``None`` keeps the number (before rounding).
        pad_to_multiple_of: round up to a multiple of it.

    Raises:
        InputError: for a number that is not positive or cuts off the padding token.
    """
    rows = old if new_num_tokens is None else new_num_tokens
    if not _is_integer(rows) or rows <= config.pad_token_id:
        raise InputError(
            f"new_num_tokens must be an integer above pad_token_id ({config.pad_token_id}), received {new_num_tokens!r}"
        )
    if pad_to_multiple_of is None:
        return int(rows)
    if not _is_integer(pad_to_multiple_of) or pad_to_multiple_of < 1:
        raise InputError(f"pad_to_multiple_of must be a positive integer, received {pad_to_multiple_of!r}")
    return int(-(-rows // pad_to_multiple_of) * pad_to_multiple_of)


def heads_to_prune_now(
    config: XLMRobertaConfig, asked: Mapping[int, Iterable[int]]
) -> tuple[dict[int, set[int]], dict[int, list[int]]]:
    """What ``prune_heads`` removes; nothing is changed yet.

    Args:
        config: of the model.
        asked: heads by layer, by their original numbers; ones already gone are passed over. Layers below zero count
            from the last.

    Returns:
        By layer the heads that go now, and the value of ``config.pruned_heads`` afterwards.

    Raises:
        ConfigError: for heads or layers that the model does not have, or if a layer would be left without any.
    """
    gone = {layer: set(heads) for layer, heads in config.pruned_heads.items()}
    found = layers_from_the_first(asked, config.num_hidden_layers)
    going = {layer: set(heads) - gone.get(layer, set()) for layer, heads in found.items()}
    pruned = {layer: sorted(gone.get(layer, set()) | going.get(layer, set())) for layer in {**gone, **going}}
    config.copy(pruned_heads=pruned)  # refuses what cannot be
    return {layer: heads for layer, heads in going.items() if heads}, pruned


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
