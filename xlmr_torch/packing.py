"""Packed tokens: a padded batch without its padding.

A batch is packed once at the model's entry and unpacked at its end. In between everything token-wise runs on ``(T, D)`` real tokens, and only
attention sees sequences. At positions that ``attention_mask`` keeps, the result equals the padded path; at all others, token-wise outputs
are zero. A call whose answer the padded path defines differently takes the padded path, see :func:`choose_packing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xlmr_torch.checks import has_values, is_concrete, is_traced

__all__ = ["PACKING_MODES", "Packing", "choose_packing"]

# auto: where it pays, and where the mask's values can be looked at for nothing; always: wherever the packed path promises the same answer,
# batches without padding and compiled graphs included; never: the padded path.
PACKING_MODES = ("auto", "always", "never")
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
        return flat.index_copy(0, self.indices_T, x_T).unflatten(0, (self.batch, self.length))

    def first_tokens(self, x_T: Tensor) -> Tensor:
        """(T, ...) to (B, ...): the first real token of each row."""
        return x_T.index_select(0, self.cu_seqlens[:-1])

    def locate(self, flat_positions: Tensor) -> Tensor:
        """Index into the packed tokens of real tokens given by flat position (row * length + column)."""
        return torch.searchsorted(self.indices_T, flat_positions)


def choose_packing(
    mode: str,
    mask_BS: Tensor | None,
    batch: int,
    length: int,
    device: torch.device,
    *,
    first_token: bool = False,
    needed_BS: Tensor | None = None,
) -> Packing | None:
    """Pack a batch, or return ``None`` where the padded path is due.

    A compiled graph cannot choose by values. There ``always`` packs, and the graph refuses values for which the padded path is due.

    Args:
        mode: one of ``PACKING_MODES``.
        mask_BS: the attention mask, of zeros and ones; ``None`` if there is no padding.
        batch, length: shape of the batch.
        device: of the batch.
        first_token: whether the answer reads the state at position 0.
        needed_BS: bool (B, S), positions whose output the answer needs whatever the mask says (labels), or ``None``.
    """
    if mode == "never" or device.type not in PACKED_DEVICES:
        return None
    traced = is_traced()
    if traced and not (mode == "always" and torch.compiler.is_compiling()):
        return None
    if mask_BS is None:
        return Packing.full(batch, length, device) if mode == "always" else None
    if not traced and not (is_concrete(mask_BS) or (mode == "always" and has_values(mask_BS))):
        return None  # a value of a GPU is waited for on request only
    mask_BS = mask_BS != 0
    if mode == "auto" and bool(mask_BS.all()):
        return None  # nothing to leave out
    # A fully masked row attends uniformly on the padded path; what is read at a masked position is that padded position's state.
    promises = [(mask_BS.any(1), "a row without any token")]
    if first_token:
        promises.append((mask_BS[:, 0], "a row whose first position is masked, which this head reads"))
    if needed_BS is not None:
        promises.append((mask_BS | ~needed_BS, "a label, or a position that is asked for, where the mask is 0"))
    for held, broken in promises:
        if traced:
            torch._assert_async(
                held.all(), f"a compiled model with packing='always' cannot take {broken}; set_packing('never')"
            )
        elif not bool(held.all()):
            return None
    return Packing.from_mask(mask_BS)
