"""Products of nf4 and fp4 weights on CUDA by bitsandbytes, where it is installed.

Its kernel multiplies one row with the codes as they are, and widens a weight for many rows in one pass; gradients flow
to the inputs. Elsewhere, and inside a compiler, weights are widened by ``widening.py``, to the same values.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

__all__ = ["BLOCKS", "has_kernel", "product"]

# Values that may share a scale.
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)


def has_kernel(x: Tensor, block: int) -> bool:
    """Whether bitsandbytes multiplies such inputs with weights whose scales are shared by ``block`` values."""
    return x.device.type == "cuda" and block in BLOCKS and not torch.compiler.is_compiling() and _is_installed()


@cache
def _is_installed() -> bool:
    return find_spec("bitsandbytes") is not None


def product(
    x: Tensor, codes: Tensor, scales: Tensor, book: Tensor, kind: str, block: int, dtype: torch.dtype
) -> Tensor:
    """A product with a weight (N, K) of codes.

    Args:
        x: (..., K), in the dtype of the product.
        codes: uint8, N * K / 2 of them row after row, two a byte, the first in the high half.
        scales: one for each ``block`` values.
        book: float32 (16,), the value of each code.
        kind: ``nf4`` or ``fp4``.
        block: values that share a scale.
        dtype: that widened values are rounded to.

    Returns:
        (..., N) of the dtype of ``x``.
    """
    library, width = import_module("bitsandbytes"), x.shape[-1]
    state = library.functional.QuantState(
        absmax=scales.reshape(-1).float(),
        shape=torch.Size((2 * codes.numel() // width, width)),
        code=book,
        blocksize=block,
        quant_type=kind,
        dtype=dtype,
    )
    found: Tensor = library.matmul_4bit(x, codes.reshape(-1, 1).t(), quant_state=state)
    return found
