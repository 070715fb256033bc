"""What the loops of generation are made of, whichever of them runs: the model's steps, processors and stops.

``Steps`` runs the model: the prompt once, then one token a row, with a cache. ``Loop`` is what both loops do alike:
processors, stops, rows as they would come back. The loops are in ``decoding.py`` and ``beams.py``.

Shapes: B prompts, R rows (those of a prompt one after the other), L the buffer of tokens, P the prompt, V vocabulary, X
tokens that may follow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlmr_core.errors import InputError
from xlmr_core.generation import (
    NOTHING_LEFT,
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

__all__ = ["Judged", "Loop", "Steps", "repeated"]


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
        mask = None if self.mask_RL is None else self.mask_RL[:, :length]
        if mask is None and not self.uses_cache:  # what fills ended rows would be taken for padding that nobody masked
            mask = torch.ones_like(ids_RL[:, :length])
        inputs = self.model.prepare_inputs_for_generation(
            ids_RL[:, :length],
            past_key_values=self.cache,
            attention_mask=mask,
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

    def chosen(self, scores_BX: Tensor, count: int) -> Tensor:
        """(B, count): the places of the best of a prompt's beams, or of draws without replacement."""
        if not self.plan.do_sample:
            return scores_BX.topk(count).indices
        # The best of scores and Gumbel noise are draws (Kool et al. 2019).
        noise_BX = -torch.empty_like(scores_BX).exponential_(generator=self.generator).log()
        return (scores_BX + noise_BX).topk(count).indices

    def next_places(self, scores_RX: Tensor, done_R: Tensor | None) -> Tensor:
        """(R, 1): the place of the best of each row, or of a draw.

        Args:
            scores_RX: of the tokens that may follow.
            done_R: which rows have ended, whose scores do not count; ``None``: none.

        Raises:
            InputError: for a row that goes on and has nothing left to choose from.
        """
        if self.plan.do_sample:
            # One number for each row and not for each token: where it lies in the sums of the probabilities.
            sums_RX = scores_RX.softmax(-1).cumsum(-1, dtype=torch.float64)
            all_R1 = sums_RX[:, -1:]
            is_left_R1 = all_R1.isfinite()
            drawn_R1 = torch.rand(all_R1.shape, dtype=all_R1.dtype, device=all_R1.device, generator=self.generator)
            # A row without numbers, which has ended or is refused, has no place.
            places_R1 = torch.searchsorted(sums_RX, drawn_R1 * all_R1, right=True).clamp_(max=scores_RX.shape[1] - 1)
        else:
            places_R1 = scores_RX.argmax(-1, keepdim=True)
            is_left_R1 = scores_RX.gather(1, places_R1) > float("-inf")
        if done_R is not None:
            is_left_R1 = is_left_R1 | done_R[:, None]
        if not bool(is_left_R1.all()):
            raise InputError(NOTHING_LEFT)
        return places_R1

    def collected(self) -> dict[str, Any]:
        """What comes back beside the sequences."""
        return {"scores": tuple(self.scores) or None, "logits": tuple(self.logits) or None, **self.steps.collected()}
