"""The loops of generation: token by token, and by beams. What a call means is in :mod:`xlmr_core.generation`.

``Steps`` runs the model: the prompt once, then one token a row, with a cache. ``Loop`` is what both loops do alike:
processors, stops, rows as they would come back. The judge is ``xlmr_core/reference/generation.py``.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, P the prompt, V vocabulary,
K beams of a group, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from xlmr_core.errors import InputError
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
from xlmr_torch.cache import EncoderDecoderCache, StaticCache, new_cache
from xlmr_torch.processors import process

__all__ = ["Steps", "decode", "repeated"]

# In place of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


def repeated(x: Tensor | None, times: int) -> Tensor | None:
    """(B, ...) to (B * times, ...): each row so many times, one after the other."""
    return x if x is None or times == 1 else x.repeat_interleave(times, 0)


# ---- The model, step by step


class Steps:
    """A model that is asked for one token after the other.

    Args:
        model: with a head for causal language modelling.
        plan: what the call means.
        prompt: arranged.
        memory: ``encoder_hidden_states`` and ``encoder_attention_mask`` of (B, M, ...), for cross-attention.
        cache: with the beginning of the prompt.
    """

    def __init__(
        self, model: Any, plan: Generation, prompt: Prompt, memory: dict[str, Tensor], cache: Any = None
    ) -> None:
        self.model, self.plan, self.prompt, self.memory = model, plan, prompt, memory
        self.device = model.get_input_embeddings().weight.device
        self.attentions: list[Any] = []
        self.cross_attentions: list[Any] = []
        self.hidden_states: list[Any] = []
        self.cache = cache
        # Layers that are computed twice keep nothing.
        self.uses_cache = plan.use_cache and not model.base_model.encoder.recomputes
        if self.uses_cache and cache is None:
            self.cache = new_cache(with_memory="encoder_hidden_states" in memory)
            if plan.static_cache:
                static = StaticCache(model.config, plan.max_length)
                with_memory = isinstance(self.cache, EncoderDecoderCache)
                self.cache = EncoderDecoderCache(static, self.cache.cross_attention_cache) if with_memory else static
        # (R, L) of 0 and 1, or None where everything is attended to.
        self.mask_RL: Tensor | None = None
        if not prompt.mask.all():
            after = torch.ones((prompt.batch, plan.new_tokens), dtype=torch.int64)
            self.mask_RL = torch.cat([self.tensor(prompt.mask), after.to(self.device)], 1)
        self.types_RP = None if prompt.token_type_ids is None else self.tensor(prompt.token_type_ids)
        self.places_RP = None if prompt.position_ids is None else self.tensor(prompt.position_ids)
        self.counted_R = self.tensor(prompt.counted)
        self.first_position = next_position(model.config, plan.position_numbering)

    def tensor(self, x: Any) -> Tensor:
        """An array of the prompt, on the model's device."""
        return torch.as_tensor(x, device=self.device)

    def prefill(self, ids_RL: Tensor) -> Tensor:
        """(R, V): logits after the prompt, which is computed once for all its rows where only logits are wanted."""
        times, plan = self.plan.rows_per_prompt, self.plan
        shares = self.uses_cache and not (plan.output_attentions or plan.output_hidden_states)
        if not shares:
            self._repeat(times)
            return self.logits(ids_RL, plan.prompt_length)
        logits = self.logits(ids_RL[::times], plan.prompt_length)
        if times > 1:
            self._repeat(times)
            self.cache.batch_repeat_interleave(times)
            logits = logits.repeat_interleave(times, 0)
        return logits

    def _repeat(self, times: int) -> None:
        for name in ("mask_RL", "types_RP", "places_RP", "counted_R"):
            setattr(self, name, repeated(getattr(self, name), times))
        self.memory = {name: x.repeat_interleave(times, 0) for name, x in self.memory.items()}

    def logits(self, ids_RL: Tensor, length: int) -> Tensor:
        """(R, V) float32: logits of the token after the first ``length``."""
        plan = self.plan
        given: dict[str, Any] = dict(self.memory)
        if self.types_RP is not None:
            last_R1 = self.types_RP[:, -1:]
            given["token_type_ids"] = torch.cat([self.types_RP, last_R1.expand(-1, length - plan.prompt_length)], 1)
        if self.places_RP is not None:
            new = torch.arange(length - plan.prompt_length, device=self.device)
            after = self.first_position + self.counted_R[:, None] + new
            given["position_ids"] = torch.cat([self.places_RP, after], 1)
        inputs = self.model.prepare_inputs_for_generation(
            ids_RL[:, :length],
            past_key_values=self.cache,
            attention_mask=None if self.mask_RL is None else self.mask_RL[:, :length],
            use_cache=self.uses_cache,
            **given,
        )
        output = self.model(
            **inputs,
            logits_to_keep=1 if inputs["input_ids"].shape[1] > 1 else 0,
            output_attentions=plan.output_attentions,
            output_hidden_states=plan.output_hidden_states,
            return_dict=True,
        )
        self.cache = output.past_key_values
        if plan.output_attentions:
            self.attentions.append(output.attentions)
            self.cross_attentions.append(output.cross_attentions)
        if plan.output_hidden_states:
            self.hidden_states.append(output.hidden_states)
        logits: Tensor = output.logits[:, -1]
        return logits.float()

    def reorder(self, rows_R: Tensor) -> None:
        """Let rows go on from others."""
        if self.cache is not None:
            self.cache.reorder_cache(rows_R)

    def collected(self) -> dict[str, Any]:
        """What the steps gave beside logits."""
        has_memory = bool(self.memory)
        return {
            "attentions": tuple(self.attentions) or None,
            "cross_attentions": (tuple(self.cross_attentions) or None) if has_memory else None,
            "hidden_states": tuple(self.hidden_states) or None,
            "past_key_values": self.cache,
        }


# ---- What both loops do


class Judged:
    """Tokens that may follow, and their scores.

    Args:
        scores_RX: of each.
        tokens_RX: which they are; ``None``: the whole vocabulary.
        vocabulary: V.
        whole_RV: the scores of all, where they are there.
    """

    def __init__(
        self, scores_RX: Tensor, tokens_RX: Tensor | None, vocabulary: int, whole_RV: Tensor | None = None
    ) -> None:
        self.scores_RX, self.tokens_RX, self.vocabulary, self._whole_RV = scores_RX, tokens_RX, vocabulary, whole_RV

    @property
    def whole_RV(self) -> Tensor:
        """The scores of all tokens: minus infinity for those that may not follow."""
        if self._whole_RV is None:
            assert self.tokens_RX is not None
            nothing_RV = self.scores_RX.new_full((len(self.scores_RX), self.vocabulary), float("-inf"))
            self._whole_RV = nothing_RV.scatter(1, self.tokens_RX, self.scores_RX)
        return self._whole_RV

    def tokens(self, places_RY: Tensor) -> Tensor:
        """(R, Y): the tokens at some places."""
        return places_RY if self.tokens_RX is None else self.tokens_RX.gather(1, places_RY)


class Loop:
    """Processors, stops and draws of one call.

    Args:
        steps: the model.
        hooks: what runs on the host between steps.
        generator: for draws; PyTorch's own by default.
        encoder_ids: (B, M) of an encoder's text; by default the prompt.
    """

    def __init__(
        self, steps: Steps, hooks: Hooks, generator: torch.Generator | None = None, encoder_ids: Tensor | None = None
    ) -> None:
        self.steps, self.plan, self.prompt, self.hooks = steps, steps.plan, steps.prompt, hooks
        self.generator = generator
        self.came_BC = steps.tensor(self.prompt.came)
        self.moved = self.prompt.came.shape != self.prompt.ids.shape or (self.prompt.came != self.prompt.ids).any()
        plan = self.plan
        self.criteria = own_criteria(plan.max_time, plan.stop_strings, hooks.tokenizer, hooks.stopping_criteria)
        self.processors = LogitsProcessorList(hooks.logits_processor)
        self.ends = torch.tensor(plan.eos_token_ids, dtype=torch.int64, device=steps.device)
        self.encoder_ids_BM = steps.tensor(self.prompt.ids) if encoder_ids is None else encoder_ids
        # How many of the best may be drawn, if there is such a limit; and what comes after the processors of users.
        limits = [one.arguments[0] for one in plan.warpers if one.name == "top_k"]
        self.most = limits[0] if limits else None
        last = (Processor(RENORMALIZE),) if plan.renormalize else ()
        self.late = (*plan.warpers, *last)
        self.scores: list[Tensor] = []
        self.logits: list[Tensor] = []

    def first_ids(self) -> Tensor:
        """(R, L): the buffer with the prompts in it."""
        plan = self.plan
        rows = self.prompt.batch * plan.rows_per_prompt
        ids_RL = torch.full((rows, plan.max_length), plan.pad_token_id, dtype=torch.int64, device=self.steps.device)
        ids_RL[:, : plan.prompt_length] = repeated(self.steps.tensor(self.prompt.ids), plan.rows_per_prompt)
        return ids_RL

    def as_came(self, ids_RL: Tensor, length: int) -> Tensor:
        """(R, ...): rows as they would come back: the prompt as it came, and the new tokens."""
        if not self.moved:
            return ids_RL[:, :length]
        came = self.came_BC.repeat_interleave(len(ids_RL) // self.prompt.batch, 0)
        return torch.cat([came, ids_RL[:, self.plan.prompt_length : length]], 1)

    def judged(self, ids_RL: Tensor, length: int, scores_RV: Tensor) -> Judged:
        """Tokens that may follow and their scores after all processors, in the published order.

        Where only so many of the best can be taken, the rest is left out: a vocabulary is long, and to sort it, or to
        draw from all of it, takes as much time as the layers.
        """
        plan, hooks = self.plan, self.hooks
        encoder_ids_RM = self.encoder_ids_BM
        if plan.processors:
            encoder_ids_RM = encoder_ids_RM.repeat_interleave(len(ids_RL) // len(encoder_ids_RM), 0)
            scores_RV = process(plan.processors, ids_RL, length, scores_RV, encoder_ids_RM)
        if hooks.prefix_allowed_tokens_fn is not None:
            rows = len(ids_RL) // self.prompt.batch
            came = self.as_came(ids_RL, length)
            allowed = allowed_tokens(hooks.prefix_allowed_tokens_fn, came, rows, scores_RV.shape[1])
            scores_RV = scores_RV.masked_fill(~self.steps.tensor(allowed), float("-inf"))
        if self.processors:
            scores_RV = self.processors(self.as_came(ids_RL, length), scores_RV)
        if self.most is not None and self.most < scores_RV.shape[1]:
            best = scores_RV.topk(self.most)
            scores_RX = process(self.late, ids_RL, length, best.values, encoder_ids_RM)
            return Judged(scores_RX, best.indices, scores_RV.shape[1])
        scores_RV = process(self.late, ids_RL, length, scores_RV, encoder_ids_RM)
        if plan.has_beams and not plan.do_sample and plan.candidates < scores_RV.shape[1]:
            best = scores_RV.topk(plan.candidates)
            return Judged(best.values, best.indices, scores_RV.shape[1], scores_RV)
        return Judged(scores_RV, None, scores_RV.shape[1], scores_RV)

    def stops(self, ids_RL: Tensor, length: int, judged: Judged) -> Tensor | None:
        """(R,): which rows end with their token number ``length``; ``None`` where none does, without a look at them."""
        stops_R = None
        if len(self.ends):
            stops_R = torch.isin(ids_RL[:, length - 1], self.ends)
        if self.criteria:
            asked_R = self.steps.tensor(self.criteria(self.as_came(ids_RL, length), judged.whole_RV))
            stops_R = asked_R if stops_R is None else stops_R | asked_R
        return stops_R

    def keep(self, logits_RV: Tensor, groups: list[Judged]) -> None:
        """Collect what is to come back."""
        plan = self.plan
        if plan.output_logits:
            self.logits.append(logits_RV)
        if plan.output_scores:
            whole = torch.stack([group.whole_RV.unflatten(0, (self.prompt.batch, -1)) for group in groups], 1)
            self.scores.append(whole.flatten(0, 2))

    def chosen(self, scores_RX: Tensor, count: int) -> Tensor:
        """(R, count): the places of the best, or of draws without replacement."""
        if not self.plan.do_sample:
            return scores_RX.argmax(-1, keepdim=True) if count == 1 else scores_RX.topk(count).indices
        if count > 1:  # the best of scores and Gumbel noise are draws (Kool et al. 2019)
            noise_RX = -torch.empty_like(scores_RX).exponential_(generator=self.generator).log()
            return (scores_RX + noise_RX).topk(count).indices
        # One number for each row and not for each token: where it lies in the sums of the probabilities.
        sums_RX = scores_RX.softmax(-1).cumsum(-1, dtype=torch.float64)
        drawn_R1 = torch.rand(len(sums_RX), 1, dtype=torch.float64, device=sums_RX.device, generator=self.generator)
        return torch.searchsorted(sums_RX, drawn_R1 * sums_RX[:, -1:], right=True)

    def collected(self) -> dict[str, Any]:
        """What comes back beside the sequences."""
        return {"scores": tuple(self.scores) or None, "logits": tuple(self.logits) or None, **self.steps.collected()}


@torch.no_grad()
def decode(
    steps: Steps, hooks: Hooks, generator: torch.Generator | None = None, encoder_ids: Tensor | None = None
) -> dict[str, Any]:
    """Generate; the fields of the output by name.

    Args:
        steps: the model and what the call means.
        hooks: what runs on the host between steps.
        generator: for draws; PyTorch's own by default.
        encoder_ids: (B, M) of an encoder's text, for the processors that are about it.
    """
    loop = Loop(steps, hooks, generator, encoder_ids)
    fields = beam_search(loop) if steps.plan.has_beams else token_by_token(loop)
    return {**fields, **loop.collected()}


# ---- Greedy search and sampling


def token_by_token(loop: Loop) -> dict[str, Any]:
    """Take the best token, or draw one, until all rows ended."""
    plan, steps, streamer = loop.plan, loop.steps, loop.hooks.streamer
    ids_RL, length = loop.first_ids(), plan.prompt_length
    done_R = None  # nobody yet
    if streamer is not None:
        streamer.put(loop.came_BC.cpu())
    logits_RV = steps.prefill(ids_RL)
    while True:
        judged = loop.judged(ids_RL, length, logits_RV)
        loop.keep(logits_RV, [judged])
        tokens_R = judged.tokens(loop.chosen(judged.scores_RX, 1))[:, 0]
        if done_R is not None:
            tokens_R = tokens_R.masked_fill(done_R, plan.pad_token_id)
        ids_RL[:, length] = tokens_R
        length += 1
        if streamer is not None:
            streamer.put(tokens_R.cpu())
        stops_R = loop.stops(ids_RL, length, judged)
        if stops_R is not None:
            done_R = stops_R if done_R is None else done_R | stops_R
        if length == plan.max_length or (done_R is not None and bool(done_R.all())):
            break
        logits_RV = steps.logits(ids_RL, length)
    if streamer is not None:
        streamer.end()
    return {"sequences": loop.as_came(ids_RL, length).clone()}


# ---- Beams


@dataclass(frozen=True)
class Beams:
    """The beams of one group, for all prompts.

    Attributes:
        ids_BKL: of those that run.
        scores_BK: sums of their log-probabilities, float32.
        from_BKN: which row each new token came from; -1 where there is none yet.
        done_ids_BKL, done_scores_BK, done_from_BKN: the best that ended, with their scores over length ** penalty,
            float64, in which ``NEVER`` leaves an order.
        is_done_BK: whether there is one.
        hopeful_B1: whether the beams that run can still beat the worst of those.
    """

    ids_BKL: Tensor
    scores_BK: Tensor
    from_BKN: Tensor
    done_ids_BKL: Tensor
    done_scores_BK: Tensor
    done_from_BKN: Tensor
    is_done_BK: Tensor
    hopeful_B1: Tensor

    @classmethod
    def first(cls, ids_BKL: Tensor, new_tokens: int) -> Self:
        """All beams of a prompt are the same at first, so only the first of them counts."""
        scores_BK = torch.full(ids_BKL.shape[:2], NEVER, device=ids_BKL.device)
        done_scores_BK = scores_BK.double()
        scores_BK[:, 0] = 0
        from_BKN = ids_BKL.new_full((*ids_BKL.shape[:2], new_tokens), -1)
        is_done_BK = torch.zeros_like(scores_BK, dtype=torch.bool)
        hopeful_B1 = torch.ones_like(is_done_BK[:, :1])
        return cls(ids_BKL, scores_BK, from_BKN, ids_BKL, done_scores_BK, from_BKN, is_done_BK, hopeful_B1)


def beam_search(loop: Loop) -> dict[str, Any]:
    """Keep the best beams of each group until none can get better."""
    plan, steps, batch = loop.plan, loop.steps, loop.prompt.batch
    number_of_groups, beams = plan.num_beam_groups, plan.num_beams // plan.num_beam_groups
    ids_RL, length = loop.first_ids(), plan.prompt_length
    ids_BGKL = ids_RL.view(batch, number_of_groups, beams, -1)
    groups = [Beams.first(ids_BGKL[:, number], plan.new_tokens) for number in range(number_of_groups)]
    logits_RV = steps.prefill(ids_RL)
    while True:
        everything, stops = [], []
        logarithms_BGKV = logits_RV.log_softmax(-1).view(batch, number_of_groups, beams, -1)
        # How many beams of earlier groups took each token in this step.
        taken_BV = torch.zeros_like(logarithms_BGKV[:, 0, 0]) if number_of_groups > 1 else None
        for number, group in enumerate(groups):
            scores_BKV = logarithms_BGKV[:, number]
            if taken_BV is not None:
                scores_BKV = scores_BKV - plan.diversity_penalty * taken_BV[:, None]
            judged = loop.judged(group.ids_BKL.flatten(0, 1), length, scores_BKV.flatten(0, 1))
            everything.append(judged)
            groups[number], all_stop = one_step(loop, group, judged, length, number * beams)
            stops.append(all_stop)
            if taken_BV is not None:
                tokens_BK = groups[number].ids_BKL[:, :, length]
                taken_BV = taken_BV.scatter_add(1, tokens_BK, torch.ones_like(tokens_BK, dtype=taken_BV.dtype))
        loop.keep(logits_RV, everything)
        length += 1
        groups = [with_hope(plan, group, length) for group in groups]
        if not goes_on(plan, groups, stops) or length == plan.max_length:
            return best_of(loop, groups)
        new = length - 1 - plan.prompt_length
        steps.reorder(torch.stack([group.from_BKN[:, :, new] for group in groups], 1).flatten())
        logits_RV = steps.logits(torch.stack([group.ids_BKL for group in groups], 1).flatten(0, 2), length)


def one_step(loop: Loop, group: Beams, judged: Judged, length: int, offset: int) -> tuple[Beams, Tensor]:
    """The beams of a group after one more token, and whether none of its candidates can go on.

    Args:
        loop: the plan.
        group: before.
        judged: what may follow.
        length: tokens that are there.
        offset: number of the group's first beam among those of a prompt.
    """
    plan = loop.plan
    batch, beams = group.scores_BK.shape
    choices = judged.scores_RX.shape[1]
    total_BX = (judged.scores_RX.view(batch, beams, -1) + group.scores_BK[:, :, None]).flatten(1)
    chosen_BC = loop.chosen(total_BX, plan.candidates)
    scores_BC = total_BX.gather(1, chosen_BC).double()
    beam_BC, token_BC = chosen_BC // choices, chosen_BC % choices
    if judged.tokens_RX is not None:
        token_BC = judged.tokens_RX.view(batch, -1).gather(1, chosen_BC)
    ids_BCL, from_BCN = picked(group.ids_BKL, beam_BC), picked(group.from_BKN, beam_BC)
    ids_BCL[:, :, length] = token_BC
    first_row_B1 = torch.arange(batch, device=beam_BC.device)[:, None] * plan.num_beams + offset
    from_BCN[:, :, length - plan.prompt_length] = beam_BC + first_row_B1
    stops_X = loop.stops(ids_BCL.flatten(0, 1), length + 1, judged)
    if length + 1 == plan.max_length:
        stops_BC = torch.ones_like(beam_BC, dtype=torch.bool)
    else:
        stops_BC = torch.zeros_like(beam_BC, dtype=torch.bool) if stops_X is None else stops_X.view(batch, -1)

    going_BC = scores_BC + NEVER * stops_BC
    going_BK = going_BC.topk(beams).indices
    # The other candidates are there so that beams can go on; they do not end.
    ended_BC = stops_BC & (torch.arange(stops_BC.shape[1], device=stops_BC.device) < beams)
    final_BC = scores_BC / (length + 1 - plan.prompt_length) ** plan.length_penalty
    closed_B1 = ~group.hopeful_B1
    if plan.early_stopping is True:
        closed_B1 = closed_B1 | group.is_done_BK.all(1, keepdim=True)
    final_BC = final_BC + NEVER * closed_B1 + NEVER * ~ended_BC
    merged = torch.cat([group.done_scores_BK, final_BC], 1)
    kept_BK = merged.topk(beams).indices
    after = Beams(
        ids_BKL=picked(ids_BCL, going_BK),
        scores_BK=picked(going_BC, going_BK).float(),
        from_BKN=picked(from_BCN, going_BK),
        done_ids_BKL=picked(torch.cat([group.done_ids_BKL, ids_BCL], 1), kept_BK),
        done_scores_BK=picked(merged, kept_BK),
        done_from_BKN=picked(torch.cat([group.done_from_BKN, from_BCN], 1), kept_BK),
        is_done_BK=picked(torch.cat([group.is_done_BK, ended_BC], 1), kept_BK),
        hopeful_B1=group.hopeful_B1,
    )
    return after, stops_BC.all()


def picked(x_BX: Tensor, which_BY: Tensor) -> Tensor:
    """(B, Y, ...): some of the second axis."""
    rows_B1 = torch.arange(len(x_BX), device=x_BX.device)[:, None]
    return x_BX[rows_B1, which_BY]


def with_hope(plan: Generation, group: Beams, length: int) -> Beams:
    """Whether the best that runs could still beat the worst that ended, with the length that it has, or could have."""
    is_patient = plan.early_stopping == "never" and plan.length_penalty > 0
    tokens = (plan.max_length if is_patient else length) - plan.prompt_length
    possible_B1 = group.scores_BK[:, :1] / tokens**plan.length_penalty
    worst_BK = group.done_scores_BK.amin(1, keepdim=True).where(group.is_done_BK, NEVER)
    return replace(group, hopeful_B1=group.hopeful_B1 & (possible_B1 > worst_BK).any(1, keepdim=True))


def goes_on(plan: Generation, groups: list[Beams], stops: list[Tensor]) -> bool:
    """Whether beams can get better: one look at the device."""
    hopeful = torch.stack([group.hopeful_B1.any() for group in groups]).any()
    ends = torch.stack(stops).all()
    if plan.early_stopping is True:
        ends = ends | torch.stack([group.is_done_BK.all() for group in groups]).all()
    return bool(hopeful & ~ends)


def best_of(loop: Loop, groups: list[Beams]) -> dict[str, Any]:
    """The best of all groups, as many as come back; of equal ones those of the first group."""
    plan = loop.plan
    scores = torch.cat([group.done_scores_BK for group in groups], 1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, : plan.num_return_sequences]
    ids_XL = picked(torch.cat([group.done_ids_BKL for group in groups], 1), order).flatten(0, 1)
    from_XN = picked(torch.cat([group.done_from_BKN for group in groups], 1), order).flatten(0, 1)
    longest = int((from_XN >= 0).sum(1).max())
    return {
        "sequences": loop.as_came(ids_XL, plan.prompt_length + longest).clone(),
        "sequences_scores": picked(scores, order).flatten().float(),
        "beam_indices": from_XN[:, :longest],
    }


def check_cache_of_prompt(prompt: Prompt) -> None:
    """Refuse a cache beside prompts that have to be arranged anew: its columns would not be theirs.

    Raises:
        InputError: for rows padded on the right, or with columns that no row uses.
    """
    if prompt.came.shape != prompt.ids.shape or (prompt.came != prompt.ids).any():
        raise InputError(
            "past_key_values holds the beginning of prompts as they came, so they must be padded on the left and no "
            "wider than their longest; pass prompts like that, or leave past_key_values out"
        )
