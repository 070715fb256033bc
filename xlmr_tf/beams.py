"""Beam search, and groups of beams. The rules are those of ``xlmr_core/reference/generation.py``, the judge.

Shape letters: B prompts, K beams of a group, G groups, R rows (all beams of all prompts), L the buffer, N new tokens, V
vocabulary, C candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from xlmr_tf.cache import StaticCache
from xlmr_tf.linear import dims
from xlmr_tf.steps import Answer, Search

__all__ = ["BeamSearch", "Beams", "of_rows", "search_beams"]

# In place of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


class Beams(NamedTuple):
    """The beams of one group, for all prompts.

    Attributes:
        ids: (B, K, L) of those that run.
        scores: (B, K) sums of their log-probabilities.
        came_from: (B, K, N): which row each new token came from; -1 where there is none yet.
        done_ids, done_scores, done_from: the best that ended, with their scores over length ** penalty.
        is_done: (B, K) whether there is one.
        hopeful: (B, 1) whether the beams that run can still beat the worst of those.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    came_from: tf.Tensor
    done_ids: tf.Tensor
    done_scores: tf.Tensor
    done_from: tf.Tensor
    is_done: tf.Tensor
    hopeful: tf.Tensor


class Candidates(NamedTuple):
    """What the beams of one group may go on with.

    Attributes:
        ids: (B, C, L) with the new token.
        scores: (B, C), best first.
        came_from: (B, C, N).
        beam: (B, C), which beam of the group each continues.
        stops: (B, C), whether it ends with the new token.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    came_from: tf.Tensor
    beam: tf.Tensor
    stops: tf.Tensor


class BeamSearch(Search):
    """The best beams of each group, kept until none can get better."""

    def first_groups(self) -> list[Beams]:
        """Before the first step. All beams of a prompt are the same then, so only the first of them counts."""
        plan = self.plan
        beams = plan.num_beams // plan.num_beam_groups
        ids_BKL = tf.reshape(self.first_ids(), (-1, plan.num_beams, plan.max_length))[:, :beams]
        batch = dims(ids_BKL)[0]
        scores = tf.repeat(tf.constant([[0.0] + [NEVER] * (beams - 1)]), batch, 0)
        came_from = tf.fill((batch, beams, plan.max_length - plan.prompt_length), -1)
        first = Beams(
            ids=ids_BKL,
            scores=scores,
            came_from=came_from,
            done_ids=ids_BKL,
            done_scores=tf.fill((batch, beams), NEVER),
            done_from=came_from,
            is_done=tf.zeros((batch, beams), tf.bool),
            hopeful=tf.ones((batch, 1), tf.bool),
        )
        return [first] * plan.num_beam_groups

    def rows_of(self, groups: list[Beams]) -> tf.Tensor:
        """(R, L): the beams that run, those of a prompt one after the other."""
        return tf.reshape(tf.stack([group.ids for group in groups], 1), (-1, self.plan.max_length))

    def next_groups(
        self, groups: list[Beams], length: tf.Tensor, logits_RV: tf.Tensor
    ) -> tuple[list[Beams], tf.Tensor, tf.Tensor, tf.Tensor]:
        """The groups with one more token, (R,) which row each beam continues, whether there is a next step, and the
        scores that the tokens were chosen by.
        """
        plan, vocabulary = self.plan, dims(logits_RV)[1]
        beams = plan.num_beams // plan.num_beam_groups
        logits_BGKV = tf.reshape(logits_RV, (-1, plan.num_beam_groups, beams, vocabulary))
        taken_BV = tf.zeros_like(logits_BGKV[:, 0, 0])
        found, scores, parents, all_stop = [], [], [], []
        for number, group in enumerate(groups):
            before_RV = self.do("log_probabilities", logits_BGKV[:, number], taken_BV)
            scores_RV = self.processed(tf.reshape(group.ids, (-1, plan.max_length)), length, before_RV)
            candidates = self.do("candidates", group, length, scores_RV, tf.constant(number * beams))
            if self.between is not None:
                flat_ids = tf.reshape(candidates.ids, (-1, plan.max_length))
                stops_R = self.between.stops(flat_ids, length + 1, scores_RV)
                stops = candidates.stops | tf.reshape(stops_R, tf.shape(candidates.stops))
                candidates = candidates._replace(stops=stops)
            group, parent_BK = self.do("chosen", group, length, candidates)
            taken_BV += self.do("counts", group.ids, length, taken_BV)
            found.append(group)
            scores.append(tf.reshape(scores_RV, (-1, beams, vocabulary)))
            parents.append(parent_BK + number * beams)
            all_stop.append(tf.reduce_all(candidates.stops))
        parents_BK = tf.concat(parents, 1)
        rows_R = tf.reshape(parents_BK + tf.range(dims(parents_BK)[0])[:, None] * plan.num_beams, (-1,))
        hopeful = tf.reduce_any(tf.stack([group.hopeful for group in found]))
        full = plan.early_stopping is True and tf.reduce_all(tf.stack([group.is_done for group in found]))
        goes_on = hopeful & ~tf.convert_to_tensor(full) & ~tf.reduce_all(tf.stack(all_stop))
        return found, rows_R, goes_on, tf.reshape(tf.stack(scores, 1), (-1, vocabulary))

    def log_probabilities(self, logits_BKV: tf.Tensor, taken_BV: tf.Tensor) -> tf.Tensor:
        """(B * K, V): of the next token, less what earlier groups took of each (Vijayakumar et al. 2016)."""
        scores_BKV = tf.nn.log_softmax(logits_BKV)
        if self.plan.num_beam_groups > 1:
            scores_BKV -= self.plan.diversity_penalty * taken_BV[:, None]
        return tf.reshape(scores_BKV, (-1, dims(scores_BKV)[2]))

    def counts(self, ids_BKL: tf.Tensor, length: tf.Tensor, taken_BV: tf.Tensor) -> tf.Tensor:
        """(B, V): how many beams took each token as number ``length``."""
        return tf.reduce_sum(tf.one_hot(tf.gather(ids_BKL, length, axis=2), dims(taken_BV)[1]), 1)

    def candidates(self, group: Beams, length: tf.Tensor, scores_RV: tf.Tensor, offset: tf.Tensor) -> Candidates:
        """The best continuations of all beams of a group.

        Args:
            group: before.
            length: tokens that are there.
            scores_RV: of the next one.
            offset: number of the group's first beam among those of a prompt.
        """
        plan, vocabulary = self.plan, dims(scores_RV)[1]
        batch, beams = dims(group.scores)
        total_BX = tf.reshape(tf.reshape(scores_RV, (batch, beams, vocabulary)) + group.scores[..., None], (batch, -1))
        chosen_BC, scores_BC = self.best(total_BX, length, plan.candidates)
        beam_BC, token_BC = chosen_BC // vocabulary, chosen_BC % vocabulary
        rows_BC = beam_BC + offset + tf.range(batch)[:, None] * plan.num_beams
        ids_BCL, from_BCN = picked(group.ids, beam_BC), picked(group.came_from, beam_BC)
        is_now_L = tf.range(plan.max_length) == length
        return Candidates(
            ids=tf.where(is_now_L, token_BC[..., None], ids_BCL),
            scores=scores_BC,
            came_from=tf.where(is_now_L[plan.prompt_length :], rows_BC[..., None], from_BCN),
            beam=beam_BC,
            stops=self.stops(token_BC, length + 1),
        )

    def chosen(self, group: Beams, length: tf.Tensor, candidates: Candidates) -> tuple[Beams, tf.Tensor]:
        """The beams of a group after one more token, and (B, K) which beam each that runs continues."""
        plan, beams = self.plan, dims(group.scores)[1]
        going_BC = candidates.scores + NEVER * tf.cast(candidates.stops, tf.float32)
        going = tf.math.top_k(going_BC, beams)
        # The other candidates are there so that beams can go on; they do not end.
        ended_BC = candidates.stops & (tf.range(plan.candidates) < beams)
        new = length + 1 - plan.prompt_length
        final_BC = candidates.scores / self.norm(new)
        closed_B1 = ~group.hopeful
        if plan.early_stopping is True:
            closed_B1 |= tf.reduce_all(group.is_done, 1, keepdims=True)
        final_BC += NEVER * tf.cast(closed_B1, tf.float32) + NEVER * tf.cast(~ended_BC, tf.float32)
        merged = tf.math.top_k(tf.concat([group.done_scores, final_BC], 1), beams)
        kept_BK = merged.indices
        is_done = picked(tf.concat([group.is_done, ended_BC], 1), kept_BK)
        # Whether the best that runs could still beat the worst that ended, with the length that it has, or could have.
        is_patient = plan.early_stopping == "never" and plan.length_penalty > 0
        most = self.given.max_length - plan.prompt_length if is_patient else new
        worst_BK = tf.where(is_done, tf.reduce_min(merged.values, 1, keepdims=True), NEVER)
        hope_BK = going.values[:, :1] / self.norm(most) > worst_BK
        after = Beams(
            ids=picked(candidates.ids, going.indices),
            scores=going.values,
            came_from=picked(candidates.came_from, going.indices),
            done_ids=picked(tf.concat([group.done_ids, candidates.ids], 1), kept_BK),
            done_scores=merged.values,
            done_from=picked(tf.concat([group.done_from, candidates.came_from], 1), kept_BK),
            is_done=is_done,
            hopeful=group.hopeful & tf.reduce_any(hope_BK, 1, keepdims=True),
        )
        return after, picked(candidates.beam, going.indices)

    def norm(self, tokens: tf.Tensor) -> tf.Tensor:
        """What the score of a beam of so many new tokens is divided by."""
        return tf.pow(tf.cast(tokens, tf.float32), self.plan.length_penalty)

    def best_of(self, groups: list[Beams]) -> dict[str, tf.Tensor]:
        """The best of all groups, as many as come back, and of equal ones those of the first group; ``lost``: whether
        no beam of a prompt came to an end with a number for a score.
        """
        best = tf.math.top_k(tf.concat([group.done_scores for group in groups], 1), self.plan.num_return_sequences)
        ids_BRL = picked(tf.concat([group.done_ids for group in groups], 1), best.indices)
        from_BRN = picked(tf.concat([group.done_from for group in groups], 1), best.indices)
        is_done_B1 = picked(tf.concat([group.is_done for group in groups], 1), best.indices[:, :1])
        return {
            "lost": ~tf.reduce_all(is_done_B1 & ~tf.math.is_nan(best.values[:, :1])),
            "ids": tf.reshape(ids_BRL, (-1, dims(ids_BRL)[2])),
            "came_from": tf.reshape(from_BRN, (-1, dims(from_BRN)[2])),
            "scores": tf.reshape(best.values, (-1,)),
        }


def picked(x_BX: tf.Tensor, which_BY: tf.Tensor) -> tf.Tensor:
    """(B, Y, ...): some of the second axis."""
    return tf.gather(x_BX, which_BY, batch_dims=1)


def search_beams(one: BeamSearch, answer: Answer) -> dict[str, Any]:
    """All steps after the prompts, whose answer is given; what comes back by name."""
    length = tf.constant(one.plan.prompt_length)
    groups, rows_R, goes_on, _ = one.next_groups(one.first_groups(), length, answer.logits_RV)

    def is_going(groups: list[Beams], length: tf.Tensor, cache: Any, goes_on: tf.Tensor) -> tf.Tensor:
        return goes_on

    def step(groups: list[Beams], length: tf.Tensor, cache: Any, goes_on: tf.Tensor) -> tuple[Any, ...]:
        answer = one.advance(one.rows_of(groups), length, cache or None)
        groups, rows_R, goes_on, _ = one.next_groups(groups, length, answer.logits_RV)
        return groups, length + 1, of_rows(answer.cache, rows_R) or (), goes_on

    state = (groups, length + 1, of_rows(answer.cache, rows_R) or (), goes_on)
    groups, length, cache, _ = tf.while_loop(is_going, step, state)
    return {**one.best_of(groups), "length": length, "cache": cache}


def of_rows(cache: StaticCache | None, rows_R: tf.Tensor) -> StaticCache | None:
    """A cache whose rows go on from others."""
    return None if cache is None else cache.reorder_cache(rows_R)
