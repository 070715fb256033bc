"""The rows of the word embeddings that a run's texts have, which are trained in place of the whole table.

Of 250 002 rows a run on one task reads some thousands. AdamW on the others is known without them: they get no gradient,
so their moments stay 0, and decay multiplies all of them by the same number. So a step takes no time for them, and
gradients and moments no memory, while the weights are those of AdamW on the whole table, up to rounding of that number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from xlmr_core.errors import InputError

__all__ = ["UsedRows", "used_rows"]


class UsedRows(nn.Module):
    """A table of embeddings of which some rows are trained, and the others only decay.

    Args:
        table: (V, D), which stays as it is.
        ids_U: which rows are trained.
    """

    others: Tensor

    def __init__(self, table: nn.Embedding, ids_U: NDArray[np.int64]) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        values_VD = table.weight.detach()
        self._values_VD, self._ids_U = values_VD, torch.from_numpy(ids_U).to(values_VD.device)
        self._row_V = torch.full((len(values_VD),), -1, device=values_VD.device)
        self._row_V[self._ids_U] = torch.arange(len(ids_U), device=values_VD.device)
        self._padding = None if table.padding_idx is None else int(self._row_V[table.padding_idx])
        self.weight = nn.Parameter(values_VD[self._ids_U])
        # What the other rows are multiplied by; one step more or less is told from a state that is read.
        self.register_buffer("others", torch.ones((), dtype=torch.float64, device=values_VD.device))

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of ids (...).

        Raises:
            InputError: in training, for an id whose row is not trained.
        """
        rows = self._row_V[ids]
        known = rows >= 0
        if known.all():
            return F.embedding(rows, self.weight, self._padding)
        if self.training:
            unknown = ids[~known].unique().tolist()
            raise InputError(f"expected ids of the rows that the run trains on, received also {unknown[:5]}")
        decayed = self._values_VD[ids] * self.others.to(self._values_VD.dtype)
        return torch.where(known[..., None], F.embedding(rows.clamp(min=0), self.weight), decayed)

    def whole(self) -> Tensor:
        """The table as it is now, (V, D)."""
        found: Tensor = self._values_VD * self.others.to(self._values_VD.dtype)
        found[self._ids_U] = self.weight.detach()
        return found

    def follow(self, optimizer: torch.optim.AdamW) -> None:
        """Let the other rows decay in each step of the optimizer of these."""

        def decay(*_: Any) -> None:
            for group in optimizer.param_groups:
                if any(own is self.weight for own in group["params"]):
                    self.others.mul_(1 - group["lr"] * group["weight_decay"])

        optimizer.register_step_post_hook(decay)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.whole()  # as a plain model has it


@contextmanager
def used_rows(model: Any, ids_U: NDArray[np.int64] | None) -> Iterator[UsedRows | None]:
    """While the block runs the model trains only these rows of its word embeddings; afterwards it has all of them.

    Args:
        model: where it will be trained; what of it is frozen is known.
        ids_U: every id that is trained on, rising; ``None``: it is not known.

    Yields:
        The rows, or ``None`` where the whole table is trained: its ids are not known, or an output layer has it too; or
        where nothing of it is.
    """
    table = model.get_input_embeddings()
    shared = model.get_output_embeddings()
    whole = ids_U is None or type(table) is not nn.Embedding or not table.weight.requires_grad
    if whole or (shared is not None and shared.weight is table.weight):
        yield None
        return
    assert ids_U is not None
    padding = [] if table.padding_idx is None else [table.padding_idx]
    rows = UsedRows(table, np.union1d(ids_U, np.array(padding, np.int64)))
    model.set_input_embeddings(rows)
    try:
        yield rows
    finally:
        with torch.no_grad():
            table.weight.copy_(rows.whole())
        model.set_input_embeddings(table)
