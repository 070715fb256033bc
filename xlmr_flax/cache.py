"""A decoder's cache: the keys and values of the tokens that it has seen, in arrays of a fixed size.

One object for all layers, asked by a layer's number; what every backend decides alike is in ``xlmr_core/cache.py``. It
is a pytree of arrays, which goes through ``jax.jit``, ``jax.pmap`` and the loops of ``jax.lax``, and nothing in it
changes: a call gives another one. A fixed size is the only kind here, because a compiled program knows no other.

Two ways lead into it. An empty cache whose length is known to be zero takes the keys of a call that attends to its own
tokens alone, packed or padded, when that is done (:meth:`Cache.begun`). Any other is written to by each layer, which
then attends to all that it holds (:meth:`Held.put`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from xlmr_core.cache import SeenCache
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_flax.inputs import is_concrete

__all__ = ["Cache", "Held", "see_cache"]


class Held(NamedTuple):
    """The keys and values of one attention.

    Attributes:
        key_BNMH, value_BNMH: of M places, or of M tokens.
    """

    key_BNMH: Array
    value_BNMH: Array

    def put(self, new: Held, past: Any) -> Held:
        """With those of the tokens from ``past`` on."""
        start = (0, 0, past, 0)
        return Held(
            lax.dynamic_update_slice(self.key_BNMH, new.key_BNMH.astype(self.key_BNMH.dtype), start),
            lax.dynamic_update_slice(self.value_BNMH, new.value_BNMH.astype(self.value_BNMH.dtype), start),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Cache:
    """The keys and values of all layers.

    Attributes:
        layers: of self-attention, one a layer; in the compiled loop over layers (``set_scan_layers``) all in one.
        length: int32 (), how many tokens are in it.
        counted_B: int32 (B,), how many tokens of each row were no padding.
        memory: of cross-attention; ``None`` until a call has computed them.
    """

    layers: Sequence[Held]
    length: Any
    counted_B: Any
    memory: Sequence[Held] | None = None

    @classmethod
    def empty(cls, config: XLMRobertaConfig, batch_size: int, max_length: int, dtype: Any) -> Self:
        """An empty cache.

        Args:
            config: of the model.
            batch_size: number of rows.
            max_length: how many tokens it is to hold at most.
            dtype: in which the model computes.
        """

        def held(number: int) -> Held:
            shape = (batch_size, config.heads_in_layer(number), max_length, config.head_size)
            return Held(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

        # Numbers of NumPy: that it is empty can then be seen inside a compiled function that makes it, too.
        layers = tuple(held(number) for number in range(config.num_hidden_layers))
        return cls(layers=layers, length=np.int32(0), counted_B=np.zeros(batch_size, np.int32))

    @property
    def capacity(self) -> int:
        """How many tokens it can hold."""
        return int(self.layers[0].key_BNMH.shape[2])

    def get_seq_length(self) -> Any:
        """How many tokens are in it; an array, as it may be unknown yet."""
        return self.length

    @property
    def batch_size(self) -> int:
        """How many rows it has."""
        return int(self.layers[0].key_BNMH.shape[0])

    def held(self, number: Any) -> Held:
        """What the self-attention of a layer has."""
        return _at(self.layers, number)

    def held_memory(self, number: Any) -> Held | None:
        """What the cross-attention of a layer has."""
        return None if self.memory is None else _at(self.memory, number)

    def stacked(self) -> Self:
        """With all layers in one array, for a compiled loop over them."""
        return replace(
            self, layers=_stacked(self.layers), memory=None if self.memory is None else _stacked(self.memory)
        )

    def begun(self, held: Sequence[Held], memory: Sequence[Held] | None, slots_BS: Any = None) -> Self:
        """An empty cache with the keys and values of a first call.

        Args:
            held: of a layer each, of these tokens alone: padded (B, N, S, H) or in packed rows (R, N, W, H).
            memory: of a layer each.
            slots_BS: where in packed rows each token is; -1 for padding.
        """

        def put(empty: Held, new: Held) -> Held:
            return empty.put(new if slots_BS is None else Held(*(_unpacked(x, slots_BS) for x in new)), 0)

        layers = tuple(put(*pair) for pair in zip(self.layers, held, strict=True))
        return replace(self, layers=layers, memory=memory)

    def reorder_cache(self, beam_idx: Any) -> Self:
        """With other rows in the places of these, as beams go on from each other.

        Args:
            beam_idx: integers (B,), which row to take for each; the same number of rows.
        """
        rows = jnp.asarray(beam_idx)
        return jax.tree.map(lambda x: x if np.ndim(x) == 0 else jnp.take(x, rows, axis=0, mode="clip"), self)

    def batch_repeat_interleave(self, repeats: int) -> Self:
        """With each row so many times, one after the other."""
        return (
            self if repeats == 1 else jax.tree.map(lambda x: jnp.repeat(x, repeats, axis=0) if np.ndim(x) else x, self)
        )

    # ---- The published tuple

    def to_legacy_cache(self) -> tuple[tuple[Array, ...], ...]:
        """The published tuple: of each layer keys and values (B, N, length, H), those of the memory behind them.

        Raises:
            InputError: inside a compiled function, which knows no length.
        """
        if not is_concrete(self.length):
            raise InputError("the length of a cache is unknown inside a compiled function; convert it outside of it")
        length = int(self.length)
        own = [tuple(x[:, :, :length] for x in held) for held in self.layers]
        return tuple(own) if self.memory is None else tuple((*a, *b) for a, b in zip(own, self.memory, strict=True))

    @classmethod
    def from_legacy_cache(cls, past_key_values: Sequence[Sequence[Any]], max_length: int, counted: Any = None) -> Self:
        """A cache of a published tuple.

        Args:
            past_key_values: of each layer keys and values (B, N, length, H), those of a memory behind them.
            max_length: how many tokens it is to hold at most.
            counted: integers (B,), how many tokens of each row are no padding; default: all of them.

        Raises:
            InputError: if there is no room for what it holds.
        """
        batch, _, length, _ = past_key_values[0][0].shape
        if length > max_length:
            raise InputError(f"past_key_values holds {length} tokens, received max_length={max_length}; make it larger")

        def held(key: Any, value: Any) -> Held:
            widths = ((0, 0), (0, 0), (0, max_length - length), (0, 0))
            return Held(jnp.pad(jnp.asarray(key), widths), jnp.pad(jnp.asarray(value), widths))

        has_memory = len(past_key_values[0]) == 4
        counted_B = np.full(batch, length, np.int32) if counted is None else jnp.asarray(counted, np.int32)
        return cls(
            layers=tuple(held(*layer[:2]) for layer in past_key_values),
            length=np.int32(length),
            counted_B=counted_B,
            memory=tuple(Held(*map(jnp.asarray, layer[2:])) for layer in past_key_values) if has_memory else None,
        )


def _at(layers: Sequence[Held], number: Any) -> Held:
    """What a layer has, of a tuple or of what is stacked."""
    return Held(*(x[number] for x in layers)) if isinstance(layers, Held) else layers[number]


def _stacked(layers: Sequence[Held]) -> Any:
    return jax.tree.map(lambda *held: jnp.stack(held), *layers)


def _unpacked(x_RNWH: Array, slots_BS: Any) -> Array:
    """Packed rows to (B, N, S, H), zeros where there is padding."""
    slots_BS = jnp.asarray(slots_BS)
    flat = x_RNWH.transpose(0, 2, 1, 3).reshape(-1, x_RNWH.shape[1], x_RNWH.shape[3])
    found_BSNH = jnp.where((slots_BS >= 0)[..., None, None], flat[slots_BS.clip(0)], 0)
    return found_BSNH.transpose(0, 2, 1, 3)


def see_cache(config: XLMRobertaConfig, given: Any) -> tuple[Cache, SeenCache]:
    """What came as ``past_key_values``, and what the core's checks look at of it.

    Args:
        config: of the model.
        given: a cache.

    Raises:
        InputError: for anything else, and a cache of another model.
    """
    if not isinstance(given, Cache):
        raise InputError(
            f"past_key_values must be what model.init_cache(batch_size, max_length) or the call before gave, received "
            f"{type(given).__name__}; make a cache of the published tuple by xlmr_flax.cache.Cache.from_legacy_cache"
        )
    made_for = [(held.key_BNMH.shape[1], held.key_BNMH.shape[3]) for held in given.layers]
    expected = [(config.heads_in_layer(number), config.head_size) for number in range(config.num_hidden_layers)]
    if made_for != expected:
        raise InputError(
            f"past_key_values is the cache of another model, with (heads, size of a head) {made_for} of its layers, "
            f"expected {expected}; make one by init_cache of this model"
        )
    return given, SeenCache(int(given.length) if is_concrete(given.length) else None, given.capacity, given.batch_size)
