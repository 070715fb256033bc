"""Packed tokens: a padded batch without its padding.

A batch is packed once at the model's entry and unpacked at its end. In between everything token-wise runs on ``(T, D)``
real tokens, and only attention sees sequences. At positions that ``attention_mask`` keeps, the result equals the padded
path; at all others, token-wise outputs are zero. A call whose answer the padded path defines differently takes the
padded path, see :func:`choose_packing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xlmr_core.packing import PROMISES, Needs, broken_promise, promises
from xlmr_torch.inputs import has_values, is_concrete, is_traced

__all__ = ["Packing", "choose_packing"]

PACKED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a padded batch are.

    Attributes:
        indices_T: int64, the flat position (row * length + column) of every real token, in row-major order.
        cu_seqlens: int64 (B + 1,), where each row starts in the packed tokens.
        batch, length: shape of the padded batch.
    """

    indices_T: Tensor
    cu_seqlens: Tensor
    batch: int
    length: int

    @classmethod
    def from_mask(cls, mask_BS: Tensor) -> Packing:
        """Build from a boolean mask."""
        return cls(
            indices_T=mask_BS.flatten().nonzero().squeeze(1),
            cu_seqlens=torch.nn.functional.pad(mask_BS.sum(1).cumsum(0), (1, 0)),
            batch=mask_BS.shape[0],
            length=mask_BS.shape[1],
        )

    @classmethod
    def full(cls, batch: int, length: int, device: torch.device) -> Packing:
        """Of a batch without padding."""
        tokens = batch * length
        return cls(
            indices_T=torch.arange(tokens, device=device),
            cu_seqlens=torch.arange(0, tokens + 1, length, device=device),
            batch=batch,
            length=length,
        )

    def pack(self, x_BS: Tensor) -> Tensor:
        """(B, S, ...) to (T, ...): the real tokens."""
        return x_BS.flatten(0, 1).index_select(0, self.indices_T)

    def unpack(self, x_T: Tensor, fill: float = 0.0) -> Tensor:
        """(T, ...) to (B, S, ...): real tokens in their places, ``fill`` elsewhere."""
        flat = x_T.new_full((self.batch * self.length, *x_T.shape[1:]), fill)
        return flat.index_copy_(0, self.indices_T, x_T).unflatten(0, (self.batch, self.length))

    def first_tokens(self, x_T: Tensor) -> Tensor:
        """(T, ...) to (B, ...): the first real token of each row."""
        return x_T.index_select(0, self.cu_seqlens[:-1])

    def locate(self, flat_positions: Tensor) -> Tensor:
        """Index into the packed tokens of real tokens given by flat position (row * length + column)."""
        return torch.searchsorted(self.indices_T, flat_positions)


def choose_packing(mode: str, mask_BS: Tensor | None, source: Tensor, needs: Needs[Tensor]) -> Packing | None:
    """Pack a batch, or return ``None`` where the padded path is due.

    A compiled graph cannot choose by values. There ``always`` packs, and the graph refuses values for which the padded
    path is due.

    Args:
        mode: one of ``PACKING_MODES``.
        mask_BS: the attention mask, of zeros and ones; ``None`` if there is no padding.
        source: ids or embeddings (B, S, ...).
        needs: what the answer reads of the states.
    """
    if mode == "never" or source.device.type not in PACKED_DEVICES:
        return None
    traced = is_traced()
    if traced and not (mode == "always" and torch.compiler.is_compiling()):
        return None
    if mask_BS is None:
        return Packing.full(*source.shape[:2], source.device) if mode == "always" else None
    if not traced and not (is_concrete(mask_BS) or (mode == "always" and has_values(mask_BS))):
        return None  # a value of a GPU is waited for on request only
    mask_BS = mask_BS != 0
    if traced:
        _assert_promises(mask_BS, needs)
        return Packing.from_mask(mask_BS)
    if mode == "auto" and bool(mask_BS.all()):
        return None  # nothing to leave out
    positions_BS = needs.positions_BS
    on_host = Needs(needs.first_token, None if positions_BS is None else positions_BS.cpu().numpy())
    return None if broken_promise(mask_BS.cpu().numpy(), on_host) else Packing.from_mask(mask_BS)


def _assert_promises(mask_BS: Tensor, needs: Needs[Tensor]) -> None:
    """Let a graph stop at values for which the padded path is due."""
    for promise, rows in promises(mask_BS, needs, lambda mask: mask.any(1)):
        broken = f"a compiled model with packing='always' cannot take {PROMISES[promise]}; set_packing('never')"
        torch._assert_async(rows.all(), broken)
