"""Packed tokens: a padded batch without its padding.

A batch is packed once at the model's entry and unpacked at its end. In between everything token-wise runs on ``(T, D)`` real tokens, and only
attention sees sequences. At positions that ``attention_mask`` keeps, the result equals the padded path; at all others, token-wise outputs
are zero. A call whose answer the padded path defines differently takes the padded path, see :func:`choose_packing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PACKING_MODES", "Packing", "choose_packing"]

# auto: where it pays; always: wherever the packed path promises the same answer; never: the padded path.
PACKING_MODES = ("auto", "always", "never")


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a padded batch are.

    Attributes:
        indices_T: int64, the flat position (row * length + column) of every real token, in row-major order.
        lengths: number of real tokens of each row.
        cu_seqlens: int32 (B + 1,), where each row starts in the packed tokens.
        batch, length: shape of the padded batch.
    """

    indices_T: Tensor
    lengths: tuple[int, ...]
    cu_seqlens: Tensor
    batch: int
    length: int

    @classmethod
    def from_mask(cls, mask_BS: Tensor) -> Packing:
        """Build from a mask of 0 and 1."""
        mask_BS = mask_BS.bool()
        lengths_B = mask_BS.sum(1)
        return cls(
            indices_T=mask_BS.flatten().nonzero().squeeze(1),
            lengths=tuple(lengths_B.tolist()),
            cu_seqlens=torch.nn.functional.pad(lengths_B.cumsum(0), (1, 0)).to(torch.int32),
            batch=mask_BS.shape[0],
            length=mask_BS.shape[1],
        )

    def pack(self, x_BS: Tensor) -> Tensor:
        """(B, S, ...) to (T, ...): the real tokens."""
        return x_BS.flatten(0, 1).index_select(0, self.indices_T)

    def unpack(self, x_T: Tensor) -> Tensor:
        """(T, ...) to (B, S, ...): real tokens in their places, zero elsewhere."""
        flat = x_T.new_zeros((self.batch * self.length, *x_T.shape[1:]))
        return flat.index_copy(0, self.indices_T, x_T).unflatten(0, (self.batch, self.length))

    def first_tokens(self, x_T: Tensor) -> Tensor:
        """(T, ...) to (B, ...): the first real token of each row."""
        return x_T.index_select(0, self.cu_seqlens[:-1].long())

    def locate(self, flat_positions: Tensor) -> Tensor:
        """Index into the packed tokens of real tokens given by flat position (row * length + column)."""
        return torch.searchsorted(self.indices_T, flat_positions)


def choose_packing(mode: str, attention_mask: Tensor, *, first_token: bool, needed_BS: Tensor | None) -> Packing | None:
    """Pack a batch, or return ``None`` where the padded path is due.

    Args:
        mode: one of ``PACKING_MODES``.
        attention_mask: (B, S) of concrete zeros and ones, on the host.
        first_token: whether the answer reads the state at position 0.
        needed_BS: bool (B, S), positions whose output the answer needs whatever the mask says (labels), or ``None``.
    """
    if mode == "never":
        return None
    mask_BS = attention_mask.bool()
    full = bool(mask_BS.all())
    if full or not bool(mask_BS.any(1).all()):
        return None  # nothing to leave out, or a fully masked row, which the padded path attends uniformly
    if first_token and not bool(mask_BS[:, 0].all()):
        return None
    if needed_BS is not None and bool((needed_BS & ~mask_BS).any()):
        return None
    return Packing.from_mask(mask_BS)
