"""The loops of generation: token by token here, by beams in ``beams.py``. What a call means is in
:mod:`xlmr_core.generation`, what all loops are made of in ``steps.py``, and ``xlmr_core/reference/generation.py`` is
the judge.

:func:`search` is a whole loop as one compiled program, :func:`search_on_host` the same loop from Python, for what the
host has to see between steps; each of its steps is compiled. Both are made of the same functions, so both give the same
tokens. Programs are kept by the plan, and by the shapes of prompt and buffer, which are rounded up.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, C the prompt as it came, N
new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from xlmr_core.errors import InputError
from xlmr_core.generation import NOTHING_LEFT, Generation, Hooks, Prompt
from xlmr_flax.beams import BeamSearch, best_of
from xlmr_flax.cache import Cache
from xlmr_flax.inputs import has_values
from xlmr_flax.steps import Between, Context, advance, best, is_end, prefill, processed, repeated

__all__ = ["Rows", "decode", "search", "search_on_host"]


# ---- A call


def decode(
    model: Any,
    plan: Generation,
    prompt: Prompt,
    hooks: Hooks,
    key: Array,
    *,
    memory: Mapping[str, Any] | None = None,
    encoder_ids: Any = None,
    on_host: bool = False,
) -> dict[str, Any]:
    """Generate; the fields of the output by name. ``sequences`` (R, C + N) are the prompts as they came, and then as
    many columns as there may be new tokens, padding behind the last; ``steps`` says how many there are at most.

    Args:
        model: a decoder with a head for causal language modelling, with its parameters.
        plan: what the call means.
        prompt: arranged.
        hooks: what runs on the host between steps.
        key: random key of draws.
        memory: ``encoder_hidden_states`` and ``encoder_attention_mask`` of (B, M, ...), for cross-attention.
        encoder_ids: (B, M) of an encoder's text, for the processors that are about it.
        on_host: take the steps from Python.

    Raises:
        InputError: for a row that goes on and has no token left; not inside ``jax.jit``.
    """
    exact, plan, memory = plan, plan.rounded(), memory or {}
    between = Between(exact, prompt, hooks) if on_host else None
    if between is not None:
        between.put(prompt.came)
    output = prefill(model, plan, prompt, memory)
    context = Context.of(model, plan, prompt, memory, encoder_ids, exact.max_length, key)
    xp = np if isinstance(prompt.ids, np.ndarray) else jnp
    empty_BN = xp.full((prompt.batch, plan.new_tokens), plan.pad_token_id)
    ids_RL = repeated(xp.concatenate([prompt.ids, empty_BN], axis=1).astype(np.int32), plan.rows_per_prompt)
    state: State = (BeamSearch if plan.has_beams else Rows).first(plan, ids_RL)
    fields: dict[str, Any] = {}
    if between is not None:
        state, fields = search_on_host(plan, model, context, state, output, between)
    else:
        state, cache = search(plan, model, context, state, _last(output), output.past_key_values)
        fields["past_key_values"] = cache
    if isinstance(state, BeamSearch):
        ids_RL, fields["sequences_scores"], from_RN, lost = best_of(plan, state.groups)
        fields["beam_indices"] = from_RN[:, : exact.new_tokens]
        fields["steps"] = (from_RN >= 0).sum(1).max()
    else:
        ids_RL, fields["steps"], lost = state.ids_RL, state.length - plan.prompt_length, state.lost
    if has_values(lost) and bool(lost):
        raise InputError(NOTHING_LEFT)
    # Where there are values, on the host: JAX would compile a program for each length.
    xp, ids_RL = (np, np.asarray(ids_RL)) if has_values(ids_RL) else (jnp, ids_RL)
    came = repeated(prompt.came, ids_RL.shape[0] // prompt.batch).astype(np.int32)
    new_RN = ids_RL[:, plan.prompt_length : exact.max_length]
    sequences = xp.concatenate([came, new_RN], axis=1)
    return {**fields, "sequences": jax.device_put(sequences) if xp is np else sequences}


# ---- Greedy search and sampling


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that take the best token, or draw one, until all have ended.

    Attributes:
        ids_RL: the buffer of all tokens.
        length: int32 (), how many columns of it are there.
        going_R: which rows have not ended.
        lost: bool (), whether one ended because no token was left that may follow.
    """

    ids_RL: Any
    length: Any
    going_R: Any
    lost: Any

    @classmethod
    def first(cls, plan: Generation, ids_RL: Any) -> Self:
        """Rows that hold their prompts only."""
        going_R = np.ones(ids_RL.shape[0], bool)
        return cls(ids_RL=ids_RL, length=np.int32(plan.prompt_length), going_R=going_R, lost=np.False_)

    def goes_on(self, context: Context) -> Array:
        """Whether there is another step."""
        return (self.length < context.max_length) & self.going_R.any()

    def continued(self, cache: Cache | None) -> Cache | None:
        """The cache of the rows of the next step."""
        return cache

    def chosen(
        self, plan: Generation, context: Context, logits_RV: Array, between: Between | None = None
    ) -> tuple[Self, Array]:
        """The state with one more token, and the scores that it was chosen by."""
        scores_RV = processed(plan, context, self.ids_RL, self.length, logits_RV, between)
        after: Self = _appended(plan, context, self, scores_RV)
        if between is not None:
            after = replace(after, going_R=after.going_R & ~between.stops(after.ids_RL, after.length, scores_RV))
        return after, scores_RV


@partial(jax.jit, static_argnums=0)
def _appended(plan: Generation, context: Context, rows: Rows, scores_RV: Array) -> Rows:
    """Rows with the token that their scores ask for; padding for those that have ended, or have none left."""
    tokens_R1 = best(plan, context, scores_RV, rows.length, 1)
    scores_R = jnp.take_along_axis(scores_RV, tokens_R1, axis=1)[:, 0]
    is_left_R = jnp.isfinite(scores_R) if plan.do_sample else scores_R > -jnp.inf
    going_R = rows.going_R & is_left_R
    tokens_R = jnp.where(going_R, tokens_R1[:, 0], plan.pad_token_id)
    return replace(
        rows,
        ids_RL=lax.dynamic_update_slice_in_dim(rows.ids_RL, tokens_R[:, None], rows.length, axis=1),
        length=rows.length + np.int32(1),
        going_R=going_R & ~is_end(plan, tokens_R),
        lost=rows.lost | (rows.going_R & ~is_left_R).any(),
    )


# ---- The loop


State: TypeAlias = Rows | BeamSearch


@partial(jax.jit, static_argnums=0)
def search(
    plan: Generation, model: Any, context: Context, state: State, logits_BV: Array, cache: Cache | None
) -> tuple[State, Cache | None]:
    """The whole loop, compiled: from the logits of the prompts to the last token; and the cache at its end.

    Args:
        plan: what the call means, its lengths rounded.
        model: with its parameters.
        context: of the call.
        state: before the first token.
        logits_BV: after the prompts.
        cache: of the prompts; ``None`` to compute all tokens in each step.
    """
    logits_RV, cache = _for_rows(plan, logits_BV, cache)
    state, _ = state.chosen(plan, context, logits_RV)

    def step(carry: tuple[State, Cache | None]) -> tuple[State, Cache | None]:
        state, cache = carry
        output = advance(plan, model, context, state.ids_RL, state.length, state.continued(cache))
        return state.chosen(plan, context, _last(output))[0], output.past_key_values

    state, cache = lax.while_loop(lambda carry: carry[0].goes_on(context), step, (state, cache))
    return state, cache if plan.return_dict else None


def _for_rows(plan: Generation, logits_BV: Array, cache: Cache | None) -> tuple[Array, Cache | None]:
    times = plan.rows_per_prompt
    return repeated(logits_BV, times), None if cache is None else cache.batch_repeat_interleave(times)


def _last(output: Any) -> Array:
    """(R, V) float32: the logits of the next token."""
    logits_RV: Array = output.logits[:, -1].astype(jnp.float32)
    return logits_RV


def search_on_host(
    plan: Generation, model: Any, context: Context, state: State, output: Any, between: Between
) -> tuple[State, dict[str, Any]]:
    """The same loop from Python, in compiled steps; and what they gave beside tokens.

    Args:
        plan ... state: as in :func:`search`.
        output: the model's of the prompts.
        between: what the host does between steps.
    """
    wanted = ("attentions", "cross_attentions", "hidden_states")
    collected: dict[str, list[Any]] = {name: [] for name in ("scores", "logits", *wanted)}
    logits_RV, cache = _for_rows(plan, _last(output), output.past_key_values)
    # As they come from a step, so that the first is none of its own.
    context, state, cache = jax.tree.map(jnp.asarray, (context, state, cache))
    first, length = between.prompt.width - between.prompt.longest, plan.prompt_length
    for name in wanted:
        layers = _of_tokens(name, output.get(name), first, length)
        collected[name].append(jax.tree.map(lambda x: repeated(x, plan.rows_per_prompt), layers))
    while True:
        state, scores_RV = state.chosen(plan, context, logits_RV, between)
        collected["logits"].append(logits_RV if plan.output_logits else None)
        collected["scores"].append(scores_RV if plan.output_scores else None)
        if isinstance(state, Rows):
            if bool(state.lost):
                raise InputError(NOTHING_LEFT)
            between.put(state.ids_RL[:, length])
        if not bool(state.goes_on(context)):
            break
        output = advance(plan, model, context, state.ids_RL, state.length, state.continued(cache))
        logits_RV, cache, length = _last(output), output.past_key_values, length + 1
        for name in wanted:
            collected[name].append(_of_tokens(name, output.get(name), first, length))
    between.end()
    found = {name: None if any(x is None for x in steps) else tuple(steps) for name, steps in collected.items()}
    return state, {**found, "past_key_values": cache}


def _of_tokens(name: str, layers: tuple[Array, ...] | None, first: int, length: int) -> tuple[Array, ...] | None:
    """States or probabilities of a step, of the columns from the first to the last of the longest row.

    Args:
        name: of the field.
        layers: of the output.
        first, length: which columns of a buffer these are.
    """

    def cut(x: Array, axis: int) -> Array:
        return x if x.shape[axis] == 1 else lax.slice_in_dim(x, first, min(length, x.shape[axis]), axis=axis)

    if layers is None:
        return None
    if name == "attentions":
        return tuple(cut(cut(x, 2), 3) for x in layers)
    return tuple(cut(x, 1 if name == "hidden_states" else 2) for x in layers)
