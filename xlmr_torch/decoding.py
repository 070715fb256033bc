"""The loops of generation: token by token here, by beams in ``beams.py``. What a call means is in
:mod:`xlmr_core.generation`, what both loops are made of in ``steps.py``, and ``xlmr_core/reference/generation.py`` is
the judge.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlmr_core.errors import InputError
from xlmr_core.generation import Hooks, Prompt
from xlmr_core.wording import counted
from xlmr_torch.beams import beam_search
from xlmr_torch.steps import Loop, Steps

__all__ = ["check_cache_of_prompt", "decode"]


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
    """Take the best token, or draw one, until all rows ended.

    Raises:
        InputError: for a row that goes on and has nothing left to choose from.
    """
    plan, steps, streamer = loop.plan, loop.steps, loop.hooks.streamer
    ids_RL, length = loop.first_ids(), plan.prompt_length
    done_R = None  # nobody yet
    if streamer is not None:
        streamer.put(loop.came_BC.cpu())
    logits_RV = steps.prefill(ids_RL)
    while True:
        judged = loop.judged(ids_RL, length, logits_RV)
        loop.keep(logits_RV, [judged])
        tokens_R = judged.tokens(loop.next_places(judged.scores_RX, done_R))[:, 0]
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


def check_cache_of_prompt(prompt: Prompt, held: int) -> None:
    """Refuse a cache beside prompts of which it does not hold the beginning.

    Args:
        prompt: arranged.
        held: tokens in the cache.

    Raises:
        InputError: for rows padded on the right, or with columns that no row uses, whose columns would not be those of
            the cache, and where nothing of the prompts is left to compute.
    """
    if prompt.came.shape != prompt.ids.shape or (prompt.came != prompt.ids).any():
        raise InputError(
            "past_key_values holds the beginning of prompts as they came, so they must be padded on the left and no "
            "wider than their longest; pass prompts like that, or leave past_key_values out"
        )
    length = prompt.ids.shape[1]
    if held >= length:
        raise InputError(
            f"past_key_values must hold less than the prompts, of {counted(length, 'token')}, received a cache of "
            f"{held}; pass the whole prompts, those tokens and at least one more"
        )
