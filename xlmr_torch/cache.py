"""A decoder's cache: the keys and values of the tokens that it has seen, one object for all layers.

What every backend decides alike is in :mod:`xlmr_core.cache`. The classes have the published names and methods, and
whatever has ``update`` and ``get_seq_length`` is taken in their place, so that a cache of transformers serves as well.

=====================  ===============================================================================================
kind                   what an ``update`` does
=====================  ===============================================================================================
:class:`DynamicCache`  copies the new columns into room beyond what it holds, which is doubled when it is full
:class:`StaticCache`   the same, in memory of a fixed size, all of which is attended to behind a mask
:class:`Slots`         either, as compiled layers see it during one call: memory, and the places to fill
=====================  ===============================================================================================

Shapes: keys and values are (B, N, M, H), M the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from xlmr_core.cache import SeenCache, check_dtype_of_layer, check_layers
from xlmr_core.calls import Call
from xlmr_core.checks import Kind, Seen
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.wording import counted
from xlmr_torch.cache_layers import DynamicLayer, StaticLayer
from xlmr_torch.inputs import is_concrete, is_traced
from xlmr_torch.packing import Packing

__all__ = [
    "Cache",
    "DynamicCache",
    "EncoderDecoderCache",
    "Slots",
    "StaticCache",
    "Unchanged",
    "keys_and_values",
    "new_cache",
    "of_memory",
    "of_tokens",
    "places_of",
    "see_cache",
    "see_cache_of_model",
    "tokens_counted",
]

Legacy = tuple[tuple[Tensor, ...], ...]


# ---- All layers


class Cache:
    """Keys and values of all layers. Not made itself; see the module for the kinds."""

    # What a compiled call of a whole model needs to know: which kinds have a fixed size.
    is_compileable: ClassVar[bool] = False

    def __init__(self, layers: Iterable[Any] = ()) -> None:
        self.layers: list[Any] = list(layers)
        # (B,): how many tokens that are no padding each row holds; ``None`` where only the mask of a call can tell.
        self.counted_B: Tensor | None = None

    def _layer(self, number: int) -> Any:
        """The layer of a number; made when it is asked for the first time."""
        while len(self.layers) <= number:
            self.layers.append(self._new_layer())
        return self.layers[number]

    def _new_layer(self) -> Any:
        return DynamicLayer()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens.

        Args:
            key_states, value_states: (B, N, S, H).
            layer_idx: number of the layer.
            cache_kwargs: ``cache_position``, (S,), says which columns of a static cache they are.

        Returns:
            Keys and values to attend to, (B, N, M, H).
        """
        places_S = None if cache_kwargs is None else cache_kwargs.get("cache_position")
        return self._layer(layer_idx).update(key_states, value_states, places_S)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens a layer holds."""
        return int(self.layers[layer_idx].length) if layer_idx < len(self.layers) else 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """How many tokens there is room for; -1: as many as come."""
        capacity = self._layer(layer_idx).capacity
        return -1 if capacity is None else int(capacity)

    @property
    def max_cache_len(self) -> int:
        """How many tokens there is room for; -1: as many as come."""
        return self.get_max_cache_shape()

    @property
    def batch_size(self) -> int | None:
        """How many rows there are; ``None`` before the first token."""
        keys = self.layers[0].keys if self.layers else None
        return None if keys is None else int(keys.shape[0])

    @property
    def is_initialized(self) -> bool:
        """Whether there are keys and values."""
        return self.batch_size is not None

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # an empty cache is one all the same

    def __getitem__(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        layer = self.layers[layer_idx]
        return layer.keys, layer.values

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(self.get_seq_length(), 'token')}, {counted(len(self), 'layer')})"

    # ---- Changes

    def reset(self) -> None:
        """Forget all tokens."""
        self.counted_B = None
        for layer in self.layers:
            layer.reset()

    def crop(self, max_length: int) -> None:
        """Forget the last tokens.

        Args:
            max_length: how many to keep at most; negative: how many to forget.
        """
        kept = max(0, self.get_seq_length() + max_length) if max_length < 0 else max_length
        if kept < self.get_seq_length():
            self.counted_B = None  # how many of those that go are padding, the next call's mask tells
            for layer in self.layers:
                layer.crop(kept)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let rows go on from others, in place: row i from what was row ``beam_idx[i]``."""
        self._change(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, (n,) integers or booleans, in place."""
        self._change(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have every row so many times, one after the other, in place."""
        self._change(lambda x: x.repeat_interleave(repeats, 0))

    def _change(self, change: Any) -> None:
        if self.counted_B is not None:
            self.counted_B = change(self.counted_B)
        for layer in self.layers:
            layer.change(change)

    # ---- The layout of older releases

    def to_legacy_cache(self) -> Legacy:
        """A tuple of (keys, values) a layer."""
        return tuple(self)

    @classmethod
    def from_legacy_cache(cls, past_key_values: Iterable[tuple[Tensor, ...]] | None = None) -> Any:
        """A cache of a tuple of (keys, values) a layer; the tensors are shared as long as nothing is added."""
        raise NotImplementedError(f"a {cls.__name__} is not made of tuples; use DynamicCache or EncoderDecoderCache")


class DynamicCache(Cache):
    """A cache that grows.

    Args:
        ddp_cache_data: (keys, values) a layer, each (B, N, M, H), to begin with.
        config: of the published signature; layers are made as they come.
    """

    def __init__(
        self, ddp_cache_data: Iterable[tuple[Tensor, ...]] | None = None, config: XLMRobertaConfig | None = None
    ) -> None:
        super().__init__()
        for number, (keys, values) in enumerate(ddp_cache_data or ()):
            self._layer(number).update(keys, values)

    @classmethod
    def from_legacy_cache(cls, past_key_values: Iterable[tuple[Tensor, ...]] | None = None) -> DynamicCache:
        """A cache of a tuple of (keys, values) a layer; the tensors are shared as long as nothing is added."""
        return cls((layer[0], layer[1]) for layer in past_key_values or ())


class StaticCache(Cache):
    """A cache of a fixed size, whose memory never moves, so that a compiled step is compiled once.

    Args:
        config: of the model, says how many layers there are.
        max_cache_len: how many tokens there is room for.
        **kwargs: of the published signature (``max_batch_size``, ``device``, ``dtype``): memory is made when the first
            keys come, as they are.

    Raises:
        InputError: for no room.
    """

    is_compileable: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaConfig, max_cache_len: int, **kwargs: Any) -> None:
        if not isinstance(max_cache_len, int) or max_cache_len < 1:
            raise InputError(f"max_cache_len must be a number of tokens, received {max_cache_len!r}; pass 1 or more")
        super().__init__(StaticLayer(max_cache_len) for _ in range(config.num_hidden_layers))


class EncoderDecoderCache(Cache):
    """The cache of a decoder with cross-attention: that of its own tokens, and the keys and values of the memory, which
    are computed once.

    Args:
        *caches: that of the tokens and that of the memory; or, as data-parallel wrappers rebuild it, one iterable of
            (keys, values, keys, values) a layer.
    """

    def __init__(self, *caches: Any) -> None:
        if len(caches) == 1:
            layers = [tuple(layer) for layer in caches[0]]
            caches = (
                DynamicCache(layer[:2] for layer in layers),
                DynamicCache(layer[2:] for layer in layers if len(layer) > 2),
            )
        self.self_attention_cache, self.cross_attention_cache = caches
        # By the layer's number: whether the memory's keys and values are there.
        self.is_updated: dict[int, bool] = {
            number: True for number in range(len(self.cross_attention_cache)) if of_memory(self, number)
        }

    @property
    def layers(self) -> Any:
        """Those of the tokens."""
        return self.self_attention_cache.layers

    @property
    def counted_B(self) -> Tensor | None:
        """(B,): how many tokens that are no padding each row holds."""
        return getattr(self.self_attention_cache, "counted_B", None)

    @counted_B.setter
    def counted_B(self, value: Tensor | None) -> None:
        self.self_attention_cache.counted_B = value

    @property
    def is_compileable(self) -> bool:  # type: ignore[override]
        return bool(self.self_attention_cache.is_compileable)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens; see :meth:`Cache.update`."""
        return self.self_attention_cache.update(key_states, value_states, layer_idx, cache_kwargs)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens a layer holds."""
        return self.self_attention_cache.get_seq_length(layer_idx)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """How many tokens there is room for; -1: as many as come."""
        return self.self_attention_cache.get_max_cache_shape(layer_idx)

    def __getitem__(self, layer_idx: int) -> tuple[Tensor, ...]:  # type: ignore[override]
        own = self.self_attention_cache[layer_idx]
        return (*own, *self.cross_attention_cache[layer_idx]) if self.is_updated.get(layer_idx) else own

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        return (self[number] for number in range(len(self)))

    def reset(self) -> None:
        """Forget all tokens and the memory."""
        self.self_attention_cache.reset()
        self.cross_attention_cache.reset()
        self.is_updated = {}

    def crop(self, max_length: int) -> None:
        """Forget the last tokens; see :meth:`Cache.crop`."""
        self.self_attention_cache.crop(max_length)

    def _change(self, change: Any) -> None:
        self.self_attention_cache._change(change)
        self.cross_attention_cache._change(change)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.self_attention_cache!r}, {self.cross_attention_cache!r})"

    @classmethod
    def from_legacy_cache(cls, past_key_values: Iterable[tuple[Tensor, ...]] | None = None) -> EncoderDecoderCache:
        """A cache of a tuple of (keys, values, and those of the memory) a layer."""
        return cls(past_key_values or ())


def new_cache(*, with_memory: bool) -> Cache:
    """The cache that a call begins which was given none."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if with_memory else DynamicCache()


# ---- What a call does with a cache


def of_tokens(cache: Any) -> Any:
    """The part of a cache that is about the decoder's own tokens."""
    return getattr(cache, "self_attention_cache", cache)


def of_memory(cache: Any, number: int) -> tuple[Tensor, Tensor] | None:
    """Keys and values of the memory, (B, N, M, H), if a cache has them."""
    layers = cache.cross_attention_cache.layers
    if number >= len(layers) or layers[number].keys is None or not layers[number].keys.numel():
        return None
    return layers[number].keys, layers[number].values


def keys_and_values(
    cache: Any, number: int, key: Tensor, value: Tensor, places_S: Tensor | None, packing: Packing | None
) -> tuple[Tensor, Tensor]:
    """Keys and values to attend to, once those of the new tokens are in the cache.

    Args:
        cache: ours, or another library's.
        number: of the layer.
        key, value: (B, S, N, H), or (T, N, H) if packed, which begins a cache: nothing else is attended to then.
        places_S: places of the new tokens.
        packing: of the new tokens.

    Returns:
        The same layout, (B, M, N, H) or (T, N, H).
    """
    cache = of_tokens(cache)
    if number == 0:  # all layers are alike
        _check_dtype(cache, key)
    if packing is not None:
        if isinstance(cache, Slots):
            cache.begin(number, key, value)
        else:
            cache.update(*(packing.unpack(x).transpose(1, 2) for x in (key, value)), number, _at(places_S))
        return key, value
    keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), number, _at(places_S))
    return keys.transpose(1, 2), values.transpose(1, 2)


def _check_dtype(cache: Any, key: Tensor) -> None:
    """Refuse to add to a cache of another dtype; autocast makes both alike."""
    held = cache.keys[:1] if isinstance(cache, Slots) else [keys for keys, _ in _held(cache, 1)]
    if held and not torch.is_autocast_enabled(key.device.type):
        check_dtype_of_layer(0, held[0].dtype, key.dtype)


def _at(places_S: Tensor | None) -> dict[str, Any]:
    return {"cache_position": places_S}


def tokens_counted(call: Call[Tensor]) -> Tensor:
    """(B,): how many tokens that are no padding each row of a cache holds; positions go on from there."""
    assert call.past is not None
    batch, mask = call.source.shape[0], call.attention_mask
    if call.past.length == 0:
        return torch.zeros(batch, dtype=torch.int64, device=call.source.device)
    counted_B: Tensor | None = getattr(of_tokens(call.cache), "counted_B", None)
    if counted_B is not None:
        return counted_B
    first_1 = places_of(call)[:1]
    if mask is None or mask.dim() != 2:
        return first_1.expand(batch)
    return ((mask != 0) & (torch.arange(mask.shape[1], device=mask.device) < first_1)).sum(1)


def places_of(call: Call[Tensor]) -> Tensor:
    """(S,): where new tokens stand in the whole sequence."""
    assert call.past is not None
    if call.cache_position is not None:
        places_S: Tensor = call.cache_position
        return places_S
    new_S, held = torch.arange(call.source.shape[1], device=call.source.device), call.past.length
    if held is None:  # as a tensor, where a compiler is looking on
        layer = of_tokens(call.cache).layers[0]
        return new_S + (layer.seen if isinstance(layer, StaticLayer) else call.cache.get_seq_length())
    return new_S + held


class Unchanged:
    """A cache that a call reads and leaves as it is, because its layers are computed once more in the backward pass."""

    def __init__(self, cache: Any) -> None:
        self.layers = of_tokens(cache).layers

    def update(self, key: Tensor, value: Tensor, number: int, cache_kwargs: Any = None) -> tuple[Tensor, Tensor]:
        """What is held and the new columns, (B, N, M, H)."""
        held = self.layers[number] if number < len(self.layers) else None
        if held is None or held.keys is None:
            return key, value
        return torch.cat([held.keys, key], 2), torch.cat([held.values, value], 2)


class Slots:
    """A cache as compiled layers see it during one call: memory to fill, and no number that would grow from call to
    call, so that nothing is compiled anew.

    Args:
        cache: a cache of ours.
        past, length: how many tokens it holds, and how many come.
    """

    def __init__(self, cache: Cache, past: int, length: int) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.begins = past == 0
        for layer in [] if self.begins else of_tokens(cache).layers:
            keys, values = layer.memory(layer.capacity or past + length)
            self.keys.append(keys)
            self.values.append(values)
        # Those of a memory, which never grow.
        self.cross_attention_cache = getattr(cache, "cross_attention_cache", None)
        self.is_updated = getattr(cache, "is_updated", None)

    @property
    def columns(self) -> int:
        """How many columns the memory has."""
        return int(self.keys[0].shape[2])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, cache_kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Fill columns of a layer; returns its whole memory, or what came where that begins a cache."""
        if self.begins:
            self.begin(layer_idx, key_states, value_states)
            return key_states, value_states
        places_S = cache_kwargs["cache_position"]
        keys = self.keys[layer_idx].index_copy_(2, places_S, key_states)
        return keys, self.values[layer_idx].index_copy_(2, places_S, value_states)

    def begin(self, number: int, key: Tensor, value: Tensor) -> None:
        """Keep the first keys and values of a layer as they come, packed ones too; layers come in order."""
        self.keys.append(key)
        self.values.append(value)

    def close(self, cache: Cache, length: int, packing: Packing | None) -> None:
        """Let a cache hold what the layers have added."""
        cache = of_tokens(cache)
        for number, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            if not self.begins:
                cache.layers[number].length += length
            elif packing is None:
                cache.update(keys, values, number)
            else:
                cache.update(packing.unpack(keys).transpose(1, 2), packing.unpack(values).transpose(1, 2), number)


# ---- What comes as ``past_key_values``


def see_cache(config: XLMRobertaConfig, given: Any, number: int = 0) -> tuple[Any, SeenCache]:
    """A cache of what came as ``past_key_values``, and what the core's checks look at.

    Args:
        config: of the model.
        given: a cache, another library's, or a tuple with (keys, values) a layer, of which there may be four with a
            memory's.
        number: of the layer that is asked how much it holds.

    Raises:
        InputError: for anything else, and a tuple of another model.
    """
    if isinstance(given, tuple | list):
        check_layers(config, [_seen(layer) for layer in given])
        cache: Any = (DynamicCache if len(given[0]) == 2 else EncoderDecoderCache).from_legacy_cache(given)
    elif callable(getattr(given, "update", None)) and callable(getattr(given, "get_seq_length", None)):
        cache = given
    else:
        raise InputError(
            f"past_key_values must be a cache (DynamicCache, StaticCache, EncoderDecoderCache) or a tuple of (keys, "
            f"values) a layer, received {type(given).__name__}; pass what a call with use_cache=True returned"
        )
    held, fixed = _held(cache, 1), _capacity(cache)
    # Of a fixed size under a compiler: a number that grows would have it compiled again and again.
    length = None if fixed is not None and is_traced() else _number(cache.get_seq_length(number))
    return cache, SeenCache(length, fixed, held[0][0].shape[0] if held else None)


def see_cache_of_model(config: XLMRobertaConfig, given: Any) -> tuple[Any, SeenCache]:
    """As :func:`see_cache`, of a cache that all layers of a model have added to.

    Raises:
        InputError: for a cache of another model too.
    """
    cache, past = see_cache(config, given)
    held = _held(cache)
    if cache is given and held and not is_traced():
        has_memory = hasattr(cache, "cross_attention_cache")
        memory = [of_memory(cache, number) if has_memory else None for number in range(len(held))]
        pairs = zip(held, memory, strict=True)
        check_layers(config, [[*_seen(own, past.length), *_seen(other or ())] for own, other in pairs])
    return cache, past


def _held(cache: Any, most: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the first layers that have some, with room behind them where the layers are ours, as this runs
    in every call; where another library keeps them otherwise, none.
    """
    pairs = [
        (layer._keys, layer._values)
        if isinstance(layer, DynamicLayer)
        else (getattr(layer, "keys", None), getattr(layer, "values", None))
        for layer in list(getattr(of_tokens(cache), "layers", ()))[:most]
    ]
    return [pair for pair in pairs if all(isinstance(x, Tensor) and x.dim() == 4 for x in pair)]


def _seen(layer: Any, length: int | None = None) -> list[Seen]:
    """What the core's checks look at of a layer.

    Args:
        layer: its tensors.
        length: tokens in them, if there may be room behind those.

    Raises:
        InputError: for something that is no tensor.
    """
    parts = layer if isinstance(layer, tuple | list) else ()
    for x in parts:
        if not isinstance(x, Tensor):
            raise InputError(
                f"past_key_values as a tuple must hold tensors, received {type(x).__name__}; pass what a call with "
                "use_cache=True returned"
            )
    shapes = [x.shape if length is None else (*x.shape[:2], length, x.shape[3]) for x in parts]
    return [
        Seen("past_key_values", tuple(shape), Kind.FLOATING, x.dtype) for x, shape in zip(parts, shapes, strict=True)
    ]


def _capacity(cache: Any) -> int | None:
    """How many tokens there is room for, if the size is fixed; releases of the original library ask in two ways."""
    for name in ("get_max_cache_shape", "get_max_length"):
        if hasattr(cache, name) and getattr(of_tokens(cache), "layers", None):
            capacity = _number(getattr(cache, name)())
            return capacity if capacity is not None and capacity > 0 else None
    return None


def _number(x: Any) -> int | None:
    """A number that is known; other libraries give some as tensors."""
    if isinstance(x, Tensor):
        return int(x) if is_concrete(x) or not is_traced() else None
    return x


# ---- What compilers, exports and wrappers see through


def register_caches() -> None:
    """Make caches containers of tensors."""
    for kind in (DynamicCache, EncoderDecoderCache):
        pytree.register_pytree_node(
            kind,
            _flatten,
            _Unflatten(kind),
            serialized_type_name=f"xlmr_torch.cache.{kind.__name__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )


def _flatten(cache: Any) -> tuple[list[Any], Any]:
    return [[list(layer) for layer in cache], cache.counted_B], None


def _flatten_with_keys(cache: Any) -> tuple[list[tuple[Any, Any]], Any]:
    layers, counted_B = _flatten(cache)[0]
    return [(pytree.MappingKey("layers"), layers), (pytree.MappingKey("counted_B"), counted_B)], None


class _Unflatten:
    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __call__(self, values: Any, _: Any) -> Any:
        layers, counted_B = values
        cache = self.kind(layers)
        cache.counted_B = counted_B
        return cache


register_caches()
