"""Attention of a long text in integers, for int8 models that are compiled for inference on the CPU.

An int8 model's projections are four times faster than in float32; attention, which is not, is then most of a long
text's time. Here its numbers are rounded too, but finer than the 8 bits they were projected in: queries and keys to 13
bits token by token, keys measured from their mean, which takes the same from all scores of a query and so changes no
weight; weights to 12 bits of the largest among 256 keys; values to 12 bits channel by channel, measured from the middle
of their range. Products are of pairs of 16 bits (AVX512-VNNI), twice as fast as float32's. Softmax is float32.

The kernel is C++, ``integer_attention.cpp``, which the compiler that a compiled model needs anyway builds at the first
long text: some five seconds, once, as it stays in Inductor's cache.
"""

from __future__ import annotations

import ctypes
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["has_integer_attention", "integer_attention"]

SOURCE = Path(__file__).with_name("integer_attention.cpp")
# Inductor writes vectors itself and asks the compiler to leave loops as they are.
FLAGS = ("-ftree-loop-vectorize", "-mprefer-vector-width=512")


@cache
def has_integer_attention() -> bool:
    """Whether the processor has the instructions, and the compiler can be one that knows the kernel's dialect."""
    return bool(torch.cpu.get_capabilities().get("avx512_vnni")) and sys.platform != "win32"


def integer_attention(q_SNH: Tensor, k_SNH: Tensor, v_SNH: Tensor, scale: float, context_SNH: Tensor) -> None:
    """Scaled dot-product attention within one text, without a mask.

    Args:
        q_SNH, k_SNH, v_SNH: float32 on the CPU, the values of a head side by side.
        scale: factor of the scores.
        context_SNH: what is written to: a number that is none makes NaN of what depends on it.
    """
    tensors = (q_SNH, k_SNH, v_SNH, context_SNH)
    strides = [stride for tensor in tensors for stride in tensor.stride()[:2]]
    places = (tensor.data_ptr() for tensor in tensors)
    _kernel()(*places, (ctypes.c_int64 * len(strides))(*strides), *q_SNH.shape, scale / math.log(2))


@cache
def _kernel() -> Any:
    """The kernel; torch.compile has imported what builds it."""
    from torch._inductor.codecache import CppCodeCache

    kernel = CppCodeCache.load(SOURCE.read_text(encoding="utf-8"), extra_flags=FLAGS).integer_attention
    kernel.argtypes = (*[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 3, ctypes.c_float)
    kernel.restype = None
    return kernel
