"""Linear layers that hold codes and widen them while they are used: what they have in common, whoever's codes they are.

A weight (N, K) is widened once a call, and if it would take more than 64 MB, a block of rows after the other is
widened and multiplied. Nothing wide is kept for the backward pass, which widens once more: gradients flow to inputs,
and so to adapters, never to codes.

Shapes: N outputs, K inputs, n tokens.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.quantization.widening import spans

__all__ = [
    "QuantizedLayer",
    "WidenedLinear",
    "frozen",
    "from_codes",
    "let_go",
    "pairs_of",
]

# MADV_PAGEOUT of Linux
_PAGE_OUT = 21

# Integers of the same width, which nothing casts.
_BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}


def frozen(values: Tensor) -> nn.Parameter:
    """A parameter without a gradient; one that is passed stays the same one, so that layers can share it."""
    return values.requires_grad_(False) if isinstance(values, nn.Parameter) else nn.Parameter(values, False)


def pairs_of(book: Tensor) -> Tensor:
    """Of 16 float32 values, those of both codes in each of 256 bytes: as int64 (256,), which one look-up reads."""
    byte = torch.arange(256, device=book.device)
    return torch.stack([book[byte >> 4], book[byte & 15]], 1).view(torch.int64).view(256)


def from_codes(codes: Tensor, pairs: Tensor, scales: Tensor, block: int, middles: Tensor | None = None) -> Tensor:
    """What codes stand for.

    Args:
        codes: uint8 (bytes,), two codes each.
        pairs: see :func:`pairs_of`.
        scales: float32, one for each ``block`` values; the last block may be short.
        block: values that share a scale.
        middles: float32, as many, added before a value is scaled.

    Returns:
        float32 (2 * bytes,).
    """
    values = torch.index_select(pairs, 0, codes.int()).view(torch.float32)
    whole = values.numel() // block
    blocks, rest = values[: whole * block].view(-1, block), values[whole * block :]
    if middles is not None:
        blocks = blocks + middles[:whole, None]
    scaled = (blocks * scales[:whole, None]).view(-1)
    return torch.cat([scaled, rest * scales[whole:]]) if rest.numel() else scaled


def let_go(tensor: Tensor) -> None:
    """Give the pages of a mapped file behind a tensor back to the system; a later look reads them again.

    It is advice that changes no value: a page that was written to stays. Elsewhere than on Linux nothing happens.
    """
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (tensor.data_ptr() + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if sys.platform == "linux" and tensor.device.type == "cpu" and size > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), _PAGE_OUT)


class QuantizedLayer(nn.Module):
    """A layer whose tensors keep their dtypes whatever becomes of the rest of the model.

    Attributes:
        stored_names: of its attributes that checkpoints and state dicts call otherwise: what they call them.
        is_mapped: whether its tensors are views of a mapped file, as long as nobody has put others in their places.
    """

    stored_names: dict[str, str]
    is_mapped = False
    # Attributes that hold tensors of the quantized weight.
    kept: tuple[str, ...]

    def settle(self) -> None:
        """Make what follows from the tensors, which others have put in place."""

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # What moves or copies tensors sees integers, which no cast changes.
        found = {name: self._parameters[name] for name in self.kept}
        dtypes = {name: x.dtype for name, x in found.items() if x is not None and x.dtype in _BITS}
        for name, dtype in dtypes.items():
            self._view(name, _BITS[dtype])
        super()._apply(fn, recurse)
        for name, dtype in dtypes.items():
            self._view(name, dtype)
        self.settle()
        return self

    def _view(self, name: str, dtype: torch.dtype) -> None:
        parameter = self._parameters[name]
        assert parameter is not None
        parameter.data = parameter.data.view(dtype)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, stored in self.stored_names.items():
            destination[prefix + stored] = destination.pop(prefix + name)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name, stored in self.stored_names.items():
            if prefix + stored in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + stored)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.settle()


class WidenedLinear(QuantizedLayer, nn.Linear):
    """A linear layer of codes. A subclass of ``nn.Linear``, for libraries of adapters look for that."""

    in_features: int
    out_features: int
    bias: nn.Parameter
    # Of how many rows the first one of a block must be a multiple.
    alignment: int = 1

    def __init__(self, out_features: int, in_features: int, bias: Tensor) -> None:
        nn.Module.__init__(self)
        self.stored_names, self.kept = {}, ()
        self.out_features, self.in_features = out_features, in_features
        self.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias)

    @abstractmethod
    def rows(self, begin: int, end: int) -> Tensor:
        """Some rows of the weight, widened."""

    @abstractmethod
    def product_dtype(self, x: Tensor) -> torch.dtype:
        """The dtype in which inputs are multiplied."""

    def prepare(self) -> None:
        """Make what a kernel reads beside the codes, if there is such a kernel."""

    def dequantize(self) -> Tensor:
        """The weight (N, K), widened."""
        with torch.no_grad():
            return self.rows(0, self.out_features)

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) to (..., N), of the same dtype."""
        x = input.to(self.product_dtype(input))
        y = self.by_kernel(x)
        if y is None and x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            y = _Product.apply(x, self)
        elif y is None:
            y = self.product(x)
        # A bias that is trained gets its gradient outside the product.
        return (y + self.bias.to(y.dtype)).to(input.dtype)

    def by_kernel(self, x: Tensor) -> Tensor | None:
        """(..., K) to (..., N) without the bias, by a kernel that reads the codes; ``None`` where there is none."""
        return None

    def product(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N) without the bias."""
        with torch.autocast(x.device.type, enabled=False):
            columns = [F.linear(x, rows) for rows in self._blocks(x.dtype)]
        return columns[0] if len(columns) == 1 else torch.cat(columns, -1)

    def _blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        for begin, end in self._spans():
            yield self.rows(begin, end).to(dtype)

    def _spans(self) -> list[tuple[int, int]]:
        return spans(self.out_features, self.in_features, self.alignment)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class _Product(torch.autograd.Function):
    """A product that keeps nothing wide."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: WidenedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer: WidenedLinear = ctx.layer
        found: Tensor | None = None
        with torch.autocast(gradient.device.type, enabled=False):
            for (begin, end), rows in zip(layer._spans(), layer._blocks(gradient.dtype), strict=True):
                part = gradient[..., begin:end] @ rows
                found = part if found is None else found + part
        assert found is not None
        return found, None
