"""oneDNN's projection. Its operator believes what it is given, so that everything it believes is looked at here.

It reads a bias as if its values lay side by side and were as many as there are outputs; reads memory that a conversion
in another thread frees meanwhile; and says of other dtypes and layouts that a primitive could not be created. What it
would not get right is PyTorch's own ``F.linear``, with the answers and the errors of that.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DTYPES", "project", "takes"]

# bfloat16 takes a processor with AVX-512 or better; elsewhere PyTorch's own product is right, and not fast.
DTYPES = (
    *((torch.float32,) if torch.backends.mkldnn.is_available() else ()),
    *(
        (torch.bfloat16,)
        if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        else ()
    ),
)


def project(x: Tensor, weight: Tensor, bias: Tensor, kernel: str = "none", algorithm: str = "") -> Tensor | None:
    """A projection, and what oneDNN may do after it; ``None`` where that is for PyTorch. No gradient is kept.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,).
        kernel, algorithm: what is done to the product, in oneDNN's words.

    Returns:
        (..., out).
    """
    # Tensors of this call alone: they keep their memory and their dtype whatever another thread makes of the layer.
    weight, bias = weight.data, bias.data
    if not takes(x, weight, bias):
        return None
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, kernel, [], algorithm)


def takes(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether oneDNN's operator gives the projection of these tensors."""
    return (
        x.dtype in DTYPES
        and all(y.dtype is x.dtype and y.is_cpu and y.layout is torch.strided for y in (x, weight, bias))
        and not x.is_nested
        and weight.dim() == 2
        and x.shape[-1:] == weight.shape[1:]
        and bias.shape == weight.shape[:1]
        and bias.is_contiguous()
        and (weight.is_contiguous() or weight.t().is_contiguous())
    )
