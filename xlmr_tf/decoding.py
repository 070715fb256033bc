"""The loops of generation: token by token here, by beams in ``beams.py``. What a call means is decided in the core
(:class:`xlmr_core.generation.Generation`, by which programs are kept), what all loops are made of is in ``steps.py``,
and ``xlmr_core/reference/generation.py`` is the judge.

:func:`search` is a whole loop as one program for XLA, :func:`search_on_host` the same loop from Python, for what the
host has to see between steps: each of its steps is compiled. Both are made of the same functions, so both give the same
tokens. Beside numbers, a program depends on the shapes of prompt and buffer only, which are rounded up.

Shape letters: B prompts, R rows (all beams, or draws, of all prompts), L the buffer, P the prompt, N new tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from xlmr_core.errors import InputError
from xlmr_core.generation import NOTHING_LEFT, Generation, Hooks, Prompt, bucket
from xlmr_tf.beams import BeamSearch, of_rows, search_beams
from xlmr_tf.linear import dims
from xlmr_tf.steps import Answer, BetweenSteps, Given, Search, as_came

__all__ = ["Programs", "decode", "search", "search_on_host", "wants_steps"]


# ---- A call


def decode(
    model: Any, programs: Programs, plan: Generation, prompt: Prompt, given: Given, hooks: Hooks
) -> dict[str, Any]:
    """The fields of what ``generate`` gives, by name.

    Args:
        model: with a head for causal language modelling.
        programs: of the model.
        plan, prompt, hooks: of the call.
        given: its tensors.

    Raises:
        InputError: for a row that goes on and has no token left.
    """
    reach = None if given.memory_BMD is None else given.memory_BMD.shape[1]
    of_programs = without_host(plan)
    if plan.use_cache and not tf.config.functions_run_eagerly():
        of_programs = of_programs.rounded()
        if given.memory_BMD is not None and not plan.output_attentions:
            given = with_rounded_memory(given, model.config.pad_token_id)
    if plan.needs_host or wants_steps(plan):
        between = BetweenSteps(programs, plan, prompt, hooks, model.config.vocab_size)
        found = search_on_host(model, of_programs, given, between)
    else:
        found = programs.get(model, of_programs, "search")(given)
    if bool(found["lost"]):
        raise InputError(NOTHING_LEFT)
    fields: dict[str, Any] = {name: tuple(steps) for name, steps in found.get("steps", {}).items()}
    length = int(found["length"])
    if plan.has_beams:
        longest = int(tf.reduce_max(tf.reduce_sum(tf.cast(found["came_from"] >= 0, tf.int32), 1)))
        length = plan.prompt_length + longest
        fields |= {"sequences_scores": found["scores"], "beam_indices": found["came_from"][:, :longest]}
    fields["sequences"] = as_came(plan, prompt, found["ids"], length)
    if found["cache"] and plan.return_dict:
        # Without the columns that widths which are rounded up have before every prompt, and behind a memory.
        first, past = prompt.width - prompt.longest, found["cache"].to_legacy_cache()
        fields["past_key_values"] = tuple(
            (*(x[:, :, first:] for x in layer[:2]), *(x[:, :, :reach] for x in layer[2:])) for layer in past
        )
    return fields


def with_rounded_memory(given: Given, padding: int) -> Given:
    """With a memory whose length is rounded up, so that programs are shared; what is added is masked."""
    batch, length = dims(given.memory_BMD)[:2]
    mask_BM = tf.ones((batch, length), tf.int32) if given.memory_mask_BM is None else given.memory_mask_BM
    more = [[0, 0], [0, bucket(length) - length]]
    ids_BM = given.encoder_ids_BM
    if dims(ids_BM)[1] == length:  # of the encoder's text, and not the prompt
        ids_BM = tf.pad(ids_BM, more, constant_values=padding)
    return given._replace(
        memory_BMD=tf.pad(given.memory_BMD, [*more, [0, 0]]),
        memory_mask_BM=tf.pad(mask_BM, more),
        encoder_ids_BM=ids_BM,
    )


def without_host(plan: Generation) -> Generation:
    """A plan without what no program depends on, so that calls that differ in it share theirs."""
    return replace(
        plan,
        min_length=0,  # which a processor knows
        max_time=None,
        stop_strings=(),
        output_scores=False,
        output_logits=False,
        return_dict=False,
        needs_host=False,
    )


def wants_steps(plan: Generation) -> bool:
    """Whether something comes back of each step."""
    return plan.output_scores or plan.output_logits or plan.output_attentions or plan.output_hidden_states


# ---- Greedy search and sampling


class Rows(NamedTuple):
    """The rows of greedy search and sampling.

    Attributes:
        ids_RL: the buffer.
        length: how many columns are there.
        going_R: which rows have not ended.
        lost: scalar, whether one ended because no token was left that may follow.
    """

    ids_RL: tf.Tensor
    length: tf.Tensor
    going_R: tf.Tensor
    lost: tf.Tensor


class RowSearch(Search):
    """Rows that take the best token, or draw one, until all have ended."""

    def first_rows(self) -> Rows:
        """Before the first step."""
        ids_RL = self.first_ids()
        going_R = tf.ones_like(ids_RL[:, 0], tf.bool)
        return Rows(ids_RL, tf.constant(self.plan.prompt_length), going_R, tf.constant(False))

    def next_rows(self, rows: Rows, logits_RV: tf.Tensor) -> tuple[Rows, tf.Tensor]:
        """The rows with one more token, and the scores that it was chosen by."""
        scores_RV = self.processed(rows.ids_RL, rows.length, logits_RV)
        rows = self.do("taken", rows, scores_RV)
        if self.between is not None:
            ended_R = self.between.stops(rows.ids_RL, rows.length, scores_RV)
            rows = rows._replace(going_R=rows.going_R & ~ended_R)
        return rows, scores_RV

    def taken(self, rows: Rows, scores_RV: tf.Tensor) -> Rows:
        """The rows with the best token, or one that is drawn; those that ended, or have none left, are filled up."""
        ids_RL, length, going_R, lost = rows
        chosen_R1, scores_R1 = self.best(scores_RV, length, 1)
        is_left_R = tf.math.is_finite(scores_R1[:, 0]) if self.plan.do_sample else scores_R1[:, 0] > -np.inf
        lost |= tf.reduce_any(going_R & ~is_left_R)
        going_R &= is_left_R
        tokens_R = tf.where(going_R, chosen_R1[:, 0], self.plan.pad_token_id)
        ids_RL = tf.where(tf.range(self.plan.max_length) == length, tokens_R[:, None], ids_RL)
        return Rows(ids_RL, length + 1, going_R & ~self.stops(tokens_R, length + 1), lost)


def steps_of(model: Any, plan: Generation, given: Given, between: BetweenSteps | None = None) -> Any:
    """The steps of one call; see :class:`~xlmr_tf.steps.Search`."""
    return (BeamSearch if plan.has_beams else RowSearch)(model, plan, given, between)


# ---- The whole loop as one program


def search(model: Any, plan: Generation, given: Given) -> dict[str, Any]:
    """All steps.

    Returns:
        ``ids`` (R, L), one row for each sequence that comes back; ``length``, of the longest; ``cache``; ``lost``,
        whether one had no token left; of beams also ``scores`` (R,) and ``came_from`` (R, N).
    """
    one = steps_of(model, plan, given)
    answer = one.prefill()
    if plan.has_beams:
        return search_beams(one, answer)
    rows, _ = one.next_rows(one.first_rows(), answer.logits_RV)

    def goes_on(rows: Rows, cache: Any) -> tf.Tensor:
        return tf.reduce_any(rows.going_R)

    def step(rows: Rows, cache: Any) -> tuple[Any, ...]:
        answer = one.advance(rows.ids_RL, rows.length, cache or None)
        rows, _ = one.next_rows(rows, answer.logits_RV)
        return rows, answer.cache or ()

    rows, cache = tf.while_loop(goes_on, step, (rows, answer.cache or ()))
    return {"ids": rows.ids_RL, "length": rows.length, "cache": cache, "lost": rows.lost}


# ---- The loop from Python


class Programs:
    """Compiled programs of one model, each by its name and what the call means."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}
        self._variables: tuple[int, ...] = ()

    def get(self, model: Any, plan: Generation, name: str) -> Callable[..., Any]:
        """The program of a step, or ``search``: called with what is given, and its tensors."""
        variables = tuple(map(id, model.weights))
        if variables != self._variables:  # some were replaced, by resizing, pruning, another dtype
            self._kept.clear()
            self._variables = variables
        key = (name, plan, model.attn_implementation, model.dtype_policy.name)
        if key not in self._kept:
            self._kept[key] = tf.function(partial(run, model, plan, name), autograph=False, jit_compile=True)
        return self._kept[key]

    @property
    def traced(self) -> int:
        """How many programs were made so far: of each for how many shapes."""
        return sum(program.experimental_get_tracing_count() for program in self._kept.values())


def run(model: Any, plan: Generation, name: str, given: Given, *tensors: Any) -> Any:
    """What a program does."""
    return search(model, plan, given) if name == "search" else getattr(steps_of(model, plan, given), name)(*tensors)


@dataclass
class Collected:
    """What steps give beside tokens, as far as the plan asks for it."""

    plan: Generation
    steps: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, answer: Answer, scores_RV: tf.Tensor, length: int) -> None:
        """Keep what a step gave, with ``length`` tokens before it."""
        wanted = {"logits": self.plan.output_logits, "scores": self.plan.output_scores}
        given = {"logits": answer.logits_RV, "scores": scores_RV}
        found: dict[str, Any] = {name: given[name] for name, is_wanted in wanted.items() if is_wanted}
        found |= {name: tuple(self.taken(name, x, length) for x in xs) for name, xs in answer.extras.items()}
        for name, x in found.items():
            self.steps.setdefault(name, []).append(x)

    def taken(self, name: str, x: tf.Tensor, length: int) -> tf.Tensor:
        """Without the columns of a buffer that nothing is in yet."""
        if name == "hidden_states":
            return x[:, :length]
        return x[:, :, :length] if name == "cross_attentions" else x[:, :, :length, :length]


def search_on_host(model: Any, plan: Generation, given: Given, between: BetweenSteps) -> dict[str, Any]:
    """As :func:`search`, and ``steps``: what they gave, by name.

    Raises:
        InputError: for a row that goes on and has no token left.
    """
    one, streamer = steps_of(model, plan, given, between), between.hooks.streamer
    collected = Collected(between.plan)
    if streamer is not None:
        streamer.put(between.prompt.came)
    answer, length = one.do("prefill"), tf.constant(plan.prompt_length)
    rows = None if plan.has_beams else one.first_rows()
    groups, goes_on = one.first_groups() if plan.has_beams else [], True
    while goes_on:
        if plan.has_beams:
            groups, rows_R, goes_on, scores_RV = one.next_groups(groups, length, answer.logits_RV)
            answer = answer._replace(cache=of_rows(answer.cache, rows_R))
            ids_RL = one.rows_of(groups)
        else:
            rows, scores_RV = one.next_rows(rows, answer.logits_RV)
            if bool(rows.lost):
                raise InputError(NOTHING_LEFT)
            ids_RL, goes_on = rows.ids_RL, bool(tf.reduce_any(rows.going_R))
        collected.add(answer, scores_RV, int(length))
        if streamer is not None:
            streamer.put(ids_RL[:, int(length)])
        length = length + 1
        if goes_on:
            answer = one.do("advance", ids_RL, length, answer.cache)
    if streamer is not None:
        streamer.end()
    found = one.do("best_of", groups) if plan.has_beams else {"ids": rows.ids_RL, "lost": rows.lost}
    return {**found, "length": length, "cache": answer.cache, "steps": collected.steps}
