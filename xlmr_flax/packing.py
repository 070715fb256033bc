"""Packed rows: a padded batch without its padding, in few static shapes.

Texts of natural lengths are put behind each other into rows, as many as fit, and a bias keeps their attention apart.
Numbers and lengths of rows come from short lists, so that a stream of batches needs a handful of compiled programs. A
batch is packed once at the model's entry and unpacked at its end. At positions that ``attention_mask`` keeps, the
result equals the padded path; at all others, token-wise outputs are zero. A call whose answer the padded path defines
differently takes the padded path, see :func:`choose_packing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.packing import Needs, broken_promise
from xlmr_flax.inputs import is_concrete

__all__ = ["Packing", "bucket", "choose_packing"]

# Lengths of rows that all batches share, the smallest that holds the longest text; another one where it saves a lot.
ROW_LENGTHS = (16, 64, 256)
LENGTH_STEP = 32
WORTH_ANOTHER_PROGRAM = 0.85
# Batches with fewer tokens than this are always put into rows: what is computed for nothing costs less than a compiled
# program a length.
SMALL_BATCH = 512


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a padded batch (B, S) stand in rows (R, W).

    A pytree: made on the host, passed to a compiled step.

    Attributes:
        source_RW: int32, the flat padded position (row * length + column) of each slot's token; -1 in slots without
            one.
        segments_RW: int32, from 1 on, which text of its row a slot belongs to; 0 in slots without a token.
        slots_BS: int32, the flat slot of every real token; -1 for padding.
    """

    source_RW: Any
    segments_RW: Any
    slots_BS: Any

    @classmethod
    def from_mask(cls, mask_BS: Any, *, rows: int | None = None, length: int | None = None) -> Packing:
        """Build from a mask of zeros and ones, on the host.

        Args:
            mask_BS: (B, S), with values.
            rows, length: shape of the packed rows; by default from the short lists. Fix them where several packings
                have to be alike, for instance one a device.

        Raises:
            InputError: if the tokens do not fit the given rows.
        """
        mask_BS = np.asarray(mask_BS) != 0
        lengths_B = mask_BS.sum(1)
        length = _best_length(lengths_B) if length is None else length
        places = _first_fit(lengths_B, length)
        needed = 1 + max((row for row, _, _ in places), default=0)
        rows = bucket(needed) if rows is None else rows
        if needed > rows or lengths_B.max(initial=0) > length:
            raise InputError(
                f"the texts need {needed} rows of at least {lengths_B.max(initial=0)} tokens, "
                f"received {rows} rows of {length}; allow more"
            )
        columns = mask_BS.shape[1]
        source_RW = np.full((rows, length), -1, np.int32)
        segments_RW = np.zeros((rows, length), np.int32)
        slots_BS = np.full(mask_BS.shape, -1, np.int32)
        for text, (row, start, segment) in enumerate(places):
            found = np.flatnonzero(mask_BS[text])
            part = slice(start, start + len(found))
            source_RW[row, part] = text * columns + found
            segments_RW[row, part] = segment
            slots_BS[text, found] = row * length + start + np.arange(len(found))
        return cls(source_RW, segments_RW, slots_BS)

    def pack(self, x_BS: Any, fill: int = 0) -> Any:
        """(B, S, ...) to (R, W, ...): the real tokens, ``fill`` in slots without one.

        In NumPy where everything has its values.
        """
        source = self.source_RW
        numpy = all(is_concrete(x) for x in (x_BS, source))
        x_BS, source = (np.asarray(x_BS), np.asarray(source)) if numpy else (jnp.asarray(x_BS), jnp.asarray(source))
        flat = x_BS.reshape(-1, *x_BS.shape[2:])
        held = (source >= 0).reshape(*source.shape, *(1,) * (flat.ndim - 1))
        return (np if numpy else jnp).where(held, flat[source.clip(0)], np.asarray(fill, flat.dtype))

    def unpack(self, x_RW: jax.Array, fill: float = 0.0) -> jax.Array:
        """(R, W, ...) to (B, S, ...): real tokens in their places, ``fill`` elsewhere."""
        return _take(x_RW, jnp.asarray(self.slots_BS), fill)

    def first_tokens(self, x_RW: jax.Array) -> jax.Array:
        """(R, W, ...) to (B, ...): the state at position 0."""
        return _take(x_RW, jnp.asarray(self.slots_BS[:, 0]))

    def first_slots(self) -> Any:
        """int32: the flat slots of the first tokens, and slots 0 until they are a power of two, for few programs."""
        first_B = self.slots_BS[:, 0]
        xp = np if is_concrete(first_B) else jnp
        return xp.pad(first_B, (0, (1 << (len(first_B) - 1).bit_length()) - len(first_B)))

    def locate(self, flat_positions: Any) -> Any:
        """The flat slots of tokens given by flat position (row * length + column)."""
        return jnp.asarray(self.slots_BS).reshape(-1)[flat_positions]


@jax.jit
def _take(x_RW: jax.Array, slots: jax.Array, fill: jax.typing.ArrayLike = 0.0) -> jax.Array:
    flat = x_RW.reshape(-1, *x_RW.shape[2:])
    held = (slots >= 0).reshape(*slots.shape, *(1,) * (flat.ndim - 1))
    return jnp.where(held, flat[slots.clip(0)], jnp.asarray(fill, flat.dtype))


def bucket(count: int) -> int:
    """``count`` rounded up to at most eight steps an octave beyond eight, so that less than an eighth is empty."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def _best_length(lengths_B: np.ndarray) -> int:
    longest, total = max(1, int(lengths_B.max(initial=1))), int(lengths_B.sum())
    exact = -(-longest // LENGTH_STEP) * LENGTH_STEP if longest > ROW_LENGTHS[0] else ROW_LENGTHS[0]
    shared = next((length for length in ROW_LENGTHS if length >= longest), exact)
    if total > SMALL_BATCH:
        shared = max(shared, ROW_LENGTHS[-1])

    def tokens(length: int) -> int:
        return length * bucket(1 + max((row for row, _, _ in _first_fit(lengths_B, length)), default=0))

    return exact if tokens(exact) < WORTH_ANOTHER_PROGRAM * tokens(shared) else shared


def _first_fit(lengths_B: np.ndarray, length: int) -> list[tuple[int, int, int]]:
    """(row, start, segment from 1 on) of each text: the longest first, each into the first row with room."""
    filled: list[int] = []
    segments: list[int] = []
    places: list[tuple[int, int, int]] = [(0, 0, 0)] * len(lengths_B)
    for text in np.argsort(-lengths_B, kind="stable"):
        size = int(lengths_B[text])
        row = next((row for row, used in enumerate(filled) if used + size <= length), len(filled))
        if row == len(filled):
            filled.append(0)
            segments.append(0)
        segments[row] += 1
        places[text] = (row, filled[row], segments[row])
        filled[row] += size
    return places


def choose_packing(mode: str, mask_BS: Any, source: Any, needs: Needs[Any]) -> Packing | None:
    """Pack a batch, or return ``None`` where the padded path is due.

    A compiled graph cannot choose by values: there the padded path is taken, unless the caller passes a packing made on
    the host.

    Args:
        mode: one of ``PACKING_MODES``.
        mask_BS: the attention mask, of zeros and ones; ``None`` if there is no padding.
        source: ids or embeddings (B, S, ...).
        needs: what the answer reads of the states.
    """
    positions_BS = needs.positions_BS
    if mode == "never" or not all(x is None or is_concrete(x) for x in (mask_BS, positions_BS)):
        return None
    mask_BS = np.ones(source.shape[:2], bool) if mask_BS is None else np.asarray(mask_BS) != 0
    if mode == "auto" and bool(mask_BS.all()) and mask_BS.size > SMALL_BATCH:
        return None  # nothing to leave out
    on_host = Needs(needs.first_token, None if positions_BS is None else np.asarray(positions_BS))
    return None if broken_promise(mask_BS, on_host) else Packing.from_mask(mask_BS)
