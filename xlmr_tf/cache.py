"""A decoder's cache: the keys and values of the tokens that its layers have seen, and of the memory they attend to.

One object for all layers, asked by a layer's number, and a value as everything of TensorFlow: a call leaves the cache
that it got as it is, and gives another one. What a call takes and gives as ``past_key_values`` is the published tuple,
of each layer ``(keys, values)``, with cross-attention ``(keys, values, keys of the memory, values of the memory)``
(outside of graphs a :class:`CountedTuple`); or a :class:`StaticCache`, whose sizes stay as they are, so that a graph is
traced once for all steps, and XLA takes it.

Keys and values are (B, N, M, H), M tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import tensorflow as tf

from xlmr_core.cache import SeenCache, check_layers
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_tf.inputs import is_concrete, is_traced, is_xla, see
from xlmr_tf.linear import dims

__all__ = ["Cache", "CountedTuple", "StaticCache", "see_cache"]

Pair = tuple[tf.Tensor, tf.Tensor]


class CountedTuple(tuple[tuple[tf.Tensor, ...], ...]):
    """The published tuple, which knows too how many tokens of each row are no padding: the positions of what comes next
    go on from there. A graph takes and gives it as a plain tuple, where the attention mask has to tell.

    Attributes:
        counted_B: integers; ``None``: nobody has counted.
    """

    counted_B: tf.Tensor | None = None

    @classmethod
    def of(cls, layers: Iterable[tuple[tf.Tensor, ...]], counted_B: tf.Tensor | None) -> Self:
        """Of the tuples of layers, and what was counted."""
        found = cls(layers)
        found.counted_B = counted_B
        return found


@dataclass(eq=False)
class Cache:
    """A cache that grows.

    Attributes:
        layers: keys and values by layer; none as long as it is empty.
        memory: those of the memory, which are computed once.
        length: how many tokens are in it, padding too: an integer or a scalar.
        counted_B: integers, how many tokens that are no padding each row has seen; ``None``: nobody has counted.
    """

    layers: list[Pair] = field(default_factory=list)
    memory: list[Pair] = field(default_factory=list)
    length: Any = 0
    counted_B: tf.Tensor | None = None

    # ---- During a call

    def copy(self) -> Self:
        """One that can be added to, while this one stays as it is."""
        return replace(self, layers=[*self.layers], memory=[*self.memory])

    @property
    def has_free_places(self) -> bool:
        """Whether the layers of the next call see places behind their tokens, where nothing is yet."""
        return False

    def columns(self, length: Any) -> Any:
        """How many keys the layers of a call with ``length`` new tokens see."""
        return self.length + length

    def update(self, number: int, key_BNSH: tf.Tensor, value_BNSH: tf.Tensor) -> Pair:
        """Add the new tokens of a layer; returns all that it sees."""
        if number == len(self.layers):
            self.layers.append((key_BNSH, value_BNSH))
        else:
            old = self.layers[number]
            self.layers[number] = tf.concat([old[0], key_BNSH], 2), tf.concat([old[1], value_BNSH], 2)
        return self.layers[number]

    def get_seq_length(self) -> Any:
        """How many tokens are in it: an integer or a scalar."""
        return self.length

    def advance(self, length: Any, counted_B: tf.Tensor) -> None:
        """Say, when all layers have them, how many tokens came, and how many of each row are no padding."""
        self.length = self.length + length
        self.counted_B = counted_B if self.counted_B is None else self.counted_B + counted_B

    # ---- Rows

    def reorder_cache(self, beam_idx: tf.Tensor) -> Self:
        """With other rows in the places of these, as beams go on from each other. The memory stays: the beams of a text
        have it in common.

        Args:
            beam_idx: integers (B,), which row to take for each.
        """
        layers = [(tf.gather(key, beam_idx), tf.gather(value, beam_idx)) for key, value in self.layers]
        counted_B = None if self.counted_B is None else tf.gather(self.counted_B, beam_idx)
        return replace(self, layers=layers, counted_B=counted_B)

    def repeat(self, times: int) -> Self:
        """Each row, and its memory, so many times, one after the other."""

        def repeated(pairs: list[Pair]) -> list[Pair]:
            return [(tf.repeat(key, times, 0), tf.repeat(value, times, 0)) for key, value in pairs]

        counted_B = None if self.counted_B is None else tf.repeat(self.counted_B, times)
        return replace(self, layers=repeated(self.layers), memory=repeated(self.memory), counted_B=counted_B)

    # ---- Outside

    def seen(self) -> SeenCache:
        """What the core's checks look at."""
        size = self.layers[0][0].shape if self.layers else (None, None, 0)
        return SeenCache(length=size[2], batch=size[0])

    def to_legacy_cache(self) -> tuple[tuple[tf.Tensor, ...], ...]:
        """The published tuple."""
        memory: list[Any] = self.memory or [()] * len(self.layers)
        layers = tuple((*own, *other) for own, other in zip(self.layers, memory, strict=True))
        return layers if self.counted_B is None or is_traced() else CountedTuple.of(layers, self.counted_B)

    @classmethod
    def from_legacy_cache(cls, past_key_values: Any) -> Self:
        """A cache of the published tuple."""
        cache = cls([tuple(layer[:2]) for layer in past_key_values])
        cache.memory = [tuple(layer[2:4]) for layer in past_key_values if len(layer) == 4]
        cache.length = dims(cache.layers[0][0])[2]
        cache.counted_B = getattr(past_key_values, "counted_B", None)
        return cache

    def published(self) -> Any:
        """What an output has as ``past_key_values``."""
        return self.to_legacy_cache()


@dataclass(eq=False)
class StaticCache(Cache):
    """A cache of a fixed size. The attention mask of a call that goes on from it may have a column for each place.

    Pass one to the first call, and to each further one what the call before gave::

        output = model(**prompt, past_key_values=StaticCache.empty(64), use_cache=True)
        output = model(next_ids, past_key_values=output.past_key_values)

    Attributes:
        capacity: how many tokens it has room for.
    """

    capacity: int = 0

    @classmethod
    def empty(cls, max_cache_len: int) -> Self:
        """One without tokens.

        Args:
            max_cache_len: how many tokens there is to be room for.

        Raises:
            InputError: for a size that is no positive number.
        """
        if not isinstance(max_cache_len, int) or max_cache_len < 1:
            raise InputError(
                f"max_cache_len must be the number of tokens that there is to be room for, received {max_cache_len!r}"
            )
        return cls(length=tf.constant(0), capacity=max_cache_len)

    @property
    def has_free_places(self) -> bool:
        """Not as long as it is empty: before the new tokens there is nothing to see."""
        return bool(self.layers)

    def columns(self, length: Any) -> Any:
        """All places; of an empty one the new tokens only."""
        return self.capacity if self.layers else length

    def update(self, number: int, key_BNSH: tf.Tensor, value_BNSH: tf.Tensor) -> Pair:
        """Put the new tokens of a layer into their places; returns all places, of an empty one the new tokens."""
        if number < len(self.layers):
            key, value = self.layers[number]
            self.layers[number] = self._put(key, key_BNSH), self._put(value, value_BNSH)
            return self.layers[number]
        more = [[0, 0], [0, 0], [0, self.capacity - dims(key_BNSH)[2]], [0, 0]]
        self.layers.append((tf.pad(key_BNSH, more), tf.pad(value_BNSH, more)))
        return key_BNSH, value_BNSH

    def _put(self, places: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        if is_xla():  # which does it in place, where the other way copies
            return _dynamic_update_slice(places, new, tf.stack([0, 0, self.length, 0]))
        after = self.length + dims(new)[2]
        joined = tf.concat([places[:, :, : self.length], new, places[:, :, after:]], 2)
        return tf.ensure_shape(joined, places.shape)

    def seen(self) -> SeenCache:
        """What the core's checks look at."""
        length = int(self.length) if is_concrete(self.length) else None
        batch = self.layers[0][0].shape[0] if self.layers else None
        return SeenCache(length=length if self.layers else 0, capacity=self.capacity, batch=batch)

    def to_legacy_cache(self) -> tuple[tuple[tf.Tensor, ...], ...]:
        """The published tuple, of the places that are taken."""
        taken = [(key[:, :, : self.length], value[:, :, : self.length]) for key, value in self.layers]
        return Cache(taken, self.memory, counted_B=self.counted_B).to_legacy_cache()

    def published(self) -> Any:
        """Itself."""
        return self

    # ---- How TensorFlow takes it through a function and a loop

    def __tf_flatten__(self) -> tuple[Any, Any]:
        return (self.capacity,), (self.layers, self.memory, self.length, self.counted_B)

    @classmethod
    def __tf_unflatten__(cls, metadata: Any, components: Any) -> Self:
        layers, memory, length, counted_B = components
        return cls([*layers], [*memory], length, counted_B, *metadata)


def _dynamic_update_slice(places: tf.Tensor, new: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice

    return dynamic_update_slice(places, new, start)


# ---- What came with a call


def see_cache(config: XLMRobertaConfig, past_key_values: Any, dtype: Any = None) -> tuple[Cache, SeenCache]:
    """The cache that came with a call, and what the core's checks look at of it.

    Args:
        config: of the model.
        past_key_values: what came.
        dtype: in which the model computes; ``None``: whichever.

    Raises:
        InputError: for anything but a :class:`StaticCache` and the published tuple of a model of this configuration.
    """
    cache = past_key_values
    if not isinstance(cache, Cache):
        _check_tuple(config, cache, dtype)
        cache = Cache.from_legacy_cache(cache)
    return cache, cache.seen()


def _check_tuple(config: XLMRobertaConfig, past: Any, dtype: Any) -> None:
    layers = config.num_hidden_layers
    if not isinstance(past, tuple | list) or len(past) != layers:
        came = f"{len(past)} of them" if isinstance(past, tuple | list) else type(past).__name__
        raise InputError(
            f"past_key_values must be a tuple of {layers} layers or a StaticCache, received {came}; pass what the call "
            "before gave as past_key_values"
        )
    for layer in past:
        if not isinstance(layer, tuple | list) or len(layer) not in (2, 4) or not all(map(tf.is_tensor, layer)):
            raise InputError(
                "past_key_values must hold for each layer (keys, values), and with cross-attention (keys, values, keys "
                f"of the memory, values of the memory), received {_in_words(layer)}; pass what the call before gave"
            )
    seen = [[one for x in layer if (one := see("past_key_values", x)) is not None] for layer in past]
    check_layers(config, seen, None if dtype is None else tf.as_dtype(dtype))


def _in_words(layer: Any) -> str:
    parts = layer if isinstance(layer, tuple | list) else (layer,)
    return ", ".join(str(tuple(x.shape)) if tf.is_tensor(x) else type(x).__name__ for x in parts) or "nothing"
