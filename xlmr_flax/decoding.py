"""The loops of generation: token by token, and by beams. What a call means is in :mod:`xlmr_core.generation`.

:func:`prefill` gives the prompt to the model, :func:`advance` one more token of each row. :func:`search` is a whole
loop as one compiled program, :func:`search_on_host` the same loop from Python, for what the host has to see between
steps; each of its steps is compiled. Both are made of the same functions, so both give the same tokens. Programs are
kept by the plan, and by the shapes of prompt and buffer, which are rounded up. The judge is
``xlmr_core/reference/generation.py``.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, P the prompt, N new tokens, V
vocabulary, K beams of a group, C candidates.
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
from xlmr_flax.inputs import has_values
from xlmr_flax.processors import process

__all__ = ["Beams", "BeamSearch", "Between", "Context", "Rows", "advance", "decode", "prefill", "repeated", "search"]

# In place of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


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
        ids_RL, fields["sequences_scores"], from_RN = best_of(plan, state.groups)
        fields["beam_indices"] = from_RN[:, : exact.new_tokens]
        fields["steps"] = (from_RN >= 0).sum(1).max()
    else:
        ids_RL, fields["steps"] = state.ids_RL, state.length - plan.prompt_length
    # Where there are values, on the host: JAX would compile a program for each length.
    xp, ids_RL = (np, np.asarray(ids_RL)) if has_values(ids_RL) else (jnp, ids_RL)
    came = repeated(prompt.came, ids_RL.shape[0] // prompt.batch).astype(np.int32)
    new_RN = ids_RL[:, plan.prompt_length : exact.max_length]
    sequences = xp.concatenate([came, new_RN], axis=1)
    return {**fields, "sequences": jax.device_put(sequences) if xp is np else sequences}


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


# ---- Greedy search and sampling


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that take the best token, or draw one, until all have ended.

    Attributes:
        ids_RL: the buffer of all tokens.
        length: int32 (), how many columns of it are there.
        going_R: which rows have not ended.
    """

    ids_RL: Any
    length: Any
    going_R: Any

    @classmethod
    def first(cls, plan: Generation, ids_RL: Any) -> Self:
        """Rows that hold their prompts only."""
        return cls(ids_RL=ids_RL, length=np.int32(plan.prompt_length), going_R=np.ones(ids_RL.shape[0], bool))

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
    """Rows with the token that their scores ask for; padding for those that have ended."""
    tokens_R = best(plan, context, scores_RV, rows.length, 1)[:, 0]
    tokens_R = jnp.where(rows.going_R, tokens_R, plan.pad_token_id)
    return replace(
        rows,
        ids_RL=lax.dynamic_update_slice_in_dim(rows.ids_RL, tokens_R[:, None], rows.length, axis=1),
        length=rows.length + np.int32(1),
        going_R=rows.going_R & ~is_end(plan, tokens_R),
    )


# ---- Beams


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Beams:
    """The beams of one group, for all prompts.

    Attributes:
        ids_BKL: of those that run.
        scores_BK: sums of their log-probabilities.
        from_BKN: which row each new token came from; -1 where there is none yet.
        done_ids_BKL, done_scores_BK, done_from_BKN: the best that ended, with their scores over length ** penalty.
        is_done_BK: whether there is one.
        hopeful_B1: whether the beams that run can still beat the worst of those.
    """

    ids_BKL: Any
    scores_BK: Any
    from_BKN: Any
    done_ids_BKL: Any
    done_scores_BK: Any
    done_from_BKN: Any
    is_done_BK: Any
    hopeful_B1: Any

    @classmethod
    def first(cls, ids_BKL: Any, new_tokens: int) -> Self:
        """All beams of a prompt are the same at first, so only the first of them counts."""
        shape = ids_BKL.shape[:2]
        never_BK, from_BKN = np.full(shape, NEVER, np.float32), np.full((*shape, new_tokens), -1, np.int32)
        scores_BK = never_BK.copy()
        scores_BK[:, 0] = 0
        return cls(
            ids_BKL=ids_BKL,
            scores_BK=scores_BK,
            from_BKN=from_BKN,
            done_ids_BKL=ids_BKL,
            done_scores_BK=never_BK,
            done_from_BKN=from_BKN,
            is_done_BK=np.zeros(shape, bool),
            hopeful_B1=np.ones((shape[0], 1), bool),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Continuations of the beams of a group, the best first.

    Attributes:
        ids_BCL, from_BCN, scores_BC: as of beams.
        stops_BC: which have ended.
    """

    ids_BCL: Array
    from_BCN: Array
    scores_BC: Array
    stops_BC: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """The best beams of each group, kept until none can get better.

    Attributes:
        groups: of beams.
        length: int32 (), how many columns of the buffers are there.
        from_R: which row each row went on from in the last step.
        is_open: bool (), whether beams can get better.
    """

    groups: tuple[Beams, ...]
    length: Any
    from_R: Any
    is_open: Any

    @classmethod
    def first(cls, plan: Generation, ids_RL: Any) -> Self:
        """Beams that hold their prompts only."""
        ids_BGKL = ids_RL.reshape(-1, plan.num_beam_groups, plan.num_beams // plan.num_beam_groups, ids_RL.shape[1])
        groups = (Beams.first(ids_BGKL[:, number], plan.new_tokens) for number in range(plan.num_beam_groups))
        rows_R = np.arange(ids_RL.shape[0], dtype=np.int32)
        return cls(groups=tuple(groups), length=np.int32(plan.prompt_length), from_R=rows_R, is_open=np.True_)

    @property
    def ids_RL(self) -> Array:
        """The buffer of all tokens of beams that run."""
        ids_BGKL = jnp.stack([group.ids_BKL for group in self.groups], axis=1)
        return ids_BGKL.reshape(-1, ids_BGKL.shape[-1])

    def goes_on(self, context: Context) -> Array:
        """Whether there is another step."""
        return jnp.asarray(self.is_open)

    def continued(self, cache: Cache | None) -> Cache | None:
        """The cache of the rows of the next step."""
        return None if cache is None else cache.reorder_cache(self.from_R)

    def chosen(
        self, plan: Generation, context: Context, logits_RV: Array, between: Between | None = None
    ) -> tuple[Self, Array]:
        """The state with one more token, and the scores that it was chosen by."""
        vocab, length = logits_RV.shape[1], self.length
        logs_BGKV = _log_softmax(logits_RV).reshape(
            -1, plan.num_beam_groups, plan.num_beams // plan.num_beam_groups, vocab
        )
        # How many beams of earlier groups took each token in this step.
        taken_BV = jnp.zeros((logs_BGKV.shape[0], vocab), jnp.float32)
        groups, scores, all_stop = [], [], []
        for number, group in enumerate(self.groups):
            scores_BKV = logs_BGKV[:, number]
            if number:
                scores_BKV = scores_BKV - plan.diversity_penalty * taken_BV[:, None]
            group, scores_BKV, stops = one_step(plan, context, group, scores_BKV, length, number, between)
            scores.append(scores_BKV)
            groups.append(group)
            all_stop.append(stops)
            if len(self.groups) > 1:
                taken_BV = _taken(taken_BV, group.ids_BKL, length)
        after: Self = _after(plan, self, tuple(groups), jnp.stack(all_stop).all())
        return after, jnp.stack(scores, axis=1).reshape(-1, vocab)


@jax.jit
def _log_softmax(logits_RV: Array) -> Array:
    return jax.nn.log_softmax(logits_RV, axis=-1)


@jax.jit
def _taken(taken_BV: Array, ids_BKL: Array, length: Any) -> Array:
    tokens_BK = lax.dynamic_index_in_dim(ids_BKL, length, axis=2, keepdims=False)
    return taken_BV.at[jnp.arange(taken_BV.shape[0])[:, None], tokens_BK].add(1)


def one_step(
    plan: Generation,
    context: Context,
    group: Beams,
    scores_BKV: Array,
    length: Any,
    number: int,
    between: Between | None,
) -> tuple[Beams, Array, Array]:
    """The beams of a group after one more token, its scores after all processors, and whether none of its candidates
    can go on.

    Args:
        plan, context: of the call.
        group: before.
        scores_BKV: of the token.
        length: tokens that are there.
        number: of the group.
        between: what the host does.
    """
    batch, beams, vocab = scores_BKV.shape
    ids_XL = group.ids_BKL.reshape(batch * beams, -1)
    scores_XV = processed(plan, context, ids_XL, length, scores_BKV.reshape(-1, vocab), between)
    scores_BKV = scores_XV.reshape(scores_BKV.shape)
    candidates = _candidates(plan, context, group, scores_BKV, length, number)
    if between is not None:
        ids_XL = candidates.ids_BCL.reshape(-1, candidates.ids_BCL.shape[2])
        asked_BC = between.stops(ids_XL, length + 1, scores_XV).reshape(batch, -1)
        candidates = replace(candidates, stops_BC=candidates.stops_BC | asked_BC)
    return _kept(plan, group, candidates, length), scores_BKV, candidates.stops_BC.all()


@partial(jax.jit, static_argnums=(0, 5))
def _candidates(
    plan: Generation, context: Context, group: Beams, scores_BKV: Array, length: Any, number: int
) -> Candidates:
    """The best continuations of all beams of a group."""
    batch, beams, vocab = scores_BKV.shape
    total_BX = (scores_BKV + group.scores_BK[:, :, None]).reshape(batch, -1)
    chosen_BC = best(plan, context, total_BX, length, min(plan.candidates, total_BX.shape[1]))
    beam_BC, token_BC = chosen_BC // vocab, chosen_BC % vocab
    rows_BC = beam_BC + (np.arange(batch, dtype=np.int32)[:, None] * plan.num_beams + number * beams)

    def with_column(x_BKL: Array, new_BC: Array, column: Any) -> Array:
        return lax.dynamic_update_slice_in_dim(picked(x_BKL, beam_BC), new_BC[:, :, None], column, axis=2)

    return Candidates(
        ids_BCL=with_column(group.ids_BKL, token_BC, length),
        from_BCN=with_column(group.from_BKN, rows_BC, length - plan.prompt_length),
        scores_BC=jnp.take_along_axis(total_BX, chosen_BC, axis=1),
        stops_BC=is_end(plan, token_BC) | (length + 1 >= context.max_length),
    )


@partial(jax.jit, static_argnums=0)
def _kept(plan: Generation, group: Beams, candidates: Candidates, length: Any) -> Beams:
    """The candidates that run on, and the best of those that have ended, now and before."""
    scores_BC, stops_BC, beams = candidates.scores_BC, candidates.stops_BC, group.ids_BKL.shape[1]
    going_BC = scores_BC + NEVER * stops_BC
    going_BK = lax.top_k(going_BC, beams)[1]
    # The other candidates are there so that beams can go on; they do not end.
    ended_BC = stops_BC & (np.arange(stops_BC.shape[1]) < beams)
    final_BC = scores_BC / _to_the_penalty(plan, length + 1)
    closed_B1 = ~group.hopeful_B1
    if plan.early_stopping is True:
        closed_B1 = closed_B1 | group.is_done_BK.all(1, keepdims=True)
    merged_BX = jnp.concatenate([group.done_scores_BK, final_BC + NEVER * closed_B1 + NEVER * ~ended_BC], axis=1)
    kept_BK = lax.top_k(merged_BX, beams)[1]

    def kept(before: Array, now: Array) -> Array:
        return picked(jnp.concatenate([before, now], axis=1), kept_BK)

    return Beams(
        ids_BKL=picked(candidates.ids_BCL, going_BK),
        scores_BK=picked(going_BC, going_BK),
        from_BKN=picked(candidates.from_BCN, going_BK),
        done_ids_BKL=kept(group.done_ids_BKL, candidates.ids_BCL),
        done_scores_BK=picked(merged_BX, kept_BK),
        done_from_BKN=kept(group.done_from_BKN, candidates.from_BCN),
        is_done_BK=kept(group.is_done_BK, ended_BC),
        hopeful_B1=group.hopeful_B1,
    )


def picked(x_BX: Array, which_BY: Array) -> Array:
    """(B, Y, ...): some of the second axis."""
    return x_BX[jnp.arange(x_BX.shape[0])[:, None], which_BY]


@partial(jax.jit, static_argnums=0)
def _after(plan: Generation, before: BeamSearch, groups: tuple[Beams, ...], all_stop: Array) -> BeamSearch:
    """The state after all groups have their next token."""
    new, length = before.length - plan.prompt_length, before.length + np.int32(1)
    from_BGK = jnp.stack([lax.dynamic_index_in_dim(x.from_BKN, new, axis=2, keepdims=False) for x in groups], axis=1)
    groups = tuple(with_hope(plan, group, length) for group in groups)
    is_open = jnp.stack([group.hopeful_B1.any() for group in groups]).any() & ~all_stop
    if plan.early_stopping is True:
        is_open = is_open & ~jnp.stack([group.is_done_BK.all() for group in groups]).all()
    return BeamSearch(groups=groups, length=length, from_R=from_BGK.reshape(-1), is_open=is_open)


def with_hope(plan: Generation, group: Beams, length: Any) -> Beams:
    """Whether the best that runs could still beat the worst that ended, with the length that it has, or could have."""
    is_patient = plan.early_stopping == "never" and plan.length_penalty > 0
    possible_B1 = group.scores_BK[:, :1] / _to_the_penalty(plan, plan.max_length if is_patient else length)
    worst_BK = jnp.where(group.is_done_BK, group.done_scores_BK.min(1, keepdims=True), NEVER)
    return replace(group, hopeful_B1=group.hopeful_B1 & (possible_B1 > worst_BK).any(1, keepdims=True))


def _to_the_penalty(plan: Generation, length: Any) -> Array:
    """What a sum of log-probabilities is divided by."""
    return jnp.asarray(length - plan.prompt_length, jnp.float32) ** plan.length_penalty


@partial(jax.jit, static_argnums=0)
def best_of(plan: Generation, groups: tuple[Beams, ...]) -> tuple[Array, Array, Array]:
    """The best of all groups, as many as come back: their buffers, scores, and which rows their tokens came from; of
    equal ones those of the first group.
    """
    scores_BX = jnp.concatenate([group.done_scores_BK for group in groups], axis=1)
    scores_BY, order_BY = lax.top_k(scores_BX, plan.num_return_sequences)
    ids_BYL = picked(jnp.concatenate([group.done_ids_BKL for group in groups], axis=1), order_BY)
    from_BYN = picked(jnp.concatenate([group.done_from_BKN for group in groups], axis=1), order_BY)
    return ids_BYL.reshape(-1, ids_BYL.shape[2]), scores_BY.reshape(-1), from_BYN.reshape(-1, from_BYN.shape[2])


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
