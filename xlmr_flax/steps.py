"""What the loops of generation are made of, whichever of them runs: the model's steps, processors and stops.

:func:`prefill` gives the prompt to the model, :func:`advance` one more token of each row. :class:`Between` is what the
host does between steps. The loops are in ``decoding.py`` and ``beams.py``.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, P the prompt, N new tokens, V
vocabulary, X tokens that may follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from xlmr_core.generation import (
    RENORMALIZE,
    Generation,
    Hooks,
    LogitsProcessorList,
    Processor,
    Prompt,
    allowed_tokens,
    next_position,
    own_criteria,
)
from xlmr_flax.cache import Cache
from xlmr_flax.processors import process

__all__ = ["Between", "Context", "advance", "best", "is_end", "prefill", "processed", "repeated"]


def repeated(x: Any, times: int) -> Any:
    """(B, ...) to (B * times, ...): each row so many times, one after the other; in NumPy where it is NumPy's."""
    if x is None or times == 1:
        return x
    return np.repeat(x, times, axis=0) if isinstance(x, np.ndarray) else jnp.repeat(x, times, axis=0)


# ---- The model, step by step


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Context:
    """What all steps of a call have in common.

    Attributes:
        mask_RL: of 0 and 1: of the prompt, and 1 for all that comes after it.
        types_RL: token types; ``None`` if there are none.
        positions_R: of the first new token; ``None`` leaves positions to the forward pass.
        memory_RMD, memory_mask_RM: of an encoder.
        encoder_ids_BM: of an encoder's text; the prompt where there is none.
        max_length: int32 (), the most tokens of a row: in the plan it is rounded up.
        key: of draws.
    """

    mask_RL: Any
    types_RL: Any
    positions_R: Any
    memory_RMD: Any
    memory_mask_RM: Any
    encoder_ids_BM: Any
    max_length: Any
    key: Any

    @classmethod
    def of(
        cls,
        model: Any,
        plan: Generation,
        prompt: Prompt,
        memory: Mapping[str, Any],
        encoder_ids: Any,
        max_length: int,
        key: Array,
    ) -> Self:
        """That of a call; see :func:`decode`."""
        times, new_tokens = plan.rows_per_prompt, plan.max_length - prompt.width
        xp = np if isinstance(prompt.ids, np.ndarray) else jnp

        def widened(x_BP: Any, last_B1: Any) -> Any:
            whole_BL = xp.concatenate([x_BP, xp.broadcast_to(last_B1, (prompt.batch, new_tokens))], axis=1)
            return repeated(whole_BL.astype(np.int32), times)

        types, zero_based = prompt.token_type_ids, prompt.position_ids is not None
        first = next_position(model.config, plan.position_numbering)
        return cls(
            mask_RL=widened(prompt.mask, np.ones((1, 1))),
            types_RL=None if types is None else widened(types, types[:, -1:]),
            positions_R=repeated((prompt.counted + first).astype(np.int32), times) if zero_based else None,
            memory_RMD=repeated(memory.get("encoder_hidden_states"), times),
            memory_mask_RM=repeated(memory.get("encoder_attention_mask"), times),
            encoder_ids_BM=(prompt.ids if encoder_ids is None else encoder_ids).astype(np.int32),
            max_length=np.int32(max_length),
            key=key,
        )


def prefill(model: Any, plan: Generation, prompt: Prompt, memory: Mapping[str, Any]) -> Any:
    """The model's output of the prompts: logits (B, 1, V), and the cache.

    Args:
        model: with a head for causal language modelling.
        plan: what the call means.
        prompt: arranged.
        memory: ``encoder_hidden_states`` and ``encoder_attention_mask`` of (B, M, ...), for cross-attention.
    """
    return model(
        input_ids=prompt.ids,
        attention_mask=prompt.mask,
        token_type_ids=prompt.token_type_ids,
        position_ids=prompt.position_ids,
        past_key_values=model.init_cache(prompt.batch, plan.max_length) if plan.use_cache else None,
        logits_to_keep=1,
        **memory,
        **_asked(plan),
    )


@partial(jax.jit, static_argnums=0, donate_argnums=5)
def advance(plan: Generation, model: Any, context: Context, ids_RL: Array, length: Array, cache: Cache | None) -> Any:
    """The model's output of the last token of each row: logits (R, 1, V), and the cache; without one, of all tokens."""
    types_RL, positions_R = context.types_RL, context.positions_R
    if cache is not None:
        types_R1 = None if types_RL is None else types_RL[:, -1:]
        if positions_R is not None:
            positions_R = positions_R + (length - 1 - plan.prompt_length)
        return model(
            input_ids=lax.dynamic_slice_in_dim(ids_RL, length - 1, 1, axis=1),
            attention_mask=context.mask_RL,
            token_type_ids=types_R1,
            position_ids=None if positions_R is None else positions_R[:, None],
            encoder_hidden_states=context.memory_RMD,
            encoder_attention_mask=context.memory_mask_RM,
            past_key_values=cache,
            logits_to_keep=1,
            **_asked(plan),
        )
    mask_RL = jnp.where(jnp.arange(ids_RL.shape[1]) < length, context.mask_RL, 0)
    counted_RL = jnp.cumsum(mask_RL, axis=1, dtype=jnp.int32)
    return model(
        input_ids=ids_RL,
        attention_mask=mask_RL,
        token_type_ids=types_RL,
        position_ids=None if positions_R is None else jnp.where(mask_RL != 0, counted_RL - 1, 1),
        encoder_hidden_states=context.memory_RMD,
        encoder_attention_mask=context.memory_mask_RM,
        logits_to_keep=(length - 1)[None],
        **_asked(plan),
    )


def _asked(plan: Generation) -> dict[str, Any]:
    return {
        "output_attentions": plan.output_attentions,
        "output_hidden_states": plan.output_hidden_states,
        "train": False,
        "return_dict": True,
    }


# ---- Scores and tokens


def processed(
    plan: Generation, context: Context, ids_RL: Array, length: Any, scores_RV: Array, between: Between | None
) -> Array:
    """Scores after all processors, in the published order."""
    if plan.processors:
        scores_RV = _process(plan.processors, context.encoder_ids_BM, ids_RL, length, scores_RV)
    if between is not None:
        scores_RV = between.changed(ids_RL, length, scores_RV)
    late = (*plan.warpers, *((Processor(RENORMALIZE),) if plan.renormalize else ()))
    return _process(late, context.encoder_ids_BM, ids_RL, length, scores_RV) if late else scores_RV


@partial(jax.jit, static_argnums=0)
def _process(
    processors: tuple[Processor, ...], encoder_ids_BM: Array, ids_RL: Array, length: Any, scores_RV: Array
) -> Array:
    encoder_ids_RM = repeated(encoder_ids_BM, ids_RL.shape[0] // encoder_ids_BM.shape[0])
    return process(processors, ids_RL, length, scores_RV, encoder_ids_RM)


def best(plan: Generation, context: Context, scores_RX: Array, length: Any, count: int) -> Array:
    """(R, count): the best, or draws without replacement (the best with Gumbel noise, Kool et al. 2019)."""
    if plan.do_sample:
        key = jax.random.fold_in(context.key, length - plan.prompt_length)
        scores_RX = scores_RX + jax.random.gumbel(key, scores_RX.shape, scores_RX.dtype)
    found_RN = jnp.argmax(scores_RX, axis=-1)[:, None] if count == 1 else lax.top_k(scores_RX, count)[1]
    return found_RN.astype(jnp.int32)


def is_end(plan: Generation, tokens: Array) -> Array:
    """Which tokens end a row."""
    return (tokens[..., None] == np.array(plan.eos_token_ids, np.int32)).any(-1)


# ---- What the host does


class Between:
    """What the host does between steps: processors, criteria and a streamer of the user.

    Args:
        plan: what the call means.
        prompt: whose rows come back.
        hooks: of the call.
    """

    def __init__(self, plan: Generation, prompt: Prompt, hooks: Hooks) -> None:
        self.plan, self.prompt, self.hooks = plan, prompt, hooks
        self.processors = LogitsProcessorList(hooks.logits_processor)
        self.criteria = own_criteria(plan.max_time, plan.stop_strings, hooks.tokenizer, hooks.stopping_criteria)

    def as_came(self, ids_RL: Any, length: Any) -> np.ndarray:
        """Rows as they would come back: the prompt as it came, and the new tokens."""
        came = repeated(self.prompt.came, ids_RL.shape[0] // self.prompt.batch)
        return np.concatenate([came, np.asarray(ids_RL)[:, self.plan.prompt_length : int(length)]], axis=1)

    def changed(self, ids_RL: Any, length: Any, scores_RV: Array) -> Array:
        """Scores after the processors of the user."""
        hooks = self.hooks
        if hooks.prefix_allowed_tokens_fn is not None:
            rows = ids_RL.shape[0] // self.prompt.batch
            came = self.as_came(ids_RL, length)
            allowed = allowed_tokens(hooks.prefix_allowed_tokens_fn, came, rows, scores_RV.shape[1])
            scores_RV = jnp.where(allowed, scores_RV, -jnp.inf)
        if self.processors:
            came = jnp.asarray(self.as_came(ids_RL, length), jnp.int32)
            # As published, a processor of Flax may want to know how many tokens are there.
            scores_RV = jnp.asarray(self.processors(came, scores_RV, cur_len=came.shape[1]))
        return scores_RV

    def stops(self, ids_RL: Any, length: Any, scores: Array) -> np.ndarray:
        """(R,): which rows end with their last token, by the criteria of the host."""
        if not self.criteria:
            return np.zeros(ids_RL.shape[0], bool)
        return self.criteria(self.as_came(ids_RL, length), scores)

    def put(self, ids: Any) -> None:
        """Give ids to the streamer: (B, P) of the prompts first, then (R,) of each step."""
        if self.hooks.streamer is not None:
            self.hooks.streamer.put(np.asarray(ids))

    def end(self) -> None:
        """Tell the streamer that there are no more."""
        if self.hooks.streamer is not None:
            self.hooks.streamer.end()
