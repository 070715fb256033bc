"""The rows of the word embeddings that a run's texts have, which are trained in place of the whole table.

Of 250 002 rows a run on one task reads some thousands. AdamW on the others is known without them: they get no gradient,
so their moments stay 0, and decay multiplies all of them by the same number. So a step takes no time for them, and
gradients and moments no memory, while the weights are those of AdamW on the whole table, up to rounding of that number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from xlmr_core.errors import InputError

if TYPE_CHECKING:
    from xlmr_core.training.features import Features

__all__ = ["UsedRows", "used_rows"]


class UsedRows(nn.Module):
    """A table of embeddings of which some rows are trained, and the others only decay.

    Args:
        table: (V, D), which stays as it is.
        ids_U: which rows are trained.

    Attributes:
        weight: those rows, (U, D).
        others: what all others are multiplied by.
    """

    def __init__(self, table: nn.Embedding, ids_U: NDArray[np.int64]) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        values_VD = table.weight.detach()
        self._values_VD, self._ids_U = values_VD, torch.from_numpy(ids_U).to(values_VD.device)
        self._row_V = torch.full((len(values_VD),), -1, device=values_VD.device)
        self._row_V[self._ids_U] = torch.arange(len(ids_U), device=values_VD.device)
        self._padding = None if table.padding_idx is None else int(self._row_V[table.padding_idx])
        self.weight = nn.Parameter(values_VD[self._ids_U])
        self.others = 1.0

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of ids (...).

        Raises:
            InputError: in training on a CPU, for an id whose row is not trained; other devices say so in their own way.
        """
        rows = self._row_V[ids]
        # The values of another device are not waited for.
        if (self.training and rows.device.type != "cpu") or bool((rows >= 0).all()):
            return F.embedding(rows, self.weight, self._padding)
        if self.training:
            unknown = ids[rows < 0].flatten().tolist()
            raise InputError(f"expected ids of the rows that the run trains on, received also {unknown[:5]}")
        trained = F.embedding(rows.clamp(min=0), self.weight)
        return torch.where(rows[..., None] >= 0, trained, self._values_VD[ids] * self.others)

    def whole(self) -> Tensor:
        """The table as it is now, (V, D)."""
        found = self._values_VD * self.others
        found[self._ids_U] = self.weight.detach()
        return found

    def spread(self, moment_UD: Tensor) -> Tensor:
        """A moment of an optimizer as it has it of the whole table, (V, D)."""
        found = torch.zeros_like(self._values_VD)
        found[self._ids_U] = moment_UD
        return found

    def rows_of(self, whole_VD: Tensor) -> Tensor:
        """The rows that are trained, of a table or a moment of all, (U, D)."""
        return whole_VD[self._ids_U.to(whole_VD.device)].to(self._values_VD.device)

    @torch.no_grad()
    def read(self, whole_VD: Tensor, others: float | None) -> None:
        """Go on with a table.

        Args:
            whole_VD: what :meth:`whole` gave.
            others: the number that belongs to it; ``None``: it was not trained by rows.
        """
        self.weight.copy_(self.rows_of(whole_VD))
        if others is None:
            self._values_VD = whole_VD.to(self._values_VD.device, copy=True)
        self.others = 1.0 if others is None else others

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the other rows decay in each step of the AdamW that has these."""

        def decay(*_: Any) -> None:
            for group in optimizer.param_groups:
                if any(own is self.weight for own in group["params"]):
                    self.others *= 1 - group["lr"] * group["weight_decay"]

        optimizer.register_step_post_hook(decay)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.whole()  # as a plain model has it


@contextmanager
def used_rows(model: Any, features: Features | None) -> Iterator[UsedRows | None]:
    """While the block runs the model trains only these rows of its word embeddings; afterwards it has all of them.

    Args:
        model: where it will be trained; what of it is frozen is known.
        features: whose ids are trained on; ``None`` for the whole table.

    Yields:
        The rows, or ``None`` where the whole table is trained, as the ids are not known or it is no plain table; or
        where nothing of it is.
    """
    table = model.get_input_embeddings()
    # Ids are counted for a table that can use them alone.
    ids_U = features.ids() if features is not None and _is_plain(table, model) else None
    if ids_U is None:
        yield None
        return
    padding = [] if table.padding_idx is None else [table.padding_idx]
    rows = UsedRows(table, np.union1d(ids_U, np.array(padding, np.int64)))
    model.set_input_embeddings(rows)
    try:
        yield rows
    finally:
        with torch.no_grad():
            table.weight.copy_(rows.whole())
        model.set_input_embeddings(table)


def _is_plain(table: nn.Module, model: nn.Module) -> bool:
    """Whether a table is trained, in float32, by nothing but its gradient, and no other layer has it too."""
    if type(table) is not nn.Embedding:
        return False
    weight = table.weight
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    looks_on = any(getattr(table, name) for name in hooks) or weight._backward_hooks
    looks_on = looks_on or getattr(weight, "_post_accumulate_grad_hooks", None)
    places = sum(own is weight for _, own in model.named_parameters(remove_duplicate=False))
    changed = table.max_norm is not None or table.scale_grad_by_freq or table.sparse
    return weight.requires_grad and weight.dtype is torch.float32 and places == 1 and not (looks_on or changed)
