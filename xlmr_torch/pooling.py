"""From the states of many tokens to few vectors, where the states are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["POOLED", "largest", "weighted"]


def weighted(states_BSD: Tensor, weights_BPS: Tensor) -> Tensor:
    """(B, P, D): sums of the states, each times its weight."""
    return weights_BPS @ states_BSD


def largest(states_BSD: Tensor, weights_BPS: Tensor) -> Tensor:
    """(B, P, D): the largest numbers of the states whose weight is not zero."""
    lowest = torch.finfo(states_BSD.dtype).min
    # One after the other: all at once would be as many copies of the states.
    found = [states_BSD.masked_fill(weights_BS[..., None] == 0, lowest).amax(1) for weights_BS in weights_BPS.unbind(1)]
    return torch.stack(found, 1)


POOLED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"pooled": weighted, "largest": largest}
