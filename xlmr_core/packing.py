"""When a batch may be packed: the promise of docs/packing.md, once for every backend.

Packing leaves padding out. Where the padded path's answer is another one, the padded path is taken: :func:`may_pack`
decides by what is always known of a call, :func:`broken_promise` by the values of the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from xlmr_core.calls import Call
from xlmr_core.checks import check_choice
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PACKING_MODES",
    "PROMISES",
    "Needs",
    "broken_promise",
    "check_packing_mode",
    "first_token_is_enough",
    "may_pack",
    "promises",
    "refuse_packing",
]

# auto: where it pays, and where the mask's values can be read for nothing; always: wherever the packed path promises
# the same answer, batches without padding and compiled graphs included; never: the padded path.
PACKING_MODES = ("auto", "always", "never")

# What every row of a packed batch has to hold, and what is said where a compiled graph, which cannot turn back, meets a
# row that does not.
PROMISES = {
    # A fully masked row attends uniformly on the padded path.
    "tokens": "a row without any token",
    # What is read at a masked position is that padded position's state.
    "first_token": "a row whose first position is masked, which this head reads",
    "positions": "a label, or a position that is asked for, where the mask is 0",
}

Array = TypeVar("Array")


@dataclass(frozen=True)
class Needs(Generic[Array]):
    """What a head will read of the encoder's states; decides whether a batch may be packed.

    Attributes:
        first_token: the state at position 0.
        positions_BS: bool (B, S), positions whose state counts even where the mask is 0.
        every_position: all of them, masked or not.
        nothing_else: no other state than that at position 0 is read, by nobody.
    """

    first_token: bool = False
    positions_BS: Array | None = None
    every_position: bool = False
    nothing_else: bool = False


def check_packing_mode(mode: str) -> str:
    """Return the mode if there is one of this name, else say which there are."""
    return check_choice("packing", mode, PACKING_MODES)


def may_pack(config: XLMRobertaConfig, implementation: str, call: Call[Any], needs: Needs[Any]) -> bool:
    """Whether a call may be packed, as far as its shapes and the config say. Each row must attend only
    within itself.

    Args:
        config: of the model.
        implementation: name of the attention kernel.
        call: the checked call.
        needs: what will be read of the states.
    """
    return (
        implementation != "eager"
        and config.position_embedding_type == "absolute"
        and not call.output_attentions
        and not needs.every_position
        and call.head_mask is None
        and call.memory_BMD is None
        and (call.past is None or call.past.length == 0)
        and (call.attention_mask is None or len(call.attention_mask.shape) == 2)
    )


def first_token_is_enough(config: XLMRobertaConfig, call: Call[Any], needs: Needs[Any]) -> bool:
    """Whether the last layer has to answer at position 0 alone, as far as the config and what is asked for say. What
    the layers before it give is still attended to everywhere.

    Args:
        config, call, needs: as of :func:`may_pack`.
    """
    return (
        needs.first_token
        and needs.nothing_else
        and not needs.every_position
        and not config.is_decoder
        and config.position_embedding_type == "absolute"
        and not (call.output_attentions or call.output_hidden_states or call.use_cache)
        and call.head_mask is None
        and call.memory_BMD is None
        and call.cache is None
    )


def promises(mask_BS: Any, needs: Needs[Any], any_in_row: Callable[[Any], Any]) -> Iterator[tuple[str, Any]]:
    """Each promise that a packed batch has to keep, by its name in ``PROMISES``: booleans that all have to be true.

    Args:
        mask_BS: true where a token is; an array of any framework.
        needs: what will be read.
        any_in_row: (B, S) to (B,): whether a row has a true value.
    """
    yield "tokens", any_in_row(mask_BS)
    if needs.first_token:
        yield "first_token", mask_BS[:, 0]
    if needs.positions_BS is not None:
        yield "positions", mask_BS | ~needs.positions_BS


def broken_promise(mask_BS: NDArray[np.bool_], needs: Needs[Any]) -> str | None:
    """The name of the promise of ``PROMISES`` that a mask would break, ``None`` if the batch may be packed.

    Args:
        mask_BS: true where a token is.
        needs: what will be read, as NumPy arrays.
    """
    kept = promises(mask_BS, needs, lambda mask: mask.any(1))
    return next((name for name, rows in kept if not rows.all()), None)


def refuse_packing(made_for: tuple[int, ...], batch: tuple[int, ...], *, allowed: bool) -> None:
    """Refuse a packing that was made for another batch, or for a call that the padded path has to answer."""
    if made_for != batch:
        raise InputError(
            f"packing was made for a batch of shape {made_for}, received one of {batch}; make one for each batch"
        )
    if not allowed:
        raise InputError(
            "packing cannot serve this call, expected a call without attention weights, head mask, cross-attention, "
            "relative positions, answer positions or a mask of three axes; leave packing out"
        )
