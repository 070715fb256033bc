"""Generation of the reference: greedy search, sampling, beams and groups of beams on the full forward pass.

There is no cache: each step computes the whole sequence, which is what a cache has to give too. What is drawn comes
from noise that the caller gives: the best of scores plus Gumbel noise is a draw from their softmax, and the k best are
k draws without replacement (Kool et al. 2019).

The rules of beam search are those of the published ``_beam_search`` of 4.57; of groups, Vijayakumar et al. 2016.

Shape letters: B prompts, K beams of a group, R rows, L the buffer, P the prompt, N new tokens, V vocabulary, C
candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation.logits_processing import NOTHING_LEFT, LogitsProcessorList, allowed_tokens
from xlmr_core.generation.mask_predict import MaskPredict, MaskPredictInputs, check_certainty, least_certain
from xlmr_core.generation.outputs import generation_output
from xlmr_core.generation.plan import Generation
from xlmr_core.generation.processors import RENORMALIZE, Processor
from xlmr_core.generation.prompt import Prompt, zero_based_position_ids
from xlmr_core.generation.request import Hooks
from xlmr_core.generation.stopping import own_criteria
from xlmr_core.outputs import ModelOutput
from xlmr_core.reference.encoder import Inputs, encode
from xlmr_core.reference.heads import language_model
from xlmr_core.reference.mathematics import Array, Integers, Params, log_softmax, softmax
from xlmr_core.reference.processors import apply

__all__ = ["generate", "mask_predict"]

Truths: TypeAlias = NDArray[np.bool_]
# Gumbel noise of a shape, for a step.
Noise: TypeAlias = Callable[[int, tuple[int, ...]], Array]
# Instead of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


@dataclass
class Loop:
    """What every step needs, and what the steps have collected.

    Attributes:
        config, params: the model.
        plan: what the call means.
        prompt: arranged.
        hooks: what runs between steps.
        noise: for draws.
        memory_BMD, memory_mask_BM: of an encoder.
        encoder_ids_BM: of an encoder's text; the prompt where there is none.
        scores, logits: of the steps.
    """

    config: XLMRobertaConfig
    params: Params
    plan: Generation
    prompt: Prompt
    hooks: Hooks
    noise: Noise | None
    memory_BMD: Array | None
    memory_mask_BM: NDArray[Any] | None
    encoder_ids_BM: Integers
    scores: list[Array] = field(default_factory=list)
    logits: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan, hooks = self.plan, self.hooks
        self.criteria = own_criteria(plan.max_time, plan.stop_strings, hooks.tokenizer, hooks.stopping_criteria)

    def repeated(self, x_B: Any) -> Any:
        """Something of the prompts, for each of their rows."""
        return None if x_B is None else np.repeat(x_B, self.plan.rows_per_prompt, axis=0)

    def as_came(self, ids_RL: Integers, length: int) -> Integers:
        """Rows as they would come back: the prompt as it came, and the new tokens."""
        new = ids_RL[:, self.plan.prompt_length : length]
        return np.concatenate([np.repeat(self.prompt.came, len(ids_RL) // self.prompt.batch, axis=0), new], axis=1)

    def next_logits(self, ids_RL: Integers, length: int) -> Array:
        """(R, V): logits of the token after the first ``length``."""
        ids, new = ids_RL[:, :length], length - self.plan.prompt_length
        mask = np.concatenate([self.repeated(self.prompt.mask), np.ones((len(ids), new), dtype=np.int64)], axis=1)
        types = self.repeated(self.prompt.token_type_ids)
        if types is not None:
            types = np.concatenate([types, np.repeat(types[:, -1:], new, axis=1)], axis=1)
        given = Inputs(
            input_ids=ids,
            attention_mask=mask,
            token_type_ids=types,
            position_ids=zero_based_position_ids(mask) if self.plan.position_numbering == "zero_based" else None,
            encoder_hidden_states=self.repeated(self.memory_BMD),
            encoder_attention_mask=self.repeated(self.memory_mask_BM),
        )
        encoded = encode(self.config, self.params, "roberta.", given)
        return language_model(self.config, self.params, encoded.last_hidden_state_BSD[:, -1])

    def processed(self, ids_RL: Integers, length: int, scores_RV: Array) -> Array:
        """Scores after all processors, in the published order."""
        hooks = self.hooks
        encoder_ids = np.repeat(self.encoder_ids_BM, len(ids_RL) // len(self.encoder_ids_BM), axis=0)
        came = self.as_came(ids_RL, length)
        for processor in self.plan.processors:
            scores_RV = apply(processor, ids_RL, length, scores_RV, encoder_ids)
        if hooks.prefix_allowed_tokens_fn is not None:
            rows = len(ids_RL) // self.prompt.batch
            allowed = allowed_tokens(hooks.prefix_allowed_tokens_fn, came, rows, scores_RV.shape[1])
            scores_RV = np.where(allowed, scores_RV, -np.inf)
        scores_RV = np.asarray(LogitsProcessorList(hooks.logits_processor)(came, scores_RV))
        last = (Processor(RENORMALIZE),) if self.plan.renormalize else ()
        for processor in (*self.plan.warpers, *last):
            scores_RV = apply(processor, ids_RL, length, scores_RV, encoder_ids)
        return scores_RV

    def ends(self, ids_RL: Integers, length: int, scores_RV: Array) -> Truths:
        """(R,): which rows end with their token number ``length``."""
        by_token = np.isin(ids_RL[:, length - 1], self.plan.eos_token_ids)
        is_long = np.full(len(ids_RL), length == self.plan.max_length)
        return np.asarray(by_token | is_long | self.criteria(self.as_came(ids_RL, length), scores_RV), dtype=bool)


def generate(
    config: XLMRobertaConfig,
    params: Params,
    plan: Generation,
    prompt: Prompt,
    *,
    hooks: Hooks | None = None,
    noise: Noise | None = None,
    encoder_hidden_states: Array | None = None,
    encoder_attention_mask: NDArray[Any] | None = None,
    encoder_ids: Integers | None = None,
) -> ModelOutput[Any]:
    """Generate with ``ForCausalLM`` in float64.

    Args:
        config: the model's configuration.
        params: parameters by canonical name.
        plan: what the call means, see :func:`xlmr_core.generation.plan_generation`.
        prompt: arranged, see :func:`xlmr_core.generation.arrange_prompt`.
        hooks: what runs between steps.
        noise: for sampling, Gumbel noise of a shape for a step: (R, V), or (B, K * V) of beams.
        encoder_hidden_states: (B, M, D), for cross-attention.
        encoder_attention_mask: (B, M).
        encoder_ids: (B, M), for the processors that are about the encoder's text.

    Returns:
        An output as of ``return_dict_in_generate=True``, with scores and logits of every step.

    Raises:
        InputError: if no token is left that may follow.
    """
    loop = Loop(
        config=config,
        params=params,
        plan=plan,
        prompt=prompt,
        hooks=hooks or Hooks(),
        noise=noise,
        memory_BMD=encoder_hidden_states,
        memory_mask_BM=encoder_attention_mask,
        encoder_ids_BM=prompt.ids if encoder_ids is None else encoder_ids,
    )
    ids_RL = np.full((prompt.batch * plan.rows_per_prompt, plan.max_length), plan.pad_token_id, dtype=np.int64)
    ids_RL[:, : prompt.width] = loop.repeated(prompt.ids)
    fields = beam_search(loop, ids_RL) if plan.has_beams else token_by_token(loop, ids_RL)
    fields |= {"scores": tuple(loop.scores), "logits": tuple(loop.logits)}
    return generation_output(plan.has_beams, encoder_ids is not None, fields)


# ---- Greedy search and sampling


def token_by_token(loop: Loop, ids_RL: Integers) -> dict[str, Any]:
    """Take the best token, or draw one, until all rows ended."""
    plan = loop.plan
    going_R = np.full(len(ids_RL), True)
    length = plan.prompt_length
    while going_R.any():
        logits_RV = loop.next_logits(ids_RL, length)
        scores_RV = loop.processed(ids_RL, length, logits_RV)
        loop.logits.append(logits_RV)
        loop.scores.append(scores_RV)
        largest_R = scores_RV.max(axis=1)
        is_left_R = np.isfinite(largest_R) if plan.do_sample else largest_R > -np.inf
        if (going_R & ~is_left_R).any():
            raise InputError(NOTHING_LEFT)
        tokens_R = best(loop, scores_RV, length, plan.do_sample, 1)[:, 0]
        ids_RL[:, length] = np.where(going_R, tokens_R, plan.pad_token_id)
        length += 1
        going_R = going_R & ~loop.ends(ids_RL, length, scores_RV)
    return {"sequences": loop.as_came(ids_RL, length)}


def best(loop: Loop, scores_RX: Array, length: int, draw: bool, count: int) -> Integers:
    """(R, count): the best, or draws without replacement; of equal ones the first."""
    if draw:
        assert loop.noise is not None
        scores_RX = scores_RX + loop.noise(length - loop.plan.prompt_length, scores_RX.shape)
    return np.argsort(-scores_RX, axis=1, kind="stable")[:, :count]


# ---- Beams


@dataclass
class Beams:
    """The beams of one group, for all prompts.

    Attributes:
        ids: (B, K, L) of those that run.
        scores: (B, K) sums of their log-probabilities.
        came_from: (B, K, N): which row each new token came from; -1 where there is none yet.
        done_ids, done_scores, done_from: the best that ended, with their scores over length ** penalty.
        is_done: (B, K) whether there is one.
        hopeful: (B, 1) whether the beams that run can still beat the worst of those.
    """

    ids: Integers
    scores: Array
    came_from: Integers
    done_ids: Integers
    done_scores: Array
    done_from: Integers
    is_done: Truths
    hopeful: Truths

    @classmethod
    def first(cls, ids_BKL: Integers, new_tokens: int) -> Beams:
        """All beams of a prompt are the same at first, so only the first of them counts."""
        batch, beams, _ = ids_BKL.shape
        scores = np.full((batch, beams), NEVER)
        scores[:, 0] = 0.0
        came_from = np.full((batch, beams, new_tokens), -1)
        return cls(
            ids=ids_BKL,
            scores=scores,
            came_from=came_from,
            done_ids=ids_BKL.copy(),
            done_scores=np.full((batch, beams), NEVER),
            done_from=came_from.copy(),
            is_done=np.zeros((batch, beams), dtype=bool),
            hopeful=np.ones((batch, 1), dtype=bool),
        )


def beam_search(loop: Loop, ids_RL: Integers) -> dict[str, Any]:
    """Keep the best beams of each group until none can get better."""
    plan, batch = loop.plan, loop.prompt.batch
    beams = plan.num_beams // plan.num_beam_groups
    ids_BGKL = ids_RL.reshape(batch, plan.num_beam_groups, beams, -1)
    groups = [Beams.first(ids_BGKL[:, number].copy(), plan.new_tokens) for number in range(plan.num_beam_groups)]
    length = plan.prompt_length
    goes_on = True
    while goes_on:
        flat_ids = np.stack([group.ids for group in groups], axis=1).reshape(len(ids_RL), -1)
        logits_RV = loop.next_logits(flat_ids, length)
        loop.logits.append(logits_RV)
        vocabulary = logits_RV.shape[1]
        logits_BGKV = logits_RV.reshape(batch, plan.num_beam_groups, beams, vocabulary)
        # How many beams of earlier groups took each token in this step.
        taken_BV = np.zeros((batch, vocabulary))
        scores, all_stopped = [], []
        for number, group in enumerate(groups):
            scores_BKV = log_softmax(logits_BGKV[:, number]) - plan.diversity_penalty * taken_BV[:, None, :]
            flat = loop.processed(group.ids.reshape(batch * beams, -1), length, scores_BKV.reshape(-1, vocabulary))
            scores_BKV = flat.reshape(batch, beams, vocabulary)
            scores.append(scores_BKV)
            groups[number], stopped = one_step(loop, group, scores_BKV, length, number * beams)
            all_stopped.append(stopped)
            for row, tokens in enumerate(groups[number].ids[:, :, length]):
                np.add.at(taken_BV[row], tokens, 1)
        loop.scores.append(np.stack(scores, axis=1).reshape(-1, vocabulary))
        length += 1
        groups = [with_hope(plan, group, length) for group in groups]
        full = plan.early_stopping is True and all(group.is_done.all() for group in groups)
        goes_on = any(group.hopeful.any() for group in groups) and not full and not all(all_stopped)
    return best_of(loop, groups)


def one_step(loop: Loop, group: Beams, scores_BKV: Array, length: int, offset: int) -> tuple[Beams, bool]:
    """The beams of a group after one more token, and whether none of its candidates can go on.

    Args:
        loop: the plan.
        group: before.
        scores_BKV: of the token.
        length: tokens that are there.
        offset: number of the group's first beam among those of a prompt.
    """
    plan = loop.plan
    batch, beams, vocabulary = scores_BKV.shape
    total_BX = (scores_BKV + group.scores[:, :, None]).reshape(batch, -1)
    chosen_BC = best(loop, total_BX, length, plan.do_sample, plan.candidates)
    scores_BC = np.take_along_axis(total_BX, chosen_BC, axis=1)
    beam_BC, token_BC = chosen_BC // vocabulary, chosen_BC % vocabulary
    ids_BCL, from_BCN = picked(group.ids, beam_BC), picked(group.came_from, beam_BC)
    ids_BCL[:, :, length] = token_BC
    rows = np.arange(batch)[:, None] * plan.num_beams + offset
    from_BCN[:, :, length - plan.prompt_length] = beam_BC + rows
    flat = ids_BCL.reshape(-1, ids_BCL.shape[2])
    stops_BC = loop.ends(flat, length + 1, scores_BKV.reshape(-1, vocabulary)).reshape(batch, -1)

    going_BC = scores_BC + NEVER * stops_BC
    going_BK = np.argsort(-going_BC, axis=1, kind="stable")[:, :beams]
    # The other candidates are there so that beams can go on; they do not end.
    ended_BC = stops_BC & (np.arange(plan.candidates) < beams)
    final_BC = scores_BC / (length + 1 - plan.prompt_length) ** plan.length_penalty
    closed_B1 = ~group.hopeful | (group.is_done.all(axis=1, keepdims=True) & (plan.early_stopping is True))
    final_BC = final_BC + NEVER * closed_B1 + NEVER * ~ended_BC
    merged_scores = np.concatenate([group.done_scores, final_BC], axis=1)
    kept_BK = np.argsort(-merged_scores, axis=1, kind="stable")[:, :beams]
    after = Beams(
        ids=picked(ids_BCL, going_BK),
        scores=picked(going_BC, going_BK),
        came_from=picked(from_BCN, going_BK),
        done_ids=picked(np.concatenate([group.done_ids, ids_BCL], axis=1), kept_BK),
        done_scores=picked(merged_scores, kept_BK),
        done_from=picked(np.concatenate([group.done_from, from_BCN], axis=1), kept_BK),
        is_done=picked(np.concatenate([group.is_done, ended_BC], axis=1), kept_BK),
        hopeful=group.hopeful,
    )
    return after, bool(stops_BC.all())


def picked(x_BX: Any, which_BY: Integers) -> Any:
    """(B, Y, ...): some of the second axis."""
    return x_BX[np.arange(len(x_BX))[:, None], which_BY]


def with_hope(plan: Generation, group: Beams, length: int) -> Beams:
    """Whether the best that runs could still beat the worst that ended, with the length that it has, or could have."""
    is_patient = plan.early_stopping == "never" and plan.length_penalty > 0
    tokens = (plan.max_length if is_patient else length) - plan.prompt_length
    possible_B1 = group.scores[:, :1] / tokens**plan.length_penalty
    worst_BK = np.where(group.is_done, group.done_scores.min(axis=1, keepdims=True), NEVER)
    return dataclasses.replace(group, hopeful=group.hopeful & (possible_B1 > worst_BK).any(axis=1, keepdims=True))


def best_of(loop: Loop, groups: list[Beams]) -> dict[str, Any]:
    """The best of all groups, as many as come back; of equal ones those of the first group.

    Raises:
        InputError: if no beam of a prompt came to an end with a number for a score.
    """
    plan = loop.plan
    scores = np.concatenate([group.done_scores for group in groups], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : plan.num_return_sequences]
    if not picked(np.concatenate([group.is_done for group in groups], axis=1), order[:, :1]).all():
        raise InputError(NOTHING_LEFT)
    ids, came_from = (
        picked(np.concatenate([getattr(group, name) for group in groups], axis=1), order)
        for name in ("done_ids", "done_from")
    )
    came_from = came_from.reshape(-1, plan.new_tokens)
    longest = int((came_from >= 0).sum(axis=1).max())
    flat_ids = ids.reshape(len(came_from), -1)
    return {
        "sequences": loop.as_came(flat_ids, plan.prompt_length + longest),
        "sequences_scores": picked(scores, order).reshape(-1),
        "beam_indices": came_from[:, :longest],
    }


# ---- Masked models


def mask_predict(config: XLMRobertaConfig, params: Params, plan: MaskPredict, given: MaskPredictInputs) -> Integers:
    """(B, C + N): prompts, and the tokens that a masked model fills in (Ghazvininejad et al. 2019).

    Args:
        config, params: of ``ForMaskedLM``.
        plan, given: see :func:`xlmr_core.generation.plan_mask_predict`.
    """
    new = slice(plan.first, plan.first + plan.new_tokens)
    tokens_BN = given.ids[:, new].copy()
    probabilities_BN = np.zeros(tokens_BN.shape)
    for count in plan.masked:
        chosen_BN = least_certain(probabilities_BN, count)
        ids = given.ids.copy()
        ids[:, new] = np.where(chosen_BN, plan.mask_token_id, tokens_BN)
        inputs = Inputs(input_ids=ids, attention_mask=given.mask, token_type_ids=given.token_type_ids)
        encoded = encode(config, params, "roberta.", inputs)
        logits_BNV = language_model(config, params, encoded.last_hidden_state_BSD[:, new])
        logits_BNV[:, :, list(plan.forbidden)] = -np.inf
        found_BNV = softmax(logits_BNV)
        tokens_BN = np.where(chosen_BN, found_BNV.argmax(axis=2), tokens_BN)
        probabilities_BN = np.where(chosen_BN, found_BNV.max(axis=2), probabilities_BN)
    check_certainty(probabilities_BN)
    return np.concatenate([given.came, tokens_BN], axis=1)
