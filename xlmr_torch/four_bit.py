"""Layers of the schemes ``int4``, ``nf4`` and ``fp4``; what they hold is in ``xlmr_core/quantization/four_bit.py``.

=======================================  ==============================================================================
where                                    product
=======================================  ==============================================================================
int4, at most ``FEW`` tokens, CPU        PyTorch's int4 kernel, from the codes in an order of its own, which is made at
                                         the first such call; groups of 32 and more
nf4 and fp4, CUDA                        bitsandbytes' kernel where it is installed; groups of 32 and more
everything else                          the weight is widened: to bfloat16 where the machine multiplies that faster
                                         than float32, else to float32
=======================================  ==============================================================================

Codes that were loaded from a file are in memory once: behind those in order, pages of the mapped file are given back.

Norms, attention and the sums between layers are float32 in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.four_bit import MIDDLE, FourBit
from xlmr_core.quantization.int8 import SCALE
from xlmr_core.quantization.widening import rows_at_once, spans
from xlmr_torch.cuda_four_bit import has_kernel, product
from xlmr_torch.widening import QuantizedLayer, WidenedLinear, from_codes, frozen, let_go, pairs_of

__all__ = ["FEW", "FourBitEmbedding", "FourBitLinear", "encoded", "layer"]

FEW = 64  # tokens
# PyTorch's kernel takes groups of these sizes, and outputs in sixteens.
_KERNEL_GROUPS, _SIXTEEN = (32, 64, 128, 256), 16
# So many rows lie together in its order, whatever the machine.
_KERNEL_ROWS = 64
# An operator of our own, in which the compiler sees neither the kernel nor how many tokens there are.
_LIBRARY = torch.library.Library("xlmr", "FRAGMENT")
_LIBRARY.define(
    "int4_linear(Tensor x, Tensor weight, Tensor scale, Tensor middle, Tensor pairs, Tensor ordered, Tensor zeros, "
    "int group) -> Tensor"
)

HAS_FAST_BFLOAT16 = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def encoded(scheme: Scheme, weight: Tensor) -> dict[str, Tensor]:
    """The tensors of a weight by suffix: the very bits of the scheme's ``encode``."""
    pieces = weight.detach().split(rows_at_once(weight.shape[1]))
    parts = [scheme.encode(piece.float().cpu().numpy()) for piece in pieces]
    return {x: torch.cat([torch.from_numpy(part[x]) for part in parts]).to(weight.device) for x in parts[0]}


def layer(scheme: Scheme, row: Parameter, tensors: Mapping[str, Tensor], bias: Tensor | None) -> nn.Module:
    """The layer of a weight that is stored in these tensors, by suffix."""
    assert isinstance(scheme, FourBit)
    if row.role is Role.EMBEDDING:
        return FourBitEmbedding(scheme, *tensors.values())
    assert bias is not None
    return FourBitLinear(scheme, bias, *tensors.values())


def _widened(weight: Tensor, scale: Tensor, middle: Tensor | None, pairs: Tensor, group: int) -> Tensor:
    """Codes (rows, K / 2) and what lies beside them as float32 (rows, K)."""
    middles = None if middle is None else middle.reshape(-1).float() / 16
    values = from_codes(weight.reshape(-1), pairs, scale.reshape(-1).float(), group, middles)
    return values.view(weight.shape[0], -1)


@torch.library.impl(_LIBRARY, "int4_linear", "CompositeExplicitAutograd")
def _int4_linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    middle: Tensor,
    pairs: Tensor,
    ordered: Tensor,
    zeros: Tensor,
    group: int,
) -> Tensor:
    count, width = weight.shape[0], x.shape[-1]
    rows = x.reshape(-1, width)
    if 0 < rows.shape[0] <= FEW:
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows.to(torch.bfloat16), ordered, group, zeros)
        y = y[:, :count].to(x.dtype)
    else:
        y = torch.cat(
            [
                F.linear(rows, _widened(weight[a:b], scale[a:b], middle[a:b], pairs, group).to(x.dtype))
                for a, b in spans(count, width)
            ],
            -1,
        )
    return y.reshape(*x.shape[:-1], count)


@torch.library.register_fake("xlmr::int4_linear", lib=_LIBRARY)
def _(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class _FourBitLayer(QuantizedLayer):
    """Frozen codes, scales, and of int4 middles."""

    weight: Tensor
    weight_scale: Tensor
    weight_middle: Tensor | None
    pairs: Tensor
    _book: Tensor

    def _hold(self, scheme: FourBit, weight: Tensor, weight_scale: Tensor, weight_middle: Tensor | None) -> None:
        self.scheme = scheme
        self.stored_names, self.kept = (
            {},
            ("weight", "weight" + SCALE, *(() if weight_middle is None else ("weight" + MIDDLE,))),
        )
        self.weight, self.weight_scale = frozen(weight), frozen(weight_scale)
        self.weight_middle = None if weight_middle is None else frozen(weight_middle)
        self.register_buffer("pairs", torch.empty(0, dtype=torch.int64, device="cpu"), persistent=False)
        self.settle()

    def settle(self) -> None:
        place = "cpu" if self.weight.is_meta else self.weight.device
        self._book = torch.tensor(self.scheme.book.tolist(), dtype=torch.float32, device=place)
        self.pairs = pairs_of(self._book)

    @torch.no_grad()
    def set_values(self, weight: Tensor) -> None:
        """Quantize a float weight into this layer's parameters."""
        held = (self.weight, self.weight_scale, self.weight_middle)
        for mine, new in zip(held, encoded(self.scheme, weight).values(), strict=False):
            assert mine is not None
            mine.copy_(new)
        self.settle()

    def widened(self, weight: Tensor, scale: Tensor, middle: Tensor | None) -> Tensor:
        """Codes and what lies beside them as float32."""
        return _widened(weight, scale, middle, self.pairs, self.scheme.group_size)


class FourBitEmbedding(_FourBitLayer):
    """A table of V rows of codes, looked up as float32."""

    def __init__(
        self, scheme: FourBit, weight: Tensor, weight_scale: Tensor, weight_middle: Tensor | None = None
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape[0], 2 * weight.shape[1]
        self._hold(scheme, weight, weight_scale, weight_middle)

    def forward(self, ids: Tensor) -> Tensor:
        """Integers (...) to float32 (..., D)."""
        flat = ids.reshape(-1)
        weight, scale = F.embedding(flat, self.weight), F.embedding(flat, self.weight_scale)
        middle = None if self.weight_middle is None else F.embedding(flat, self.weight_middle)
        return self.widened(weight, scale, middle).view(*ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class FourBitLinear(_FourBitLayer, WidenedLinear):
    """A linear layer of four bit codes and a float32 bias."""

    def __init__(
        self, scheme: FourBit, bias: Tensor, weight: Tensor, weight_scale: Tensor, weight_middle: Tensor | None = None
    ) -> None:
        WidenedLinear.__init__(self, weight.shape[0], 2 * weight.shape[1], frozen(bias))
        self._hold(scheme, weight, weight_scale, weight_middle)

    def settle(self) -> None:
        super().settle()
        self._in_order: tuple[Tensor, Tensor] | None = None  # what PyTorch's kernel reads

    def product_dtype(self, x: Tensor) -> torch.dtype:
        if x.device.type != "cpu":
            return x.dtype
        return torch.bfloat16 if HAS_FAST_BFLOAT16 and x.dtype is torch.float32 else x.dtype

    def by_kernel(self, x: Tensor) -> Tensor | None:
        group = self.scheme.group_size
        if self.weight_middle is not None or not has_kernel(x, group):
            return None
        book = self._book.to(x.device)
        return product(x, self.weight, self.weight_scale, book, self.scheme.name, group, torch.float32)

    def rows(self, begin: int, end: int) -> Tensor:
        middle = None if self.weight_middle is None else self.weight_middle[begin:end]
        return self.widened(self.weight[begin:end], self.weight_scale[begin:end], middle)

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) to (..., N), of the same dtype."""
        middle = self.weight_middle
        if middle is None or not self.has_kernel(input.device) or (input.requires_grad and torch.is_grad_enabled()):
            return super().forward(input)
        compiling = torch.compiler.is_compiling()
        if self._in_order is None and (compiling or input.numel() > FEW * self.in_features):
            return super().forward(input)
        ordered, zeros = self.in_order()
        x = input.to(self.product_dtype(input))
        y = torch.ops.xlmr.int4_linear(
            x, self.weight, self.weight_scale, middle, self.pairs, ordered, zeros, self.scheme.group_size
        )
        return (y + self.bias.to(y.dtype)).to(input.dtype)

    def has_kernel(self, device: torch.device) -> bool:
        """Whether PyTorch has an int4 kernel for this layer there."""
        return self.weight_middle is not None and self.scheme.group_size in _KERNEL_GROUPS and device.type == "cpu"

    def prepare(self) -> None:
        if self.has_kernel(self.weight.device):
            self.in_order()

    @torch.no_grad()
    def in_order(self) -> tuple[Tensor, Tensor]:
        """The codes in the order of PyTorch's kernel, and bfloat16 scales and zeros (groups, N, 2), N rounded up to
        sixteens: in memory only.
        """
        if self._in_order is None:
            assert self.weight_middle is not None
            padded = self.out_features + -self.out_features % _SIXTEEN
            ordered = torch.empty(padded, self.in_features // 2, dtype=torch.uint8)
            scales = torch.zeros(self.weight_scale.shape[1], padded, 2, dtype=torch.bfloat16)
            step = rows_at_once(self.in_features, _KERNEL_ROWS)
            for begin in range(0, self.out_features, step):
                rows = self.weight[begin : begin + step]
                codes = torch.stack([rows >> 4, rows & 15], -1).view(rows.shape[0], self.in_features)
                codes = F.pad(codes, (0, 0, 0, -rows.shape[0] % _SIXTEEN)).int()
                ordered[begin : begin + step] = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
                scale = self.weight_scale[begin : begin + step].float()
                zeros = scale * self.weight_middle[begin : begin + step].float() / 16
                scales[:, begin : begin + len(rows)] = torch.stack([scale, zeros], -1).transpose(0, 1)
            self._in_order = ordered, scales
            if self.is_mapped:  # the file can be read again
                for tensor in (self.weight, self.weight_scale, self.weight_middle):
                    let_go(tensor)
        return self._in_order

    def __getstate__(self) -> dict[str, Any]:
        # A copy is in memory of its own.
        return {**super().__getstate__(), "_in_order": None, "is_mapped": False}  # type: ignore[misc]
