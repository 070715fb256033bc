"""Static shapes: batches padded to one of few lengths, so that a compiled step meets few shapes and is compiled as
often.

Models do this by themselves where they can look at a batch (``packing.py``). These functions are for steps that are
compiled as a whole, which see shapes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.errors import InputError

__all__ = ["LENGTHS", "pad_batch"]

LENGTHS = (32, 64, 128, 256, 512)

# What stands in added places, by the name of an input; ``None`` is the padding token.
FILL: dict[str, int | None] = {
    "input_ids": None,
    "attention_mask": 0,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "labels": IGNORE_INDEX,
    "masked_positions": -1,
}


def pad_batch(
    batch: Mapping[str, Any],
    *,
    lengths: Sequence[int] = LENGTHS,
    rows: int | None = None,
    pad_token_id: int = 1,
) -> dict[str, NDArray[Any]]:
    """A batch of NumPy arrays, padded on the right to the first of ``lengths`` that holds it.

    Args:
        batch: the tokenizer's output with ``return_tensors="np"``, all (B, S), and what a head takes: integer
            ``labels`` (B, S) or (B,), ``masked_positions`` (B, P) whose P stays as it is.
        lengths: the lengths there are, in rising order.
        rows: number of rows to pad to, for the last batch of a data set. Added rows hold padding only and their labels
            are -100, so that they count in no loss.
        pad_token_id: of the config.

    Raises:
        InputError: for a batch that is longer than the last of ``lengths`` or has more rows than ``rows``, for inputs
            that are not known here or have another shape, or without ``attention_mask``, which tells padding from text.
    """
    unknown = set(batch) - set(FILL)
    if unknown:
        raise InputError(f"cannot pad {sorted(unknown)}, expected inputs of {sorted(FILL)}; pad them yourself")
    if not {"input_ids", "attention_mask"} <= set(batch):
        raise InputError(
            f"expected input_ids and attention_mask, received {sorted(batch)}; pass the tokenizer's output"
        )
    arrays = {name: np.asarray(x) for name, x in batch.items()}
    shape = arrays["input_ids"].shape
    for name, x in arrays.items():
        fits = (
            x.ndim == 2 if name == "masked_positions" else x.shape in (shape, shape[:1] if name == "labels" else shape)
        )
        if len(shape) != 2 or not fits or x.dtype.kind not in "iub":
            raise InputError(
                f"expected integers (batch, length), received {name} {x.dtype} {x.shape}; pad them yourself"
            )
    length = next((length for length in lengths if length >= shape[1]), None)
    if length is None:
        raise InputError(
            f"the batch has {shape[1]} tokens a row, expected at most {max(lengths)}; truncate it, or pass more lengths"
        )
    rows = shape[0] if rows is None else rows
    if rows < shape[0]:
        raise InputError(
            f"the batch has {shape[0]} rows, expected at most {rows}; make smaller batches, or pass more rows"
        )

    def padded(name: str, x: NDArray[Any]) -> NDArray[Any]:
        columns = 0 if name == "masked_positions" else length - shape[1]
        widths = [(0, rows - shape[0]), (0, columns)][: x.ndim]
        return np.pad(x, widths, constant_values=pad_token_id if FILL[name] is None else FILL[name])

    return {name: padded(name, x) for name, x in arrays.items()}
