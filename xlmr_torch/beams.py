"""Beam search, and groups of beams. The rules are those of ``xlmr_core/reference/generation.py``, the judge.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, N new tokens, V vocabulary, K
beams of a group, G groups, C candidates, X tokens that may follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from xlmr_core.errors import InputError
from xlmr_core.generation import NOTHING_LEFT, Generation
from xlmr_torch.steps import Judged, Loop

__all__ = ["Beams", "beam_search"]

# In place of minus infinity, so that sums of it can still be compared.
NEVER = -1.0e9


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
    """The best of all groups, as many as come back; of equal ones those of the first group.

    Raises:
        InputError: if no beam of a prompt came to an end with a number for a score.
    """
    plan = loop.plan
    scores = torch.cat([group.done_scores_BK for group in groups], 1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, : plan.num_return_sequences]
    is_done_B1 = picked(torch.cat([group.is_done_BK for group in groups], 1), order[:, :1])
    if not bool((is_done_B1 & ~picked(scores, order[:, :1]).isnan()).all()):
        raise InputError(NOTHING_LEFT)
    ids_XL = picked(torch.cat([group.done_ids_BKL for group in groups], 1), order).flatten(0, 1)
    from_XN = picked(torch.cat([group.done_from_BKN for group in groups], 1), order).flatten(0, 1)
    longest = int((from_XN >= 0).sum(1).max())
    return {
        "sequences": loop.as_came(ids_XL, plan.prompt_length + longest).clone(),
        "sequences_scores": picked(scores, order).flatten().float(),
        "beam_indices": from_XN[:, :longest],
    }
