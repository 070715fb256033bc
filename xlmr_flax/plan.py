"""``plan``: how a checked call runs. Packed or padded, which masks, which memory; decided once, before any layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xlmr_core import calls
from xlmr_core.calls import Call
from xlmr_core.packing import Needs, first_token_is_enough, may_pack, refuse_packing
from xlmr_flax.inputs import is_concrete
from xlmr_flax.kernels import AttentionPlan
from xlmr_flax.linear import narrowed
from xlmr_flax.packing import Packing, choose_packing

if TYPE_CHECKING:
    from xlmr_flax.encoder import EncoderModel

__all__ = ["Plan", "plan"]

# Of first tokens that ask all tokens of packed rows: more would take more memory than the layer itself.
MOST_SCORES = 1 << 22


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Plan(calls.Plan[Any]):
    """The plan as a pytree, which goes into the compiled run.

    The packing stays outside: of a packed batch the run sees the rows alone, so that batches of other shapes share its
    programs. So does an empty cache: the run gives the keys and values of its own tokens.

    Attributes:
        keeps_cache: whether the run gives keys and values for a cache.
        only_first: whether the last layer answers at the first tokens alone.
        first_B: int32, their slots in packed rows; the last of them may be there to fill up.
    """

    keeps_cache: bool = field(default=False, metadata={"static": True})
    only_first: bool = field(default=False, metadata={"static": True})
    first_B: Any = None

    def drawn(self, x: Array) -> Plan:
        """The plan for states (B, S, D): biases are drawn, and the memory is narrowed. Done once a run."""
        memory, length = self.memory_attention, x.shape[1]
        drawn = replace(
            self,
            attention=self.attention.drawn(length, length if self.cache is None else self.cache.capacity),
            memory_attention=None if memory is None else memory.drawn(length, self.memory_BMD.shape[1]),
            memory_BMD=None if self.memory_BMD is None else narrowed(self.memory_BMD, self.dtype),
        )
        if not self.only_first:
            return drawn
        return replace(drawn, last=replace(drawn, attention=drawn.attention.of_first_tokens(self.first_B)))

    @property
    def dtype(self) -> Any:
        """What states are multiplied in."""
        return self.attention.dtype


def plan(
    encoder: EncoderModel, call: Call[Any], needs: Needs[Any], packing: Packing | None = None
) -> tuple[Plan, Packing | None]:
    """Decide how a call runs. Traceable: where values cannot be read, nothing depends on them.

    Args:
        encoder: the model, which knows its kernel and its mode of packing.
        call: the checked call.
        needs: what will be read of the states.
        packing: the caller's own; by default the model decides.

    Returns:
        The plan, and where the tokens of a packed batch are. The tokens of an empty cache attend to each other alone,
        and the plan is without it.

    Raises:
        InputError: for a packing that does not fit the call.
    """
    config, mask, length, dtype = encoder.config, call.attention_mask, call.source.shape[1], jnp.dtype(encoder.dtype)
    begins = call.past is None or call.past.length == 0
    if begins and mask is not None and mask.shape[-1] != length:
        mask = mask[..., :length]  # a mask for all places of the cache
    allowed = may_pack(config, encoder.attn_implementation, call, needs)
    if packing is not None:
        refuse_packing(tuple(packing.slots_BS.shape), tuple(call.source.shape[:2]), allowed=allowed)
    elif allowed:
        packing = choose_packing(encoder.packing, mask, call.source, needs)
    memory_attention = head_mask_LN = None
    if call.memory_BMD is not None:
        memory_attention = AttentionPlan(mask=call.memory_mask_BM, return_weights=call.output_attentions, dtype=dtype)
    if call.head_mask is not None:
        head_mask_LN = jnp.broadcast_to(call.head_mask, (config.num_hidden_layers, config.num_attention_heads))
    if packing is not None:
        attention = AttentionPlan(segments_RW=packing.segments_RW, causal=config.is_decoder, dtype=dtype)
    else:
        attention = AttentionPlan(
            mask=None if mask is None or _is_full(mask) else mask,
            past=None if begins else call.cache.length,
            # A mask with a row for each query has said everything already, as published.
            causal=config.is_decoder and (mask is None or mask.ndim == 2),
            return_weights=call.output_attentions,
            dtype=dtype,
        )
    only_first = (
        first_token_is_enough(config, call, needs)
        and not encoder.encoder.scan_layers  # whose layers are all alike
        and (packing is None or packing.slots_BS.shape[0] * packing.segments_RW.size <= MOST_SCORES)
    )
    return (
        Plan(
            attention=attention,
            memory_attention=memory_attention,
            memory_BMD=call.memory_BMD,
            head_mask_LN=head_mask_LN,
            cache=None if begins else call.cache,
            keeps_cache=call.use_cache,
            output_hidden_states=call.output_hidden_states,
            only_first=only_first,
            first_B=packing.first_slots() if only_first and packing is not None else None,
        ),
        packing,
    )


def _is_full(mask: Any) -> bool:
    """Whether a mask can be seen to have no zero, so that it needs no bias."""
    return is_concrete(mask) and bool((np.asarray(mask) != 0).all())
