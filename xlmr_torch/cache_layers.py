"""One layer of a decoder's cache: keys and values that grow, or that fill memory of a fixed size. All layers together
are in ``cache.py``.

Shapes: keys and values are (B, N, M, H), M the tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlmr_torch.inputs import is_traced

__all__ = ["DynamicLayer", "StaticLayer"]

CHUNK = 64  # columns of room beyond what is needed, at least


class DynamicLayer:
    """Keys and values of one layer, which grow.

    What came first is kept as it came. From the second time on there is room beyond what is held, and new columns are
    written into it. Where gradients flow through them, or a compiler is looking on, they are joined instead.
    """

    capacity: int | None = None

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._is_own = False  # whether the memory was made here, so that it may be written to
        self.length = 0

    @property
    def keys(self) -> Tensor | None:
        """(B, N, M, H), of all tokens so far; ``None`` before the first."""
        return None if self._keys is None else self._keys[:, :, : self.length]

    @property
    def values(self) -> Tensor | None:
        """(B, N, M, H)."""
        return None if self._values is None else self._values[:, :, : self.length]

    def update(self, key: Tensor, value: Tensor, places_S: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Add columns (B, N, S, H); returns all of them, (B, N, M, H)."""
        total = self.length + key.shape[2]
        if self._keys is None or self._values is None:
            self._keys, self._values = key, value
        elif is_traced() or (torch.is_grad_enabled() and (key.requires_grad or self._keys.requires_grad)):
            self._keys = torch.cat([self._keys[:, :, : self.length], key], 2)
            self._values = torch.cat([self._values[:, :, : self.length], value], 2)
            self._is_own = False
        else:
            keys, values = self.memory(total)
            keys[:, :, self.length : total] = key
            values[:, :, self.length : total] = value
        self.length = total
        return self._keys[:, :, :total], self._values[:, :, :total]

    def memory(self, total: int) -> tuple[Tensor, Tensor]:
        """Memory with room for so many columns, (B, N, more, H); what is behind the columns held is finite."""
        keys, values = self._keys, self._values
        assert keys is not None and values is not None
        locked = keys.is_inference() and not torch.is_inference_mode_enabled()
        if total > keys.shape[2] or not self._is_own or locked:
            room = max(total + CHUNK, 2 * self.length)
            self._keys, self._values = (self._moved(x, room) for x in (keys, values))
            self._is_own = True
        assert self._keys is not None and self._values is not None
        return self._keys, self._values

    def _moved(self, x: Tensor, room: int) -> Tensor:
        moved = x.new_zeros((*x.shape[:2], room, x.shape[3]))
        moved[:, :, : self.length] = x[:, :, : self.length]
        return moved

    def get_seq_length(self) -> int:
        """How many tokens are held."""
        return self.length

    def change(self, change: Any) -> None:
        """Put what a function makes of the rows in their place."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values, self._is_own = change(self._keys), change(self._values), True

    def crop(self, length: int) -> None:
        """Forget all but the first so many tokens."""
        self.length = min(self.length, length)

    def reset(self) -> None:
        """Forget all tokens."""
        self._keys = self._values = None
        self.length = 0


class StaticLayer(DynamicLayer):
    """Keys and values of one layer in memory of a fixed size.

    Args:
        capacity: how many tokens there is room for.
    """

    def __init__(self, capacity: int) -> None:
        # A tensor, because a number that grows would have a graph compiled again and again.
        self.seen = torch.zeros((), dtype=torch.int64)
        super().__init__()
        self.capacity: int = capacity
        self._is_own = True

    @property
    def length(self) -> int:
        """How many tokens are held."""
        return int(self.seen)

    @length.setter
    def length(self, value: int) -> None:
        self.seen.fill_(value)

    @property
    def keys(self) -> Tensor | None:
        """(B, N, capacity, H); ``None`` before the first token."""
        return self._keys

    @property
    def values(self) -> Tensor | None:
        """(B, N, capacity, H)."""
        return self._values

    def update(self, key: Tensor, value: Tensor, places_S: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fill columns; returns the whole memory, (B, N, capacity, H).

        Args:
            key, value: (B, N, S, H).
            places_S: which columns; by default the next ones.
        """
        if self._keys is None:
            self.seen = self.seen.to(key.device)
            self._keys, self._values = (x.new_zeros((*x.shape[:2], self.capacity, x.shape[3])) for x in (key, value))
        assert self._keys is not None and self._values is not None
        # A compiler sees no inference mode; whoever has their model compiled stays in the one or the other.
        keys, values = (self._keys, self._values) if is_traced() else self.memory(self.capacity)
        if places_S is None:
            places_S = torch.arange(key.shape[2], device=key.device) + self.seen
        self._keys, self._values = keys.index_copy_(2, places_S, key), values.index_copy_(2, places_S, value)
        self.seen.add_(key.shape[2])
        return self._keys, self._values

    def _moved(self, x: Tensor, room: int) -> Tensor:
        return x.clone()
