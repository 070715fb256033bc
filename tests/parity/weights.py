"""Random parameters by canonical name, the same on every machine and for every NumPy version, so that they need not be
stored.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.parameters import Parameter, Role, parameters

__all__ = ["draw_parameters", "round_to"]


def uniform(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniform numbers of variance 1. Only the raw stream of a bit generator is promised to stay, so the numbers are
    made from it.
    """
    raw = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw(int(np.prod(shape)))
    return (((raw >> np.uint64(11)) * 2.0**-53 - 0.5) * 12.0**0.5).reshape(shape)


def draw(row: Parameter, seed: int, head_size: int) -> NDArray[np.float32]:
    """Nothing is zero or one, norms and biases and padding rows neither. Embeddings are as small as in real
    checkpoints: a larger scale would hide a wrong epsilon."""
    x = uniform(seed, row.name, row.shape)
    if row.role is Role.EMBEDDING:
        x = x * (head_size**-0.5 if "distance_embedding" in row.name else 0.1)
    elif row.role is Role.LINEAR_WEIGHT:
        x = x / row.shape[1] ** 0.5
    elif row.role is Role.NORM_SCALE:
        x = 1.0 + 0.2 * x
    else:
        x = 0.2 * x
    return x.astype(np.float32)


def draw_parameters(config: XLMRobertaConfig, head: str, seed: int) -> dict[str, NDArray[np.float32]]:
    """All parameters of a model, tied ones drawn once and present under both names.

    The projections of attention are drawn larger, so that the probabilities are far from uniform.
    """
    rows = parameters(config, head)
    drawn = {name: draw(row, seed, config.head_size) for name, row in rows.items() if row.tied_to is None}
    for name in drawn:
        if name.endswith(("query.weight", "key.weight")):
            drawn[name] = drawn[name] * np.float32(1.5)
        if name.endswith("lm_head.decoder.weight"):
            drawn[name] = drawn[name] * np.float32(0.3)
    return {name: drawn[row.tied_to or name] for name, row in rows.items()}


def round_to(dtype: str, x: NDArray[np.floating]) -> NDArray[np.float32]:
    """The nearest number of a narrower dtype, as float32; ties to even."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if dtype == "bfloat16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return x.astype(dtype).astype(np.float32)
