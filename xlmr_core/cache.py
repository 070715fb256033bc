"""A decoder's cache: what every backend decides alike.

A cache holds the keys and values of the tokens that a decoder has seen, so that a call brings the new tokens only. The
cache of a backend (its ``cache.py``) is one object for all layers, asked by a layer's number, and part of the plan of a
call. There are two kinds: one that grows, and one of a fixed size, which compilers like.

With ``past`` tokens in the cache and S new ones, query i of the new ones is token ``past + i``: it sees key j if
``j <= past + i`` and the attention mask, of ``past + S`` columns, keeps j; relative positions count ``past + i - j``.
Absolute positions go on from the tokens of a row that are no padding. A cache of ours has counted them (``counted``);
for any other the mask tells: its columns of what is in the cache are counted, or all of it where there is no mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlmr_core.errors import InputError
from xlmr_core.positions import max_tokens
from xlmr_core.wording import counted, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xlmr_core.checks import Seen
    from xlmr_core.config import XLMRobertaConfig

__all__ = [
    "SeenCache",
    "check_cache",
    "check_cache_position",
    "check_dtype_of_layer",
    "check_layers",
    "check_mask_of_cache",
    "keeps_cache",
]


@dataclass(frozen=True)
class SeenCache:
    """What the checks look at of a cache that came with a call.

    Attributes:
        length: how many tokens are in it; ``None`` where only a compiler or a device knows.
        capacity: how many it can hold; ``None`` for one that grows.
        batch: how many rows it has; ``None`` for an empty one, which has none yet.
    """

    length: int | None
    capacity: int | None = None
    batch: int | None = None


def keeps_cache(config: XLMRobertaConfig, use_cache: bool | None, *, recomputes: bool = False) -> bool:
    """Whether a call gives a cache, as published: by default a decoder does as its configuration says, an encoder never
    does, and neither does a training that computes layers once more (gradient checkpointing).

    Args:
        config: of the model.
        use_cache: what was passed.
        recomputes: whether layers are computed once more in the backward pass.

    Raises:
        InputError: for what is neither ``None`` nor a boolean.
    """
    if use_cache is not None and not isinstance(use_cache, bool):
        raise InputError(
            f"use_cache must be True, False or None, received {shown(use_cache)}; None: as config.use_cache"
        )
    if not config.is_decoder or recomputes:
        return False
    return bool(config.use_cache if use_cache is None else use_cache)


def check_cache(config: XLMRobertaConfig, cache: SeenCache, batch: int, length: int, *, has_positions: bool) -> None:
    """Refuse a cache that a call cannot go on from.

    Args:
        config: of the model.
        cache: what came.
        batch: rows of the call.
        length: its new tokens.
        has_positions: whether the call brings ``position_ids``.

    Raises:
        InputError: for a model that is no decoder, a cache of another batch, one without room for the new tokens, and
            more tokens than the model has positions for.
    """
    if not config.is_decoder:
        raise InputError(
            "past_key_values is for a decoder, whose tokens see only what came before; build or load the model with "
            "is_decoder=True, or leave past_key_values out"
        )
    if cache.batch is not None and cache.batch != batch:
        raise InputError(
            f"past_key_values holds {counted(cache.batch, 'row')}, received input of {counted(batch, 'row')}; pass the "
            "cache that came from this batch, or reorder it"
        )
    if cache.length is None:
        return
    total = cache.length + length
    if cache.capacity is not None and total > cache.capacity:
        raise InputError(
            f"past_key_values has room for {counted(cache.capacity, 'token')} and holds {cache.length}, received "
            f"{length} more; make a larger one"
        )
    most = max_tokens(config)
    if config.position_embedding_type == "absolute" and not has_positions and total > most:
        raise InputError(
            f"past_key_values holds {counted(cache.length, 'token')} and {length} more came, expected at most {most} "
            "together, for which the model has positions (max_position_embeddings); shorten the text"
        )
    if config.position_embedding_type != "absolute" and total > config.max_position_embeddings:
        raise InputError(
            f"past_key_values holds {counted(cache.length, 'token')} and {length} more came, relative positions reach "
            f"{config.max_position_embeddings}; shorten the text"
        )


# What a layer has, in the order of the published tuple.
_PARTS = ("keys", "values", "keys of the memory", "values of the memory")
_FROM_THIS_MODEL = "pass what a call of this model gave as past_key_values"


def check_layers(config: XLMRobertaConfig, layers: Sequence[Sequence[Seen]], dtype: Any = None) -> None:
    """Refuse keys and values that are not of this model.

    Args:
        config: of the model.
        layers: of each layer keys and values (B, N, tokens, H), and behind them those of the memory, if they are there.
        dtype: the framework's own, in which the model computes; ``None``: whichever, if all have the same.

    Raises:
        InputError: for another number of layers, a memory where the model attends to none, and another shape or dtype.
    """
    if len(layers) != config.num_hidden_layers:
        raise InputError(
            f"past_key_values has {counted(len(layers), 'layer')}, expected {config.num_hidden_layers}; "
            f"{_FROM_THIS_MODEL}"
        )
    allowed = (2, 4) if config.add_cross_attention else (2,)
    size, every_head = config.head_size, config.num_attention_heads
    for number, layer in enumerate(layers):
        own_heads = config.heads_in_layer(number)
        if len(layer) not in allowed or len(layer) != len(layers[0]):
            raise InputError(
                f"past_key_values must have (keys, values) for each layer, and with cross-attention four, those of the "
                f"memory too, received {len(layer)} for layer {number} of a model with "
                f"add_cross_attention={config.add_cross_attention}; {_FROM_THIS_MODEL}"
            )
        for place, x in enumerate(layer):
            heads = own_heads if place < 2 else every_head
            # All layers have the batch and the tokens of the first.
            first = layers[0][place // 2 * 2]
            if len(x.shape) != 4 or x.shape != (first.shape[0], heads, first.shape[2], size):
                batch, tokens = ("batch", "tokens") if x is first else (first.shape[0], first.shape[2])
                raise InputError(
                    f"past_key_values has {_PARTS[place]} of layer {number} of shape {tuple(x.shape)}, expected "
                    f"({batch}, {heads}, {tokens}, {size}), which are batch, heads, tokens and size of a "
                    f"head; {_FROM_THIS_MODEL}"
                )
            check_dtype_of_layer(number, x.dtype, layers[0][0].dtype if dtype is None else dtype, _PARTS[place])


def check_dtype_of_layer(number: int, dtype: Any, expected: Any, part: str = "keys") -> None:
    """Refuse keys or values of a layer in another dtype than that in which the model computes.

    Args:
        number: of the layer.
        dtype, expected: the framework's own.
        part: what they are.

    Raises:
        InputError: if the two differ.
    """
    if dtype != expected:
        came, computes = (getattr(x, "name", x) for x in (dtype, expected))
        raise InputError(
            f"past_key_values has {part} of layer {number} in {came}, expected {computes}, in which the model "
            f"computes; {_FROM_THIS_MODEL}"
        )


def check_mask_of_cache(mask: Seen | None, cache: SeenCache, batch: int, length: int) -> None:
    """Refuse an attention mask that does not speak of the tokens in the cache too.

    Args:
        mask: (B, past + S), or (B, S, past + S); of a cache of a fixed size, as many columns as that are taken as well.
        cache: what came.
        batch, length: B and S, of the new tokens.

    Raises:
        InputError: for any other shape.
    """
    if mask is None:
        return
    shape = tuple(mask.shape)
    columns = [cache.capacity] if cache.length is None else [cache.length + length, cache.capacity]
    allowed = [(batch, *between, size) for size in columns if size is not None for between in ((), (length,))]
    if cache.length is None and cache.capacity is None:
        fits = len(shape) in (2, 3) and shape[0] == batch
    else:
        fits = shape in allowed
    if not fits:
        past = "what is in past_key_values" if cache.length is None else f"the {cache.length} in past_key_values"
        raise InputError(
            f"attention_mask must have a column for each token, those of {past} and the {length} new ones, received "
            f"{shape}; append the new columns to the mask of the call before"
        )


def check_cache_position(position: Seen | None, cache: SeenCache | None, length: int) -> None:
    """Refuse places of the new tokens that do not follow the cache.

    Args:
        position: integers (S,), the index of each new token in the whole sequence.
        cache: what came.
        length: S.

    Raises:
        InputError: for another shape, or other places than the next ones.
    """
    past = 0 if cache is None else cache.length
    if position is None or past is None:
        return
    shape, values = tuple(position.shape), position.values and position.values().tolist()
    if shape != (length,) or (values is not None and values != list(range(past, past + length))):
        raise InputError(
            f"cache_position must be the places {past} to {past + length - 1}, which follow the "
            f"{counted(past, 'token')} in past_key_values, received {values or f'the shape {shape}'}; leave it out"
        )
