"""The loops of generation: greedy search, sampling, beams, and groups of beams.

What a call means is decided in the core (:class:`xlmr_core.generation.Generation`, by which programs are kept), and
``xlmr_core/reference/generation.py`` is the judge. :func:`prefill` gives the prompt to the model, :func:`search` is the
whole loop as one program for XLA, :func:`search_on_host` the same loop from Python, for what the host has to see
between steps: each of its steps is compiled. Both are made of the same functions, so both give the same tokens. Beside
numbers, a program depends on the shapes of prompt and buffer only, which are rounded up.

Shape letters: B prompts, K beams of a group, G groups, R rows (all beams, or draws, of all prompts), L the buffer, P
the prompt, N new tokens, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from xlmr_core.generation import (
    RENORMALIZE,
    Generation,
    Hooks,
    LogitsProcessorList,
    Processor,
    Prompt,
    allowed_tokens,
    bucket,
    next_position,
    own_criteria,
)
from xlmr_tf.cache import StaticCache
from xlmr_tf.linear import dims
from xlmr_tf.processors import process

__all__ = ["Given", "Programs", "decode", "search", "search_on_host", "wants_steps"]

# In place of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


class Given(NamedTuple):
    """The tensors of one call.

    Attributes:
        ids_BP, mask_BP: the prompt, arranged.
        types_BP: its token types, or ``None``.
        positions_BP: its positions, or ``None``: those of the forward pass.
        counted_B: how many tokens of each prompt have a position of their own.
        memory_BMD, memory_mask_BM: of an encoder, or ``None``.
        encoder_ids_BM: of the encoder's text; the prompt where there is none.
        max_length: scalar, the most tokens of a row: the plan may have it rounded up.
        seed: (2,), of draws.
    """

    ids_BP: tf.Tensor
    mask_BP: tf.Tensor
    types_BP: tf.Tensor | None
    positions_BP: tf.Tensor | None
    counted_B: tf.Tensor
    memory_BMD: tf.Tensor | None
    memory_mask_BM: tf.Tensor | None
    encoder_ids_BM: tf.Tensor
    max_length: tf.Tensor
    seed: tf.Tensor


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


def as_came(plan: Generation, prompt: Prompt, ids_RL: Any, length: Any) -> tf.Tensor:
    """Rows as they come back: the prompt as it came, and the new tokens up to ``length``."""
    came = np.repeat(prompt.came, ids_RL.shape[0] // prompt.batch, 0)
    return tf.concat([tf.cast(came, ids_RL.dtype), ids_RL[:, plan.prompt_length : int(length)]], 1)


# ---- The steps


class Answer(NamedTuple):
    """What the model says of the next tokens.

    Attributes:
        logits_RV: float32.
        cache: of the tokens so far; ``None`` if every step computes the whole sequence.
        extras: attentions and states by name, where the plan asks for them.
    """

    logits_RV: tf.Tensor
    cache: StaticCache | None
    extras: dict[str, Any]


class Rows(NamedTuple):
    """The rows of greedy search and sampling.

    Attributes:
        ids_RL: the buffer.
        length: how many columns are there.
        going_R: which rows have not ended.
    """

    ids_RL: tf.Tensor
    length: tf.Tensor
    going_R: tf.Tensor


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


class Search:
    """The steps of one call, as functions of tensors.

    Args:
        model: with a head for causal language modelling.
        plan: what the call means.
        given: its tensors.
        between: what runs on the host between steps. Then each function that is called by its name is a program of its
            own; without it all is part of one program.
    """

    def __init__(self, model: Any, plan: Generation, given: Given, between: BetweenSteps | None = None) -> None:
        self.model, self.plan, self.given, self.between = model, plan, given, between

    def do(self, name: str, *tensors: Any) -> Any:
        """Call one of the functions below: here, or as a program of its own."""
        if self.between is None:
            return getattr(self, name)(*tensors)
        return self.between.programs.get(self.model, self.plan, name)(self.given, *tensors)

    # ---- The model

    def prefill(self) -> Answer:
        """The prompts, computed once for all their rows."""
        given, plan = self.given, self.plan
        output = self.model(
            input_ids=given.ids_BP,
            attention_mask=given.mask_BP,
            token_type_ids=given.types_BP,
            position_ids=given.positions_BP,
            encoder_hidden_states=given.memory_BMD,
            encoder_attention_mask=given.memory_mask_BM,
            past_key_values=StaticCache.empty(plan.max_length) if plan.use_cache else None,
            logits_to_keep=1,
            **self.asked(),
        )
        answer = self.answer(output)
        times = plan.rows_per_prompt
        if times == 1:
            return answer
        cache = answer.cache and answer.cache.repeat(times)
        extras = tf.nest.map_structure(lambda x: tf.repeat(x, times, 0), answer.extras)
        return Answer(tf.repeat(answer.logits_RV, times, 0), cache, extras)

    def advance(self, ids_RL: tf.Tensor, length: tf.Tensor, cache: StaticCache | None) -> Answer:
        """The last token of each row; without a cache all of them."""
        given, plan = self.given, self.plan
        new = plan.max_length - plan.prompt_length
        mask_RL = tf.pad(self.repeated(given.mask_BP), [[0, 0], [0, new]], constant_values=1)
        types_RP, positions = self.repeated(given.types_BP), None
        if cache is not None:
            inputs = {"input_ids": ids_RL[:, length - 1, None], "attention_mask": mask_RL, "past_key_values": cache}
            types = None if types_RP is None else types_RP[:, -1:]
            if given.positions_BP is not None:
                first = next_position(self.model.config, plan.position_numbering) + length - 1 - plan.prompt_length
                positions = self.repeated(given.counted_B)[:, None] + first
        else:
            # The last token of all is given to no layer. What stands behind the tokens that are there is masked.
            ids_RL, mask_RL = ids_RL[:, :-1], mask_RL[:, :-1]
            mask_RL *= tf.cast(tf.range(plan.max_length - 1) < length, tf.int32)
            inputs = {"input_ids": ids_RL, "attention_mask": mask_RL, "logits_to_keep": length[None] - 1}
            types = None if types_RP is None else tf.concat([types_RP, tf.repeat(types_RP[:, -1:], new - 1, 1)], 1)
            if given.positions_BP is not None:
                positions = tf.where(mask_RL == 1, tf.cumsum(mask_RL, 1) - 1, 1)
        output = self.model(
            **inputs,
            token_type_ids=types,
            position_ids=positions,
            encoder_hidden_states=self.repeated(given.memory_BMD),
            encoder_attention_mask=self.repeated(given.memory_mask_BM),
            **self.asked(),
        )
        return self.answer(output)

    def asked(self) -> dict[str, Any]:
        """What every call of the model is asked for."""
        plan = self.plan
        return {
            "use_cache": plan.use_cache,
            "output_attentions": plan.output_attentions,
            "output_hidden_states": plan.output_hidden_states,
            "return_dict": True,
            "training": False,
        }

    def answer(self, output: Any) -> Answer:
        """What the loops need of a model's output."""
        names = ("attentions", "cross_attentions", "hidden_states")
        extras = {name: output[name] for name in names if name in output and self.is_asked(name)}
        return Answer(tf.cast(output.logits[:, -1], tf.float32), output.past_key_values, extras)

    def is_asked(self, name: str) -> bool:
        """Whether attentions or states come back."""
        return self.plan.output_hidden_states if name == "hidden_states" else self.plan.output_attentions

    def repeated(self, x_B: tf.Tensor | None, rows: Any = None) -> tf.Tensor | None:
        """Something of the prompts, for each of their rows."""
        times = self.plan.rows_per_prompt if rows is None else rows // dims(x_B)[0]
        return x_B if x_B is None or times == 1 else tf.repeat(x_B, times, 0)

    # ---- Scores

    def processed(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after all processors, in the published order."""
        plan, between = self.plan, self.between
        if between is None or not between.changes_scores:
            return self.do("by_all", ids_RL, length, scores_RV) if plan.all_processors else scores_RV
        if plan.processors:
            scores_RV = self.do("by_options", ids_RL, length, scores_RV)
        scores_RV = between.processed(ids_RL, length, scores_RV)
        return self.do("warped", ids_RL, length, scores_RV) if plan.warpers or plan.renormalize else scores_RV

    def by_all(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after all processors, where none is a user's."""
        return self.by(self.plan.all_processors, ids_RL, length, scores_RV)

    def by_options(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after the processors that come before a user's."""
        return self.by(self.plan.processors, ids_RL, length, scores_RV)

    def warped(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after those that come after a user's."""
        last = (Processor(RENORMALIZE),) if self.plan.renormalize else ()
        return self.by((*self.plan.warpers, *last), ids_RL, length, scores_RV)

    def by(
        self, processors: tuple[Processor, ...], ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor
    ) -> tf.Tensor:
        """Scores after some processors."""
        encoder_ids_RM = self.repeated(self.given.encoder_ids_BM, dims(ids_RL)[0])
        return process(processors, ids_RL, length, scores_RV, encoder_ids_RM)

    def best(self, scores_RX: tf.Tensor, length: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """(R, count): the best, or draws without replacement (Kool et al. 2019), and their scores; of equal ones the
        first.
        """
        if not self.plan.do_sample:
            found = tf.math.top_k(scores_RX, count)
            return found.indices, found.values
        step = length - self.plan.prompt_length
        tiny = np.finfo(np.float32).tiny
        seed = self.given.seed + tf.stack([0, step])
        drawn_RX = tf.random.stateless_uniform(dims(scores_RX), seed, tiny, 1.0, alg="philox")
        chosen = tf.math.top_k(scores_RX - tf.math.log(-tf.math.log(drawn_RX)), count).indices
        return chosen, tf.gather(scores_RX, chosen, batch_dims=1)

    def stops(self, tokens: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Whether each row ends with its last token, the one number ``length``."""
        found = tf.zeros_like(tokens, tf.bool) | (length == self.given.max_length)
        for end in self.plan.eos_token_ids:
            found = found | (tokens == end)
        return found

    # ---- Greedy search and sampling

    def first_ids(self) -> tf.Tensor:
        """(R, L): the buffer with the prompts in it."""
        plan = self.plan
        new = [[0, 0], [0, plan.max_length - plan.prompt_length]]
        return tf.pad(self.repeated(self.given.ids_BP), new, constant_values=plan.pad_token_id)

    def first_rows(self) -> Rows:
        """Before the first step."""
        ids_RL = self.first_ids()
        return Rows(ids_RL, tf.constant(self.plan.prompt_length), tf.ones_like(ids_RL[:, 0], tf.bool))

    def next_rows(self, rows: Rows, logits_RV: tf.Tensor) -> tuple[Rows, tf.Tensor]:
        """The rows with one more token, and the scores that it was chosen by."""
        scores_RV = self.processed(rows.ids_RL, rows.length, logits_RV)
        rows = self.do("taken", rows, scores_RV)
        if self.between is not None:
            ended_R = self.between.stops(rows.ids_RL, rows.length, scores_RV)
            rows = rows._replace(going_R=rows.going_R & ~ended_R)
        return rows, scores_RV

    def taken(self, rows: Rows, scores_RV: tf.Tensor) -> Rows:
        """The rows with the best token, or one that is drawn; those that ended are filled up."""
        ids_RL, length, going_R = rows
        chosen_R1, _ = self.best(scores_RV, length, 1)
        tokens_R = tf.where(going_R, chosen_R1[:, 0], self.plan.pad_token_id)
        ids_RL = tf.where(tf.range(self.plan.max_length) == length, tokens_R[:, None], ids_RL)
        return Rows(ids_RL, length + 1, going_R & ~self.stops(tokens_R, length + 1))

    # ---- Beams

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
        """The best of all groups, as many as come back; of equal ones those of the first group."""
        best = tf.math.top_k(tf.concat([group.done_scores for group in groups], 1), self.plan.num_return_sequences)
        ids_BRL = picked(tf.concat([group.done_ids for group in groups], 1), best.indices)
        from_BRN = picked(tf.concat([group.done_from for group in groups], 1), best.indices)
        return {
            "ids": tf.reshape(ids_BRL, (-1, dims(ids_BRL)[2])),
            "came_from": tf.reshape(from_BRN, (-1, dims(from_BRN)[2])),
            "scores": tf.reshape(best.values, (-1,)),
        }


def picked(x_BX: tf.Tensor, which_BY: tf.Tensor) -> tf.Tensor:
    """(B, Y, ...): some of the second axis."""
    return tf.gather(x_BX, which_BY, batch_dims=1)


# ---- The whole loop as one program


def search(model: Any, plan: Generation, given: Given) -> dict[str, Any]:
    """All steps.

    Returns:
        ``ids`` (R, L), one row for each sequence that comes back; ``length``, of the longest; ``cache``; of beams also
        ``scores`` (R,) and ``came_from`` (R, N).
    """
    one = Search(model, plan, given)
    answer = one.prefill()
    if plan.has_beams:
        return _search_beams(one, answer)
    rows, _ = one.next_rows(one.first_rows(), answer.logits_RV)

    def goes_on(rows: Rows, cache: Any) -> tf.Tensor:
        return tf.reduce_any(rows.going_R)

    def step(rows: Rows, cache: Any) -> tuple[Any, ...]:
        answer = one.advance(rows.ids_RL, rows.length, cache or None)
        rows, _ = one.next_rows(rows, answer.logits_RV)
        return rows, answer.cache or ()

    rows, cache = tf.while_loop(goes_on, step, (rows, answer.cache or ()))
    return {"ids": rows.ids_RL, "length": rows.length, "cache": cache}


def _search_beams(one: Search, answer: Answer) -> dict[str, Any]:
    length = tf.constant(one.plan.prompt_length)
    groups, rows_R, goes_on, _ = one.next_groups(one.first_groups(), length, answer.logits_RV)

    def is_going(groups: list[Beams], length: tf.Tensor, cache: Any, goes_on: tf.Tensor) -> tf.Tensor:
        return goes_on

    def step(groups: list[Beams], length: tf.Tensor, cache: Any, goes_on: tf.Tensor) -> tuple[Any, ...]:
        answer = one.advance(one.rows_of(groups), length, cache or None)
        groups, rows_R, goes_on, _ = one.next_groups(groups, length, answer.logits_RV)
        return groups, length + 1, _of_rows(answer.cache, rows_R) or (), goes_on

    state = (groups, length + 1, _of_rows(answer.cache, rows_R) or (), goes_on)
    groups, length, cache, _ = tf.while_loop(is_going, step, state)
    return {**one.best_of(groups), "length": length, "cache": cache}


def _of_rows(cache: StaticCache | None, rows_R: tf.Tensor) -> StaticCache | None:
    return None if cache is None else cache.reorder_cache(rows_R)


# ---- The loop from Python


class Programs:
    """Compiled programs of one model, each by its name and what the call means."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}
        self._variables: tuple[int, ...] = ()

    def get(self, model: Any, plan: Generation, name: str) -> Callable[..., Any]:
        """The program of a function of :class:`Search`, or ``search``: called with what is given, and its tensors."""
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
    return search(model, plan, given) if name == "search" else getattr(Search(model, plan, given), name)(*tensors)


@dataclass
class BetweenSteps:
    """What runs on the host between steps.

    Attributes:
        programs: of the model.
        plan, prompt, hooks: of the call.
        vocabulary: of the model.
    """

    programs: Programs
    plan: Generation
    prompt: Prompt
    hooks: Hooks
    vocabulary: int

    def __post_init__(self) -> None:
        plan, hooks = self.plan, self.hooks
        self.criteria = own_criteria(plan.max_time, plan.stop_strings, hooks.tokenizer, hooks.stopping_criteria)
        self.processors = LogitsProcessorList(hooks.logits_processor)

    @property
    def changes_scores(self) -> bool:
        """Whether the user has a say in the scores."""
        return self.hooks.prefix_allowed_tokens_fn is not None or bool(self.processors)

    def processed(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after ``prefix_allowed_tokens_fn`` and the user's processors."""
        allowed = self.hooks.prefix_allowed_tokens_fn
        came = as_came(self.plan, self.prompt, ids_RL, length)
        if allowed is not None:
            found_RV = allowed_tokens(allowed, came, len(came) // self.prompt.batch, self.vocabulary)
            scores_RV = tf.where(found_RV, scores_RV, -np.inf)
        return tf.convert_to_tensor(self.processors(came, scores_RV), tf.float32)

    def stops(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> Any:
        """(R,): which rows a criterion ends."""
        if not self.criteria:
            return np.zeros(ids_RL.shape[0], bool)
        return self.criteria(as_came(self.plan, self.prompt, ids_RL, length), scores_RV)


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
    """As :func:`search`, and ``steps``: what they gave, by name."""
    one, streamer = Search(model, plan, given, between), between.hooks.streamer
    collected = Collected(between.plan)
    if streamer is not None:
        streamer.put(between.prompt.came)
    answer, length = one.do("prefill"), tf.constant(plan.prompt_length)
    rows, groups, goes_on = one.first_rows(), one.first_groups() if plan.has_beams else [], True
    while goes_on:
        if plan.has_beams:
            groups, rows_R, goes_on, scores_RV = one.next_groups(groups, length, answer.logits_RV)
            answer = answer._replace(cache=_of_rows(answer.cache, rows_R))
            ids_RL = one.rows_of(groups)
        else:
            rows, scores_RV = one.next_rows(rows, answer.logits_RV)
            ids_RL, goes_on = rows.ids_RL, bool(tf.reduce_any(rows.going_R))
        collected.add(answer, scores_RV, int(length))
        if streamer is not None:
            streamer.put(ids_RL[:, int(length)])
        length = length + 1
        if goes_on:
            answer = one.do("advance", ids_RL, length, answer.cache)
    if streamer is not None:
        streamer.end()
    found = one.do("best_of", groups) if plan.has_beams else {"ids": rows.ids_RL}
    return {**found, "length": length, "cache": answer.cache, "steps": collected.steps}
