"""Beam search, and groups of beams. The rules are those of ``xlmr_core/reference/generation.py``, the judge.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, N new tokens, V vocabulary, K
beams of a group, G groups, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from xlmr_core.generation import Generation
from xlmr_flax.cache import Cache
from xlmr_flax.steps import Between, Context, best, is_end, processed

__all__ = ["BeamSearch", "Beams", "best_of"]

# In place of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


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
def best_of(plan: Generation, groups: tuple[Beams, ...]) -> tuple[Array, Array, Array, Array]:
    """The best of all groups, as many as come back: their buffers, scores, and which rows their tokens came from; of
    equal ones those of the first group. And whether no beam of a prompt came to an end with a number for a score.
    """
    scores_BX = jnp.concatenate([group.done_scores_BK for group in groups], axis=1)
    scores_BY, order_BY = lax.top_k(scores_BX, plan.num_return_sequences)
    ids_BYL = picked(jnp.concatenate([group.done_ids_BKL for group in groups], axis=1), order_BY)
    from_BYN = picked(jnp.concatenate([group.done_from_BKN for group in groups], axis=1), order_BY)
    is_done_B1 = picked(jnp.concatenate([group.is_done_BK for group in groups], axis=1), order_BY[:, :1])
    lost = ~(is_done_B1 & ~jnp.isnan(scores_BY[:, :1])).all()
    return ids_BYL.reshape(-1, ids_BYL.shape[2]), scores_BY.reshape(-1), from_BYN.reshape(-1, from_BYN.shape[2]), lost
