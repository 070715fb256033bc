"""Int8 inference: weights of a byte, a float32 scale per output channel, activations quantized per token as they come.

What becomes int8 is in ``xlmr_core/quantization/int8.py``; residuals, norms, attention, position embeddings and the
small projections of heads stay float32. ``quantize``, in ``quantized.py``, puts these layers into a model.

A weight row is ``weight * weight_scale``, symmetric. A token's vector is ``q * scale + middle`` with q in [-127, 127]
from the least to the greatest of its values: activations lean to one side (after a gelu all but entirely), and half a
range wasted would be one bit lost.

Which product is taken, decided once when this module is imported:

=============================================  ======================================================================
where                                          product
=============================================  ======================================================================
x86 CPU whose int8 product is exact (AVX-512   ``torch._int_mm``: int8 times int8 into int32, from the weights as they
VNNI or newer), PyTorch with oneDNN            are stored; over four times as fast as float32
everything else: other CPUs, GPUs              float32 product of the same integers: the same answer and the same
                                               size, but no faster than float32
=============================================  ======================================================================

Shapes: n tokens, D inputs, O outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.errors import InputError
from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.asked import refuse_gradient
from xlmr_core.quantization.int8 import LARGEST, SCALE
from xlmr_core.quantization.widening import rows_at_once
from xlmr_torch.quantized import quantize
from xlmr_torch.widening import frozen

__all__ = [
    "HAS_FAST_PRODUCT",
    "Int8Embedding",
    "Int8Linear",
    "encoded",
    "int8_linear",
    "layer",
    "quantize",
    "quantize_rows",
    "quantize_tokens",
    "row_sums",
]


def _has_fast_product() -> bool:
    """Whether ``torch._int_mm`` is fast and exact here.

    Without VNNI instructions oneDNN adds pairs of products in int16, which overflows.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    largest = torch.full((16, 64), LARGEST, dtype=torch.int8, device="cpu")
    return bool((torch._int_mm(largest, -largest.t()) == -64 * LARGEST**2).all())


HAS_FAST_PRODUCT = _has_fast_product()


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A float weight (O, D) as int8 (O, D) and float32 scales (O,), to the bits of the scheme's ``encode``."""
    weight = weight.detach()
    largest = torch.maximum(weight.amax(1), -weight.amin(1)).float()
    scale = (largest / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    rows = torch.empty_like(weight, dtype=torch.int8, memory_format=torch.contiguous_format)
    parts = (x.split(rows_at_once(weight.shape[1])) for x in (rows, weight, scale))
    for rows_part, weight_part, scale_part in zip(*parts, strict=True):
        rows_part.copy_((weight_part / scale_part[:, None]).round_())
    return rows, scale


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Float (n, D) as int8 (n, D), and the float32 scale and middle of each token (n, 1).

    ``x`` is about ``q * scale + middle``.
    """
    x = x.float()
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    middle = (low + high) / 2
    # Measured from the middle as rounded, so that nothing lies beyond 127.
    largest = torch.maximum(high - middle, middle - low)
    scale = (largest / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    return (x - middle).mul_(scale.reciprocal()).round_().to(torch.int8), scale, middle


def _product(q: Tensor, weight: Tensor) -> Tensor:
    """int8 (n, D) times int8 (O, D) transposed: (n, O) of int32, or of float32 where there is no fast product."""
    if HAS_FAST_PRODUCT and q.device.type == "cpu":
        return torch._int_mm(q, weight.t())
    with torch.autocast(q.device.type, enabled=False):  # a half dtype cannot hold these integers
        return F.linear(q.float(), weight.float())


def int8_linear(
    x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor, weight_sums: Tensor | None = None
) -> Tensor:
    """A linear layer of int8 weights.

    Args:
        x: float (..., D).
        weight: int8 (O, D).
        weight_scale: float32 (O,).
        bias: float32 (O,).
        weight_sums: float32 (O,), the sum of each row of ``weight``, where it is known. oneDNN multiplies one token in
            less than half the time that two take.

    Returns:
        (..., O) of the dtype of ``x``.
    """
    q_nD, scale_n1, middle_n1 = quantize_tokens(x.reshape(-1, x.shape[-1]))
    if weight_sums is None:
        # A last row of ones gives the sum of each output's weights, with which the middle counts.
        product = _product(F.pad(q_nD, (0, 0, 0, 1), value=1), weight)
        product, weight_sums = product[:-1], product[-1]
    else:
        product = _product(q_nD, weight)
    if torch.compiler.is_compiling():
        y_nO = (product * scale_n1 + middle_n1 * weight_sums) * weight_scale + bias
    else:
        # The same in the buffer of the integers: new ones would cost more time than the arithmetic.
        y_nO = product.view(torch.float32).copy_(product)
        y_nO = y_nO.mul_(scale_n1).addcmul_(middle_n1, weight_sums.float()).mul_(weight_scale).add_(bias)
    return y_nO.to(x.dtype).view(*x.shape[:-1], weight.shape[0])


def row_sums(weight: Tensor) -> Tensor:
    """The sum of each row of int8 (O, D): float32 (O,), exact up to 131072 inputs."""
    return weight.sum(1, dtype=torch.int32).float()


class _Int8Module(nn.Module):
    """Frozen int8 rows and their scales."""

    def __init__(self, weight: Tensor, weight_scale: Tensor) -> None:
        super().__init__()
        self.weight, self.weight_scale = frozen(weight), frozen(weight_scale)

    @torch.no_grad()
    def set_values(self, weight: Tensor) -> None:
        """Quantize a float weight into this layer's parameters."""
        rows, scale = quantize_rows(weight)
        self.weight.copy_(rows)
        self.weight_scale.copy_(scale)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Checked before anything is changed; the word embedding comes first in every model.
        found = fn(self.weight_scale.new_empty(0)).dtype
        if found is not torch.float32:
            raise InputError(
                f"an int8 model is float32 around its int8 weights, received {found}; "
                "leave its dtype, or convert the original model"
            )
        return super()._apply(fn, recurse)


class Int8Embedding(_Int8Module):
    """A table of V int8 rows, looked up as float32."""

    def __init__(self, weight: Tensor, weight_scale: Tensor) -> None:
        super().__init__(weight, weight_scale)
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        """Integers (...) to float32 (..., D)."""
        return F.embedding(ids, self.weight).to(torch.float32) * self.weight_scale[ids].unsqueeze(-1)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Int8Linear(_Int8Module):
    """A linear layer of int8 weights and float32 bias."""

    # The sums of its rows, with the weight and the version of it that they were taken of.
    _sums: tuple[Tensor, int, Tensor] | None = None

    def __init__(self, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> None:
        super().__init__(weight, weight_scale)
        self.out_features, self.in_features = weight.shape
        self.bias = frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Float (..., D) to (..., O) of the same dtype.

        Raises:
            InputError: if a gradient with respect to ``x`` is wanted.
        """
        if x.requires_grad and torch.is_grad_enabled():
            refuse_gradient("compute under torch.no_grad()")
        return int8_linear(x, self.weight, self.weight_scale, self.bias, self._sums_of_rows())

    def _sums_of_rows(self) -> Tensor | None:
        """The sums of the rows, taken anew where the weight is another one; ``None`` where that cannot be known."""
        weight = self.weight
        if torch.compiler.is_compiling() or not weight.is_cpu or weight.is_inference():
            return None
        if self._sums is None or self._sums[0] is not weight or self._sums[1] != weight._version:
            self._sums = weight, weight._version, row_sums(weight)
        return self._sums[2]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_sums"}

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def encoded(scheme: Scheme, weight: Tensor) -> dict[str, Tensor]:
    """The tensors of a weight by suffix: the very bits of the scheme's ``encode``."""
    rows, scale = quantize_rows(weight)
    return {"": rows, SCALE: scale}


def layer(scheme: Scheme, row: Parameter, tensors: Mapping[str, Tensor], bias: Tensor | None) -> nn.Module:
    """The layer of a weight that is stored in these tensors, by suffix."""
    if row.role is Role.EMBEDDING:
        return Int8Embedding(*tensors.values())
    assert bias is not None
    return Int8Linear(*tensors.values(), bias)
