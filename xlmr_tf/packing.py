"""Packed tokens: a padded batch without its padding.

A batch is packed once at the model's entry and unpacked at its end. In between everything token-wise runs on ``(T, D)``
real tokens, and only attention sees sequences. At positions that ``attention_mask`` keeps, the result equals the padded
path; at all others, token-wise outputs are zero. A call whose answer the padded path defines differently gets the
padded path's answer, see :func:`choose_packing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from xlmr_core.packing import Needs, broken_promise, promises
from xlmr_tf.inputs import has_values, is_concrete, is_traced, is_xla
from xlmr_tf.linear import dims

__all__ = ["Packing", "choose_packing"]


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch are that are computed.

    Attributes:
        indices_T: int64, the flat position (row * length + column) of every such token, in row-major order.
        cu_seqlens: int64 (B + 1,), where each row starts in the packed tokens.
        batch, length: shape of the padded batch.
        attended_T: bool, which of the tokens are attended to; ``None`` means all. In a graph only, see
            :func:`choose_packing`.
    """

    indices_T: tf.Tensor
    cu_seqlens: tf.Tensor
    batch: Any
    length: Any
    attended_T: tf.Tensor | None = None

    @classmethod
    def from_mask(cls, mask_BS: tf.Tensor, attended_BS: tf.Tensor | None = None) -> Packing:
        """Build from a boolean mask, and if it keeps more than what is attended to, the mask of that."""
        batch, length = dims(mask_BS)
        indices_T = tf.where(tf.reshape(mask_BS, (-1,)))[:, 0]
        return cls(
            indices_T=indices_T,
            cu_seqlens=tf.pad(tf.cumsum(tf.reduce_sum(tf.cast(mask_BS, tf.int64), 1)), [[1, 0]]),
            batch=batch,
            length=length,
            attended_T=None if attended_BS is None else tf.gather(tf.reshape(attended_BS, (-1,)), indices_T),
        )

    @classmethod
    def full(cls, batch: Any, length: Any) -> Packing:
        """Of a batch without padding."""
        batch_64, length_64 = tf.cast(batch, tf.int64), tf.cast(length, tf.int64)
        return cls(
            indices_T=tf.range(batch_64 * length_64),
            cu_seqlens=tf.range(batch_64 + 1) * length_64,
            batch=batch,
            length=length,
        )

    def pack(self, x_BS: tf.Tensor) -> tf.Tensor:
        """(B, S, ...) to (T, ...): the tokens that are computed."""
        return tf.gather(tf.reshape(x_BS, (-1, *dims(x_BS)[2:])), self.indices_T)

    def unpack(self, x_T: tf.Tensor, fill: float = 0.0) -> tf.Tensor:
        """(T, ...) to (B, S, ...): tokens in their places, ``fill`` elsewhere."""
        inner = dims(x_T)[1:]
        shape = tf.cast(tf.stack([self.batch * self.length, *inner]), tf.int64)
        flat = tf.scatter_nd(self.indices_T[:, None], x_T, shape)
        if fill:
            held = tf.scatter_nd(self.indices_T[:, None], tf.ones_like(x_T), shape)
            flat = tf.where(held > 0, flat, tf.cast(fill, flat.dtype))
        return tf.reshape(flat, (self.batch, self.length, *inner))

    def first_tokens(self, x_T: tf.Tensor) -> tf.Tensor:
        """(T, ...) to (B, ...): the first token of each row."""
        return tf.gather(x_T, self.cu_seqlens[:-1])

    def locate(self, flat_positions: tf.Tensor) -> tf.Tensor:
        """Index into the packed tokens of tokens given by flat position (row * length + column)."""
        return tf.searchsorted(self.indices_T, tf.cast(flat_positions, tf.int64))


def choose_packing(mode: str, mask_BS: tf.Tensor | None, source: tf.Tensor, needs: Needs[tf.Tensor]) -> Packing | None:
    """Pack a batch, or return ``None`` where the padded path is due.

    A graph cannot choose by values. There a batch for which the padded path is due is packed with its padding: all
    tokens are computed, and only those that the mask keeps are attended to, which is the padded path's answer from the
    same graph.

    Args:
        mode: one of ``PACKING_MODES``.
        mask_BS: the attention mask, of zeros and ones; ``None`` if there is no padding.
        source: ids or embeddings (B, S, ...).
        needs: what the answer reads of the states.
    """
    if mode == "never" or is_xla() or (mode == "auto" and _is_elsewhere(source)):
        return None
    traced = is_traced()
    if mask_BS is None:
        return Packing.full(*dims(source)[:2]) if mode == "always" else None
    if not traced and not (is_concrete(mask_BS) or (mode == "always" and has_values(mask_BS))):
        return None  # a value of a GPU is waited for on request only
    mask_BS = mask_BS != 0
    if traced:
        return Packing.from_mask(mask_BS | ~_promises_hold(mask_BS, needs), attended_BS=mask_BS)
    if mode == "auto" and bool(tf.reduce_all(mask_BS)):
        return None  # nothing to leave out
    positions_BS = needs.positions_BS
    on_host = Needs(needs.first_token, None if positions_BS is None else positions_BS.numpy())
    return None if broken_promise(mask_BS.numpy(), on_host) else Packing.from_mask(mask_BS)


def _promises_hold(mask_BS: tf.Tensor, needs: Needs[tf.Tensor]) -> tf.Tensor:
    """Whether a mask, whose values a graph does not know, breaks no promise of ``xlmr_core.packing``."""
    kept = promises(mask_BS, needs, lambda mask: tf.reduce_any(mask, 1))
    return tf.reduce_all(tf.stack([tf.reduce_all(rows) for _, rows in kept]))


def _is_elsewhere(tensor: tf.Tensor) -> bool:
    """Whether the batch is, or in a graph may be, on an accelerator."""
    return bool(tf.config.list_logical_devices("GPU")) if is_traced() else "CPU" not in tensor.device
