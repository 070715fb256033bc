"""Memory of a process that runs batches of many sizes."""

from __future__ import annotations

import os

__all__ = ["keep_few_kernels"]

# oneDNN makes machine code for each size of a product, and PyTorch keeps the last 1 024 of these, each in two places:
# over a gigabyte, which a server reaches in some minutes. They are made in less time than is seen.
LIMITS = {"LRU_CACHE_CAPACITY": "16", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}


def keep_few_kernels() -> None:
    """Let PyTorch keep fewer kernels, if the environment does not say how many; to be called before it is imported."""
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
